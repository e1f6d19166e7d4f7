"""The fair queue on a real API server and kube-scheduler: whole gangs, fair order, no loss, one leader."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest
from queueing import LEASE_S, RECEIPT, Jobs, ask, jobs_on, received, small_cluster, token_of

from testbed.cluster import Cluster

SLOTS = 4
QUEUED = "fairlane.dev/Queued"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/fairlane-controller"

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cores; the controller runs."""
    with small_cluster() as running:
        running.process("controller").start()
        yield running


@pytest.fixture
async def jobs(cluster: Cluster) -> AsyncIterator[Jobs]:
    """Jobs on a queue that leads and is empty."""
    controller = cluster.process("controller")
    if controller.pid is None:
        controller.restart()
    async with jobs_on(cluster) as made:
        await made.until(lambda: bool((ask(cluster, "/v1/status") or {}).get("leads")))
        await made.until(lambda: _running(cluster) == 0)
        yield made


async def test_gangs_start_whole_in_fair_order_and_never_more_than_fit(jobs: Jobs) -> None:
    hogged = [await jobs.submit("alice", run_s=1.5) for _ in range(SLOTS)]
    await jobs.until(lambda: len(jobs.order) == SLOTS)
    many = [await jobs.submit("alice", run_s=1.0) for _ in range(12)]
    gangs = [await jobs.submit_gang("bob", size=3, run_s=1.0) for _ in range(2)]
    names = [*hogged, *many, *(name for gang in gangs for name in gang)]
    await jobs.until(lambda: jobs.ended() == len(names), within_s=120)
    assert jobs.most_open <= SLOTS
    for lives in ([jobs.lives[name] for name in gang] for gang in gangs):  # whole: none ends before all run
        assert max(life.running_s or math.inf for life in lives) < min(life.ended_s or 0.0 for life in lives)
    # bob came last, and all of his is released before the last of alice's, who had more
    last_of_bob = max(jobs.order.index(name) for gang in gangs for name in gang)
    assert last_of_bob < max(jobs.order.index(name) for name in many) - 1


async def test_an_incomplete_gang_is_not_released_and_costs_nobody_anything(jobs: Jobs) -> None:
    one_of_two = await jobs.submit("alice", gang="half", size=2)
    others = [await jobs.submit("bob", run_s=0.5) for _ in range(SLOTS)]
    await jobs.until(lambda: jobs.ended("bob") == len(others))
    assert jobs.lives[one_of_two].released_s is None
    await jobs.submit("alice", gang="half", size=2, run_s=0.5)
    await jobs.until(lambda: jobs.ended() == len(others) + 2)


async def test_every_released_pod_carries_a_receipt_and_a_waiting_one_its_place(
    jobs: Jobs, cluster: Cluster
) -> None:
    first = [await jobs.submit("alice", run_s=600.0) for _ in range(SLOTS)]  # until `finish`
    await jobs.until(lambda: len(jobs.order) == SLOTS)
    waiting = [await jobs.submit("bob", run_s=0.2) for _ in range(3)]
    receipt = msgspec.json.decode((await jobs.pod(first[0])).metadata.annotations[RECEIPT])
    assert receipt["flow"] == "alice"
    assert receipt["charged_work"] > 0
    assert receipt["node"] in cluster.worker_names
    assert (await jobs.pod(first[0])).spec.nodeName

    conditions: dict[str, Any] = {}

    async def told() -> bool:
        for name in waiting:
            for one in (await jobs.pod(name)).status.conditions:
                if one.type == QUEUED:
                    conditions[name] = one
        return len(conditions) == len(waiting)

    for _ in range(100):
        if await told():
            break
        await asyncio.sleep(0.1)
    assert {one.status for one in conditions.values()} == {"True"}
    assert conditions[waiting[0]].message.startswith("position 1: ")
    assert conditions[waiting[0]].reason == "Reserved"
    assert "expected start" in conditions[waiting[0]].message
    assert conditions[waiting[1]].reason == "Waiting"
    shown = ask(cluster, "/v1/queue?user=bob")
    assert [gang["position"] for gang in shown["gangs"]] == [1, 2, 3]
    assert shown["gangs"][0]["pods"] == [f"default/{waiting[0]}"]
    assert shown["gangs"][0]["expected_start"]["p50_s"] > time.time() - 1
    assert [flow["user"] for flow in shown["flows"]] == ["bob"]
    one = ask(cluster, f"/v1/gangs/{shown['gangs'][1]['uid']}")
    assert one["position"] == 2
    assert "goes before it" in one["why"]
    table = await asyncio.to_thread(_queue_command, cluster)
    for part in ("alice", "bob", f"default/{waiting[0]}", "it is next and has a reservation"):
        assert part in table
    told = json.loads(await asyncio.to_thread(_queue_command, cluster, "--user", "bob", "-o", "json"))
    assert [flow["user"] for flow in told["flows"]] == ["bob"]
    await jobs.finish(first)
    await jobs.until(lambda: jobs.ended() == 7)


