"""Small workloads for the simulator's tests, and slow, obvious references to hold it against."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from simulator.cluster import Slots
from simulator.comparison import Setting, simulate
from simulator.fluid import FluidJob
from simulator.state import Schedule
from simulator.workload import Job, Workload, workload_of

Who = TypeVar("Who")
DATA = Path(os.environ.get("FAIRLANE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def macro(name: str) -> Path:
    """A published macro workload, or skip."""
    path = DATA / "uwfq_google_macro" / f"{name}_macro_config.json.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} under {DATA}")
    return path


def job(name: str, submitted_s: float, tasks: int, task_s: float = 1.0, *, gang: bool = False) -> Job:
    """A job whose user is the first letter of its name."""
    return Job(name, name[0], submitted_s, (task_s,) * tasks, gang=gang)


def workload(*jobs: Job) -> Workload:
    """In order of submission."""
    return workload_of(jobs, "test")


def schedule(
    policy: str,
    jobs: Sequence[Job],
    slots: int,
    estimates: str = "exact",
    weights: Mapping[str, float] | None = None,
) -> Schedule:
    """What the policy does on that many slots."""
    return simulate(Setting(workload(*jobs), lambda: Slots(slots), estimates, 0, weights), policy)


def finishes(policy: str, jobs: Sequence[Job], slots: int = 1, estimates: str = "exact") -> dict[str, float]:
    """End of each job, seconds, by name."""
    made = schedule(policy, jobs, slots, estimates)
    return {each.job.name: float(each.finished_s or 0.0) for each in made.submissions}


def slow_fluid_s(
    jobs: Sequence[FluidJob], weights: Mapping[str, float], *, capped: bool, step_s: float = 2e-3
) -> list[float]:
    """The fluid cluster by small steps of time: who is there shares what is left, nothing clever.

    Each step pours the cluster out among users by weight, drop by drop, until
    everybody has what he can use; the same inside each user.
    """
    left = [each.work for each in jobs]
    finish_s = [0.0] * len(jobs)
    now_s = 0.0
    while any(work > 0 for work in left):
        here = [at for at, each in enumerate(jobs) if each.submitted_s <= now_s and left[at] > 0]
        for at, rate in _rates(jobs, here, weights, capped=capped).items():
            left[at] -= rate * step_s
            if left[at] <= 0:
                finish_s[at] = now_s + step_s
        now_s += step_s
    return finish_s


def _rates(
    jobs: Sequence[FluidJob], here: Sequence[int], weights: Mapping[str, float], *, capped: bool
) -> dict[int, float]:
    members: dict[str, list[int]] = {}
    for at in here:
        members.setdefault(jobs[at].user, []).append(at)
    caps = {at: jobs[at].cap if capped else float("inf") for at in here}
    wanted = {user: sum(caps[at] for at in of_user) for user, of_user in members.items()}
    got = poured(1.0, wanted, weights)
    rates: dict[int, float] = {}
    for user, of_user in members.items():
        rates |= poured(got[user], {at: caps[at] for at in of_user}, {})
    return rates


def poured(amount: float, wanted: Mapping[Who, float], weights: Mapping[Who, float]) -> dict[Who, float]:
    """Weighted max-min of one amount: everybody's level rises alike until he has what he wants."""
    got = dict.fromkeys(wanted, 0.0)
    thirsty = set(wanted)
    while thirsty and amount > 1e-12:
        total = sum(weights.get(each, 1.0) for each in thirsty)
        rise = min(amount / total, *((wanted[each] - got[each]) / weights.get(each, 1.0) for each in thirsty))
        for each in thirsty:
            got[each] += rise * weights.get(each, 1.0)
        amount -= rise * total
        thirsty = {each for each in thirsty if wanted[each] - got[each] > 1e-12}
    return got
