"""One possible future of the queue: the same core, run forward on drawn ends and drawn arrivals.

A run time is drawn from p10, p50 and p90 as two halves of log-normal
distributions that meet in the median; for what runs already, given that it
has run so long. The gangs of one job share their luck: an estimate that is
wrong for one of them is wrong for all, and what one outlived the others will.
Where some of a job have ended, each of the others takes as long, compared with
its estimate, as one of these. What was released starts at once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.arrivals import Chance
from scheduler.core.queue.backfill import overdue_end_s
from scheduler.core.queue.events import (
    Estimate,
    Event,
    Gang,
    GangArrived,
    GangEnded,
    GangStarted,
    ReleaseDone,
    Tick,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.photograph import Job, Photograph, job_of

TICK_S = 30.0
"""At first; later in the future as a part of the time that has passed."""
TICK_PART = 0.1
FARTHEST_S = 30 * 86_400.0
_NORMAL = NormalDist()
_TENTH = 1.2815515655446004
"""Standard deviations from the median to p10 and p90 of a normal distribution."""
_BEYOND = 0.999
"""What outlived so much of its distribution follows it no longer."""


def run_time_s(estimate: Estimate, part: float, age_s: float = 0.0) -> float:
    """The run time that is longer than this part (0 to 1) of those an estimate speaks of, and than `age_s`.

    What outlived nearly all of them lasts some part of its age longer.
    """
    if age_s > 0 and reached(estimate, age_s) >= _BEYOND:
        return age_s + (overdue_end_s(0.0, age_s) - age_s) * (0.5 + part)
    return max(_quantile_s(estimate, min(max(part, 1e-6), 1 - 1e-6)), age_s + 1e-3)


def _quantile_s(estimate: Estimate, part: float) -> float:
    deviations = _NORMAL.inv_cdf(part)
    low, high = _spreads(estimate)
    return estimate.p50_s * math.exp(deviations * (low if deviations < 0 else high))


def reached(estimate: Estimate, age_s: float) -> float:
    """Which part of such runs is over by that age."""
    if age_s <= 0:
        return 0.0
    low, high = _spreads(estimate)
    distance = math.log(age_s / estimate.p50_s)
    spread = low if distance < 0 else high
    if spread <= 0:
        return 0.0 if distance < 0 else 1.0
    return _NORMAL.cdf(distance / spread)


def _spreads(estimate: Estimate) -> tuple[float, float]:
    """Of the logarithm, below and above the median; a p10 of 0 is taken for a hundredth of it."""
    low_s = max(estimate.p10_s, estimate.p50_s / 100)
    return math.log(estimate.p50_s / low_s) / _TENTH, math.log(estimate.p90_s / estimate.p50_s) / _TENTH


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a future was followed: all gangs that started until `until_s`; `whole` if none is left."""

    starts_s: dict[str, float]
    until_s: float
    whole: bool


class Future:
    """One future of `keeper`, which is used up: `photo` is what it was made from."""

    def __init__(
        self, keeper: Gatekeeper, photo: Photograph, arrivals: Iterable[Gang], chance: Chance
    ) -> None:
        self._keeper, self._chance, self._now_s = keeper, chance, photo.now_s
        self._from_s, self._arrivals = photo.now_s, iter(arrivals)
        self._asked = {gang.uid for gang in photo.waiting}
        self._waiting = {gang.uid: gang for gang in photo.waiting}
        self._starts_s: dict[str, float] = {}
        self._parts: dict[Job, float] = {}
        self._ratios = photo.ratios
        self._heap: list[tuple[float, int, Event]] = []
        self._pushed = 0
        began_s = [photo.now_s if one.started_s is None else one.started_s for one in photo.released]
        ages_s = [photo.now_s - at_s for at_s in began_s]
        self._survived = self._furthest(photo, ages_s)
        for found, age_s in zip(photo.released, ages_s, strict=True):
            self._end(found.gang, photo.now_s - age_s, age_s)
        self._push(photo.now_s, Tick())
        self._arrive()

    def run(self, events_most: int) -> Reach:
        """Follow it until everything that waited has started, or for so many events."""
        events = 0
        while self._asked and self._heap and events < events_most:
            if self._heap[0][0] > self._from_s + FARTHEST_S:
                break
            events += self._instant()
        return Reach(self._starts_s, self._now_s, not self._asked)

    def _instant(self) -> int:
        self._now_s = self._heap[0][0]
        happened: list[Event] = []
        while self._heap and self._heap[0][0] <= self._now_s:
            event = heapq.heappop(self._heap)[2]
            happened.append(event)
            if isinstance(event, GangArrived):
                self._arrive()
            elif isinstance(event, Tick):
                step_s = max(TICK_S, TICK_PART * (self._now_s - self._from_s))
                self._push(self._now_s + step_s, event)
        told, count = happened, 0
        while told:
            count += len(told)
            told = [*self._start(self._keeper.handle_all(told, self._now_s))]
        return count

    def _start(self, actions: list[Action]) -> Iterator[Event]:
        for action in actions:
            if isinstance(action, ReleaseGang) and not action.completing:
                gang = self._waiting.pop(action.uid)
                if action.uid in self._asked:
                    self._asked.remove(action.uid)
                    self._starts_s[action.uid] = self._now_s
                self._end(gang, self._now_s, 0.0)
                yield ReleaseDone(action.uid, action.pods)
                yield GangStarted(action.uid)

    def _end(self, gang: Gang, started_s: float, age_s: float) -> None:
        estimate = gang.estimate or self._keeper.estimate(gang.uid)
        if estimate is None:
            return
        self._push(started_s + self._run_time_s(gang, estimate, age_s), GangEnded(gang.uid))

    def _run_time_s(self, gang: Gang, estimate: Estimate, age_s: float) -> float:
        longer = [ratio for ratio in self._ratios.get(job_of(gang), ()) if ratio * estimate.p50_s > age_s]
        if longer:
            return longer[int(self._chance.random() * len(longer))] * estimate.p50_s
        return run_time_s(estimate, self._part(job_of(gang)), age_s)

    def _part(self, job: Job) -> float:
        """How far up in their distribution the run times of a job are: further than any of it that runs."""
        if job not in self._parts:
            least = self._survived.get(job, 0.0)
            self._parts[job] = least + self._chance.random() * (1.0 - least)
        return self._parts[job]

    @staticmethod
    def _furthest(photo: Photograph, ages_s: Iterable[float]) -> dict[Job, float]:
        furthest: dict[Job, float] = {}
        for found, age_s in zip(photo.released, ages_s, strict=True):
            if found.gang.estimate is not None:
                job = job_of(found.gang)
                part = min(reached(found.gang.estimate, age_s), _BEYOND)
                furthest[job] = max(furthest.get(job, 0.0), part)
        return furthest

    def _arrive(self) -> None:
        gang = next(self._arrivals, None)
        if gang is not None:
            self._waiting[gang.uid] = gang
            self._push(gang.arrived_s, GangArrived(gang))

    def _push(self, at_s: float, event: Event) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at_s, self._pushed, event))