async def test_a_waiting_pod_is_told_when_it_will_start_and_how_sure_that_is(
    jobs: Jobs, cluster: Cluster
) -> None:
    for _ in range(SLOTS):
        await jobs.submit("alice", run_s=600.0)  # however busy the machine: they run while it is looked
    await jobs.until(lambda: len(jobs.order) == SLOTS)
    waiting = [await jobs.submit("bob", run_s=1.0) for _ in range(6)]
    told: list[str] = []
    seen: list[Any] = []
    for _ in range(300):
        seen = [one for name in waiting for one in (await jobs.pod(name)).status.conditions]
        told = [one.message for one in seen if one.type == QUEUED and "probability of 80 %" in one.message]
        if len(told) == len(waiting):
            break
        await asyncio.sleep(0.2)
    assert len(told) == len(waiting), seen
    starts = [gang["expected_start"] for gang in ask(cluster, "/v1/queue?user=bob")["gangs"]]
    assert all(one["p10_s"] <= one["p50_s"] <= one["p90_s"] for one in starts), starts
    assert starts[0]["p50_s"] <= starts[-1]["p50_s"]  # the order of the queue
    assert min(one["futures"] for one in starts) >= 10
    assert "Expected starts by " in await asyncio.to_thread(_queue_command, cluster, "--user", "bob")
    waits = await asyncio.to_thread(_command, cluster, "explain", "gang", f"default/{waiting[1]}")
    assert "position 2: 1 gang goes before it" in waits
    assert "Expected start " in waits
    runs = await asyncio.to_thread(_command, cluster, "explain", f"gang/default/{jobs.order[0]}")
    assert "It was released" in runs


async def test_usage_says_what_each_user_asked_for_and_received(jobs: Jobs, cluster: Cluster) -> None:
    for _ in range(2 * SLOTS):
        await jobs.submit("kim", run_s=2.0)
        await jobs.submit("lee", run_s=2.0)
    await jobs.until(lambda: jobs.ended() == 4 * SLOTS)
    await jobs.until(lambda: _running(cluster) == 0)
    users = ask(cluster, "/v1/usage")["users"]
    for name in ("kim", "lee"):
        lives = [life for life in jobs.lives.values() if life.user == name]
        ran_s = sum(life.held_s for life in lives)
        assert users[name]["requested_seconds"]["cpu"] == pytest.approx(ran_s, rel=0.3)
        assert users[name]["jobs"] == users[name]["gangs"] == 2 * SLOTS
        # a half while both wait; looked at by the second, and one begins and ends before the other
        assert 0.25 < users[name]["while_waiting"]["entitled_share"] < 0.75
    shown = await asyncio.to_thread(_command, cluster, "usage", "--since", "1h", "--user", "kim")
    assert "kim" in shown
    assert "lee" not in shown


async def test_the_ledger_is_what_really_ran(jobs: Jobs, cluster: Cluster) -> None:
    before = received(cluster)
    for _ in range(4):
        await jobs.submit("carol", run_s=2.0)
        await jobs.submit("dave", run_s=1.0)
    await jobs.until(lambda: jobs.ended() == 8)
    await jobs.until(lambda: _running(cluster) == 0)
    _ledger_agrees(jobs, cluster, before)


async def test_the_ledger_is_what_really_ran_also_when_those_who_look_were_held_up(
    jobs: Jobs, cluster: Cluster
) -> None:
    """The pods run on meanwhile, for it is this process that ends them; it sees their starts too late."""
    before = received(cluster)
    for _ in range(SLOTS):
        await jobs.submit("olga", run_s=0.5)
    time.sleep(4.0)  # noqa: ASYNC251  as on a busy machine
    await jobs.until(lambda: jobs.ended() == SLOTS)
    await jobs.until(lambda: _running(cluster) == 0)
    _ledger_agrees(jobs, cluster, before)


