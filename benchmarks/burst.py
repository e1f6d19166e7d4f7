"""A burst: pods created while the scheduler stands still, released at once, followed until all are bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.jobs import PODS_PATH
from benchmarks.schedulers import Scheduler
from scheduler.core.workloads.rules import RECEIPT
from scheduler.edge.kube import KubeClient, KubeError, Listed
from scheduler.edge.waking import woken_within
from testbed.control import TestbedError

PARALLEL = 16
BIND_S_MAX = 30.0
PODS_PER_S_MIN = 5.0
GONE_S_MAX = 60.0


class _Meta(msgspec.Struct, frozen=True):
    name: str
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True):
    nodeName: str = ""


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()


class _Receipt(msgspec.Struct, frozen=True):
    hint: list[tuple[str, int]] = []


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a pod is, and where it was planned at its release; empty where it was not."""

    node: str
    planned: str


@dataclass(frozen=True, slots=True)
class Bound:
    """When each pod of a burst was seen bound, in s after the release, in that order."""

    bound_s: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Pods per second from the release to the last binding."""
        return len(self.bound_s) / self.bound_s[-1]

    @property
    def inner_rate(self) -> float:
        """Pods per second from the first binding to the last: without the scheduler's waking up."""
        span_s = self.bound_s[-1] - self.bound_s[0]
        return (len(self.bound_s) - 1) / span_s if span_s > 0 else float("nan")


class Pods:
    """Creates, follows and deletes the pods of the benchmarks."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._at_s: dict[str, float] = {}
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """Note when each pod is seen with a node, for ever; the API server leaves out all others."""
        async for event in self._kube.mirror(PODS_PATH, _Pod, {"fieldSelector": "spec.nodeName!="}):
            now_s = time.monotonic()
            for pod in event.items if isinstance(event, Listed) else (event.item,):
                self._at_s.setdefault(pod.metadata.name, now_s)
            self._moved.set()

    async def create(self, manifests: Mapping[str, Mapping[str, Any]]) -> None:
        """Create all of them, several at a time."""
        queue = iter(manifests.values())
        await asyncio.gather(*(self._create(queue) for _ in range(PARALLEL)))

    async def _create(self, queue: Iterator[Mapping[str, Any]]) -> None:
        for manifest in queue:
            await self._kube.post(PODS_PATH, manifest)

    async def collect_garbage(self) -> None:
        """Let the API server collect its garbage now, and not in some of the bursts.

        It does so every ten seconds, for half a second of a core: a burst that this falls into is slower by a
        third, whoever schedules.
        """
        await self._kube.get("/debug/pprof/heap", {"gc": "1"})

    async def wait_bound(self, names: Mapping[str, object], since_s: float) -> Bound:
        """Wait until all of them have a node.

        Raises:
            TestbedError: some were not bound in time; the message says how many.
        """
        deadline_s = time.monotonic() + BIND_S_MAX + len(names) / PODS_PER_S_MIN
        while lacking := sum(name not in self._at_s for name in names):
            self._moved.clear()
            await woken_within(self._moved, 1.0)
            if time.monotonic() > deadline_s:
                raise TestbedError(
                    f"{lacking} of {len(names)} pods were not bound; the cluster may be too small"
                )
        return Bound(tuple(sorted(self._at_s[name] - since_s for name in names)))

    async def nodes(self, names: Mapping[str, object]) -> list[Placed]:
        """Where these pods are, and where they should be."""
        listed = await self._kube.list_all(PODS_PATH, _Pod)
        return [_placed(pod) for pod in listed if pod.metadata.name in names]

    async def clear(self) -> None:
        """Delete all pods and wait until they are gone."""
        deadline_s = time.monotonic() + GONE_S_MAX
        while await self._kube.list_all(PODS_PATH, _Pod):
            if time.monotonic() > deadline_s:
                raise TestbedError(f"pods are still there {GONE_S_MAX:.0f} s after their deletion")
            await self._delete()
        self._at_s.clear()

    async def _delete(self) -> None:
        try:
            await self._kube.delete(PODS_PATH, {"gracePeriodSeconds": "0"})
        except KubeError as error:
            if error.status != 404:  # one that went meanwhile
                raise


def _placed(pod: _Pod) -> Placed:
    receipt = (pod.metadata.annotations or {}).get(RECEIPT, "{}")
    hint = msgspec.json.decode(receipt, type=_Receipt).hint
    return Placed(pod.spec.nodeName, hint[0][0] if hint else "")


@asynccontextmanager
async def followed_pods(kubeconfig: str) -> AsyncIterator[Pods]:
    """Pods, with their bindings followed until the block ends."""
    async with KubeClient.connect(kubeconfig, parallel=PARALLEL + 2) as kube:
        pods = Pods(kube)
        following = asyncio.create_task(pods.follow())
        try:
            yield pods
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


async def burst(
    scheduler: Scheduler,
    pods: Pods,
    manifests: Mapping[str, Mapping[str, Any]],
    before_release: Callable[[], Awaitable[None]],
) -> Bound:
    """Create the pods while the scheduler is paused (SIGSTOP), then let it go and time the bindings."""
    scheduler.process.pause()
    try:
        await pods.create(manifests)
        await pods.collect_garbage()
        await before_release()
    finally:
        released_s = time.monotonic()
        scheduler.process.resume()
    return await pods.wait_bound(manifests, released_s)
