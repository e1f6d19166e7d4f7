"""What the fair queue sees of the cluster: watches of nodes, pods and the FairQueue object, as its events.

Pods become gangs in `scheduler.core.workloads`; here only the order is kept:
nodes first, so that no gang is taken for one that fits nowhere, then a whole
list of pods as one message, so that nothing is released before all of it is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from scheduler.config import ControllerSettings
from scheduler.core.queue.events import Event, Node, NodeRemoved, NodeSet
from scheduler.core.queue.matching import belongs
from scheduler.core.queue.resources import PODS
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.wire import Node as WireNode
from scheduler.core.wire import Pod
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.members import PodRef
from scheduler.core.workloads.nodes import node_event
from scheduler.core.workloads.remarks import Remark
from scheduler.core.workloads.rules import Rules
from scheduler.edge.cluster_view import NODES_PATH, PODS_PATH
from scheduler.edge.fair_queue import PATH as QUEUES_PATH
from scheduler.edge.kube import Changed, KubeClient, KubeError, Line, Listed
from scheduler.edge.owners import Owners

LOOK_AGAIN_S = 30.0
"""Where the API server does not know FairQueue objects (yet)."""
NOT_SHARED = (PODS, "ephemeral-storage", "hugepages-", "attachable-volumes-")
"""Resources that shares are not measured by, unless the settings name them."""

log = logging.getLogger(__name__)


class Feeds:
    """Follows what concerns the queue; `tell` is called with the events of each change.

    `spec` is what the FairQueue object says; `generation` which one, None while there is no object.
    """

    def __init__(
        self,
        kube: KubeClient,
        own: ControllerSettings,
        tell: Callable[[Sequence[Event]], None],
        clock: Callable[[], float],
    ) -> None:
        self._kube, self._tell, self._clock = kube, tell, clock
        self._rules = Rules(scheduler_name=own.scheduler_name, queue=own.queue)
        self.assembly = Assembly(self._rules)
        self._owners = Owners(
            kube,
            lambda owner, group: tell(self.assembly.set_owner(owner, clock(), group)),
            lambda ref: tell(self.assembly.remove_owner(ref, clock())),
        )
        self.spec: Mapping[str, Any] = {}
        self.never_listed = True
        self.generation: int | None = None
        self._nodes: dict[str, Node] = {}
        self._nodes_listed = asyncio.Event()
        self._lines = {"nodes": Line(), "pods": Line()}

    @property
    def unready(self) -> str:
        """Why the cluster cannot be seen; empty while it can."""
        deaf = [f"{what}: {line.failure}" for what, line in self._lines.items() if line.failure]
        return "; ".join(deaf) or ("pods were not listed yet" if self.never_listed else "")

    def begin(self, since_s: float, *, by_namespace: bool = False) -> None:
        """Before any pod is seen: what ended before `since_s` is settled already; who is charged."""
        self.assembly = Assembly(replace(self._rules, by_namespace=by_namespace), since_s)

    def pod_of(self, uid: str) -> PodRef | None:
        """Where a pod is; None when it is not known to be there."""
        return self.assembly.pod_of(uid)

    async def capacity(self, settings: QueueSettings) -> dict[str, float]:
        """What the queue's nodes have together; waits until there is a node."""
        await self._nodes_listed.wait()
        while not (found := _sum(self._nodes.values(), settings)):
            log.info("the queue has no nodes yet, so nothing can be measured against them")
            await asyncio.sleep(1.0)
        return found

    async def nodes(self) -> None:
        """Follow the nodes."""
        async for event in self._kube.mirror(NODES_PATH, WireNode, line=self._lines["nodes"]):
            match event:
                case Listed(items):
                    gone = self._nodes.keys() - {node.metadata.name for node in items}
                    self._tell([*map(self._set, items), *map(self._removed, sorted(gone))])
                    self._nodes_listed.set()
                case Changed("DELETED", node):
                    self._tell([self._removed(node.metadata.name)])
                case Changed(_, node):
                    known = self._nodes.get(node.metadata.name)
                    if known != (event_ := self._set(node)).node:
                        self._tell([event_])

    async def workloads(self) -> None:
        """Follow the pods, once the nodes are known."""
        await self._nodes_listed.wait()
        async for event in self._kube.mirror(PODS_PATH, Pod, line=self._lines["pods"]):
            now_s = self._clock()
            match event:
                case Listed(items):
                    self._tell(self.assembly.set_pods(items, now_s))
                    self.never_listed = False
                case Changed("DELETED", pod):
                    self._tell(self.assembly.remove_pod(pod.metadata.uid, now_s))
                case Changed(_, pod):
                    self._tell(self.assembly.set_pod(pod, now_s))
            self._owners.want(self.assembly.needs)

    async def owners(self) -> None:
        """Read and follow the objects that pods wait for."""
        await self._owners.run()

    def take_remarks(self) -> list[Remark]:
        """What people should be told about pods."""
        return self.assembly.take_remarks()

    async def read_queue_object(self, name: str) -> dict[str, Any] | None:
        """The specification of the FairQueue object; None when there is none."""
        try:
            answer = msgspec.json.decode(await self._kube.get(f"{QUEUES_PATH}/{name}"))
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        return self._read(answer)

    async def queue_object(self, name: str, obey: Callable[[dict[str, Any] | None], None]) -> None:
        """Follow the FairQueue object, where the API server knows such objects."""
        while not await self._knows_queues():  # noqa: ASYNC110  nothing in here can say when
            await asyncio.sleep(LOOK_AGAIN_S)
        only = {"fieldSelector": f"metadata.name={name}"}
        async for event in self._kube.mirror(QUEUES_PATH, dict[str, Any], only):
            match event:
                case Listed(items):
                    spec = self._read(items[0] if items else None)
                case Changed("DELETED", _):
                    spec = self._read(None)
                case Changed(_, item):
                    spec = self._read(item)
            if (spec or {}) != self.spec:
                obey(spec)

    async def _knows_queues(self) -> bool:
        try:
            await self._kube.get(QUEUES_PATH, {"limit": "1"})
        except KubeError as error:
            if error.status != 404:
                log.warning("FairQueue objects cannot be read: %s", error)
            return False
        return True

    def _read(self, item: Mapping[str, Any] | None) -> dict[str, Any] | None:
        self.generation = None if item is None else int(item.get("metadata", {}).get("generation", 0))
        spec = None if item is None else item.get("spec")
        return spec if isinstance(spec, dict) else None

    def _set(self, node: WireNode) -> NodeSet:
        event = node_event(node)
        self._nodes[event.node.name] = event.node
        return event

    def _removed(self, name: str) -> NodeRemoved:
        self._nodes.pop(name, None)
        return NodeRemoved(name)


def _sum(nodes: Iterable[Node], settings: QueueSettings) -> dict[str, float]:
    amounts: dict[str, float] = {}
    for node in nodes:
        if belongs(node, settings.node_selector, settings.node_tolerations):
            for resource, amount in node.allocatable.items():
                if not resource.startswith(NOT_SHARED):
                    amounts[resource] = amounts.get(resource, 0.0) + amount
    return {resource: amount for resource, amount in amounts.items() if amount > 0}
