"""Who of several replicas acts: leader election by a Lease, with time of one's own.

A replica that finds the lease unheld, or unchanged for as long as it was
promised to last (by the finder's own clock: clocks of machines differ), takes
it by a write that names the version read; of two takers one is refused.

The leader is sure of its lease only for `sure_s` after the *beginning* of its
last successful renewal, which is less than `duration_s`, after which another
may take it. What acts asks `holds()` before each act, and no act lasts longer
than the difference: so never two of them act, even when one was stopped
for a while. A leader that ends in good order gives the lease up, and another
may start at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.waking import woken_within

URL_ANNOTATION = "fairlane.dev/url"
"""Where the leader answers, so that other replicas can tell."""
STUCK_S = 60.0
"""A replica whose own loop has not turned for so long does not keep the lease."""
_COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_NEVER_S = float("-inf")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a lease lasts for others, and its holder is sure of it; how often it is renewed or tried."""

    duration_s: int = 10
    sure_s: float = 6.0
    every_s: float = 1.5
    request_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.every_s < self.sure_s < self.duration_s:
            raise ValueError("a lease needs every_s < sure_s < duration_s")


async def answered_within(limit_s: float, request: Coroutine[Any, Any, bytes]) -> bytes:
    """The answer to a request of a leader, which must end before another replica may act.

    Raises:
        KubeError: the request failed, or was not answered in time (status 0).
    """
    try:
        async with asyncio.timeout(limit_s):
            return await request
    except TimeoutError as error:
        raise KubeError(0, "Timeout", f"no answer within {limit_s:g} s") from error


class _Meta(msgspec.Struct):
    resourceVersion: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


_DECODER = msgspec.json.Decoder(_Lease)


def steady_s() -> float:
    """Seconds that pass also while the machine sleeps, and never step."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaderLease:
    """One replica's side of one Lease. `leader` and `leader_url` are what was last read."""

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing,
        url: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = steady_s,
    ) -> None:
        self._kube = kube
        self._collection = _COLLECTION.format(namespace=namespace)
        self._path = f"{self._collection}/{name}"
        self._name, self.identity = name, identity
        self._timing, self._url, self._clock = timing, url, clock
        self._sure_until_s = _NEVER_S
        self._seen = ("", "")
        self._seen_s = _NEVER_S
        self.leader, self.leader_url, self.failure = "", "", ""

    def holds(self) -> bool:
        """True while no other replica can have the lease; may be asked from any thread."""
        return self._clock() < self._sure_until_s

    async def try_once(self) -> bool:
        """Renew the lease, or take it if it is free; True when it is held now. Never raises `KubeError`."""
        begun_s = self._clock()
        try:
            async with asyncio.timeout(self._timing.request_s):
                held = await self._renew_or_take(begun_s)
            self.failure = ""
        except (KubeError, TimeoutError) as error:
            self.failure = str(error) or "the API server did not answer in time"
            return self.holds()
        self._sure_until_s = begun_s + self._timing.sure_s if held else _NEVER_S
        return held

    async def give_up(self) -> None:
        """Let another replica take the lease at once; the acts of this one must have ended."""
        self._sure_until_s = _NEVER_S
        with contextlib.suppress(KubeError, TimeoutError):
            async with asyncio.timeout(self._timing.request_s):
                lease = await self._read()
                if lease is not None and lease.spec.holderIdentity == self.identity:
                    lease.spec.holderIdentity, lease.spec.leaseDurationSeconds = "", 1
                    await self._write(lease)

    async def _renew_or_take(self, begun_s: float) -> bool:
        lease = await self._read()
        if lease is None:
            spec = _Spec(leaseTransitions=0, acquireTime=_now())
            return await self._claim(_Lease(_Meta(), spec), create=True)
        holder = lease.spec.holderIdentity or ""
        if holder == self.identity:
            return await self._claim(lease)
        if not holder or self._has_run_out(lease, begun_s):
            lease.spec.leaseTransitions = (lease.spec.leaseTransitions or 0) + 1
            lease.spec.acquireTime = _now()
            return await self._claim(lease)
        return False

    def _has_run_out(self, lease: _Lease, begun_s: float) -> bool:
        seen = (lease.metadata.resourceVersion, lease.spec.holderIdentity or "")
        if seen != self._seen:
            self._seen, self._seen_s = seen, self._clock()
        lasts_s = lease.spec.leaseDurationSeconds or self._timing.duration_s
        return begun_s > self._seen_s + lasts_s

    async def _claim(self, lease: _Lease, create: bool = False) -> bool:
        lease.spec.holderIdentity, lease.spec.renewTime = self.identity, _now()
        lease.spec.leaseDurationSeconds = self._timing.duration_s
        lease.metadata.annotations = {**(lease.metadata.annotations or {}), URL_ANNOTATION: self._url()}
        try:
            if create:
                await self._kube.post(self._collection, self._body(lease))
            else:
                await self._write(lease)
        except KubeError as error:
            if error.status == 409:  # somebody else was first
                return False
            raise
        self.leader, self.leader_url = self.identity, self._url()
        return True

    async def _read(self) -> _Lease | None:
        try:
            lease = _DECODER.decode(await self._kube.get(self._path))
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        except msgspec.DecodeError as error:
            raise KubeError(0, "BadAnswer", f"the lease cannot be read: {error}") from error
        self.leader = lease.spec.holderIdentity or ""
        self.leader_url = (lease.metadata.annotations or {}).get(URL_ANNOTATION, "")
        return lease

    async def _write(self, lease: _Lease) -> None:
        await self._kube.put(self._path, self._body(lease))

    def _body(self, lease: _Lease) -> dict[str, Any]:
        version = lease.metadata.resourceVersion
        metadata = {"name": self._name, "annotations": lease.metadata.annotations or {}}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata | ({"resourceVersion": version} if version else {}),
            "spec": _without_none(msgspec.to_builtins(lease.spec)),
        }


