"""Submits jobs to a real API server and waits for them, as a user's script would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import msgspec

from scheduler.edge.kube import Changed, KubeClient, KubeError, Listed
from scheduler.edge.waking import woken_within
from testbed.control import TestbedError
from testbed.demo.jobs import DemoJob, manifest
from testbed.progress import Task

ENDED = ("Succeeded", "Failed")
END_S_MAX = 180.0
"""A job of the demo that takes longer is stuck: fail instead of waiting for ever."""


class _Meta(msgspec.Struct, frozen=True):
    name: str


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    status: _Status = _Status()


class Submitter:
    """Creates pods in one namespace and knows which of them still run."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._namespace = namespace
        self._active: dict[str, float] = {}
        self._moved = asyncio.Event()
        self.ended = 0

    async def keep_busy(self, jobs: Iterator[DemoJob], in_flight: int, seconds: float, task: Task) -> None:
        """For `seconds`, keep `in_flight` of `jobs` running under our scheduler; then delete those left."""
        began_s, number = time.monotonic(), 0
        while time.monotonic() - began_s < seconds:
            while len(self._active) < in_flight:
                await self.submit(next(jobs), f"collect-{number:05d}", "fairlane", truth=False)
                number += 1
            task.advance(min(int(time.monotonic() - began_s), int(seconds)))
            await self._any_move(1.0)
        await self.clear()

    async def at_pace(self, jobs: list[DemoJob], prefix: str, scheduler: str, pace_s: float) -> list[str]:
        """Submit one job every `pace_s`, with ground truth, wait for all; the names of the pods."""
        names = [f"{prefix}-{number:03d}" for number in range(len(jobs))]
        for name, job in zip(names, jobs, strict=True):
            await self.submit(job, name, scheduler, truth=True)
            await asyncio.sleep(pace_s)
        await self.wait_all()
        return names

    async def submit(self, job: DemoJob, name: str, scheduler: str, truth: bool) -> None:
        """Create one pod."""
        self._active[name] = time.monotonic()
        await self._kube.post(self._path, manifest(job, name, self._namespace, scheduler, truth))

    async def wait_all(self) -> None:
        """Return when no submitted pod runs any more.

        Raises:
            TestbedError: a pod did not end in time; the message names it.
        """
        while self._active:
            name, since_s = min(self._active.items(), key=lambda item: item[1])
            if time.monotonic() - since_s > END_S_MAX:
                raise TestbedError(f"pod {name} did not end within {END_S_MAX:.0f} s of its submission")
            await self._any_move(1.0)

    async def clear(self) -> None:
        """Delete all pods of the namespace, so that they do not weigh on what follows."""
        await self._kube.delete(self._path, {"gracePeriodSeconds": "0"})
        await self.wait_all()

    async def follow(self) -> None:
        """Keep track of the pods for ever."""
        async for event in self._kube.mirror(self._path, _Pod):
            for pod in event.items if isinstance(event, Listed) else [event.item]:
                gone = isinstance(event, Changed) and event.kind == "DELETED"
                if (gone or pod.status.phase in ENDED) and pod.metadata.name in self._active:
                    del self._active[pod.metadata.name]
                    self.ended += 1
            self._moved.set()

    async def _any_move(self, timeout_s: float) -> None:
        self._moved.clear()
        await woken_within(self._moved, timeout_s)


@asynccontextmanager
async def submitter(kubeconfig: str, namespace: str) -> AsyncIterator[Submitter]:
    """A submitter into `namespace`, which is created."""
    async with KubeClient.connect(kubeconfig) as kube:
        try:
            await kube.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise
        found = Submitter(kube, namespace)
        following = asyncio.create_task(found.follow())
        try:
            yield found
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
