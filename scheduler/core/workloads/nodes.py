"""Nodes as capacity sees them, and what pods that are not the queue's take of them."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core import wire
from scheduler.core.quantities import quantity
from scheduler.core.queue.events import ForeignUsage, Node, NodeSet
from scheduler.core.queue.resources import Requests, total
from scheduler.core.queue.taints import Taint


def node_event(node: wire.Node) -> NodeSet:
    """A node as it is now. An amount that cannot be read counts as nothing."""
    return NodeSet(
        Node(
            node.metadata.name,
            dict(_amounts(node.status.allocatable or {})),
            dict(node.metadata.labels or {}),
            taints_of(node),
            ready=is_ready(node),
            schedulable=not node.spec.unschedulable,
        )
    )


def taints_of(node: wire.Node) -> tuple[Taint, ...]:
    """Its taints."""
    return tuple(Taint(one.key, one.value or "", one.effect) for one in node.spec.taints or ())


def is_ready(node: wire.Node) -> bool:
    """False when a condition says so; a node that was not heard of yet carries a taint instead."""
    return all(one.status == "True" for one in node.status.conditions or () if one.type == "Ready")


def _amounts(given: dict[str, str]) -> Iterator[tuple[str, float]]:
    for resource, text in given.items():
        try:
            yield resource, max(0.0, quantity(text))
        except ValueError:
            yield resource, 0.0


class ForeignPods:
    """Pods that are not the queue's, by node; bound ones take room there."""

    def __init__(self) -> None:
        self._where: dict[str, str] = {}
        self._on: dict[str, dict[str, Requests]] = {}
        self._changed: set[str] = set()

    def __contains__(self, uid: str) -> bool:
        return uid in self._where

    def uids(self) -> list[str]:
        """All that are known."""
        return list(self._where)

    def put(self, uid: str, node: str, requests: Requests) -> None:
        """A pod is there and takes this of the node; nothing while it is not bound (empty) or has ended."""
        if self._where.get(uid) == node and (not node or self._on[node].get(uid) == requests):
            return
        self.drop(uid)
        self._where[uid] = node
        if node:
            self._on.setdefault(node, {})[uid] = requests
            self._changed.add(node)

    def drop(self, uid: str) -> None:
        """A pod is gone."""
        node = self._where.pop(uid, "")
        if node:
            self._on[node].pop(uid, None)
            self._changed.add(node)

    def tell_all_again(self) -> None:
        """Let the next report be about every node."""
        self._changed.update(self._on)

    def report(self) -> list[ForeignUsage]:
        """What changed since the last report. Added up anew each time, so that no error gathers."""
        events = []
        for node in sorted(self._changed):
            pods = self._on.get(node, {})
            events.append(ForeignUsage(node, total(pods.values()) if pods else {}))
            if not pods:
                self._on.pop(node, None)
        self._changed.clear()
        return events
