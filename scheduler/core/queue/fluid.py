"""The fluid reference: when jobs would finish if the cluster could be poured.

Every active flow gets capacity by its weight, and inside a flow every job the
same; what a job or a flow cannot use is shared by the others (weighted
max-min, water-filling). *Capped*: a job runs no faster than its own share,
which is what a real cluster could at best do for it. Without caps it is the
fluid that the bound of fair queueing speaks of.

Lateness of a job: max(0, finish - fluid finish) / (fluid finish - arrival).

The reference may be driven along with the cluster: a job enters with its
estimated work and is corrected when its real work is known. Between two changes
(a job comes, goes, is done or corrected) rates are constant and time costs nothing; a
change costs O(active jobs), several at one instant once. So it belongs beside
the queue, not into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DONE = 1e-12
"""Part of its work below which a job is done; the floats' error."""


@dataclass(frozen=True, slots=True)
class FluidJob:
    """A job: `work` in share-seconds, `cap` the share it can use at most (inf: all)."""

    uid: str
    flow: str
    arrived_s: float
    work: float
    cap: float = math.inf
    weight: float = 1.0
    """Of its flow; the last job that arrived says what holds for all."""


@dataclass(slots=True)
class _Active:
    """A job that is poured: `left` of its work when time last passed for it, at `rate` since."""

    job: FluidJob
    left: float
    rate: float = 0.0


class FluidReference:
    """Jobs poured over a cluster of `capacity` (1.0: the whole reference), which may be set.

    A new capacity is in force from the next change on.
    """

    def __init__(self, capacity: float = 1.0) -> None:
        self.capacity = capacity
        self.now_s = -math.inf
        self.finished_s: dict[str, float] = {}
        """When each job was done; the reader takes out what he has used."""
        self._active: dict[str, _Active] = {}
        self._weights: dict[str, float] = {}
        self._poured_s = -math.inf
        self._next_s = math.inf
        self._changed = False

    @property
    def is_empty(self) -> bool:
        """True when nothing is left to pour."""
        return not self._active

    def arrive(self, job: FluidJob) -> None:
        """A job begins at its arrival, or now if that is past; one that is known changes nothing."""
        if job.uid in self._active or job.uid in self.finished_s:
            return
        if job.arrived_s > self.now_s:
            self.advance(job.arrived_s)
        self._pour()
        self._active[job.uid] = _Active(job, job.work)
        self._weights[job.flow] = job.weight
        self._changed = True

    def correct(self, uid: str, work: float) -> None:
        """The real work of a job is known; one that is done here already stays so."""
        active = self._active.get(uid)
        if active is not None:
            self._pour()
            active.left += work - active.job.work
            active.job = _with_work(active.job, work)
            self._changed = True
            self.advance(self.now_s)

    def remove(self, uid: str) -> None:
        """A job is gone and was never there; one that is done here is forgotten."""
        self._pour()
        self._changed |= self._active.pop(uid, None) is not None
        self.finished_s.pop(uid, None)

    def advance(self, to_s: float) -> None:
        """Pour until `to_s`."""
        while self._active and self._end_s() <= to_s:
            self.now_s = max(self.now_s, self._next_s)
            self._pour()
            self._take_out_done()
        self.now_s = max(self.now_s, to_s)

    def drain(self) -> None:
        """Pour until nothing is left."""
        while self._active and self.capacity > 0:
            self.advance(self._end_s())

    def _end_s(self) -> float:
        """When the next job is done."""
        if self._changed:
            self._changed = False
            self._share_out()
            self._next_s = min(map(self._end_of, self._active.values()), default=math.inf)
        return self._next_s

    def _pour(self) -> None:
        """Let the time since this was last done pass for every job."""
        if (passed_s := self.now_s - self._poured_s) > 0:
            for active in self._active.values():
                active.left -= active.rate * passed_s
        self._poured_s = self.now_s

    def _end_of(self, one: _Active) -> float:
        if one.left <= 0.0:
            return self._poured_s
        return self._poured_s + one.left / one.rate if one.rate > 0 else math.inf

    def _take_out_done(self) -> None:
        self._changed = True
        for uid in [uid for uid, one in self._active.items() if self._is_done(one)]:
            del self._active[uid]
            self.finished_s[uid] = self.now_s

    def _is_done(self, one: _Active) -> bool:
        """Nothing is left, or so little that its end is not later than now: unix times are coarse floats."""
        return one.left <= _DONE * max(1.0, one.job.work) or self._end_of(one) <= self.now_s

    def _share_out(self) -> None:
        flows: dict[str, list[_Active]] = {}
        for active in self._active.values():
            flows.setdefault(active.job.flow, []).append(active)
        self._weights = {flow: self._weights[flow] for flow in flows}
        demands = [(self._weights[flow], sum(one.job.cap for one in jobs)) for flow, jobs in flows.items()]
        for jobs, rate in zip(flows.values(), water_fill(demands, self.capacity), strict=True):
            for one, own in zip(jobs, _inside(jobs, rate), strict=True):
                one.rate = own


def _inside(jobs: Sequence[_Active], rate: float) -> Sequence[float]:
    """What each job of a flow gets of its flow's rate."""
    level = rate / len(jobs)
    if all(one.job.cap >= level for one in jobs):
        return [level] * len(jobs)
    return water_fill([(1.0, one.job.cap) for one in jobs], rate)


def water_fill(demands: Sequence[tuple[float, float]], capacity: float) -> list[float]:
    """Weighted max-min shares of `capacity` for (weight, demand): nobody gets more than he demands.

    O(n log n). Bertsekas and Gallager, Data Networks, 6.5.2.
    """
    rates = [0.0] * len(demands)
    left, weight = capacity, sum(weight for weight, _ in demands)
    by_level = sorted(range(len(demands)), key=lambda index: demands[index][1] / demands[index][0])
    for index in by_level:
        own, demand = demands[index]
        rates[index] = min(demand, left * own / weight) if weight > 0 else min(demand, left)
        left = max(0.0, left - rates[index])
        weight -= own
    return rates


def fluid_finish(jobs: Sequence[FluidJob], capacity: float = 1.0) -> dict[str, float]:
    """When each job would finish; all of them known beforehand."""
    reference = FluidReference(capacity)
    for job in sorted(jobs, key=lambda job: job.arrived_s):
        reference.arrive(job)
    reference.drain()
    return reference.finished_s


def lateness(arrived_s: float, finish_s: float, fluid_finish_s: float) -> float:
    """How much later than in the fluid, as a part of the time it took there."""
    return max(0.0, finish_s - fluid_finish_s) / max(fluid_finish_s - arrived_s, 1e-9)


def jain_index(received: Mapping[str, float], entitled: Mapping[str, float]) -> float:
    """1 when all have received the same part of what they are entitled to, 1/n when one has it all."""
    parts = [received[flow] / entitled[flow] for flow in received if entitled.get(flow, 0.0) > 0]
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares > 0 else 1.0


def _with_work(job: FluidJob, work: float) -> FluidJob:
    return FluidJob(job.uid, job.flow, job.arrived_s, work, job.cap, job.weight)
