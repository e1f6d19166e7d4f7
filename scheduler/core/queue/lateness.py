"""How late gangs end against the capped fluid reference, as they end; beside the queue, deciding nothing.

A gang enters the fluid with its estimated work when it is complete, and is
corrected by what it really used when it ends. One that ends before the fluid
has poured it is not late. Beyond `ACTIVE_MAX` gangs at once the fluid costs too
much: further ones are not judged, and counted.

The bound is about the order. It supposes that a cluster with waiting gangs is
full and that the fluid was told the truth, and under saturation the fluid runs
ahead by every share-second for which that was not so: a slot that waits for its
next pod, minutes without a leader, a job that takes ten times what was said and
that the fluid has poured long ago. So both are added up until the cluster
has caught up, and a gang that is beyond the bound by no more than
they explain has them as its cause. A new term knows nothing of what was poured
before: its fluid begins with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

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
CAUSES = ("backfill", "overrun", "idle", "other")
"""Why a gang ended later than the bound: it went ahead of its turn; it or others took longer than told; room
stood idle while gangs waited; or none of these."""
OVERRUN = 1.5
"""A gang that used so many times its estimate, or more, is a cause by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lateness` as in fluid.py; `beyond`: later than the bound for gangs of one on slots, and why if so."""

    lateness: float
    beyond: str = ""


@dataclass(slots=True)
class _Lead:
    """Share-seconds by which the fluid is ahead of a cluster that did all it could, and why."""

    idle: float = 0.0
    """Nobody held them although gangs waited."""
    untold: float = 0.0
    """Used by gangs beyond their estimates, after the fluid was done with them."""

    def since(self, before: _Lead) -> _Lead:
        """What has come since."""
        return _Lead(self.idle - before.idle, self.untold - before.untold)

    def cause(self, beyond: float) -> str:
        """Of an end so many share-seconds after the bound."""
        if beyond > self.idle + self.untold:
            return "other"
        return "idle" if self.idle >= self.untold else "overrun"


@dataclass(slots=True)
class _Ahead:
    """How far the fluid got ahead in all, and what of that the cluster has caught up while it was empty."""

    gained: _Lead = field(default_factory=_Lead)
    caught_up: _Lead = field(default_factory=_Lead)
    idle_share: float = 0.0
    """What stands idle from now on."""
    catching_share: float = 0.0
    """What the fluid, being empty, could have poured and does not."""
    counted_s: float = math.inf

    def goes_on(self, idle_share: float, held_share: float, empty: bool) -> None:
        """From now on so much stands idle and is held; whether the fluid is empty."""
        self.idle_share = idle_share
        self.catching_share = idle_share + held_share if empty else 0.0

    def count(self, now_s: float) -> None:
        """Time has passed, with the shares as they were told last."""
        passed_s = max(0.0, now_s - self.counted_s)
        self.counted_s = now_s
        self.gained.idle += self.idle_share * passed_s
        left = self.gained.since(self.caught_up)
        part = min(1.0, self.catching_share * passed_s / max(left.idle + left.untold, 1e-9))
        self.caught_up = _Lead(
            self.caught_up.idle + part * left.idle, self.caught_up.untold + part * left.untold
        )


@dataclass(frozen=True, slots=True)
class _Entered:
    """A gang that is judged: the work it entered the fluid with, and what had been caught up by then.

    Until the fluid has served it no more is caught up: so all that the fluid gained beyond that delays it.
    """

    work: float
    caught_up: _Lead


class LatenessRecord:
    """Feed it arrivals and ends, in any order of time."""

    def __init__(self) -> None:
        self._fluid = FluidReference()
        self._active: dict[str, _Entered] = {}
        self._ahead = _Ahead()
        self._longest_s = 0.0
        self._largest_work = 0.0
        self.unjudged = 0

    def follow(self, events: Iterable[Event], keeper: Gatekeeper, now_s: float) -> None:
        """What the gatekeeper has just been told, and how full the cluster is from now on."""
        self._fluid.advance(now_s)
        self._ahead.count(now_s)
        self._ahead.goes_on(keeper.idle_share, keeper.held_share, self._fluid.is_empty)
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
        self._active[job.uid] = _Entered(job.work, self._ahead.caught_up)
        self._fluid.arrive(job)

    def listed(self, present: frozenset[str], now_s: float) -> None:
        """A full list was worked off: gangs that it does not name are gone."""
        for uid in self._active.keys() - present:
            self.withdrawn(uid, now_s)

    def withdrawn(self, uid: str, now_s: float) -> None:
        """A gang is gone without having been released."""
        if uid in self._active:
            del self._active[uid]
            self._fluid.advance(now_s)
            self._fluid.remove(uid)

    def ended(self, settled: Settled, now_s: float) -> Verdict | None:
        """A gang was settled; None when it is not judged: it was not followed, or its end was not seen."""
        if settled.uid not in self._active:
            return None
        entered = self._active.pop(settled.uid)
        if settled.uid in self._fluid.finished_s:
            self._ahead.gained.untold += max(0.0, settled.actual_work - entered.work)
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
        capacity = max(self._fluid.capacity, 1e-9)
        beyond_s = settled.finished_s - fluid_s - 2 * self._longest_s - self._largest_work / capacity
        lead = self._ahead.gained.since(entered.caught_up)
        return Verdict(late, _cause(settled, lead, beyond_s * capacity) if beyond_s > 0 else "")

    def _forget_judged(self) -> None:
        if len(self._fluid.finished_s) > ACTIVE_MAX:
            for uid in self._fluid.finished_s.keys() - self._active.keys():
                del self._fluid.finished_s[uid]


def _cause(settled: Settled, lead: _Lead, beyond: float) -> str:
    """Of an end `beyond` share-seconds after the bound, with the fluid so far ahead."""
    if settled.backfilled:
        return "backfill"
    if settled.actual_work > OVERRUN * settled.share * settled.estimate.p50_s:
        return "overrun"
    return lead.cause(beyond)
