"""Keeps the core's picture of the cluster current from two watches, of nodes and of pods."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from scheduler.core.choices import Choices
from scheduler.core.cluster import Cluster
from scheduler.core.jobs import Descriptions
from scheduler.core.types import PodFacts
from scheduler.core.wire import Node, Pod
from scheduler.edge.kube import Changed, KubeClient, Listed
from scheduler.edge.node_mapping import NodeIdentity

NODES_PATH = "/api/v1/nodes"
PODS_PATH = "/api/v1/pods"
HOSTNAME_LABEL = "kubernetes.io/hostname"


class ClusterWatch:
    """Feeds `cluster` and `choices` from the API server; tells of each pod that waits or was just bound.

    `on_unasked` is told of pods of ours that were bound without a node from us.

    `synced` is set once both collections have been listed. `complaints`
    counts annotations that could not be read, by annotation, and
    `last_complaint` is the newest of them in words.
    """

    def __init__(
        self,
        kube: KubeClient,
        cluster: Cluster,
        descriptions: Descriptions,
        choices: Choices,
        on_pod: Callable[[PodFacts], None],
        on_unasked: Callable[[Pod], None],
    ) -> None:
        self._kube = kube
        self._cluster = cluster
        self._descriptions = descriptions
        self._choices = choices
        self._on_pod, self._on_unasked = on_pod, on_unasked
        self._identities: dict[str, NodeIdentity] = {}
        self._listed: set[str] = set()
        self.synced = asyncio.Event()
        self.complaints: Counter[str] = Counter()
        self.last_complaint = ""

    def identities(self) -> tuple[NodeIdentity, ...]:
        """What the nodes are called; may be asked from another thread."""
        return tuple(self._identities.copy().values())

    async def run(self) -> None:
        """Follow nodes and pods until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_nodes())
            tasks.create_task(self._follow_pods())

    async def _follow_nodes(self) -> None:
        async for event in self._kube.mirror(NODES_PATH, Node):
            match event:
                case Listed(items):
                    self._identities = {node.metadata.name: identity(node) for node in items}
                    self._cluster.set_nodes(items)
                    self._choices.set_nodes(items)
                    self._has_listed(NODES_PATH)
                case Changed("DELETED", node):
                    self._identities.pop(node.metadata.name, None)
                    self._cluster.remove_node(node.metadata.name)
                    self._choices.remove_node(node.metadata.name)
                case Changed(_, node):
                    self._identities[node.metadata.name] = identity(node)
                    self._cluster.set_node(node)
                    self._choices.set_node(node)

    async def _follow_pods(self) -> None:
        async for event in self._kube.mirror(PODS_PATH, Pod):
            match event:
                case Listed(items):
                    pods = [self._described(pod) for pod in items]
                    self._cluster.set_pods(pods)
                    self._has_listed(PODS_PATH)
                    for pod in pods:
                        self._on_pod(pod)
                case Changed("DELETED", pod):
                    self._cluster.remove_pod(pod.metadata.uid)
                    self._descriptions.forget(pod.metadata.uid)
                case Changed(_, pod):
                    facts = self._described(pod)
                    before = self._cluster.pod(facts.uid)
                    self._cluster.set_pod(facts)
                    self._on_pod(facts)
                    if self._cluster.is_ours(facts) and facts.node and before is not None and before.waits:
                        self._on_unasked(pod)  # of a pod that we were asked about a node is assumed

    def _has_listed(self, path: str) -> None:
        self._listed.add(path)
        if self._listed == {NODES_PATH, PODS_PATH}:
            self.synced.set()

    def _described(self, pod: Pod) -> PodFacts:
        described = self._descriptions.of(pod)
        for complaint in described.complaints:
            self.complaints[complaint.annotation] += 1
            self.last_complaint = (
                f"{pod.metadata.namespace}/{pod.metadata.name}: {complaint.annotation}: {complaint.why}"
            )
        return described.pod


def identity(node: Node) -> NodeIdentity:
    """The names under which a node may appear in telemetry."""
    addresses = node.status.addresses or ()
    return NodeIdentity(
        name=node.metadata.name,
        addresses=tuple(one.address for one in addresses if one.type == "InternalIP"),
        hostname=(node.metadata.labels or {}).get(HOSTNAME_LABEL, ""),
    )
