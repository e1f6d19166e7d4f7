"""A cluster for the fair queue's tests: released gangs start at once and run as long as they really do.

It is independent of the gatekeeper's own books: what runs where is counted
here, and every release is checked against the capacity here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from scheduler.core.queue.actions import Action, ReleaseGang, Settled
from scheduler.core.queue.events import (
    Estimate,
    Event,
    Gang,
    GangArrived,
    GangEnded,
    GangStarted,
    NodeSet,
    Tick,
)
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings

TICK_S = 30.0


@dataclass(frozen=True)
class Work:
    """A job: `tasks` gangs of `width` slots, `task_s` each; `told` times that is estimated."""

    flow: str
    at_s: float
    tasks: int
    task_s: float
    told: float = 1.0
    width: int = 1
    priority: int = 0

    @property
    def slot_seconds(self) -> float:
        """All work of the job."""
        return self.tasks * self.width * self.task_s


@dataclass
class Run:
    """What became of it all. `finish_s` by index of the job; `held` slot-seconds by flow."""

    finish_s: dict[int, float] = field(default_factory=dict)
    first_release_s: dict[int, float] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    actions: list[tuple[float, Action]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    most_busy: int = 0

    @property
    def settled(self) -> list[Settled]:
        """All settlements."""
        return [action for _, action in self.actions if isinstance(action, Settled)]


class SlotCluster:
    """So many slots, a gatekeeper, and a heap of what happens when."""

    def __init__(
        self,
        slots: int,
        clock: Callable[[float], FairClock] = FairClock,
        settings: QueueSettings | None = None,
        **knobs: object,
    ) -> None:
        self.slots = slots
        self.keeper = Gatekeeper(settings or slots_settings(slots, **knobs), clock)
        self.run = Run()
        self.now_s = 0.0
        self.free = slots
        self.refill: Callable[[str, float], None] | None = None
        self.durations: dict[str, float] = {}
        self._widths: dict[str, int] = {}
        self._flows: dict[str, str] = {}
        self._jobs: dict[str, int] = {}
        self._left: dict[int, int] = {}
        self._heap: list[tuple[float, int, Event]] = []
        self._number = 0
        self.push(0.0, NodeSet(slots_node(slots)))

    def push(self, at_s: float, event: Event) -> None:
        """Let something happen."""
        self._number += 1
        heapq.heappush(self._heap, (at_s, self._number, event))

    def submit(self, gang: Gang, duration_s: float, at_s: float | None = None, job: int = -1) -> None:
        """A gang that will really run so long."""
        self.durations[gang.uid], self._widths[gang.uid] = duration_s, len(gang.pods)
        self._flows[gang.uid], self._jobs[gang.uid] = gang.flow, job
        self._left[job] = self._left.get(job, 0) + 1
        self.push(gang.arrived_s if at_s is None else at_s, GangArrived(gang))

    def submit_all(self, works: Sequence[Work]) -> SlotCluster:
        """Jobs, each as its tasks."""
        for index, work in enumerate(works):
            for gang in gangs_of(index, work):
                self.submit(gang, work.task_s, job=index)
        return self

    def play(self, until_s: float = float("inf")) -> Run:
        """Let time pass until nothing happens any more."""
        next_tick_s = self.now_s + TICK_S
        while self._heap and self._heap[0][0] <= until_s:
            if next_tick_s <= self._heap[0][0]:  # what it releases may happen before the next event
                self._send(Tick(), next_tick_s)
                next_tick_s += TICK_S
                continue
            at_s, _, event = heapq.heappop(self._heap)
            self._send(event, at_s)
        return self.run

    def _send(self, event: Event, at_s: float) -> None:
        self.now_s = at_s
        if isinstance(event, GangEnded):
            self._ended(event.uid)
        for action in self.keeper.handle(event, at_s):
            self.run.actions.append((at_s, action))
            if isinstance(action, ReleaseGang):
                self._start(action)
        if isinstance(event, GangEnded) and self.refill is not None:
            self.refill(self._flows[event.uid], at_s)

    def _start(self, action: ReleaseGang) -> None:
        uid = action.uid
        self.free -= self._widths[uid]
        assert self.free >= 0, f"{uid} was released although there is no room"
        self.run.most_busy = max(self.run.most_busy, self.slots - self.free)
        self.run.released.append(uid)
        self.run.first_release_s.setdefault(self._jobs[uid], self.now_s)
        self.push(self.now_s, GangStarted(uid))
        self.push(self.now_s + self.durations[uid], GangEnded(uid))

    def _ended(self, uid: str) -> None:
        self.free += self._widths[uid]
        flow, job = self._flows[uid], self._jobs[uid]
        self.run.held[flow] = self.run.held.get(flow, 0.0) + self._widths[uid] * self.durations[uid]
        self._left[job] -= 1
        if not self._left[job]:
            self.run.finish_s[job] = self.now_s


def gangs_of(index: int, work: Work) -> Iterable[Gang]:
    """A job's gangs; they share the job's name."""
    estimate = Estimate.exactly(work.task_s * work.told)
    for task in range(work.tasks):
        uid = f"j{index:04d}.{task:05d}"
        yield slots_gang(
            uid, work.flow, work.at_s, estimate, work.width, job=f"j{index:04d}", priority=work.priority
        )


def play(
    works: Sequence[Work], slots: int, clock: Callable[[float], FairClock] = FairClock, **knobs: object
) -> Run:
    """Play these jobs on so many slots."""
    return SlotCluster(slots, clock, **knobs).submit_all(works).play()
