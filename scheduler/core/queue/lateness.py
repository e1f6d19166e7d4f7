"""How late gangs end against the capped fluid reference, as they end; beside the queue, deciding nothing.

A gang enters the fluid with its estimated work when it is complete, and is
corrected by what it really used when it ends. One that ends before the fluid
has poured it is not late. Beyond `ACTIVE_MAX` gangs at once the fluid costs too
much: further ones are not judged, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core.queue.actions import Settled
from scheduler.core.queue.events import (
    Event,
    GangArrived,
    GangChanged,
    GangFound,
    GangWithdrawn,
    Listed,
)
from scheduler.core.queue.fluid import FluidJob, FluidReference, lateness
from scheduler.core.queue.gatekeeper import Gatekeeper

ACTIVE_MAX = 2000
CAUSES = ("backfill", "overrun", "other")
"""Why a gang ended later than the bound: it went ahead of its turn, it took longer than told, or neither."""
OVERRUN = 1.5
"""A gang that used so many times its estimate, or more, is a cause by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lateness` as in fluid.py; `beyond`: later than the bound for gangs of one on slots, and why if so."""

    lateness: float
    beyond: str = ""


class LatenessRecord:
    """Feed it arrivals and ends, in any order of time."""

    def __init__(self) -> None:
        self._fluid = FluidReference()
        self._active: set[str] = set()
        self._longest_s = 0.0
        self._largest_work = 0.0
        self.unjudged = 0

    def follow(self, events: Iterable[Event], keeper: Gatekeeper, now_s: float) -> None:
        """What the gatekeeper has just been told."""
        for event in events:
            match event:
                case GangArrived(gang) | GangChanged(gang) | GangFound(gang):
                    demand = keeper.demand(gang.uid)
                    if demand is not None:
                        self.arrived(demand)
                case GangWithdrawn(uid):
                    self.withdrawn(uid, now_s)
                case Listed(present):
                    self.listed(present, now_s)

    def resize(self, usable: float) -> None:
        """So much of the reference do the nodes have now; in force from the next arrival or end on."""
        self._fluid.capacity = usable

    def arrived(self, job: FluidJob) -> None:
        """A complete gang waits; one that is known changes nothing."""
        if job.uid in self._active:
            return
        if len(self._active) >= ACTIVE_MAX:
            self.unjudged += 1
            return
        self._active.add(job.uid)
        self._fluid.arrive(job)

    def listed(self, present: frozenset[str], now_s: float) -> None:
        """A full list was worked off: gangs that it does not name are gone."""
        for uid in self._active - present:
            self.withdrawn(uid, now_s)

    def withdrawn(self, uid: str, now_s: float) -> None:
        """A gang is gone without having been released."""
        if uid in self._active:
            self._active.remove(uid)
            self._fluid.advance(now_s)
            self._fluid.correct(uid, 0.0)
            self._fluid.finished_s.pop(uid, None)

    def ended(self, settled: Settled, now_s: float) -> Verdict | None:
        """A gang was settled; None when it is not judged: it was not followed, or its end was not seen."""
        if settled.uid not in self._active:
            return None
        self._active.remove(settled.uid)
        self._fluid.correct(settled.uid, settled.actual_work)
        self._fluid.advance(now_s)
        self._forget_judged()
        fluid_s = self._fluid.finished_s.pop(settled.uid, None)
        if settled.vanished or settled.started_s is None:
            return None
        self._longest_s = max(self._longest_s, settled.finished_s - settled.started_s)
        self._largest_work = max(self._largest_work, settled.actual_work)
        if fluid_s is None:
            return Verdict(0.0)
        late = lateness(settled.arrived_s, settled.finished_s, fluid_s)
        bound_s = 2 * self._longest_s + self._largest_work / max(self._fluid.capacity, 1e-9)
        return Verdict(late, _cause(settled) if settled.finished_s > fluid_s + bound_s else "")

    def _forget_judged(self) -> None:
        for uid in [uid for uid in self._fluid.finished_s if uid not in self._active]:
            if len(self._fluid.finished_s) > ACTIVE_MAX:
                del self._fluid.finished_s[uid]


def _cause(settled: Settled) -> str:
    if settled.backfilled:
        return "backfill"
    estimated = settled.share * settled.estimate.p50_s
    return "overrun" if settled.actual_work > OVERRUN * estimated else "other"
