"""What users held and were entitled to over time, from the runs of a schedule.

At any instant a user *wants* the share of his pods that are submitted and
have not ended, *holds* that of those that run, and is *entitled* to his part
of the weighted max-min allocation of the whole cluster among what all want.
Only instants at which more is wanted than there is tell about fairness.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.queue.fluid import jain_index
from simulator.state import Floats, Schedule

CHUNK = 4096
"""Intervals looked at together: bounds memory at users x CHUNK."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Shares by user (rows) in a few intervals between events (columns)."""

    begin_s: Floats
    length_s: Floats
    held: Floats
    wanted: Floats


@dataclass(frozen=True, slots=True)
class UserShares:
    """Means over contended time, in the order of `users`; `jain` is 1 when all got their part alike."""

    users: tuple[str, ...]
    entitled: Floats
    received: Floats
    contended_s: float

    @property
    def jain(self) -> float:
        """Jain's index of received / entitled (R. Jain et al., DEC-TR-301, 1984); NaN without contention."""
        if not self.received[self.entitled > 0].any():
            return float("nan")
        received, entitled = (
            dict(zip(self.users, shares.tolist(), strict=True)) for shares in (self.received, self.entitled)
        )
        return jain_index(received, entitled)

    @property
    def largest_error(self) -> float:
        """Largest |received - entitled|, as a part of the cluster."""
        return float(np.max(np.abs(self.received - self.entitled), initial=0.0))


def max_min(wanted: Floats, weights: Floats, capacity: float = 1.0) -> Floats:
    """Weighted max-min allocation of each column of `wanted` (users x instants).

    Water-filling: users sorted by wanted / weight are satisfied as long as the
    level, what is left over the weight that is left, lies above.
    """
    order = np.argsort(wanted / weights[:, None], axis=0)
    sorted_wanted = np.take_along_axis(wanted, order, axis=0)
    sorted_weights = weights[order]
    before = np.cumsum(sorted_wanted, axis=0) - sorted_wanted
    weight_left = np.cumsum(sorted_weights[::-1], axis=0)[::-1]
    levels = (capacity - before) / weight_left
    satisfied = sorted_wanted / sorted_weights <= levels
    level = np.max(np.where(satisfied, 0.0, levels), axis=0, initial=0.0)
    allocated: Floats = np.where(satisfied.all(axis=0), wanted, np.minimum(wanted, weights[:, None] * level))
    return allocated


def intervals(schedule: Schedule, begin_s: float = 0.0, end_s: float = float("inf")) -> Iterator[Interval]:
    """The time between all events from `begin_s` to `end_s`, in chunks."""
    ends = schedule.end_s
    submitted = np.array([each.job.submitted_s for each in schedule.submissions])
    times = np.unique(np.concatenate([submitted, schedule.start_s, ends, [begin_s]]))
    times = np.append(times[(times >= begin_s) & (times < end_s)], min(end_s, float(ends.max(initial=0.0))))
    times = np.unique(times)
    series = _Series(schedule, submitted)
    for at in range(0, len(times) - 1, CHUNK):
        begins = times[at : min(at + CHUNK, len(times) - 1)]
        lengths = times[at + 1 : at + 1 + len(begins)] - begins
        yield Interval(begins, lengths, series.held(begins), series.wanted(begins))


class _Series:
    """Running sums of share submitted, started and ended by user."""

    def __init__(self, schedule: Schedule, submitted: Floats) -> None:
        users = {name: at for at, name in enumerate(users_of(schedule))}
        owner = np.array([users[each.user] for each in schedule.submissions], dtype=np.int64)
        wanted = np.array([each.share * each.job.pods for each in schedule.submissions])
        run_owner = owner[schedule.job]
        self._submitted = [_steps(submitted[owner == at], wanted[owner == at]) for at in users.values()]
        self._started = [
            _steps(schedule.start_s[m], schedule.share[m]) for m in _masks(run_owner, len(users))
        ]
        self._ended = [_steps(schedule.end_s[m], schedule.share[m]) for m in _masks(run_owner, len(users))]

    def held(self, at_s: Floats) -> Floats:
        """Started and not ended."""
        return _non_negative(_sums(self._started, at_s) - _sums(self._ended, at_s))

    def wanted(self, at_s: Floats) -> Floats:
        """Submitted and not ended."""
        return _non_negative(_sums(self._submitted, at_s) - _sums(self._ended, at_s))


Steps = tuple[Floats, Floats]


def _masks(owner: NDArray[np.int64], users: int) -> Iterator[NDArray[np.bool_]]:
    return (owner == at for at in range(users))


def _steps(times: Floats, amounts: Floats) -> Steps:
    order = np.argsort(times, kind="stable")
    return times[order], np.concatenate([[0.0], np.cumsum(amounts[order])])


def _sums(steps: list[Steps], at_s: Floats) -> Floats:
    return np.array([sums[np.searchsorted(times, at_s, side="right")] for times, sums in steps])


def _non_negative(shares: Floats) -> Floats:
    """Differences of running sums leave specks of rounding, which would make idle users want something."""
    cleaned: Floats = np.where(shares < 1e-9, 0.0, shares)
    return cleaned


def users_of(schedule: Schedule) -> tuple[str, ...]:
    """Users with a job that was not left out, in order of submission."""
    return tuple(dict.fromkeys(each.user for each in schedule.submissions))


def weights_of(schedule: Schedule) -> Floats:
    """Their weights."""
    weights = {each.user: each.weight for each in schedule.submissions}
    return np.array([weights[user] for user in users_of(schedule)])


def user_shares(schedule: Schedule, begin_s: float = 0.0, end_s: float = float("inf")) -> UserShares:
    """Received against entitled, exact (not sampled), over the contended time between the two instants."""
    users, weights = users_of(schedule), weights_of(schedule)
    entitled, received = np.zeros(len(users)), np.zeros(len(users))
    contended_s = 0.0
    for part in intervals(schedule, begin_s, end_s):
        contended = part.wanted.sum(axis=0) > 1.0 + 1e-9
        lengths = np.where(contended, part.length_s, 0.0)
        entitled += max_min(part.wanted, weights) @ lengths
        received += part.held @ lengths
        contended_s += float(lengths.sum())
    scale = contended_s or 1.0
    return UserShares(users, entitled / scale, received / scale, contended_s)