class Campaign(threading.Thread):
    """Keeps trying for a lease in a thread of its own, and tells the caller's loop of wins and losses.

    A thread, because a renewal must not wait while the queue takes in a list
    of a hundred thousand pods. Use `async with Campaign(...) as campaign`.
    """

    def __init__(self, kubeconfig: str | None, lease_of: Callable[[KubeClient], LeaderLease], every_s: float):
        super().__init__(name="lease", daemon=True)
        self._kubeconfig, self._lease_of, self._every_s = kubeconfig, lease_of, every_s
        self._owner = asyncio.get_running_loop()
        self._leads, self._not_leading = asyncio.Event(), asyncio.Event()
        self._not_leading.set()
        self._ended = threading.Event()
        self._heard_s = steady_s()
        self._end: Callable[[], object] = self._ended.set
        self.lease: LeaderLease | None = None

    def holds(self) -> bool:
        """True while no other replica can lead."""
        return self.lease is not None and self.lease.holds()

    async def won(self) -> None:
        """Returns once this replica leads."""
        await self._leads.wait()

    async def lost(self) -> None:
        """Returns once this replica does not lead."""
        await self._not_leading.wait()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()
        await asyncio.to_thread(self.join)

    def run(self) -> None:
        """The thread: try until told to end, then give the lease up."""
        try:
            asyncio.run(self._try_until_ended())
        except Exception:
            log.exception("the campaign for the lease broke down")
            os.kill(os.getpid(), signal.SIGTERM)  # a replica that can never lead is of no use

    async def _try_until_ended(self) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(ended.set)
        async with KubeClient.connect(self._kubeconfig, parallel=1) as kube:
            self.lease, led = self._lease_of(kube), False
            while not (ended.is_set() or self._ended.is_set()):
                leads = await self._try(self.lease)
                if leads != led:
                    led = leads
                    log.info("this replica %s", "leads" if leads else "does not lead any more")
                    self._owner.call_soon_threadsafe(self._tell, leads)
                await woken_within(ended, self._every_s * random.uniform(0.8, 1.0))
            await self.lease.give_up()

    async def _try(self, lease: LeaderLease) -> bool:
        """Renew or take the lease, unless the caller's loop has been stuck: then another may do better."""
        self._owner.call_soon_threadsafe(self._hear)
        if steady_s() - self._heard_s < STUCK_S:
            return await lease.try_once()
        if lease.holds():
            log.error("the queue has been stuck for %.0f s: the lease is given up", STUCK_S)
            await lease.give_up()
        return False

    def _hear(self) -> None:
        self._heard_s = steady_s()

    def _tell(self, leads: bool) -> None:
        for event in (self._leads, self._not_leading):
            event.clear()
        (self._leads if leads else self._not_leading).set()


def _without_none(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value is not None}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
