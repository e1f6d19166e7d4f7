"""The shared testbed with all of ours at work: a model, jobs of users that run and wait, and what sees it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from placing import publish, registry
from queueing import Jobs

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster

PARTS = ("recorder", "predictor", "extender", "controller")
EVE = "<b onclick=alert(1)>eve</b>"
"""A user whose name would be markup where it is not told as text."""


@contextmanager
def at_work(cluster: Cluster, trained: Path) -> Iterator[Cluster]:
    """A trained model, all parts, and sixty jobs of three users, most of which wait or have ended."""
    publish(trained, registry(cluster))
    for name in PARTS:
        cluster.process(name).restart()
    try:
        asyncio.run(_busy(cluster))
        yield cluster
    finally:
        for name in reversed(PARTS):
            cluster.process(name).stop()


async def _busy(cluster: Cluster) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        jobs = Jobs(kube)
        following = asyncio.create_task(jobs.follow())
        for _ in range(4):  # what ends is judged, so that there is something to see of predictions
            for user in ("alice", "bob", EVE):
                await jobs.submit(user, run_s=1.0, cpu="2")
        await jobs.until(lambda: jobs.ended() >= 12, within_s=90)
        for number in range(48):
            await jobs.submit(("alice", "bob", EVE)[number % 3], run_s=600.0, cpu="8")
        await jobs.until(
            lambda: sum(one.bound_s is not None for one in jobs.lives.values()) >= 18, within_s=60
        )
        following.cancel()


def fairlane(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the testbed's settings."""
    argv = [sys.executable, "-m", "scheduler.cli.main", *words, "--config", str(cluster.settings_file)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def queried(url: str, expression: str) -> list[Any]:
    """What a Prometheus answers; an expression that it does not understand is an error."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as answer:
        return list(json.load(answer)["data"]["result"])


def browser_or_skip() -> str:
    """A browser of the Chromium family: FAIRLANE_BROWSER, or from PATH; without one the test is skipped."""
    for name in (os.environ.get("FAIRLANE_BROWSER", ""), "chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no browser: apt-get install chromium, or name one in FAIRLANE_BROWSER")


def page(browser: str, folder: Path, url: str, picture: Path | None = None) -> str:
    """The page's document once its script has asked a few times; a picture of it on the way."""
    argv = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    argv += [f"--user-data-dir={folder / 'profile'}", "--window-size=1180,1500", "--timeout=20000"]
    argv += ["--virtual-time-budget=12000"]
    argv += [f"--screenshot={picture}"] if picture else ["--dump-dom"]
    begun_s = time.monotonic()
    ran = subprocess.run([*argv, url], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, f"{ran.stderr[-2000:]} after {time.monotonic() - begun_s:.0f} s"
    return ran.stdout
