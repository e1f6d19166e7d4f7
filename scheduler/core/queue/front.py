"""The front of the line, kept from event to event.

What happens to a flow moves its own jobs and nobody else's: tags are absolute.
So the jobs at the front are listed once, and after an event only those of the
flows it touched are put in anew. A flow with many jobs at the front would make
that dear: it is *loose*, left out of the list and merged in when the line is
read. When the list turns out too short, or many flows are loose, it is made
again.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Generic, NamedTuple, TypeVar

from scheduler.core.queue.fair_clock import FairClock, Key, Order

LOOSE_FLOWS, LISTED_JOBS = 16, 16
"""With more loose flows the list is made again; a touched flow with more jobs at the front is loose."""
SHORTEST, LONGEST = 64, 512
"""Length of the list; whoever reads further reads as if there was none."""
Job = TypeVar("Job")


class Turn(NamedTuple, Generic[Job]):
    """A job in the order of a level: its tag there, its waiting work, its gangs, the flow it is of there."""

    tag: float
    order: Order
    work: float
    job: Job
    flow: Key


_Begun = list[tuple[float, Order, int, Turn[Job], Iterator[Turn[Job]]]]
"""A heap of loose flows: the next turn of each, and those that follow."""


class Front(Generic[Job]):
    """The first turns of a clock's flows. `every` gives all turns in order, `of_flow` those of one flow."""

    def __init__(
        self,
        clock: FairClock,
        every: Callable[[], Iterator[Turn[Job]]],
        of_flow: Callable[[Key], Iterator[Turn[Job]]],
    ) -> None:
        self._touched = clock.touched = set[Key]()
        self._every, self._of_flow = every, of_flow
        self._listed: list[Turn[Job]] = []
        self._until: tuple[float, Order] | None = (-math.inf, ())
        """Where the list ends; None: it holds all that wait."""
        self._loose: set[Key] = set()

    def turns(self) -> Iterator[Turn[Job]]:
        """All turns in order; nothing may change meanwhile."""
        if self._touched:
            self._renew()
        given = 0
        while given < LONGEST:
            for turn in islice(self._merged(), given, None) if self._loose else self._listed[given:]:
                given += 1
                yield turn
            if self._until is None:
                return
            self._list(given)
        yield from islice(self._every(), given, None)

    def forget(self) -> None:
        """The list is of no use now."""
        self._listed, self._until = [], (-math.inf, ())
        self._loose.clear()
        self._touched.clear()

    def _list(self, needed: int) -> None:
        length = min(LONGEST, max(SHORTEST, 2 * needed))
        self._listed = list(islice(self._every(), length))
        self._until = self._listed[-1][:2] if len(self._listed) == length else None
        self._loose.clear()

    def _renew(self) -> None:
        """Put the jobs of touched flows where they belong now."""
        self._listed = [turn for turn in self._listed if turn.flow not in self._touched]
        for key in self._touched - self._loose:
            jobs = list(islice(self._at_front(key), LISTED_JOBS + 1))
            if len(jobs) > LISTED_JOBS:
                self._loose.add(key)
                continue
            for turn in jobs:
                insort(self._listed, turn, key=_place)
        self._touched.clear()
        if len(self._loose) > LOOSE_FLOWS:
            self._list(len(self._listed) // 2)
        elif len(self._listed) > LONGEST:
            del self._listed[LONGEST // 2 :]
            self._until = self._listed[-1][:2]

    def _at_front(self, key: Key) -> Iterator[Turn[Job]]:
        until = self._until
        return takewhile(lambda turn: until is None or turn[:2] <= until, self._of_flow(key))

    def _merged(self) -> Iterator[Turn[Job]]:
        """What is listed with what is loose, as far as the list goes."""
        loose = self._loose
        begun: _Begun[Job] = []
        for number, key in enumerate(loose):
            _begin(begun, number, self._of_flow(key))
        for turn in self._listed:
            while begun and begun[0][:2] < turn[:2]:
                yield _next(begun)
            if turn.flow not in loose:
                yield turn
        while begun and (self._until is None or begun[0][:2] <= self._until):
            yield _next(begun)


def _place(turn: Turn[Job]) -> tuple[float, Order]:
    return turn[:2]


def _begin(begun: _Begun[Job], number: int, more: Iterator[Turn[Job]]) -> None:
    turn = next(more, None)
    if turn is not None:
        heapq.heappush(begun, (turn.tag, turn.order, number, turn, more))


def _next(begun: _Begun[Job]) -> Turn[Job]:
    _, _, number, turn, more = heapq.heappop(begun)
    _begin(begun, number, more)
    return turn
