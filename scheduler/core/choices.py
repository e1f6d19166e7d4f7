"""Pods of ours that were bound where kube-scheduler had a choice, and so should have asked the extender.

With one feasible node kube-scheduler never asks for scores. That is so on a cluster of one
node, for pods that only one node may have, and where the cluster is so full that
just one has room: no fault of anybody. Volumes and affinity between pods are not
known here, so a choice may be seen where there was none; pods that request other
resources than CPU, memory and GPUs are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core import wire
from scheduler.core.cluster import Cluster
from scheduler.core.queue.events import Node, Shape
from scheduler.core.queue.matching import allowed
from scheduler.core.queue.resources import PODS, fits
from scheduler.core.types import PodFacts
from scheduler.core.workloads.nodes import node_event
from scheduler.core.workloads.shapes import Shapes

JUST_ASKED_S = 60.0
"""Who asked so lately does ask; looking through all nodes at each binding would only delay answers."""
GPU = "/gpu"
"""How names of resources end that are counted as GPUs."""


class Choices:
    """Counts them; `last_s` is when the last one was seen, unix seconds, 0 before the first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes: dict[str, Node] = {}
        self._shapes = Shapes()
        self.count = 0
        self.last_s = 0.0

    def set_node(self, node: wire.Node) -> None:
        """A node as it is now."""
        self._nodes[node.metadata.name] = node_event(node).node

    def set_nodes(self, nodes: Iterable[wire.Node]) -> None:
        """All nodes that there are."""
        self._nodes.clear()
        for node in nodes:
            self.set_node(node)

    def remove_node(self, name: str) -> None:
        """A node that is gone."""
        self._nodes.pop(name, None)

    def bound(self, pod: wire.Pod, asked_s: float, now_s: float) -> None:
        """A pod of ours was bound without a question; it counts if another node could have had it.

        `asked_s` is when the last question about any came.
        """
        if now_s - asked_s <= JUST_ASKED_S:
            return
        shape = self._shapes.of(pod.spec, lambda _resource, _why: None)
        if not all(_is_known(resource) for resource, _amount in shape.requests):
            return
        others = (node for name, node in self._nodes.items() if name != pod.spec.nodeName)
        if any(self._takes(node, shape) for node in others):
            self.count += 1
            self.last_s = now_s

    def _takes(self, node: Node, shape: Shape) -> bool:
        if not (node.ready and node.schedulable and allowed(shape, node)):
            return False
        return fits(_free(node, self._cluster.residents(node.name)), shape.requests)


def _is_known(resource: str) -> bool:
    return resource in ("cpu", "memory", "ephemeral-storage") or resource.endswith(GPU)


def _free(node: Node, residents: list[PodFacts]) -> dict[str, float]:
    """What is free for one more; GPUs of all names are one resource here, as they are in a job."""
    free = dict(node.allocatable)
    jobs = [pod.job for pod in residents]
    taken = {"cpu": sum(job.cpu for job in jobs), "memory": sum(job.memory_bytes for job in jobs)}
    taken[PODS] = float(len(jobs))
    taken |= dict.fromkeys((name for name in free if name.endswith(GPU)), sum(job.gpu for job in jobs))
    return {name: amount - taken.get(name, 0.0) for name, amount in free.items()}
