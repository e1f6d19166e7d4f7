"""The capped fluid reference: as the uncapped one, but no job runs faster than its own share.

At any instant the cluster is divided by weighted max-min among users, each
wanting what his jobs' shares add up to, and what a user gets by max-min among
his jobs. A job ends when its work is done, so never before submission +
work / share: what no scheduler could do does not count as lateness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.fluid import FluidJob
from simulator.shares import max_min
from simulator.state import Floats, Whole

_DONE = 1e-9
"""Part of its work below which a job is done: rounding, not work."""


class _Active:
    """The jobs in the fluid cluster now, ordered by user and share: that order is what filling needs."""

    def __init__(self, users: int) -> None:
        self.index: Whole = np.zeros(0, dtype=np.int64)
        self.user: Whole = np.zeros(0, dtype=np.int64)
        self.cap: Floats = np.zeros(0)
        self.work: Floats = np.zeros(0)
        self._users = users

    def add(self, index: int, user: int, job: FluidJob) -> None:
        at = int(np.searchsorted(self.user, user, side="left"))
        last = int(np.searchsorted(self.user, user, side="right"))
        at += int(np.searchsorted(self.cap[at:last], job.cap))
        self.index = np.insert(self.index, at, index)
        self.user = np.insert(self.user, at, user)
        self.cap = np.insert(self.cap, at, job.cap)
        self.work = np.insert(self.work, at, job.work)

    def keep(self, kept: NDArray[np.bool_]) -> None:
        self.index, self.user = self.index[kept], self.user[kept]
        self.cap, self.work = self.cap[kept], self.work[kept]

    def rates(self, weights: Floats) -> Floats:
        """Share of each job now."""
        wanted: Floats = np.bincount(self.user, weights=self.cap, minlength=self._users).astype(float)
        got = max_min(wanted[:, None], weights)[:, 0]
        counts = np.bincount(self.user, minlength=self._users)
        first = np.cumsum(counts) - counts
        place = np.arange(len(self.user)) - first[self.user]
        sums = np.concatenate([[0.0], np.cumsum(self.cap)])
        before = sums[:-1] - sums[first[self.user]]
        level = (got[self.user] - before) / (counts[self.user] - place)
        short = np.where(self.cap <= level * (1 + _DONE), 0.0, level)
        highest = np.zeros(self._users)
        np.maximum.at(highest, self.user, short)
        limit = np.where(got >= wanted * (1 - _DONE), np.inf, highest)
        rates: Floats = np.minimum(self.cap, limit[self.user])
        return rates


def capped_finish_s(jobs: Sequence[FluidJob], weights: Mapping[str, float] | None = None) -> Floats:
    """When each job ends in the capped fluid cluster, in seconds, in the order given."""
    names = list(dict.fromkeys(job.user for job in jobs))
    of_user = np.array([(weights or {}).get(name, 1.0) for name in names])
    position = {name: at for at, name in enumerate(names)}
    finish_s = np.full(len(jobs), np.nan)
    active, now_s = _Active(len(names)), 0.0
    for index in sorted(range(len(jobs)), key=lambda each: jobs[each].submitted_s):
        now_s = _serve(active, of_user, jobs, finish_s, now_s, jobs[index].submitted_s)
        active.add(index, position[jobs[index].user], jobs[index])
    _serve(active, of_user, jobs, finish_s, now_s, float("inf"))
    return finish_s


def _serve(
    active: _Active, weights: Floats, jobs: Sequence[FluidJob], finish_s: Floats, now_s: float, until_s: float
) -> float:
    """Run the fluid cluster from `now_s` until that time or until it is empty; the time it then is."""
    while len(active.index):
        rates = active.rates(weights)
        passed_s = float(np.min(active.work / rates))
        if now_s + passed_s > until_s:
            active.work -= rates * (until_s - now_s)
            return until_s
        now_s += passed_s
        active.work -= rates * passed_s
        done = active.work <= _DONE * np.array([jobs[index].work for index in active.index])
        finish_s[active.index[done]] = now_s
        active.keep(~done)
    return until_s
