"""Small workloads for the simulator's tests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from simulator.cluster import Slots
from simulator.comparison import Setting, simulate
from simulator.state import Schedule
from simulator.workload import Job, Workload, workload_of

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
