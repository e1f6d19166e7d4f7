"""Expected starts on a real API server: what a waiting pod's condition, the API and the command tell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from queueing import ask, jobs_on, small_cluster

from testbed.cluster import Cluster

SLOTS = 4
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cores; the controller runs, and works out expected starts as often as it can."""
    with small_cluster(expected_every_s=0.5, expected_core_share=1.0) as running:
        running.process("controller").start()
        yield running


async def test_a_waiting_pod_is_told_when_it_will_start_and_how_sure_that_is(cluster: Cluster) -> None:
    async with jobs_on(cluster) as jobs:
        await jobs.until(lambda: bool((ask(cluster, "/v1/status") or {}).get("leads")))
        for _ in range(SLOTS):
            await jobs.submit("alice", run_s=60.0)
        await jobs.until(lambda: len(jobs.order) == SLOTS)
        waiting = [await jobs.submit("bob", run_s=1.0) for _ in range(6)]
        told: dict[str, str] = {}
        for _ in range(300):
            told = {name: await _condition(jobs, name) for name in waiting}
            if all("with a probability of 80 %" in message for message in told.values()):
                break
            await asyncio.sleep(0.2)
        assert all("in which nobody submits anything more" in message for message in told.values()), told
        gangs = ask(cluster, "/v1/queue?user=bob")["gangs"]
        starts = [gang["expected_start"] for gang in gangs]
        assert all(one["p10_s"] <= one["p50_s"] <= one["p90_s"] for one in starts), starts
        assert starts[0]["p50_s"] <= starts[-1]["p50_s"]  # the order of the queue
        assert starts[-1]["p50_s"] > time.time()
        assert min(one["futures"] for one in starts) >= 10
        shown = await asyncio.to_thread(_command, cluster, "queue", "--user", "bob")
        assert "nobody submits anything more" in shown
        assert " to " in shown
        waits = await asyncio.to_thread(_command, cluster, "explain", "gang", f"default/{waiting[1]}")
        assert "position 2: 1 gangs go before it" in waits
        assert "Expected start in" in waits
        runs = await asyncio.to_thread(_command, cluster, "explain", f"gang/default/{jobs.order[0]}")
        assert "It was released" in runs


async def test_usage_says_what_each_user_asked_for_and_received(cluster: Cluster) -> None:
    async with jobs_on(cluster) as jobs:
        await jobs.until(lambda: bool((ask(cluster, "/v1/status") or {}).get("leads")))
        for _ in range(2 * SLOTS):
            await jobs.submit("carol", run_s=3.0)
            await jobs.submit("dave", run_s=3.0)
        await jobs.until(lambda: jobs.ended() == 4 * SLOTS)
        await jobs.until(lambda: sum(_gangs(cluster).values()) >= 4 * SLOTS)
        users = ask(cluster, "/v1/usage")["users"]
        for name in ("carol", "dave"):
            ran_s = sum(
                (life.ended_s or 0.0) - (life.bound_s or 0.0)
                for life in jobs.lives.values()
                if life.user == name
            )
            assert users[name]["requested_seconds"]["cpu"] == pytest.approx(ran_s, rel=0.2)
            assert users[name]["jobs"] == 2 * SLOTS
            assert 0.4 < users[name]["while_waiting"]["entitled_share"] <= 1.0
        shown = await asyncio.to_thread(_command, cluster, "usage", "--since", "1h", "--user", "carol")
        assert "carol" in shown
        assert "dave" not in shown
        metrics = await asyncio.to_thread(_text, cluster, "/metrics")
        names = ("expected_starts", "outlooks", "wait_seconds", "lateness", "bound_violations")
        for name in names:
            assert f"fairlane_queue_{name}" in metrics


def _text(cluster: Cluster, path: str) -> str:
    with urllib.request.urlopen(cluster.layout.url("controller") + path, timeout=10) as answer:
        return answer.read().decode()


def _gangs(cluster: Cluster) -> dict[str, int]:
    told = ask(cluster, "/v1/usage?since=0") or {"users": {}}
    return {name: one["gangs"] for name, one in told["users"].items() if name in ("carol", "dave")}


async def _condition(jobs: Any, name: str) -> str:
    conditions = (await jobs.pod(name)).status.conditions
    return next((one.message for one in conditions if one.type == "fairlane.dev/Queued"), "")


def _command(cluster: Cluster, *arguments: str) -> str:
    url = cluster.layout.url("controller")
    command = [sys.executable, "-m", "scheduler.cli.main", *arguments, "--controller", url]
    wide = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=wide).stdout
