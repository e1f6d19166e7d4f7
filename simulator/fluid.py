"""The uncapped fluid reference: when each job would end if users shared one perfectly divisible cluster.

Every active user is served in proportion to his weight, every job of his
equally within that, and a job may use the whole cluster (uncapped). This is
the reference of the published theorem (CFQ theorem 1, carried over to users):
with identical slots, lone pods, no backfill and exact estimates a job ends no
later than its fluid finish + 2 l_max + L_max / M.

Two virtual times make it O(log n) an event: V grows by 1 / (sum of weights of
active users) a second; inside a user, served work per job grows by
weight / jobs for each unit of V. A user's next finish in V is therefore fixed
until he himself gains or loses a job.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from simulator.state import Floats


class FluidJob(NamedTuple):
    """`work` in share-seconds; `cap` is the share that its pods could hold at once (unused when uncapped)."""

    user: str
    submitted_s: float
    work: float
    cap: float = float("inf")


class _User:
    """Served work per job since the user was first seen, and his jobs by the level at which they end."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.level = 0.0
        self.seen_at = 0.0
        self.jobs: list[tuple[float, int]] = []
        self.version = 0

    def move_to(self, virtual_time: float) -> None:
        """Serve up to this virtual time."""
        if self.jobs:
            self.level += (virtual_time - self.seen_at) * self.weight / len(self.jobs)
        self.seen_at = virtual_time

    def next_finish(self) -> float:
        """Virtual time at which his next job ends."""
        return self.seen_at + max(0.0, self.jobs[0][0] - self.level) * len(self.jobs) / self.weight


class _Fluid:
    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._users: dict[str, _User] = {}
        self._finishes: list[tuple[float, int, str]] = []
        self._virtual_time = 0.0
        self._active_weight = 0.0
        self._active = 0
        self.now_s = 0.0

    def submit(self, index: int, job: FluidJob) -> None:
        user = self._users.setdefault(job.user, _User(self._weights.get(job.user, 1.0)))
        user.move_to(self._virtual_time)
        if not user.jobs:
            self._active_weight += user.weight
            self._active += 1
        heapq.heappush(user.jobs, (user.level + job.work, index))
        self._expect(job.user, user)

    def _expect(self, name: str, user: _User) -> None:
        user.version += 1
        heapq.heappush(self._finishes, (user.next_finish(), user.version, name))

    def serve_until(self, until_s: float, finish_s: Floats) -> None:
        """Serve, noting each job that ends, until that time."""
        while (following := self._next()) is not None:
            at_s = self.now_s + (following[0] - self._virtual_time) * self._active_weight
            if at_s > until_s:
                self._virtual_time += (until_s - self.now_s) / self._active_weight
                break
            self.now_s, self._virtual_time = max(at_s, self.now_s), following[0]
            self._finish(following[1], finish_s)
        self.now_s = until_s

    def _next(self) -> tuple[float, str] | None:
        while self._finishes:
            at, version, name = self._finishes[0]
            if self._users[name].version == version and self._users[name].jobs:
                return max(at, self._virtual_time), name
            heapq.heappop(self._finishes)
        return None

    def _finish(self, name: str, finish_s: Floats) -> None:
        user = self._users[name]
        user.move_to(self._virtual_time)
        level, index = heapq.heappop(user.jobs)
        user.level = max(user.level, level)
        finish_s[index] = self.now_s
        if user.jobs:
            self._expect(name, user)
            return
        self._active -= 1
        self._active_weight = self._active_weight - user.weight if self._active else 0.0


def uncapped_finish_s(jobs: Sequence[FluidJob], weights: Mapping[str, float] | None = None) -> Floats:
    """When each job ends in the uncapped fluid cluster, in seconds, in the order given.

    Source: fair-queueing references of A. Parekh and R. Gallager, "A
    generalized processor sharing approach to flow control", 1993, at two levels.
    """
    fluid = _Fluid(weights or {})
    finish_s = np.full(len(jobs), np.nan)
    for index in sorted(range(len(jobs)), key=lambda each: jobs[each].submitted_s):
        fluid.serve_until(jobs[index].submitted_s, finish_s)
        fluid.submit(index, jobs[index])
    fluid.serve_until(float("inf"), finish_s)
    return finish_s
