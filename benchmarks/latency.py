"""How long a call of kube-scheduler takes: inside the extender, at a client, and at kube-scheduler.

own side
    the extender's own histogram: from a complete request to its answer
client
    a client on loopback with one kept-alive connection sends the very bytes
    that kube-scheduler sent before, one call after the other, through two
    telemetry epochs at least, with the tables that are made anew in them
kube-scheduler, steady
    a real kube-scheduler places pods that arrive one by one; its calls are
    timed by their packets on loopback, which the kernel dates (listening.py)
kube-scheduler, burst
    the same with all pods released at once: scheduler, API server, etcd and
    extender then share the cores, so this is mostly waiting for a core
floor
    both again with an extender that names a node at once while Fairlane's
    processes are paused: what waiting for a core alone takes on this machine
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from benchmarks import jobs
from benchmarks.burst import Pods, burst, followed_pods
from benchmarks.figures import Histogram, Latency, histogram, latency
from benchmarks.listening import Heard, listening
from benchmarks.rate import at_once, fairlane, fairlane_arm, warm_up
from benchmarks.schedulers import Arm, Scheduler, running
from benchmarks.setting import EPOCH_S, Setting
from benchmarks.stub import stub
from benchmarks.turns import real_time
from benchmarks.wire import Connection

HISTOGRAM = "fairlane_extender_latency_seconds"
STEADY_PODS_PER_S = 20.0
TIMEOUT_S = 2.0
"""Longer than Fairlane's own 200 ms, so that the slowest calls are measured instead of given up."""
OWN, CLIENT, STEADY, BURST = "own side", "client", "kube-scheduler, steady", "kube-scheduler, burst"


@dataclass(frozen=True)
class View:
    """One way to look at the calls.

    `own` is the extender's histogram of the very same calls; `answers` are
    its answers by fallback reason (`none` is a fresh prediction).
    """

    name: str
    latency: Latency
    own: Histogram
    answers: Mapping[str, int]
    durations_s: Sequence[float]

    @property
    def misses(self) -> float:
        """Share of the calls that found no table."""
        calls = sum(self.answers.values())
        return self.answers.get("miss", 0) / calls if calls else 0.0


@dataclass(frozen=True)
class Latencies:
    """All views at one cluster size.

    `floor` has the same view as its key, of an extender that answers at once.
    """

    nodes: int
    candidates: int
    request_bytes: int
    views: tuple[View, ...]
    floor: Mapping[str, Latency]
    client_real_time: bool

    @property
    def target_ms(self) -> float:
        """Of the 99th percentile."""
        return 2.0 if self.nodes <= 500 else 5.0

    def to_json(self) -> dict[str, Any]:
        """As plain values, without the single calls."""
        return {
            "nodes": self.nodes,
            "candidates": self.candidates,
            "request_bytes": self.request_bytes,
            "target_p99_ms": self.target_ms,
            "client_in_real_time": self.client_real_time,
            "views": {view.name: _view_json(view, self.target_ms) for view in self.views},
            "floor": {name: asdict(floor) for name, floor in self.floor.items()},
        }


def _view_json(view: View, target_ms: float) -> dict[str, Any]:
    return {
        **asdict(view.latency),
        "own_side": {
            "calls": view.own.count,
            "mean_ms": view.own.mean_ms,
            "p50_at_most_ms": view.own.bound_ms(0.5),
            "p99_at_most_ms": view.own.bound_ms(0.99),
            "share_within_target": view.own.share_within(target_ms / 1000.0),
        },
        "answers": dict(view.answers),
        "miss_rate": view.misses,
    }


def replay(url: str, requests: Sequence[bytes], calls: int, least_s: float = 0.0) -> list[float]:
    """Send `requests` in turn on one kept-alive connection, so often and so long; s of each call."""
    at = urlsplit(url)
    durations_s: list[float] = []
    until_s = time.perf_counter() + least_s
    with Connection.to(str(at.hostname), at.port or 80) as server:
        while len(durations_s) < calls or time.perf_counter() < until_s:
            request = requests[len(durations_s) % len(requests)]
            begun_s = time.perf_counter()
            server.send(request)
            server.read()
            durations_s.append(time.perf_counter() - begun_s)
    return durations_s


