"""The cluster as placing sees it: facts of nodes, residents, gangs, pods that wait.

Fed by list and watch events; knows no clock and no connection. A pod that was
just given a node in an answer counts there at once (`assume`): kube-scheduler
binds a burst faster than the watch reports it, and without this every pod of
the burst would be sent to the same best node. The watch settles it: the bound
pod replaces the assumption, and one that is never confirmed expires.

Every change of a node gets a number, so that a score table can be brought up
to date by looking only at the nodes changed since it was made.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, takewhile
from types import MappingProxyType

import msgspec

from model.placement import ClusterView, Job, NodeFacts
from scheduler.core.quantities import quantity
from scheduler.core.queue.taints import Taint
from scheduler.core.transfers import Transfers
from scheduler.core.types import NIC_CLASS_LABEL, SCHEDULER_NAME, ZONE_LABEL, PodFacts
from scheduler.core.waiting_pods import WaitingPods
from scheduler.core.wire import Node
from scheduler.core.workloads.nodes import taints_of

ASSUMED_S = 15.0
"""An assumed binding that the watch has not confirmed by then did not happen."""
CHANGES_KEPT = 4096
"""Changes remembered; an older table is brought up to date by making it anew."""


def node_facts(node: Node) -> NodeFacts:
    """Facts of a node without residents."""
    labels = node.metadata.labels or {}
    names = (name for image in node.status.images or () for name in image.names or ())
    return NodeFacts(
        zone=labels.get(ZONE_LABEL, ""),
        nic_class=labels.get(NIC_CLASS_LABEL, ""),
        allocatable_cpu=_cpu(node),
        images=frozenset(sys.intern(name) for name in names),
    )


def _cpu(node: Node) -> float:
    try:
        return quantity((node.status.allocatable or {})["cpu"])
    except (KeyError, ValueError):
        return math.nan


@dataclass(slots=True)
class _NodeState:
    """A node and the pods on it; `listed` is False for a node known only from its pods."""

    facts: NodeFacts = field(default_factory=NodeFacts)
    residents: dict[str, PodFacts] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    listed: bool = False


class _Assumption(msgspec.Struct):
    """Until when an assumed binding is believed, and whether the watch knows the pod."""

    deadline_s: float
    seen: bool


class Cluster:
    """Nodes with their residents, gangs and waiting pods, kept current by events."""

    def __init__(self, scheduler_name: str = SCHEDULER_NAME) -> None:
        self._scheduler_name = scheduler_name
        self._states: dict[str, _NodeState] = {}
        self._facts: dict[str, NodeFacts] = {}
        self._pods: dict[str, PodFacts] = {}
        self._assumed: dict[str, _Assumption] = {}
        self._gangs: dict[str, dict[str, PodFacts]] = {}
        self._transfers = Transfers()
        self._changes: deque[str] = deque(maxlen=CHANGES_KEPT)
        self.waiting = WaitingPods()
        """Pods of our scheduler that are not bound yet; to read."""
        self.version = 0
        self.nodes_version = 0
        """Raised whenever a node appears or goes."""

    @property
    def facts(self) -> ClusterView:
        """Facts of every listed node by name; a live view."""
        return MappingProxyType(self._facts)

    @property
    def pods(self) -> int:
        """Number of pods known."""
        return len(self._pods)

    def pod(self, uid: str) -> PodFacts | None:
        """The pod of this uid, bound or not; None when it was not seen yet."""
        return self._pods.get(uid)

    def residents(self, node: str) -> list[PodFacts]:
        """Unfinished pods on a node."""
        state = self._states.get(node)
        return list(state.residents.values()) if state is not None else []

    def taints(self, node: str) -> tuple[Taint, ...]:
        """Taints of a node; none of one that is not known."""
        state = self._states.get(node)
        return state.taints if state is not None else ()

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replace all nodes known."""
        named = {node.metadata.name: node for node in nodes}
        for gone in [name for name in self._facts if name not in named]:
            self.remove_node(gone)
        for node in named.values():
            self.set_node(node)

    def set_node(self, node: Node) -> None:
        """Add a node or replace what is known of it."""
        name = node.metadata.name
        state = self._states.setdefault(name, _NodeState())
        state.facts, state.taints = node_facts(node), taints_of(node)
        self.nodes_version += not state.listed
        state.listed = True
        self._refresh(name)

    def remove_node(self, name: str) -> None:
        """Forget a node; its pods are forgotten when they are reported gone."""
        state = self._states.get(name)
        if state is None or not state.listed:
            return
        state.listed = False
        self.nodes_version += 1
        self._facts.pop(name, None)
        self._transfers.forget_node(name)
        self._drop_if_empty(name, state)

    def set_pods(self, pods: Iterable[PodFacts]) -> None:
        """Replace all pods known; assumed bindings stay until they are settled."""
        current = {pod.uid: pod for pod in pods}
        for gone in [uid for uid in self._pods if uid not in current]:
            self.remove_pod(gone)
        for pod in current.values():
            self.set_pod(pod)

    def set_pod(self, pod: PodFacts) -> None:
        """Add a pod or replace what is known of it."""
        before, assumption = self._pods.get(pod.uid), self._assumed.get(pod.uid)
        if before is not None and assumption is not None and pod.waits:
            assumption.seen = True
            pod = msgspec.structs.replace(pod, node=before.node)
        else:
            self._assumed.pop(pod.uid, None)
        if pod.node:
            self._transfers.move(pod.uid, pod.node)
        if pod != before:
            self._put(before, pod)

    def remove_pod(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._assumed.pop(uid, None)
        before = self._pods.pop(uid, None)
        if before is not None:
            self._transfers.end(uid)
            self._leave(before)
            self.waiting.remove(uid)
            self._refresh(before.node)

    def assume(self, pod: PodFacts, node: str, now_s: float, link_s: float = math.nan) -> None:
        """Count `pod` on `node` from now on, until the watch says where it is.

        `link_s` is how long its input takes up the link there, NaN when that is not known.
        """
        known = self._pods.get(pod.uid)
        if known is not None and not known.waits and pod.uid not in self._assumed:
            return
        self._assumed.pop(pod.uid, None)  # to the end: the oldest assumption stays first
        self._assumed[pod.uid] = _Assumption(now_s + ASSUMED_S, seen=known is not None)
        self._transfers.begin(pod.uid, node, link_s, now_s)
        self._put(known, msgspec.structs.replace(pod, node=node))

    def expire(self, now_s: float) -> int:
        """Take back assumptions that were not confirmed in time; how many."""
        late = list(takewhile(lambda item: item[1].deadline_s <= now_s, self._assumed.items()))
        for uid, assumption in late:
            del self._assumed[uid]
            self._transfers.undo(uid)
            pod = self._pods[uid]
            if assumption.seen:
                self._put(pod, msgspec.structs.replace(pod, node=""))
            else:
                self.remove_pod(uid)
        return len(late)

    def job_of(self, pod: PodFacts) -> Job:
        """The pod's job with the nodes of its gang's other members and of the driver, as of now."""
        members = [one for uid, one in self._gangs.get(pod.gang, {}).items() if uid != pod.uid]
        if not members:
            return pod.job
        driver = next((one.node for one in members if one.is_driver), "")
        return replace(pod.job, peer_nodes=tuple(sorted(one.node for one in members)), driver_node=driver)

    def changes_since(self, version: int) -> Sequence[str] | None:
        """Nodes changed after `version`, each once, newest first; None when that is too long ago."""
        count = self.version - version
        if count > len(self._changes):
            return None
        return list(dict.fromkeys(islice(reversed(self._changes), count)))

    def is_ours(self, pod: PodFacts) -> bool:
        """True for a pod that our scheduler places."""
        return pod.scheduler == self._scheduler_name

    def _put(self, before: PodFacts | None, pod: PodFacts) -> None:
        if before is not None:
            self._leave(before)
        self._pods[pod.uid] = pod
        if pod.node and not pod.finished:
            self._enter(pod)
        if pod.waits and self.is_ours(pod):
            self.waiting.put(pod)
        else:
            self.waiting.remove(pod.uid)
        for node in {pod.node, before.node if before is not None else ""}:
            self._refresh(node)

    def _enter(self, pod: PodFacts) -> None:
        self._states.setdefault(pod.node, _NodeState()).residents[pod.uid] = pod
        if pod.gang:
            self._gangs.setdefault(pod.gang, {})[pod.uid] = pod

    def _leave(self, pod: PodFacts) -> None:
        members = self._gangs.get(pod.gang, {})
        members.pop(pod.uid, None)
        if pod.gang and not members:
            self._gangs.pop(pod.gang, None)
        state = self._states.get(pod.node)
        if state is not None:
            state.residents.pop(pod.uid, None)
            self._drop_if_empty(pod.node, state)

    def _drop_if_empty(self, name: str, state: _NodeState) -> None:
        if not state.listed and not state.residents:
            self._states.pop(name, None)

    def _refresh(self, name: str) -> None:
        """Recompute a node's facts; a change that placing can see gets a number."""
        state = self._states.get(name)
        if state is None or not state.listed:
            return
        facts = _with_residents(state.facts, state.residents, partial(self._transfers.until_s, name))
        if facts != self._facts.get(name):
            self._facts[name] = facts
            self.version += 1
            self._changes.append(name)


def _with_residents(
    facts: NodeFacts, residents: Mapping[str, PodFacts], until_s: Callable[[Iterable[str]], float]
) -> NodeFacts:
    by_framework: dict[str, int] = {}
    requested_cpu, heavy = 0.0, []
    for uid, pod in residents.items():
        by_framework[pod.job.framework] = by_framework.get(pod.job.framework, 0) + 1
        requested_cpu += pod.job.cpu
        if _is_network_heavy(pod.job):
            heavy.append(uid)
    return NodeFacts(
        zone=facts.zone,
        nic_class=facts.nic_class,
        allocatable_cpu=facts.allocatable_cpu,
        requested_cpu=requested_cpu,
        residents=len(residents),
        network_heavy=len(heavy),
        receiving_until_s=until_s(heavy),
        residents_by_framework=MappingProxyType(by_framework),
        images=facts.images,
    )


def _is_network_heavy(job: Job) -> bool:
    return job.input_bytes > 0 or job.shuffle_bytes > 0
