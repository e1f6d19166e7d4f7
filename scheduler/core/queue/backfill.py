"""The reservation of the gang that is next and does not fit, and who may go ahead of it.

The head gets the earliest time at which it would fit if what runs ends as
predicted (p90). Another gang may go first if it fits now and either ends by
then (p90 again) or leaves alone what the head will need: then it must fit, on
the same nodes, beside the head in the state expected at that time (EASY
backfill, Lifka 1995, on predictions). Where the scheduler does not follow the
planned nodes, or an end comes later than its p90, the head can be delayed; the
receipt names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.core.queue.capacity import Capacity, Counts, Placement, Trial
from scheduler.core.queue.events import GangPod, Shape
from scheduler.core.queue.resources import copies

OVERDUE_FACTOR = 0.25
"""A gang beyond its p90 is expected to last this part of its age longer."""
SOONEST_S = 1.0


@dataclass(slots=True)
class Reservation:
    """Room for one gang from `start_s` on; `future` has it in place.

    `tag` is the gang's when it was last looked at, less `favour`: by how much
    backfill of its own flow has raised it since the reservation was made.
    """

    uid: str
    tag: float
    order: tuple[object, ...]
    start_s: float
    future: Trial
    node_changes: int
    favour: float = 0.0
    beside: dict[Shape, Counts] = field(default_factory=dict)

    def pass_to(self, uid: str, tag: float, order: tuple[object, ...]) -> None:
        """Another gang of the same kind has it now."""
        self.uid, self.tag, self.order, self.favour = uid, tag, order, 0.0

    def room_beside(self, capacity: Capacity, shape: Shape) -> int:
        """How many pods of a shape fit now that would also fit beside the reserved gang."""
        now = capacity.counts(shape)
        beside = self.beside.get(shape)
        if beside is None:
            beside = self.beside[shape] = Counts()
            capacity.changed_since(beside)
            names: Iterable[str] = now
        else:
            names = capacity.changed_since(beside)
        for name in names:
            here = now.get(name, 0)
            beside.put(name, min(here, copies(self.future.peek(name), shape.requests)) if here else 0)
        return beside.total


class End(NamedTuple):
    """Pods (uids) that are expected to be gone at `at_s`."""

    at_s: float
    pods: Sequence[str]


def overdue_end_s(started_s: float, now_s: float) -> float:
    """When a gang that outlived its p90 is expected to end."""
    return now_s + max(SOONEST_S, OVERDUE_FACTOR * (now_s - started_s))


def earliest_start(
    capacity: Capacity, pods: Sequence[GangPod], ends: Iterable[End], now_s: float
) -> tuple[float, Trial] | None:
    """When `pods` will fit, given ends in order of time, and the state then with them; None if never."""
    trial = Trial(capacity)
    counts = _Needed(capacity, trial, pods)
    at_s = now_s
    for end in ends:
        at_s = max(at_s, end.at_s)
        for pod in end.pods:
            node = capacity.node_of(pod)
            trial.give_back(pod)
            counts.look_at(node)
        if counts.met() and trial.place(pods) is not None:
            return at_s, trial
    return None


def may_go_ahead(
    capacity: Capacity, pods: Sequence[GangPod], end_s: float, reservation: Reservation
) -> Placement | None:
    """A placement of `pods` now that does not delay the reservation; None when there is none."""
    if end_s <= reservation.start_s:
        return capacity.place(pods)
    if not all(capacity.fits_one(pod.shape) for pod in pods):
        return None
    return Trial(capacity).place(pods, within=reservation.future)


class _Needed:
    """Counts, per shape, how many pods fit each by itself: a quick necessary condition."""

    def __init__(self, capacity: Capacity, trial: Trial, pods: Sequence[GangPod]) -> None:
        self._capacity, self._trial = capacity, trial
        self._needed: dict[Shape, int] = {}
        for pod in pods:
            self._needed[pod.shape] = self._needed.get(pod.shape, 0) + 1
        self._on = {shape: dict(capacity.counts(shape)) for shape in self._needed}
        self._total = {shape: sum(on.values()) for shape, on in self._on.items()}

    def look_at(self, node: str) -> None:
        """Something changed on a node."""
        for shape, on in self._on.items():
            if node and self._capacity.may_host(shape, node):
                now = copies(self._trial.peek(node), shape.requests)
                self._total[shape] += now - on.get(node, 0)
                on[node] = now

    def met(self) -> bool:
        """True when each shape by itself has enough room."""
        return all(self._total[shape] >= number for shape, number in self._needed.items())