def measure(at: Setting, calls: int) -> Latencies:
    """All views on this cluster, about `calls` calls each."""
    steady, released, requests = asyncio.run(_by_kube_scheduler(at, calls))
    floor = _floor(at, calls)  # before anything is replayed: the extender then counts on pods that are gone
    replay(at.cluster.extender_url, requests, len(requests))  # the first ones warm the path up
    before = _own(at)
    with real_time() as allowed:
        durations_s = replay(at.cluster.extender_url, requests, calls, 2 * EPOCH_S)
    client = _view(CLIENT, durations_s, before, _own(at))
    return Latencies(
        nodes=at.cluster.options.nodes,
        candidates=_candidates(requests[-1]),
        request_bytes=len(requests[-1]),
        views=(client, steady, released),
        floor=floor,
        client_real_time=allowed,
    )


async def _by_kube_scheduler(at: Setting, calls: int) -> tuple[View, View, Sequence[bytes]]:
    arm, port = fairlane_arm("measured", "Fairlane", at.cluster.extender_url), _port(at.cluster.extender_url)
    async with followed_pods(str(at.cluster.kubeconfig)) as created:
        async with running(arm, at.cluster, TIMEOUT_S) as scheduler:
            await _burst(at, scheduler, created, "warm-up", 2 * len(at.kinds))
            before = _own(at)
            with listening(port) as steady:
                await _one_by_one(at, scheduler, created, calls)
            between = _own(at)
            await created.clear()
            await asyncio.to_thread(at.wait_warm, 0)
            with listening(port) as released:
                await _burst(at, scheduler, created, "burst", calls)
            after = _own(at)
        await created.clear()
        await asyncio.to_thread(at.wait_warm, 0)
    views = (
        _view(STEADY, steady.durations_s, before, between),
        _view(BURST, released.durations_s, between, after),
    )
    return *views, released.requests


def _port(url: str) -> int:
    return urlsplit(url).port or 80


async def _burst(at: Setting, scheduler: Scheduler, created: Pods, prefix: str, count: int) -> None:
    async def warm() -> None:
        await asyncio.to_thread(at.wait_warm, count, min(count, len(at.kinds)))

    manifests = jobs.pods(count, prefix, scheduler.arm.scheduler_name, at.kinds)
    await burst(scheduler, created, manifests, warm)
    if prefix == "warm-up":
        await created.clear()
        await asyncio.to_thread(at.wait_warm, 0)


async def _one_by_one(at: Setting, scheduler: Scheduler, created: Pods, count: int) -> None:
    manifests = jobs.pods(count, "steady", scheduler.arm.scheduler_name, at.kinds)
    begun_s = time.monotonic()
    for number, (name, manifest) in enumerate(manifests.items()):
        await created.create({name: manifest})
        await asyncio.sleep(max(0.0, begun_s + (number + 1) / STEADY_PODS_PER_S - time.monotonic()))
    await created.wait_bound(manifests, begun_s)


def _floor(at: Setting, calls: int) -> Mapping[str, Latency]:
    """What kube-scheduler waits for where nothing is asked of anybody."""
    with (
        stub(at.cluster, "floor-extender", nodes=at.cluster.worker_names) as url,
        fairlane(at, runs=False),
    ):
        steady, released = asyncio.run(_floor_by_kube_scheduler(at, url, calls))
    return {STEADY: latency(steady.durations_s), BURST: latency(released.durations_s)}


async def _floor_by_kube_scheduler(at: Setting, url: str, calls: int) -> tuple[Heard, Heard]:
    arm = Arm("floor", "names a node at once", url, scheduler_name="bench-floor")
    async with followed_pods(str(at.cluster.kubeconfig)) as created:
        async with running(arm, at.cluster, TIMEOUT_S) as scheduler:
            await warm_up(at, scheduler, "floor", created)
            with listening(_port(url)) as steady:
                await _one_by_one(at, scheduler, created, calls)
            await created.clear()
            manifests = jobs.pods(calls, "burst", arm.scheduler_name, at.kinds)
            with listening(_port(url)) as released:
                await burst(scheduler, created, manifests, at_once)
        await created.clear()
    return steady, released


Own = tuple[Histogram, Mapping[str, int]]


def _own(at: Setting) -> Own:
    return histogram(at.metrics(), HISTOGRAM), at.status()["answers_by_reason"]


def _view(name: str, durations_s: Sequence[float], before: Own, after: Own) -> View:
    answers = {reason: count - before[1].get(reason, 0) for reason, count in after[1].items()}
    told = {reason: count for reason, count in answers.items() if count}
    return View(name, latency(durations_s), after[0] - before[0], told, durations_s)


def _candidates(request: bytes) -> int:
    _head, _, body = request.partition(b"\r\n\r\n")
    return len(msgspec.json.decode(body)["NodeNames"])
