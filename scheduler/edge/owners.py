"""Objects that know how large a gang is (Jobs, JobSets, PodGroups ...), read when pods wait for one.

The first need of a kind also begins to follow its collection, so that a size
that changes is heard of. What kinds the API server has is asked of itself: an
object of a kind that it does not have does not exist.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from scheduler.core.wire import Workload
from scheduler.core.workloads.membership import ObjectRef
from scheduler.edge.kube import Changed, KubeClient, KubeError, Listed

AT_ONCE = 16
RETRY_S = 2.0
PATIENCE_S, LOOK_AGAIN_S = 10.0, 0.5
"""An object may be made seconds after its pods, as the ConfigMap of a Spark driver is."""
FOLLOWED_APART = ("ConfigMap",)
"""Not followed: there are many, and those of Spark do not change."""

log = logging.getLogger(__name__)


class _Resource(msgspec.Struct, frozen=True):
    name: str
    kind: str


class _Resources(msgspec.Struct, frozen=True):
    resources: list[_Resource] = []


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True):
    preferredVersion: _Version
    versions: list[_Version] = []


class Owners:
    """Answers what is wanted by `found(object, group)` or `missing(ref)`; `run` does the work."""

    def __init__(
        self,
        kube: KubeClient,
        found: Callable[[Workload, str], None],
        missing: Callable[[ObjectRef], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._kube, self._found, self._missing = kube, found, missing
        self._patience_s = patience_s
        self._wanted: set[ObjectRef] = set()
        self._asked: set[ObjectRef] = set()
        self._ever: set[ObjectRef] = set()
        self._wake = asyncio.Event()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._paths: dict[tuple[str, str], tuple[str, str]] = {}
        self._followed: set[tuple[str, str]] = set()

    def want(self, refs: Iterable[ObjectRef]) -> None:
        """Pods wait for these objects; asking again for what is being read changes nothing."""
        fresh = set(refs) - self._wanted
        if fresh:
            self._wanted |= fresh
            self._wake.set()

    async def run(self) -> None:
        """Read what is wanted and follow its kinds, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for ref in self._wanted - self._asked:
                    self._asked.add(ref)
                    tasks.create_task(self._answer(ref, tasks))

    async def _answer(self, ref: ObjectRef, tasks: asyncio.TaskGroup) -> None:
        owner = await self._look_for(ref)
        self._wanted.discard(ref)
        self._asked.discard(ref)
        if owner is None:
            self._missing(ref)
            return
        self._ever.add(ref)
        self._found(owner, ref.group)
        kind = (ref.group, ref.kind)
        if kind not in self._followed and ref.kind not in FOLLOWED_APART:
            self._followed.add(kind)
            tasks.create_task(self._follow(*kind))

    async def _look_for(self, ref: ObjectRef) -> Workload | None:
        """The object, as soon as it can be read; None when it does not come while one waits for it."""
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                async with self._turns:
                    return await self._read(ref)
            except KubeError as error:
                if error.status != 404:
                    log.warning("%s cannot be read, so its pods wait: %s", ref, error)
                elif time.monotonic() >= until_s:
                    return None
                await asyncio.sleep(LOOK_AGAIN_S if error.status == 404 else RETRY_S)

    async def _read(self, ref: ObjectRef) -> Workload | None:
        """The object; None when there is no such kind or it cannot be understood; 404: it is not there."""
        path = await self._path(ref.group, ref.kind)
        if path is None:
            return None
        base, plural = path
        try:
            content = await self._kube.get(f"{base}/namespaces/{ref.namespace}/{plural}/{ref.name}")
            return msgspec.json.decode(content, type=Workload)
        except msgspec.DecodeError as error:
            log.warning("%s cannot be understood: %s", ref, error)
            return None

    async def _follow(self, group: str, kind: str) -> None:
        path = await self._path(group, kind)
        assert path is not None
        async for event in self._kube.mirror(f"{path[0]}/{path[1]}", Workload):
            gone = isinstance(event, Changed) and event.kind == "DELETED"
            for one in event.items if isinstance(event, Listed) else (event.item,):
                ref = ObjectRef(group, kind, one.metadata.namespace, one.metadata.name)
                if ref in self._ever and gone:
                    self._ever.discard(ref)
                elif ref in self._ever:
                    self._found(msgspec.structs.replace(one, kind=kind), group)

    async def _path(self, group: str, kind: str) -> tuple[str, str] | None:
        """Where objects of a kind are: the API's path and the plural; None when there is no such kind."""
        known = self._paths.get((group, kind))
        if known is not None:
            return known
        for base in await self._bases(group):
            resources = msgspec.json.decode(await self._kube.get(base), type=_Resources).resources
            plural = next((one.name for one in resources if one.kind == kind and "/" not in one.name), None)
            if plural is not None:
                self._paths[group, kind] = (base, plural)
                return base, plural
        return None

    async def _bases(self, group: str) -> list[str]:
        """Where a group's versions are, the preferred one first; a kind may be in another only.

        So it is with the PodGroup of `scheduling.k8s.io`, whose v1 has PriorityClass alone.
        """
        if not group:
            return ["/api/v1"]
        try:
            found = msgspec.json.decode(await self._kube.get(f"/apis/{group}"), type=_Group)
        except KubeError as error:
            if error.status == 404:
                return []
            raise
        versions = dict.fromkeys([found.preferredVersion, *found.versions])
        return [f"/apis/{group}/{one.version}" for one in versions]
