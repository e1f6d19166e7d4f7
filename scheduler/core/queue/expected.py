"""When a waiting gang is expected to start: quantiles over futures, and what they rest on, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scheduler.core.queue.arrivals import Chance, Past, draw_arrivals
from scheduler.core.queue.futures import Future, Reach
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.photograph import Photograph

EVENTS_MOST, EVENTS_A_GANG = 5_000, 20
"""A future is followed for so many events, and for so many more a gang that waits; about 0.2 ms each."""


class StartSource(StrEnum):
    """What an expected start rests on."""

    ARRIVALS = "futures with arrivals like the recent past's"
    NO_ARRIVALS = "futures in which nobody submits anything more"
    RESERVATION = "its reservation"


class Verdict(StrEnum):
    """Where a true start fell in what was told."""

    EARLY = "early"
    INSIDE = "inside"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class ExpectedStart:
    """Quantiles of the start (s, as `now_s`). Infinite: later than `later_than_s`, how much is not known.

    `futures`: of so many; 0 for a reservation.
    """

    p10_s: float
    p50_s: float
    p90_s: float
    later_than_s: float
    source: StartSource
    futures: int = 0

    @staticmethod
    def reserved(start_s: float) -> ExpectedStart:
        """What a reservation says: by when there is room if nothing outlasts its p90."""
        return ExpectedStart(math.nan, start_s, math.nan, math.nan, StartSource.RESERVATION)

    def verdict(self, start_s: float) -> Verdict:
        """Where the true start fell; what is told is whole seconds, p10 rounded down and p90 up."""
        if start_s < (math.floor(self.p10_s) if math.isfinite(self.p10_s) else self.p10_s):
            return Verdict.EARLY
        if start_s > (math.ceil(self.p90_s) if math.isfinite(self.p90_s) else self.p90_s):
            return Verdict.LATE
        return Verdict.INSIDE

    @property
    def known(self) -> bool:
        """True when there is a middle, not only a bound."""
        return math.isfinite(self.p50_s)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Expected starts by uid, as of `at_s`; `left_out` gangs further back start later than `beyond_s`."""

    at_s: float
    starts: Mapping[str, ExpectedStart]
    beyond_s: float
    left_out: int
    source: StartSource
    futures: int

    def of(self, uid: str) -> ExpectedStart | None:
        """Of one gang; None for one that was not in it."""
        return self.starts.get(uid)

    def beyond(self) -> ExpectedStart:
        """Of a gang further back."""
        later = self.beyond_s
        return ExpectedStart(math.inf, math.inf, math.inf, later, self.source, self.futures)


def futures_of(
    photo: Photograph, past: Past | None, chance: Chance, events_most: int | None = None
) -> Iterator[Reach]:
    """Futures without end, one after another; no `past`: nothing arrives in them."""
    events_most = events_most or EVENTS_MOST + EVENTS_A_GANG * len(photo.waiting)
    while True:
        arrivals = draw_arrivals(past, chance) if past is not None else ()
        yield Future(Gatekeeper.developed(photo), photo, arrivals, chance).run(events_most)


def outlook(photo: Photograph, reaches: Sequence[Reach], *, arrivals: bool) -> Outlook:
    """What these futures say together; at least one."""
    source = StartSource.ARRIVALS if arrivals else StartSource.NO_ARRIVALS
    starts: dict[str, ExpectedStart] = {}
    nearest_s = min(reach.until_s for reach in reaches if not reach.whole) if not _all(reaches) else math.inf
    for gang in photo.waiting:
        values = sorted(reach.starts_s.get(gang.uid, math.inf) for reach in reaches)
        p10_s, p50_s, p90_s = (quantile(values, part) for part in (0.1, 0.5, 0.9))
        starts[gang.uid] = ExpectedStart(p10_s, p50_s, p90_s, nearest_s, source, len(reaches))
    known = [one.p50_s for one in starts.values() if one.known]
    return Outlook(photo.now_s, starts, max(known, default=photo.now_s), photo.beyond, source, len(reaches))


def quantile(ordered: Sequence[float], part: float) -> float:
    """Between the two values around that part of them; infinite as soon as one of these is.

    Of n equally likely values a further one lies below the k-th with probability k / (n + 1): so p10 to p90
    covers 80 % however few futures there are (from nine on).
    """
    at = min(max(part * (len(ordered) + 1) - 1.0, 0.0), len(ordered) - 1.0)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low if low == high else low + (at - math.floor(at)) * (high - low)


def _all(reaches: Sequence[Reach]) -> bool:
    return all(reach.whole for reach in reaches)
