"""The settled fair clock: who has received how much of what he is entitled to.

The clock keeps the virtual time V, the work that a flow with exactly its share
has received per unit of weight, and for each flow u its meter v_u, the work
charged to it per unit of weight. A release charges the estimated work, a gang
that outlives it pays while it runs, and its end replaces the charge by what was
really used; so what a flow has received is measured, and a wrong estimate
changes the order for a moment, not the shares.

    advance    V grows by delivered / (weights of active flows); active is who waits or is charged
               ahead of V. When a flow that does not wait is overtaken by V it stops being active.
    credit     what V granted a flow and the flow did not get, w_u x (V - v_u), has gone to the others.
               While the flow waits it may catch up. When that is over (it withdrew, it waits for nothing
               more, its refund comes when it is gone, its credit is at the limit) V advances as if the
               grant had never been made; otherwise the others would stay in debt for it, to the
               benefit of whoever comes next, and one could bank absence by waiting without intent.
    arrive     a flow that did not wait is lifted to V: v_u = max(v_u, V)
    tag        v_u + (estimated work up to the end of a job) / w_u: the virtual time at which the
               job would be done at the flow's fair share. Waiting flows are ordered by their
               first job's tag. A release moves work from waiting to charged: the tag stays.
    lag        a waiting flow whose first tag is further behind V than lag_limit / w_u is drawn up:
               credit is bounded. The bound is on the tag and not on the meter, for the meter of a
               flow whose next gang is longer than the limit lags legitimately until its turn;
               drawn up, its tag would run ahead of V for ever and the gang would starve.

Everything is O(log n): flows drawn along by the lag limit keep their place
relative to V, all others keep their tags, so neither is touched when V moves.
Works are in share-seconds; time does not occur.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.core.queue.lifts import Lifts
from scheduler.core.queue.ordered import Ordered

Key = Hashable
Order = tuple[Any, ...]
"""Arrival and uid of a flow's first gang: who goes first at equal tags."""
_RECOUNT_EVERY = 4096
_ROUNDED_AWAY = 1e-6


@dataclass(slots=True)
class Charge:
    """Work charged for a gang, and the how many-th charge of its flow it was."""

    work: float
    number: int


@dataclass(slots=True)
class Flow:
    """One flow's books. `ledger`: all charges, overruns and settlements in work, kept beside the meter."""

    weight: float
    tier: int = 0
    meter: float = 0.0
    waiting: int = 0
    waiting_work: float = 0.0
    head_work: float = 0.0
    head_order: Order = ()
    charges: dict[str, Charge] = field(default_factory=dict)
    charges_made: int = 0
    lifts: Lifts = field(default_factory=Lifts)
    ledger: float = 0.0
    received: float = 0.0
    active: bool = False
    drawn: bool = False
    resuming: bool = False
    """It waited at the checkpoint and is about to be seen waiting again: that is no absence."""


