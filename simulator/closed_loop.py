"""Closed-loop users: each always has the same number of jobs in the system, one more whenever one ends.

So everybody always wants more than he gets, and the shares received are the
policy's own doing: the test of weights and of biased estimates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from simulator.cluster import Slots
from simulator.engine import Simulation, Watch
from simulator.estimates import errors_of
from simulator.generator import Distribution, Lognormal
from simulator.policies.registry import scheduler_of
from simulator.shares import UserShares, user_shares
from simulator.state import Schedule, Submission
from simulator.workload import Job, workload_of

WARM_UP = 0.1
"""First part of the horizon, not counted: the first jobs begin together."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Users by weight, each with `outstanding` jobs of one to `pods` pods, until `horizon_s`."""

    weights: Mapping[str, float]
    slots: int
    horizon_s: float
    outstanding: int
    duration_s: Distribution = field(default_factory=lambda: Lognormal(median=10.0, sigma=0.5))
    pods: int = 1
    estimates: str = "exact"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """Shares of the cluster from the end of the warm-up to the horizon."""

    policy: str
    shares: UserShares
    schedule: Schedule


def run_closed_loop(setting: ClosedLoop, policy: str, watch: Watch = lambda _: None) -> Received:
    """One policy under closed-loop users.

    Raises:
        ValueError: an unknown policy or estimate, or fewer jobs in the system than fill it.
    """
    if setting.outstanding * len(setting.weights) <= setting.slots:
        raise ValueError(
            f"{setting.outstanding} jobs of each of {len(setting.weights)} users cannot fill "
            f"{setting.slots} slots: nobody would wait"
        )
    follow = _follow(setting)
    first = [follow(user) for user in setting.weights for _ in range(setting.outstanding)]
    workload = workload_of(first, "closed loop")
    errors = errors_of(setting.estimates, setting.seed, workload)
    cluster = Slots(setting.slots)
    scheduler = scheduler_of(policy, cluster, setting.weights)

    def next_of(ended: Submission, now_s: float) -> Sequence[Job]:
        return [follow(ended.user, now_s)]

    simulation = Simulation(workload, cluster, scheduler, errors, setting.weights, next_of, setting.horizon_s)
    schedule = simulation.run(watch)
    shares = user_shares(schedule, WARM_UP * setting.horizon_s, setting.horizon_s)
    return Received(policy, shares, schedule)


def _follow(setting: ClosedLoop) -> Callable[..., Job]:
    """Makes the next job of a user; every user draws from his own random numbers."""
    sources = {user: random.Random(f"{setting.seed}/{user}") for user in setting.weights}
    made = dict.fromkeys(setting.weights, 0)

    def follow(user: str, now_s: float = 0.0) -> Job:
        made[user] += 1
        source = sources[user]
        pods = source.randint(1, setting.pods)
        return Job(f"{user}-{made[user]}", user, now_s, (setting.duration_s.draw(source),) * pods)

    return follow
