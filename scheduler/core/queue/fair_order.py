"""The order of release: one fair clock inside another, from groups over users to the jobs of a user.

Every level is the same `FairClock`. A level's clock is driven by the work that
its own gangs really held: all of the queue at the top, one user's for the jobs
of that user. Inside a user that gives the order of finish under equal sharing
among his jobs (short ones first, long ones age), with a tier for the priority
class above it; the shortest goes ahead of that where none of his jobs ends later
than promised for it (`inside`). The jobs' clock has no lag limit: with one, a long job would be
drawn along behind V and never reach its turn among short ones.

The gangs of a job wait in order of arrival and share the job's tag: jobs and
not their pieces are what finishes, so splitting a job changes nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from scheduler.core.queue.fair_clock import FairClock, Key, Order
from scheduler.core.queue.front import Front, Turn
from scheduler.core.queue.levels import JobTurn, Level, Path, Place, TurnsSoFar, WaitingJob


class FairOrder:
    """Waiting gangs in the order of the nested clocks; all changes go to every level."""

    def __init__(
        self,
        depth: int,
        lag_limit: float,
        weight_of: Callable[[Path], float],
        clock: Callable[[float], FairClock] = FairClock,
    ) -> None:
        """`depth`: levels of flows above the jobs (1: users, 2: groups and users); `clock` makes a clock."""
        self.depth = depth
        self._lag_limit = lag_limit
        self._weight_of = weight_of
        self._clock = clock
        self.top = Level(clock(lag_limit))
        self._by_arrival = False
        self._front = Front(self.top.clock, self.turns_anew, self._loose)

    def advance(self, now_s: float) -> None:
        """Tell the top clock what was delivered until now; inner clocks follow when they are next used."""
        self._advance(self.top, now_s)

    def arrive(self, place: Place, now_s: float) -> None:
        """A gang waits from now on."""
        levels = self._levels(place.path, now_s)
        for depth, level in enumerate(levels[:-1]):
            key = place.path[depth]
            level.clock.arrive(key, place.work, self._weight_of(place.path[: depth + 1]))
        jobs = levels[-1]
        job = jobs.jobs.setdefault(place.job, WaitingJob())
        job.gangs.put(place.uid, place.order)
        job.work += place.work
        job.last = max(job.last, place.order)
        jobs.clock.arrive(place.job, place.work, tier=place.job[0])
        self._count(levels, 1)
        self._tell_heads(place, levels)

    def withdraw(self, place: Place, now_s: float) -> None:
        """A waiting gang is gone."""
        levels = self._levels(place.path, now_s)
        for level, key in zip(levels, self._keys(place), strict=True):
            level.clock.withdraw(key, place.work)
        self._take_out(place, levels)
        self._tell_heads(place, levels)
        self._leave(place, levels)

    def charge(self, place: Place, now_s: float, *, waited: bool = True) -> None:
        """A gang is released; one that did not wait here is charged all the same."""
        levels = self._levels(place.path, now_s)
        weights = [self._weight_of(place.path[: depth + 1]) for depth in range(len(place.path))]
        tiers = [*(0 for _ in place.path), place.job[0]]
        for level, key, weight, tier in zip(levels, self._keys(place), [*weights, 1.0], tiers, strict=True):
            level.clock.charge(key, place.uid, place.work, waited=waited, weight=weight, tier=tier)
        if waited:
            self._take_out(place, levels)
        else:
            self._count(levels, 1)
        self._tell_heads(place, levels)

    def overrun(self, place: Place, so_far: float, now_s: float) -> None:
        """A running gang has used so much work."""
        levels = self._levels(place.path, now_s)
        for level, key in zip(levels, self._keys(place), strict=True):
            level.clock.overrun(key, place.uid, so_far)
        self._tell_heads(place, levels)

    def settle(self, place: Place, actual: float, now_s: float) -> None:
        """A charged gang is done with, having used so much work."""
        levels = self._levels(place.path, now_s)
        for level, key in zip(levels, self._keys(place), strict=True):
            level.clock.settle(key, place.uid, actual)
        self._tell_heads(place, levels)
        self._leave(place, levels)

    def hold(self, path: Path, change: float, holders: int, late_work: float, now_s: float) -> None:
        """The share that runs changes from now on; `late_work`: delivered and not counted, or too much."""
        for level in self._levels(path, now_s):
            level.held += change
            level.holders += holders
            level.owed += late_work
            if not level.holders:
                level.held = 0.0

    def reweigh(self, path: Path, weight: float, now_s: float) -> None:
        """Change the entitlement of a flow that is known."""
        levels = self._levels(path, now_s)
        if path[-1] in levels[len(path) - 1].clock.flows:
            levels[len(path) - 1].clock.reweigh(path[-1], weight)
            self._tell_first(path[:-1], levels[: len(path)])
        self._prune(path, levels)

    def turns(self, barred: Container[Path] = ()) -> Iterator[JobTurn]:
        """Waiting jobs in order of release, without those of barred flows; nothing may change meanwhile."""
        if self._moves_with_time():
            self._front.forget()
        elif not barred:
            return self._front.turns()
        return self.turns_anew(barred)

    def turns_anew(self, barred: Container[Path] = ()) -> Iterator[JobTurn]:
        """The same, worked out without what is kept of it."""
        return self._turns(self.top, (), barred)

    def _moves_with_time(self) -> bool:
        """True while the lag limit draws a flow along: then its place among the others changes with V."""
        inner = self.top.below.values() if self.depth > 1 else ()
        return self.top.clock.draws or any(level.clock.draws for level in inner)

    def find(self, place: Place, depth: int) -> tuple[int, float]:
        """Position (1 is the head) and tag of a waiting gang; beyond `depth` gangs 0 and a bound."""
        before = 0
        for turn in self.turns():
            if place.uid in turn.job.gangs:
                return before + 1 + turn.job.rank(place.order), turn.tag
            before += len(turn.job.gangs)
            if before >= depth:
                break
        flow = self.top.clock.flows[place.path[0]]
        return 0, self.top.clock.meter(place.path[0]) + flow.waiting_work / flow.weight

    def level(self, path: Path) -> Level | None:
        """The level below a flow; None when nothing of it is there."""
        level: Level | None = self.top
        for key in path:
            level = level.below.get(key) if level is not None else None
        return level

    def rescale(self, factor: float, own: Mapping[str, float], waiting: Iterable[Place]) -> None:
        """Works are worth `factor` times as much, charges by uid their `own`; `waiting`: the new places."""
        for _, level in self.levels():
            level.clock.rescale(factor, own)
            level.owed, level.held = level.owed * factor, 0.0
            for job in level.jobs.values():
                job.work = 0.0
        places = list(waiting)
        for place in places:
            levels = self._levels(place.path, self.top.counted_s)
            levels[-1].jobs[place.job].work += place.work
            for level, key in zip(levels, self._keys(place), strict=True):
                level.clock.flows[key].waiting_work += place.work
        for place in places:
            self._tell_heads(place, self._levels(place.path, self.top.counted_s))

    def set_lag_limit(self, lag_limit: float) -> None:
        """Another bound on credit, at all levels but the jobs'."""
        self._lag_limit = lag_limit
        for path, level in self.levels():
            if len(path) < self.depth:
                level.clock.set_lag_limit(lag_limit)

    def order_jobs_by_arrival(self, by_arrival: bool) -> None:
        """Inside a user, jobs go in order of arrival from now on, or by the fair clock."""
        self._by_arrival = by_arrival
        for path, level in list(self.levels()):
            if len(path) == self.depth:
                level.clock.order_by_arrival(by_arrival)
                level.put_first()
                self._tell_first(path, self._levels(path, self.top.counted_s))

    def levels(self) -> Iterator[tuple[Path, Level]]:
        """All levels with the path of the flow they are below."""
        pending: list[tuple[Path, Level]] = [((), self.top)]
        while pending:
            path, level = pending.pop()
            yield path, level
            pending.extend(((*path, key), below) for key, below in level.below.items())

    def new_level(self, depth: int) -> Level:
        """An empty level below so many flows; that of the jobs has no lag limit."""
        level = Level(self._clock(self._lag_limit if depth < self.depth else math.inf))
        level.clock.by_arrival = self._by_arrival and depth == self.depth
        return level

    def expect(self, place: Place) -> None:
        """Keep what was revived for a gang that is charged, until it is seen."""
        level = self.top
        level.gangs += 1
        for key in place.path:
            level = level.below[key]
            level.gangs += 1

    def end_of_revival(self, now_s: float) -> None:
        """All that waits is known again: a flow that waited at the checkpoint and no longer does is idle."""
        self.advance(now_s)
        for path, level in list(self.levels()):
            level.clock.end_of_revival()
            if path and not level.gangs:
                self._forget(path)

    def _turns(self, level: Level, path: Path, barred: Container[Path]) -> Iterator[JobTurn]:
        if not level.below:
            if level.turns is None or level.turns.changes != level.clock.changes:
                level.turns = TurnsSoFar(level)
            yield from level.turns
            return
        flows = level.clock.in_order()
        upcoming = next(flows, None)
        begun: list[tuple[float, Order, str, JobTurn, Iterator[JobTurn]]] = []
        while begun or upcoming is not None:
            if upcoming is not None and (not begun or upcoming[:2] <= begun[0][:2]):
                more = self._of_flow(level, path, upcoming[2], upcoming[0], barred)
                turn, upcoming = next(more, None), next(flows, None)
                if turn is None:
                    continue
            else:
                _, _, _, turn, more = heapq.heappop(begun)
            yield turn
            following = next(more, None)
            if following is not None:
                heapq.heappush(begun, (following.tag, following.order, str(turn.flow), following, more))

    def _of_flow(
        self, level: Level, path: Path, key: Key, tag: float, barred: Container[Path] = ()
    ) -> Iterator[JobTurn]:
        """A waiting flow's jobs in order, each tagged behind the one before; `tag` is that of the first."""
        below = (*path, str(key))
        if below in barred:
            return
        weight = level.clock.flows[key].weight
        place: tuple[float, Order] = (tag, ())
        for number, turn in enumerate(self._turns(level.below[str(key)], below, barred)):
            tag += turn.work / weight if number else 0.0
            place = max(place, (tag, turn.order))  # a job without work still comes after the one before it
            yield Turn(*place, turn.work, turn.job, key)

    def _loose(self, key: Key) -> Iterator[JobTurn]:
        """The jobs of a flow of the top level; none when it does not wait."""
        tag = self.top.clock.place(key)
        return iter(()) if tag is None else self._of_flow(self.top, (), key, tag)

    def _forget(self, path: Path) -> None:
        above = self.level(path[:-1])
        if above is not None:
            above.below.pop(path[-1], None)

    def _keys(self, place: Place) -> tuple[Key, ...]:
        return (*place.path, place.job)

    def _levels(self, path: Path, now_s: float) -> list[Level]:
        """Levels from the top to the one below the path's last flow, their clocks told what was delivered."""
        levels = [self.top]
        for depth, key in enumerate(path):
            below = levels[-1].below
            if key not in below:
                below[key] = self.new_level(depth + 1)
            levels.append(below[key])
        for level in levels:
            self._advance(level, now_s)
        return levels

    def _advance(self, level: Level, now_s: float) -> None:
        if now_s > level.counted_s:
            elapsed_s = now_s - level.counted_s if level.held else 0.0
            level.counted_s = now_s
            delivered = level.held * elapsed_s + level.owed
            level.owed = min(0.0, delivered)
            level.clock.advance(delivered)

    def _take_out(self, place: Place, levels: list[Level]) -> None:
        jobs = levels[-1].jobs
        job = jobs[place.job]
        job.gangs.remove(place.uid)
        job.work -= place.work
        if not job.gangs:
            del jobs[place.job]

    def _tell_heads(self, place: Place, levels: list[Level]) -> None:
        """After a change of waiting gangs or charges: where each flow's first job ends, told to its clock."""
        job = levels[-1].jobs.get(place.job)
        if job is not None:
            levels[-1].clock.set_head(place.job, job.work, job.head())
        levels[-1].put_first()
        self._tell_first(place.path, levels)

    def _tell_first(self, path: Path, levels: list[Level]) -> None:
        for depth in range(len(levels) - 2, -1, -1):
            turn = next(self._turns(levels[depth + 1], (), ()), None)
            if turn is not None:
                levels[depth].clock.set_head(path[depth], turn.work, turn.order)

    def _count(self, levels: list[Level], change: int) -> None:
        for level in levels:
            level.gangs += change

    def _leave(self, place: Place, levels: list[Level]) -> None:
        self._count(levels, -1)
        self._prune(place.path, levels)

    def _prune(self, path: Path, levels: list[Level]) -> None:
        """Forget the inside of a flow of which nothing waits or is charged."""
        for depth in range(len(path), 0, -1):
            if not levels[depth].gangs:
                del levels[depth - 1].below[path[depth - 1]]