class FairClock:
    """Virtual time and meters of the flows at one level; see the module's text."""

    def __init__(self, lag_limit: float = math.inf) -> None:
        self.virtual_time = 0.0
        self.lag_limit = lag_limit
        self.flows: dict[Key, Flow] = {}
        self.changes = 0
        """Raised with every change of a flow's place; V alone moves none but those the lag limit draws."""
        self.touched: set[Key] | None = None
        """Flows whose place changed, for one who keeps a list of them; None: nobody does."""
        self.by_arrival = False
        """Waiting flows are ordered by the arrival of their first gang and not by their tags."""
        self._active_weight = 0.0
        self._active = 0
        self._weight_changes = 0
        self._by_tag: Ordered[Key] = Ordered()
        self._drawn: Ordered[Key] = Ordered()
        self._limits: Ordered[Key] = Ordered()
        self._ahead: Ordered[Key] = Ordered()

    def advance(self, delivered: float) -> None:
        """Let V follow so much delivered work (share-seconds)."""
        while delivered > 0 and self._active:
            step, leaving = delivered / self._active_weight, self._next_to_leave()
            if leaving is None or self.virtual_time + step < leaving[0]:
                self.virtual_time += step
                break
            delivered -= (leaving[0] - self.virtual_time) * self._active_weight
            self.virtual_time = max(self.virtual_time, leaving[0])
            self._refresh(leaving[1])

    def arrive(self, key: Key, work: float, weight: float = 1.0, tier: int = 0) -> None:
        """A gang of estimated `work` waits from now on."""
        flow = self._touch(self._known(key, weight, tier))
        if not flow.waiting and not flow.resuming:
            self._lift(flow)
        flow.waiting += 1
        flow.waiting_work += work
        self._refresh(key)

    def withdraw(self, key: Key, work: float) -> None:
        """A waiting gang is gone."""
        flow = self._touch(self.flows[key])
        self._stop_waiting(flow, work)
        self._give_up_credit(key, flow)

    def charge(
        self, key: Key, uid: str, work: float, *, waited: bool = True, weight: float = 1.0, tier: int = 0
    ) -> None:
        """A gang is released; one that did not wait may be the first of its flow.

        Raises `ValueError` at a second charge of the same gang.
        """
        flow = self._touch(self._known(key, weight, tier))
        if uid in flow.charges:
            raise ValueError(f"{uid} is charged already")
        if waited:
            self._stop_waiting(flow, work)
        flow.charges_made += 1
        flow.charges[uid] = Charge(work, flow.charges_made)
        self._book(flow, work, work)
        self._give_up_credit(key, flow)

    def overrun(self, key: Key, uid: str, so_far: float) -> None:
        """A running gang has used `so_far`: what exceeds its charge is charged now."""
        flow = self.flows[key]
        charge = flow.charges[uid]
        if so_far > charge.work:
            self._touch(flow)
            more, charge.work = so_far - charge.work, so_far
            self._book(flow, more, flow.lifts.effective(charge.number, more))
            self._refresh(key)

    def settle(self, key: Key, uid: str, actual: float) -> None:
        """A gang ended: its charge is replaced by what it used; a lift voids what it covers of a refund."""
        flow = self._touch(self.flows[key])
        charge = flow.charges.pop(uid)
        change, before = actual - charge.work, min(flow.meter, self.virtual_time)
        flow.received += actual
        self._book(flow, change, self._effective(flow, charge, change))
        if not flow.charges:
            flow.lifts.clear()
        unused = 0.0 if flow.waiting else (before - flow.meter) * flow.weight
        self.advance(unused + self._refresh(key))

    def reweigh(self, key: Key, weight: float) -> None:
        """Change a flow's entitlement; its lead or lag is kept in work."""
        flow = self._touch(self.flows[key])
        flow.meter = self.virtual_time + (flow.meter - self.virtual_time) * flow.weight / weight
        if flow.active:
            flow.active = False
            self._count(flow, -1)
        flow.weight = weight
        self._refresh(key)

    def set_head(self, key: Key, work: float, order: Order) -> None:
        """Tell where the flow's first job ends (estimated work up to there) and who comes first at a tie."""
        flow = self.flows[key]
        if (flow.head_work, flow.head_order) == (work, order):
            return
        self._touch(flow)
        flow.head_work, flow.head_order = work, order
        self.advance(self._refresh(key))

    def rescale(self, factor: float, own_factors: Mapping[str, float]) -> None:
        """Works are worth `factor` times as much, open charges by uid their own factor; waiting work is 0."""
        for key in list(self.flows):
            flow = self._touch(self.flows[key])
            off = 0.0
            for uid, charge in flow.charges.items():
                own = own_factors.get(uid, factor)
                off += charge.work * (own - factor)
                charge.work *= own
            flow.waiting_work, flow.head_work = 0.0, flow.head_work * factor
            flow.meter = self.virtual_time + (flow.meter - self.virtual_time) * factor + off / flow.weight
            flow.ledger, flow.received = flow.ledger * factor + off, flow.received * factor
            flow.lifts.headroom = [headroom * factor for headroom in flow.lifts.headroom]
            self._refresh(key)

    def set_lag_limit(self, lag_limit: float) -> None:
        """Another bound on credit; flows that are further behind are drawn up at once."""
        for key in list(self.flows):
            self._touch(self.flows[key])
        self.lag_limit = lag_limit
        self.advance(sum(self._refresh(key) for key in list(self.flows)))

    def order_by_arrival(self, by_arrival: bool) -> None:
        """Another order of the waiting flows; meters go on as before."""
        self.by_arrival = by_arrival
        for key in list(self.flows):
            self._refresh(key)

    def meter(self, key: Key) -> float:
        """Work charged to the flow per unit of weight; V for a flow that is not known."""
        flow = self.flows.get(key)
        return self.virtual_time if flow is None else self._meter(flow)

    def tag(self, key: Key) -> float:
        """Virtual time at which the first job of a waiting flow would be done at its fair share."""
        flow = self.flows[key]
        return self._meter(flow) + flow.head_work / flow.weight

    def place(self, key: Key) -> float | None:
        """The tag under which a flow waits; None when it does not, or is drawn along by the lag limit."""
        place = self._by_tag.key(key)
        return None if place is None else place[1]

    def in_order(self) -> Iterator[tuple[float, Order, Key]]:
        """Waiting flows (tag, order, key) by tier, tag and order; nothing may change meanwhile."""
        if not self._drawn:
            for (_, tag, order), key in self._by_tag.in_order():
                yield tag, order, key
            return
        drawn = (
            ((tier, tag + self.virtual_time, order), key)
            for (tier, tag, order), key in self._drawn.in_order()
        )
        for (_, tag, order), key in heapq.merge(self._by_tag.in_order(), drawn, key=lambda entry: entry[0]):
            yield tag, order, key

    @property
    def draws(self) -> bool:
        """True while the lag limit draws a waiting flow along, so that its tag moves with V."""
        return bool(self._drawn)

    @property
    def waiting(self) -> int:
        """Number of flows that wait."""
        return len(self._by_tag) + len(self._drawn)

    @property
    def active_weight(self) -> float:
        """Sum of the weights of active flows."""
        return self._active_weight

    def is_idle(self, key: Key) -> bool:
        """True when nothing of the flow waits or is charged, so that dropping it loses nothing but debt."""
        flow = self.flows.get(key)
        return flow is None or not (flow.waiting or flow.charges)

    def revive(self, virtual_time: float, flows: dict[Key, Flow]) -> None:
        """Take over a state that was exported; nothing waits in it yet."""
        self.virtual_time = virtual_time
        self.flows = flows
        for key in list(flows):
            self._refresh(key)

    def end_of_revival(self) -> None:
        """What waited at the checkpoint waits again or is gone."""
        for key in [key for key, flow in self.flows.items() if flow.resuming]:
            self.flows[key].resuming = False
            self._refresh(key)

    def _known(self, key: Key, weight: float, tier: int) -> Flow:
        if key not in self.flows:
            self.flows[key] = Flow(weight, tier, self.virtual_time)
        return self.flows[key]

    def _lift(self, flow: Flow) -> None:
        flow.meter = max(flow.meter, self.virtual_time)
        if flow.charges:
            flow.lifts.come_back(flow.charges_made, (flow.meter - self.virtual_time) * flow.weight)

    def _effective(self, flow: Flow, charge: Charge, change: float) -> float:
        """How much of a settlement reaches the meter."""
        return flow.lifts.effective(charge.number, change)

    def _book(self, flow: Flow, work: float, effective: float) -> None:
        flow.ledger += work
        flow.meter += effective / flow.weight

    def _stop_waiting(self, flow: Flow, work: float) -> None:
        flow.waiting -= 1
        flow.waiting_work = flow.waiting_work - work if flow.waiting else 0.0

    def _give_up_credit(self, key: Key, flow: Flow) -> None:
        """A flow that waits no longer has no use for what V granted it and it did not get."""
        unused = 0.0
        if not flow.waiting and flow.meter < self.virtual_time:
            unused = (self.virtual_time - flow.meter) * flow.weight
            flow.meter = self.virtual_time
        self.advance(unused + self._refresh(key))

    def _next_to_leave(self) -> tuple[float, Key] | None:
        """The first flow that stops being active as V grows, and the V at which it does."""
        ahead, limit = self._ahead.first(), self._limits.first()
        if ahead is None or (limit is not None and limit[0] < ahead[0]):
            return (limit[0][0], limit[1]) if limit is not None else None
        return ahead[0][0], ahead[1]

    def _meter(self, flow: Flow) -> float:
        if not flow.drawn:
            return flow.meter
        return max(flow.meter, self.virtual_time - (self.lag_limit + flow.head_work) / flow.weight)

    def _touch(self, flow: Flow) -> Flow:
        """Write down the meter of a flow that the lag limit draws along, before it changes."""
        flow.meter, flow.drawn = self._meter(flow), False
        return flow

    def _refresh(self, key: Key) -> float:
        """Put a flow where it belongs after a change; forget it when nothing of it waits or is owed.

        Returns the work by which its credit exceeded the limit: it is drawn up, and nobody will use that.
        """
        flow = self.flows[key]
        self.changes += 1
        if self.touched is not None:
            self.touched.add(key)
        for heap in (self._by_tag, self._drawn, self._limits, self._ahead):
            heap.remove(key)
        before, ahead = flow.meter, flow.meter > self.virtual_time
        if flow.waiting:
            self._enqueue(key, flow)
        elif ahead:
            self._ahead.put(key, (flow.meter,))
        elif not flow.charges and not flow.resuming:
            del self.flows[key]
        active = (flow.waiting > 0 and not flow.drawn) or (not flow.waiting and ahead)
        if active != flow.active:
            flow.active = active
            self._count(flow, 1 if active else -1)
        return (flow.meter - before) * flow.weight

    def _enqueue(self, key: Key, flow: Flow) -> None:
        tag = self._meter(flow) + flow.head_work / flow.weight
        limit = self.lag_limit / flow.weight
        flow.drawn = tag + limit <= self.virtual_time
        if flow.drawn:
            flow.meter = self._meter(flow)
            self._drawn.put(key, (-flow.tier, -limit, flow.head_order))
            return
        self._by_tag.put(key, (-flow.tier, 0.0 if self.by_arrival else tag, flow.head_order))
        if limit < math.inf:
            self._limits.put(key, (tag + limit,))

    def _count(self, flow: Flow, sign: int) -> None:
        self._active += sign
        self._active_weight += sign * flow.weight
        self._weight_changes += 1
        if not self._active:
            self._active_weight = 0.0
            return
        drifted = self._weight_changes > _RECOUNT_EVERY + len(self.flows)
        if drifted or self._active_weight < _ROUNDED_AWAY * flow.weight:
            # Sums of floats drift, all the more beside a weight that was far larger than those that are left;
            # counting anew now and then costs O(1) a change.
            self._active_weight = math.fsum(flow.weight for flow in self.flows.values() if flow.active)
            self._weight_changes = 0
