"""What the levels of the fair order are made of: places, waiting jobs, and the jobs of a level in order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice, takewhile

from scheduler.core.queue.fair_clock import FairClock, Key, Order
from scheduler.core.queue.front import Turn
from scheduler.core.queue.inside import LOOKED_AT, first_inside
from scheduler.core.queue.ordered import Ordered

Path = tuple[str, ...]
"""Flow keys from the top: (user,) or (group, user)."""
JobKey = tuple[int, str]
"""Priority and name of a job inside its user."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gang belongs: its flow's path, its job there, when it arrived, its estimated work."""

    uid: str
    path: Path
    job: JobKey
    arrived_s: float
    work: float

    @property
    def order(self) -> Order:
        """Who goes first at equal tags."""
        return (self.arrived_s, self.uid)


@dataclass(slots=True)
class WaitingJob:
    """The waiting gangs of one job, oldest first; `work` is theirs in sum."""

    gangs: Ordered[str] = field(default_factory=Ordered)
    work: float = 0.0
    last: Order = (-math.inf, "")

    def head(self) -> Order:
        """Arrival and uid of the oldest."""
        first = self.gangs.first()
        assert first is not None
        return first[0]

    def rank(self, order: Order) -> int:
        """How many of the job's gangs go before one; mostly it is the youngest."""
        if order >= self.last:
            return len(self.gangs) - 1
        return sum(1 for key, _ in self.gangs.in_order() if key < order)


@dataclass(slots=True)
class Level:
    """A clock, what hangs below its flows, the share that runs now; `counted_s`: until when V was told.

    `first`, in a level of jobs: who goes ahead of the order of tags, if anybody does.
    """

    clock: FairClock
    below: dict[str, Level] = field(default_factory=dict)
    jobs: dict[Key, WaitingJob] = field(default_factory=dict)
    held: float = 0.0
    holders: int = 0
    owed: float = 0.0
    counted_s: float = -math.inf
    gangs: int = 0
    turns: TurnsSoFar | None = None
    first: Key | None = None

    def jobs_by_tag(self) -> Iterator[JobTurn]:
        """The waiting jobs in the order of tiers and tags."""
        for tag, order, key in self.clock.in_order():
            yield Turn(tag, order, self.jobs[key].work, self.jobs[key], key)

    def jobs_in_order(self) -> Iterator[JobTurn]:
        """The waiting jobs in the order in which they go."""
        first = self.first
        if first is None:
            yield from self.jobs_by_tag()
            return
        job, order = self.jobs[first], self.clock.flows[first].head_order
        yield Turn(self.clock.tag(first), order, job.work, job, first)
        yield from (turn for turn in self.jobs_by_tag() if turn.flow != first)

    def put_first(self) -> None:
        """Decide who goes first among jobs of the highest tier: anew with whatever happens to one of them."""
        before, self.first = self.first, None
        if len(self.jobs) > 1 and not self.clock.by_arrival:
            turns = list(islice(self.jobs_by_tag(), LOOKED_AT))
            tier = self.clock.flows[turns[0].flow].tier
            peers = list(takewhile(lambda turn: self.clock.flows[turn.flow].tier == tier, turns))
            best = first_inside(peers, self.clock.virtual_time)
            self.first = best.flow if best is not peers[0] else None
        if self.first != before:
            self.turns = None


JobTurn = Turn[WaitingJob]


class TurnsSoFar:
    """The jobs of one level in order, as far as anybody asked; holds until the level's clock changes."""

    def __init__(self, level: Level) -> None:
        self.changes = level.clock.changes
        self._known: list[JobTurn] = []
        self._more = level.jobs_in_order()

    def __iter__(self) -> Iterator[JobTurn]:
        for index in count():
            if index == len(self._known):
                turn = next(self._more, None)
                if turn is None:
                    return
                self._known.append(turn)
            yield self._known[index]
