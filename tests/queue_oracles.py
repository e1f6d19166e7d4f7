"""Slow and obvious: the fluid in small steps, and the fair clock as its definition reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class PouredJob:
    """Arrival, flow and weight, work in slot-seconds, slots it can use at most."""

    flow: str
    arrived_s: float
    work: float
    cap: float = math.inf
    weight: float = 1.0


def max_min(demands: Sequence[tuple[float, float]], capacity: float) -> list[float]:
    """Weighted max-min by raising the water for everybody until each is full or nothing is left."""
    rates = [0.0] * len(demands)
    thirsty = [index for index, (_, demand) in enumerate(demands) if demand > 0]
    while thirsty and capacity > 1e-12:
        weight = sum(demands[index][0] for index in thirsty)
        level = min((demands[index][1] - rates[index]) / demands[index][0] for index in thirsty)
        level = min(level, capacity / weight)
        for index in thirsty:
            rates[index] += level * demands[index][0]
        capacity -= level * weight
        thirsty = [index for index in thirsty if rates[index] < demands[index][1] - 1e-12]
    return rates


def poured_finish(jobs: Sequence[PouredJob], capacity: float) -> list[float]:
    """When each job is done: from event to event, everything worked out anew each time."""
    left = [job.work for job in jobs]
    finish = [math.inf] * len(jobs)
    now_s = 0.0
    while any(math.isinf(one) for one in finish):
        here = [i for i, job in enumerate(jobs) if job.arrived_s <= now_s and math.isinf(finish[i])]
        rates = _rates([jobs[i] for i in here], capacity)
        ends = [now_s + left[i] / rate for i, rate in zip(here, rates, strict=True) if rate > 0]
        arrivals = [job.arrived_s for job in jobs if job.arrived_s > now_s]
        next_s = min(ends + arrivals)
        for i, rate in zip(here, rates, strict=True):
            left[i] -= rate * (next_s - now_s)
            if left[i] <= 1e-9:
                finish[i] = next_s
        now_s = next_s
    return finish


def _rates(jobs: Sequence[PouredJob], capacity: float) -> list[float]:
    flows = sorted({job.flow for job in jobs})
    of_flow = {flow: [job for job in jobs if job.flow == flow] for flow in flows}
    demands = [(of_flow[flow][-1].weight, sum(job.cap for job in of_flow[flow])) for flow in flows]
    shares = dict(zip(flows, max_min(demands, capacity), strict=True))
    inner = {flow: max_min([(1.0, job.cap) for job in of_flow[flow]], shares[flow]) for flow in flows}
    taken = dict.fromkeys(flows, 0)
    rates = []
    for job in jobs:
        rates.append(inner[job.flow][taken[job.flow]])
        taken[job.flow] += 1
    return rates


@dataclass
class SlowFlow:
    """Meter, weight, waiting works by uid, charges by uid, and what every return left of refunds."""

    weight: float
    meter: float
    waiting: dict[str, float] = field(default_factory=dict)
    charges: dict[str, float] = field(default_factory=dict)
    returns: list[tuple[set[str], float]] = field(default_factory=list)


class SlowClock:
    """The settled fair clock with a loop over all flows wherever its definition has one."""

    def __init__(self, lag_limit: float = math.inf) -> None:
        self.virtual_time = 0.0
        self.lag_limit = lag_limit
        self.flows: dict[str, SlowFlow] = {}

    def advance(self, delivered: float) -> None:
        while delivered > 1e-15:
            active = {key: self.leaves(key) for key in self.flows if self.leaves(key) > self.virtual_time}
            if not active:
                break
            weight = sum(self.flows[key].weight for key in active)
            rise = min(delivered / weight, min(active.values()) - self.virtual_time)
            delivered -= rise * weight
            self.virtual_time = min(*active.values(), self.virtual_time + rise)
        for flow in self.flows.values():
            # A flow at its limit is drawn along; V granted it nothing meanwhile.
            flow.meter = max(flow.meter, self._floor(flow)) if flow.waiting else flow.meter

    def leaves(self, key: str) -> float:
        """The V at which a flow is no longer active."""
        flow = self.flows[key]
        return self.tag(key) + self.lag_limit / flow.weight if flow.waiting else flow.meter

    def arrive(self, key: str, uid: str, work: float, weight: float = 1.0) -> None:
        flow = self.flows.setdefault(key, SlowFlow(weight, self.virtual_time))
        if not flow.waiting:
            flow.meter = max(flow.meter, self.virtual_time)
            if flow.charges:
                room = (flow.meter - self.virtual_time) * flow.weight
                flow.returns.append((set(flow.charges), room))
        flow.waiting[uid] = work
        self._limit(flow)

    def withdraw(self, key: str, uid: str) -> None:
        flow = self.flows[key]
        del flow.waiting[uid]
        self._give_up_credit(flow)

    def charge(self, key: str, uid: str) -> None:
        flow = self.flows[key]
        work = flow.waiting.pop(uid)
        flow.charges[uid] = work
        flow.meter += work / flow.weight
        self._give_up_credit(flow)

    def overrun(self, key: str, uid: str, so_far: float) -> None:
        flow = self.flows[key]
        if so_far > flow.charges[uid]:
            self._change(flow, uid, so_far - flow.charges[uid])
            flow.charges[uid] = so_far

    def settle(self, key: str, uid: str, actual: float) -> None:
        flow = self.flows[key]
        before = min(flow.meter, self.virtual_time)
        self._change(flow, uid, actual - flow.charges[uid])
        del flow.charges[uid]
        if not flow.charges:
            flow.returns.clear()
        if not flow.waiting:
            self.advance((before - flow.meter) * flow.weight)
        self._limit(flow)

    def reweigh(self, key: str, weight: float) -> None:
        flow = self.flows[key]
        flow.meter = self.virtual_time + (flow.meter - self.virtual_time) * flow.weight / weight
        flow.weight = weight
        self._limit(flow)

    def head(self, key: str) -> float:
        """Work of the gang that waits longest: here every gang is a job, first come first served."""
        return next(iter(self.flows[key].waiting.values()))

    def order(self) -> list[str]:
        """Waiting flows by tag; ties by name."""
        waiting = [key for key, flow in self.flows.items() if flow.waiting]
        return sorted(waiting, key=lambda key: (self.tag(key), key))

    def tag(self, key: str) -> float:
        flow = self.flows[key]
        return flow.meter + self.head(key) / flow.weight

    def _change(self, flow: SlowFlow, uid: str, change: float) -> None:
        after = [index for index, (charged, _) in enumerate(flow.returns) if uid in charged]
        for index in after:
            change = max(change, -flow.returns[index][1])
        for index in after:
            charged, room = flow.returns[index]
            flow.returns[index] = (charged, room + change)
        flow.meter += change / flow.weight

    def _give_up_credit(self, flow: SlowFlow) -> None:
        if flow.waiting:
            self._limit(flow)
        elif flow.meter < self.virtual_time:
            unused = (self.virtual_time - flow.meter) * flow.weight
            flow.meter = self.virtual_time
            self.advance(unused)

    def _floor(self, flow: SlowFlow) -> float:
        head = next(iter(flow.waiting.values()))
        return self.virtual_time - (self.lag_limit + head) / flow.weight

    def _limit(self, flow: SlowFlow) -> None:
        if flow.waiting:
            floor = self._floor(flow)
            if flow.meter < floor:
                unused, flow.meter = (floor - flow.meter) * flow.weight, floor
                self.advance(unused)
