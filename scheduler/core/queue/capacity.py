"""What is free on the queue's nodes, and whether all pods of a gang fit at once.

The usable capacity is what ready, schedulable nodes of the queue can allocate,
less what pods of others request; our own pods count from their release on.
A gang is placed pod by pod on a copy. Pods of one shape do not get in each
other's way beyond their number, so for them counting is exact: each shape in
use keeps, node by node, how many of it fit, and looks again only at nodes that
changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from scheduler.core.queue.events import GangPod, Node, Shape
from scheduler.core.queue.matching import allowed, belongs
from scheduler.core.queue.resources import TOLERANCE, Requests, copies, fits, take
from scheduler.core.queue.taints import Toleration

SHAPES_KEPT = 512
"""Shapes whose counts are kept; of others they are made anew when asked for."""
_CHANGES_KEPT = 4096
Placement = dict[str, str]
"""Node by pod uid."""


@dataclass(slots=True)
class Room:
    """A node, what is free there, and what is free there without our pods."""

    node: Node | None = None
    foreign: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)
    pods: dict[str, Requests] = field(default_factory=dict)
    crowded: bool = False
    """More is on it than fits, by no release of ours: it shrank, or others came, or the plan was not kept."""

    def without_ours(self) -> dict[str, float]:
        """What the queue could use of the node if nothing of ours ran."""
        assert self.node is not None
        known = {*self.node.allocatable}
        return {name: self.node.allocatable[name] - self.foreign.get(name, 0.0) for name in known}


@dataclass(slots=True)
class Counts:
    """How many pods of a shape fit on each node (only where any do), as of one version of the capacity."""

    version: int = -1
    on: dict[str, int] = field(default_factory=dict)
    total: int = 0

    def put(self, node: str, count: int) -> None:
        self.total += count - self.on.pop(node, 0)
        if count:
            self.on[node] = count


class Capacity:
    """Nodes with what is free on them; pods of ours by uid."""

    def __init__(
        self, selector: Mapping[str, str], tolerations: tuple[Toleration, ...] | None = None
    ) -> None:
        self._selector, self._tolerations = dict(selector), tolerations
        self._rooms: dict[str, Room] = {}
        self._where: dict[str, tuple[str, Requests]] = {}
        self._plans: dict[str, Shape] = {}
        self._shapes: OrderedDict[Shape, Counts] = OrderedDict()
        self._changes: list[str] = []
        self._forgotten = 0
        self.gains = 0
        """Raised whenever something was freed: what did not fit may fit now."""
        self.node_changes = 0
        """Raised whenever the queue's nodes, or what others use of them, changed."""
        self._share = (-1, 0.0)
        self.usable = 0
        """Number of nodes that can take pods of this queue."""

    def set_node(self, node: Node) -> None:
        """Add a node or replace what is known of it."""
        room = self._rooms.setdefault(node.name, Room())
        if room.node != node:
            self.usable += self.is_usable(node) - self.is_usable(room.node)
            room.node = node
            self._recount(node.name, room)

    def remove_node(self, name: str) -> None:
        """Forget a node; our pods there are forgotten when they are reported gone."""
        room = self._rooms.get(name)
        if room is not None and room.node is not None:
            self.usable -= self.is_usable(room.node)
            room.node = None
            self._recount(name, room)

    def set_foreign(self, name: str, requests: Mapping[str, float]) -> None:
        """What pods that are not ours request on a node in sum."""
        room = self._rooms.setdefault(name, Room())
        if room.foreign != requests:
            room.foreign = dict(requests)
            self._recount(name, room)

    def plan(self, pod: GangPod, node: str) -> None:
        """Count a pod of ours on the node where it is expected."""
        if self._where.get(pod.uid) != (node, pod.shape.requests):
            self._count(pod.uid, node, pod.shape.requests)
        self._plans[pod.uid] = pod.shape

    def move(self, pods: Sequence[tuple[GangPod, str]]) -> bool:
        """Count planned pods on other nodes, if all of them fit there at once; False when they do not."""
        trial = Trial(self)
        for pod, _ in pods:
            trial.give_back(pod.uid)
        for pod, node in pods:
            there = node in self._rooms and self.may_host(pod.shape, node)
            if not there or not fits(trial.peek(node), pod.shape.requests):
                return False
            take(trial.free(node), pod.shape.requests)
        for pod, node in pods:
            self.plan(pod, node)
        return True

    def put(self, pod: str, node: str, requests: Requests) -> None:
        """Count a pod of ours on the node where it was found, and nowhere else.

        What was planned there and has no room any more is planned elsewhere if
        possible, first of all where this pod was expected: kube-scheduler has
        swapped them, and the room of both is still taken.
        """
        self._plans.pop(pod, None)
        if self._where.get(pod) == (node, requests):
            return
        self._count(pod, node, requests)
        room = self._rooms[node]
        for other in [uid for uid in room.pods if uid in self._plans] if _negative(room) else ():
            if _negative(room):
                self._plan_elsewhere(other)
        room.crowded = room.crowded or _negative(room)

    def drop(self, pod: str) -> None:
        """A pod of ours is no longer there."""
        found = self._where.pop(pod, None)
        self._plans.pop(pod, None)
        if found is None:
            return
        node, requests = found
        room = self._rooms[node]
        del room.pods[pod]
        if room.pods or room.node is None:
            take(room.free, requests, -1.0)
        else:
            room.free = room.without_ours() if self.is_usable(room.node) else {}
        room.crowded = room.crowded and _negative(room)
        self.gains += 1
        self._changed(node)
        if room.node is None and not room.pods and not room.foreign:
            del self._rooms[node]

    def place(self, pods: Sequence[GangPod]) -> Placement | None:
        """A node for every pod so that all fit at once now; None when there is none."""
        shapes = {pod.shape for pod in pods}
        if any(not self.fits_one(shape) for shape in shapes):
            return None
        if len(shapes) == 1:
            return self._place_alike(pods, next(iter(shapes)))
        return Trial(self).place(pods)

    def fits_one(self, shape: Shape) -> bool:
        """True when at least one pod of this shape fits somewhere now."""
        return self._counts(shape).total > 0

    def room_for(self, shape: Shape) -> int:
        """How many pods of this shape fit now."""
        return self._counts(shape).total

    def counts(self, shape: Shape) -> Mapping[str, int]:
        """How many pods of this shape fit now, by node, where any do."""
        return self._counts(shape).on

    def changed_since(self, counts: Counts) -> Iterable[str]:
        """Nodes to look at again, some perhaps for nothing; from now on the counts are as of now."""
        version, counts.version = counts.version, self._forgotten + len(self._changes)
        if version == counts.version:
            return ()
        if version < self._forgotten:
            return [*self._rooms, *(name for name in counts.on if name not in self._rooms)]
        return set(self._changes[version - self._forgotten :])

    def node_of(self, pod: str) -> str:
        """Where a pod of ours is counted; empty when nowhere."""
        return self._where.get(pod, ("", ()))[0]

    def rooms(self) -> Mapping[str, Room]:
        """All nodes known, for reading."""
        return self._rooms

    def room(self, name: str) -> Room:
        """One node, for reading."""
        return self._rooms[name]

    def may_host(self, shape: Shape, name: str) -> bool:
        """True when the node is usable and selector, affinity and taints allow the shape there."""
        node = self._rooms[name].node
        return node is not None and self.is_usable(node) and allowed(shape, node)

    def is_usable(self, node: Node | None) -> bool:
        """True for a node of this queue that takes pods."""
        if node is None or not (node.ready and node.schedulable):
            return False
        return belongs(node, self._selector, self._tolerations)

    def share_of(self, reference: Mapping[str, float]) -> float:
        """How much of the reference the usable nodes have left by others; O(nodes) after a change."""
        if self._share[0] != self.node_changes:
            whole: dict[str, float] = {}
            for room in self._rooms.values():
                if self.is_usable(room.node):
                    for name, amount in room.without_ours().items():
                        whole[name] = whole.get(name, 0.0) + amount
            share = min((whole.get(name, 0.0) / amount for name, amount in reference.items()), default=0.0)
            self._share = (self.node_changes, max(share, 1e-9))
        return self._share[1]

    def select(self, selector: Mapping[str, str], tolerations: tuple[Toleration, ...] | None) -> None:
        """Other nodes belong to the queue from now on."""
        self._selector, self._tolerations = dict(selector), tolerations
        self.usable = sum(self.is_usable(room.node) for room in self._rooms.values())
        for name, room in list(self._rooms.items()):
            self._recount(name, room)

    def _count(self, pod: str, node: str, requests: Requests) -> None:
        self.drop(pod)
        room = self._rooms.setdefault(node, Room())
        self._where[pod] = (node, requests)
        room.pods[pod] = requests
        take(room.free, requests)
        self._changed(node)

    def _plan_elsewhere(self, pod: str) -> None:
        shape = self._plans[pod]
        there = self._counts(shape).on
        if there:
            self.plan(GangPod(pod, shape), min(there, key=lambda node: (there[node], node)))

    def _place_alike(self, pods: Sequence[GangPod], shape: Shape) -> Placement | None:
        """Fullest nodes first, which keeps large holes for large pods."""
        counts = self._counts(shape)
        if counts.total < len(pods):
            return None
        placement: Placement = {}
        waiting = iter(pods)
        fullest = nsmallest(len(pods), ((count, node) for node, count in counts.on.items()))
        for count, node in fullest:
            for pod in [pod for _, pod in zip(range(count), waiting, strict=False)]:
                placement[pod.uid] = node
        return placement

    def _counts(self, shape: Shape) -> Counts:
        counts = self._shapes.get(shape)
        if counts is None:
            counts = self._shapes[shape] = Counts()
            if len(self._shapes) > SHAPES_KEPT:
                self._shapes.popitem(last=False)
        else:
            self._shapes.move_to_end(shape)
        for name in self.changed_since(counts):
            room = self._rooms.get(name)
            there = room is not None and self.may_host(shape, name)
            counts.put(name, copies(self._rooms[name].free, shape.requests) if there else 0)
        return counts

    def _recount(self, name: str, room: Room) -> None:
        room.free = room.without_ours() if room.node is not None and self.is_usable(room.node) else {}
        for requests in room.pods.values():
            take(room.free, requests)
        room.crowded = _negative(room)
        self.gains += 1
        self.node_changes += 1
        self._changed(name)
        if room.node is None and not room.pods and not room.foreign:
            del self._rooms[name]

    def _changed(self, name: str) -> None:
        self._changes.append(name)
        if len(self._changes) > _CHANGES_KEPT:
            self._forgotten += len(self._changes) - _CHANGES_KEPT // 2
            del self._changes[: -_CHANGES_KEPT // 2]


def _negative(room: Room) -> bool:
    return room.node is not None and any(
        amount < -TOLERANCE * (1.0 + room.node.allocatable.get(name, 0.0))
        for name, amount in room.free.items()
    )


class Trial:
    """A copy of the capacity on which pods are placed and given back; only what changes is copied.

    With a `base` it is a copy of that trial.
    """

    def __init__(self, capacity: Capacity, base: Trial | None = None) -> None:
        self._capacity, self._base = capacity, base
        self._free: dict[str, dict[str, float]] = {}

    def free(self, node: str) -> dict[str, float]:
        """What is free on a node here; may be changed."""
        if node not in self._free:
            self._free[node] = dict(self.peek(node))
        return self._free[node]

    def peek(self, node: str) -> Mapping[str, float]:
        """What is free on a node here, for reading."""
        found = self._free.get(node)
        if found is not None:
            return found
        return self._base.peek(node) if self._base is not None else self._capacity.room(node).free

    def give_back(self, pod: str) -> None:
        """Count a pod of ours as gone."""
        node = self._capacity.node_of(pod)
        room = self._capacity.rooms().get(node)
        if room is not None and room.node is not None:
            take(self.free(node), room.pods[pod], -1.0)

    def empty(self) -> None:
        """Count all pods of ours as gone."""
        for name, room in self._capacity.rooms().items():
            if room.node is not None:
                self._free[name] = room.without_ours()

    def place(self, pods: Sequence[GangPod], within: Trial | None = None) -> Placement | None:
        """Place pods one by one, large ones first, on the fullest node that has room (here and in `within`).

        None when not all fit; then nothing is changed.
        """
        here, there = Trial(self._capacity, self), None if within is None else Trial(self._capacity, within)
        placement: Placement = {}
        for pod in sorted(pods, key=lambda pod: sorted(pod.shape.requests), reverse=True):
            node = here._best(pod.shape, there)
            if node is None:
                return None
            placement[pod.uid] = node
            for trial in (here, there):
                if trial is not None:
                    take(trial.free(node), pod.shape.requests)
        for trial, changed in ((self, here), (within, there)):
            if trial is not None and changed is not None:
                trial._free.update(changed._free)
        return placement

    def _best(self, shape: Shape, within: Trial | None) -> str | None:
        """Only nodes with room at present, and those changed here, can have room here."""
        best: tuple[int, str] | None = None
        for name in {*self._capacity.counts(shape), *self._changed()}:
            free = self.peek(name)
            if not fits(free, shape.requests) or not self._capacity.may_host(shape, name):
                continue
            if within is not None and not fits(within.peek(name), shape.requests):
                continue
            rank = (copies(free, shape.requests), name)
            if best is None or rank < best:
                best = rank
        return best[1] if best is not None else None

    def _changed(self) -> set[str]:
        return self._free.keys() | (self._base._changed() if self._base is not None else set())