async def test_pause_weight_and_promotion_by_hand_are_obeyed_and_leave_events(
    jobs: Jobs, cluster: Cluster
) -> None:
    token = token_of(cluster)
    assert _post(cluster, "/v1/pause", token="wrong")[0] == 401
    assert _post(cluster, "/v1/pause", token=token)[0] == 200
    names = [await jobs.submit("alice", run_s=0.2) for _ in range(2)]
    late = await jobs.submit("bob", run_s=0.2)
    await jobs.until(lambda: len(ask(cluster, "/v1/queue")["gangs"]) == 3)
    assert all("paused" in gang["why"] for gang in ask(cluster, "/v1/queue")["gangs"])
    assert _post(cluster, "/v1/weights", {"user": "bob", "weight": 4.0}, token)[0] == 200
    assert _post(cluster, "/v1/weights", {"user": "bob", "weight": -1}, token)[0] == 400
    gang = next(iter(ask(cluster, "/v1/queue?user=bob")["gangs"]))
    assert "before all others" in await asyncio.to_thread(_command, cluster, "promote", gang["pods"][0])
    assert _post(cluster, f"/v1/gangs/{gang['uid']}/promote", token=token)[0] == 200
    assert _post(cluster, "/v1/gangs/nobody/promote", token=token)[0] == 409
    assert ask(cluster, "/v1/queue?user=bob")["flows"][0]["weight"] == 4.0
    assert not jobs.order
    assert _post(cluster, "/v1/resume", token=token)[0] == 200
    await jobs.until(lambda: jobs.ended() == 3)
    assert set(jobs.order) == {*names, late}
    _post(cluster, "/v1/weights", {"user": "bob", "weight": None}, token)
    missing = {
        "releases were paused",
        "releases were resumed",
        "weight of bob was set to 4",
        "put before all",
    }
    for _ in range(300):
        events = json.loads(await jobs.kube.get("/api/v1/namespaces/default/events"))["items"]
        by_hand = " ".join(event["message"] for event in events if event["reason"] == "ByHand")
        missing = {what for what in missing if what not in by_hand}
        if not missing:
            break
        await asyncio.sleep(0.1)
    assert not missing


async def test_what_was_done_by_hand_survives_a_crash_right_after_the_answer(
    jobs: Jobs, cluster: Cluster
) -> None:
    token, controller = token_of(cluster), cluster.process("controller")

    async def crashed_after(path: str, gangs: int, paused: bool) -> None:
        pid = controller.pid
        assert pid is not None
        assert _post(cluster, path, token=token) == (200, {"done": ANY})
        os.kill(pid, signal.SIGKILL)  # at once: through the supervisor, the next checkpoint might come first
        await jobs.until(lambda: controller.pid is None)
        await asyncio.to_thread(controller.start)
        await jobs.until(lambda: ask(cluster, "/v1/queue") is not None)
        await jobs.until(lambda: len(ask(cluster, "/v1/queue")["gangs"]) == gangs)
        assert ask(cluster, "/v1/queue")["paused"] is paused

    await crashed_after("/v1/pause", 0, paused=True)
    for _ in range(SLOTS + 1):
        await jobs.submit("alice", run_s=0.5)
    await jobs.until(lambda: len(ask(cluster, "/v1/queue")["gangs"]) == SLOTS + 1)
    last = max(ask(cluster, "/v1/queue")["gangs"], key=lambda gang: int(gang["position"]))
    await crashed_after(f"/v1/gangs/{last['uid']}/promote", SLOTS + 1, paused=True)
    assert _post(cluster, "/v1/resume", token=token) == (200, {"done": ANY})
    await jobs.until(lambda: jobs.ended() == SLOTS + 1)
    assert last["pods"][0].rpartition("/")[2] in jobs.order[:SLOTS]
    await crashed_after("/v1/resume", 0, paused=False)


async def test_killed_in_the_middle_of_releases_nothing_is_lost_or_charged_twice(
    jobs: Jobs, cluster: Cluster
) -> None:
    before = received(cluster)
    controller = cluster.process("controller")
    names = [await jobs.submit(user, run_s=0.6) for _ in range(25) for user in ("erin", "frank")]
    for share in (12, 36):  # twice, for the second one begins with what the first has left behind
        await jobs.until(lambda share=share: len(jobs.order) >= share)  # type: ignore[misc]
        await asyncio.to_thread(controller.kill)
        await asyncio.to_thread(controller.start)
        # what vanishes while nobody looks is charged until the last look only
        await jobs.until(lambda: _running(cluster) >= 0)
        await jobs.delete_ended()  # what only the checkpoint knows is in it by the time of the next kill
    await jobs.until(lambda: jobs.ended() == len(names), within_s=120)
    assert jobs.most_open <= SLOTS
    await jobs.until(lambda: _running(cluster) == 0)
    _ledger_agrees(jobs, cluster, before)
    assert ask(cluster, "/v1/status")["invariant_failures"] == 0


async def test_the_queue_goes_on_after_the_api_server_was_away(jobs: Jobs, cluster: Cluster) -> None:
    before = received(cluster)
    names = [await jobs.submit("grace", run_s=0.5) for _ in range(20)]
    await jobs.until(lambda: len(jobs.order) >= 6)
    await asyncio.to_thread(cluster.process("kube-apiserver").restart)
    names += [await jobs.submit("grace", run_s=0.5) for _ in range(4)]
    await jobs.until(lambda: jobs.ended() == len(names), within_s=150)
    assert jobs.most_open <= SLOTS
    await jobs.until(lambda: _running(cluster) == 0)
    _ledger_agrees(jobs, cluster, before, slack_s=3.0)


