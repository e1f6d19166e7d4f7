"""Several policies on one workload: the same jobs, errors of estimates and fluid references for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simulator.cluster import Cluster
from simulator.engine import Simulation, Watch
from simulator.estimates import errors_of
from simulator.metrics import Measures, References, measure, references_of
from simulator.policies.registry import scheduler_of
from simulator.policies.users import UserJobFair
from simulator.state import Schedule
from simulator.workload import Workload

Announce = Callable[[str], Watch]
"""Called with what begins; gives who is told how many jobs of it have ended."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a comparison runs on; `cluster` makes an empty one."""

    workload: Workload
    cluster: Callable[[], Cluster]
    estimates: str = "exact"
    seed: int = 0
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One policy's schedule and its figures."""

    schedule: Schedule
    measures: Measures


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results in the order asked for."""

    setting: Setting
    references: References
    results: tuple[Result, ...]


def simulate(setting: Setting, policy: str, watch: Watch = lambda _: None) -> Schedule:
    """One policy on the setting.

    Raises:
        ValueError: an unknown policy or estimate.
    """
    cluster = setting.cluster()
    weights = setting.weights or {}
    errors = errors_of(setting.estimates, setting.seed, setting.workload)
    scheduler = scheduler_of(policy, cluster, weights)
    return Simulation(setting.workload, cluster, scheduler, errors, weights).run(watch)


def compare(
    setting: Setting, policies: Sequence[str], announce: Announce = lambda _: lambda __: None
) -> Comparison:
    """Every policy on the setting; user-job-fair is run besides where it is not asked for (DVR needs it).

    Raises:
        ValueError: an unknown policy or estimate, or no job fits the cluster.
    """
    schedules = {name: simulate(setting, name, announce(name)) for name in policies}
    baseline = schedules.get(UserJobFair.name) or simulate(
        setting, UserJobFair.name, announce(UserJobFair.name)
    )
    references = references_of(baseline)
    results = [Result(each, measure(each, references, baseline)) for each in schedules.values()]
    return Comparison(setting, references, tuple(results))