async def test_of_two_replicas_one_acts_and_the_other_takes_over(jobs: Jobs, cluster: Cluster) -> None:
    before = received(cluster)
    second = cluster.run("controller-2", *_second(cluster))
    port_file = cluster.layout.file("controller-2.port")
    await jobs.until(lambda: port_file.exists() and _of_second(cluster, "/v1/status") is not None)
    names = [await jobs.submit(user, run_s=0.5) for _ in range(20) for user in ("heidi", "ivan")]
    await jobs.until(lambda: len(jobs.order) >= 8)
    assert not _of_second(cluster, "/v1/status")["leads"]
    assert _of_second(cluster, "/v1/queue")["flows"]  # asked of the leader
    await asyncio.to_thread(cluster.process("controller").kill)
    killed_s = time.monotonic()
    released = len(jobs.order)
    await jobs.until(lambda: len(jobs.order) > released + SLOTS)
    took_s = time.monotonic() - killed_s
    assert took_s < 15, f"the other replica took {took_s:.1f} s"
    # in a thread, since it is this loop that ends the pods
    await asyncio.to_thread(cluster.process("controller").start)  # and waits until it is ready to stand in
    await asyncio.to_thread(second.stop)  # SIGTERM: the lease is given up
    stopped_s = time.monotonic()
    await jobs.until(lambda: bool((ask(cluster, "/v1/status") or {}).get("leads")))
    assert time.monotonic() - stopped_s < LEASE_S - 1
    await jobs.until(lambda: jobs.ended() == len(names), within_s=120)
    assert jobs.most_open <= SLOTS
    await jobs.until(lambda: _running(cluster) == 0)
    _ledger_agrees(jobs, cluster, before)
    print(f"takeover after SIGKILL {took_s:.1f} s")


async def test_a_leader_that_hung_does_not_act_on_coming_back(jobs: Jobs, cluster: Cluster) -> None:
    first = cluster.process("controller")
    second = cluster.run("controller-3", *_second(cluster, "controller-3"))
    first.pause()
    lease: dict[str, Any] = {}
    for _ in range(300):
        lease = json.loads(await jobs.kube.get(LEASE))
        if lease["metadata"]["annotations"]["fairlane.dev/url"] != cluster.layout.url("controller"):
            break
        await asyncio.sleep(0.1)
    holder = lease["spec"]["holderIdentity"]
    names = [await jobs.submit("judy", run_s=0.5) for _ in range(12)]
    await jobs.until(lambda: len(jobs.order) >= 4)
    first.resume()
    await jobs.until(lambda: ask(cluster, "/v1/status") is not None)
    await jobs.until(lambda: jobs.ended() == len(names))
    assert jobs.most_open <= SLOTS
    assert not ask(cluster, "/v1/status")["leads"]
    assert json.loads(await jobs.kube.get(LEASE))["spec"]["holderIdentity"] == holder
    second.stop()


def _running(cluster: Cluster) -> int:
    told = ask(cluster, "/v1/queue")
    return -1 if told is None else int(told["running"]) + int(told["waiting"])


def _ledger_agrees(jobs: Jobs, cluster: Cluster, before: dict[str, float], slack_s: float = 1.0) -> None:
    """What each user was charged is what his pods held; `slack_s`: error of one pod's times."""
    now = received(cluster)
    for user in {life.user for life in jobs.lives.values()}:
        lives = [life for life in jobs.lives.values() if life.user == user]
        ran_s = sum(life.held_s for life in lives)
        charged_s = (now[user] - before.get(user, 0.0)) * SLOTS
        assert charged_s == pytest.approx(ran_s, abs=slack_s * len(lives) ** 0.5 + 0.15 * ran_s), user


def _queue_command(cluster: Cluster, *options: str) -> str:
    return _command(cluster, "queue", *options)


def _command(cluster: Cluster, command: str, *options: str) -> str:
    argv = [sys.executable, "-m", "scheduler.cli.main", command, "--config", str(cluster.settings_file)]
    environment = {**os.environ, "COLUMNS": "200"}
    ended = subprocess.run([*argv, *options], capture_output=True, text=True, check=True, env=environment)
    return ended.stdout


def _second(cluster: Cluster, name: str = "controller-2") -> tuple[str, ...]:
    argv = cluster.process("controller").spec.argv
    return (*argv, "--port", "0", "--port-file", str(cluster.layout.file(f"{name}.port")))


def _of_second(cluster: Cluster, path: str) -> Any:
    return ask(cluster, path, int(cluster.layout.file("controller-2.port").read_text()))


def _post(cluster: Cluster, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(
        cluster.layout.url("controller") + path,
        data=json.dumps(body).encode() if body is not None else b"",
        headers={"Authorization": f"Bearer {token}"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
