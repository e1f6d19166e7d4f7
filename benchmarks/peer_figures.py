"""Figures of real Jobs, worked out as the simulator works out its own, which stand beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from benchmarks.live_jobs import FAIRLANE, Life, LiveJob
from benchmarks.peer_loads import SLOTS, Load
from simulator.cluster import Slots
from simulator.engine import Simulation
from simulator.metrics import late_by, references_of
from simulator.policies.registry import scheduler_of
from simulator.shares import user_shares
from simulator.state import Schedule, Submission
from simulator.workload import Job, workload_of
from testbed.control import TestbedError

DEFAULT, ORACLE = "default", "oracle"
SIMULATED = {DEFAULT: "fifo", FAIRLANE: "fairlane", ORACLE: "fairlane"}
"""Which policy of the simulator foretells an arm."""
BEST = "uwfq"
"""The published policy that costs nothing in a simulation."""
Estimates = Mapping[str, Sequence[tuple[float, str]]]
"""By job: seconds and source, one a pod."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the jobs that are scored: response, mean lateness against the capped fluid; `used`: of all slots,
    from the first submission to the last end; `received`: share by user while not all could have theirs."""

    jobs: int
    mean_s: float
    p50_s: float
    p95_s: float
    late: float
    late_most: float
    used: float
    makespan_s: float
    jain: float
    entitled: Mapping[str, float]
    received: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Told:
    """Estimates by their source, of all pods; `factor`: median of estimate over truth or its inverse."""

    sources: Mapping[str, int]
    factor: float
    factor_p90: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What real pods cost, medians in seconds: from open gate to binding (without a gate that is waiting as
    well), from binding to running, and how much longer than its run time a slot was held.
    `late_submission_s`: the latest that a Job was created."""

    bind_s: float
    start_s: float
    held_over_s: float
    late_submission_s: float


@dataclass(frozen=True, slots=True)
class Ran:
    """One arm; `simulated`: the same submissions in the simulator, with the estimates that the queue had."""

    arm: str
    real: Figures
    simulated: Figures
    best: Figures
    slower_s: float
    """Mean of real less simulated response of each job that is scored."""
    slower_p50_s: float
    share_off: float
    """Largest difference of a user's share, real and simulated."""
    told: Told | None
    costs: Costs
    responses_s: tuple[tuple[float, float], ...]
    """Real and simulated of each scored job, the shortest first: the trace cannot be read from it."""


def ran_of(load: Load, arm: str, jobs: Mapping[str, LiveJob], told: Estimates) -> Ran:
    """Figures of what was seen of each job, beside the simulator's for the same submissions.

    Raises:
        TestbedError: a pod ended without having been on a node.
    """
    schedule = schedule_of(load, arm, jobs)
    submitted = [one.job for one in schedule.submissions]
    errors = {
        job.name: fmean(told_s for told_s, _ in told[job.name]) / job.durations_s[0]
        for job in submitted
        if told.get(job.name)
    }
    without_cost = simulated(load, SIMULATED[arm], submitted, errors)
    real, foretold = figures_of(schedule, load.scored), figures_of(without_cost, load.scored)
    pairs = [
        (real_s, simulated_s)
        for one, real_s, simulated_s in zip(
            schedule.submissions, schedule.response_s.tolist(), without_cost.response_s.tolist(), strict=True
        )
        if one.user in load.scored
    ]
    slower_s = [real_s - simulated_s for real_s, simulated_s in pairs]
    return Ran(
        arm,
        real,
        foretold,
        figures_of(simulated(load, BEST, submitted, {}), load.scored),
        fmean(slower_s),
        median(slower_s),
        share_off(real, foretold),
        told_of(load, told),
        costs_of(load, jobs),
        tuple(sorted(pairs)),
    )


def schedule_of(load: Load, arm: str, jobs: Mapping[str, LiveJob]) -> Schedule:
    """What was seen as the simulator would leave it; a pod holds its slot from binding to end."""
    began_s = min(job.created_s for job in jobs.values())
    seen = [
        Job(job.name, job.user, jobs[job.name].created_s - began_s, job.durations_s)
        for job in load.workload.jobs
    ]
    workload = workload_of(seen, load.workload.name)
    submissions, runs = [], []
    for index, job in enumerate(workload.jobs):
        live = jobs[job.name]
        submission = Submission(index, job, 1.0 / SLOTS, 1.0, 1.0, 0)
        submission.waiting, submission.finished_s = 0, (live.ended_s or 0.0) - began_s
        submissions.append(submission)
        runs += [(*_on_node(live, life), index) for life in live.lives]
    order = sorted(runs)
    return Schedule(
        policy=arm,
        workload=workload,
        submissions=tuple(submissions),
        left_out=(),
        job=np.array([index for _, _, index in order], dtype=np.int64),
        start_s=np.array([start_s for start_s, _, _ in order]) - began_s,
        end_s=np.array([end_s for _, end_s, _ in order]) - began_s,
        share=np.full(len(order), 1.0 / SLOTS),
        events=0,
        cpu_s=0.0,
    )


def _on_node(job: LiveJob, life: Life) -> tuple[float, float]:
    if life.bound_s is None or life.ended_s is None or len(job.lives) != job.pods:
        raise TestbedError(
            f"a job of {job.ask.user} with {job.pods} pods had {len(job.lives)}, and not all ran to their end"
        )
    return life.bound_s, life.ended_s


def simulated(load: Load, policy: str, jobs: Sequence[Job], errors: Mapping[str, float]) -> Schedule:
    """The jobs under a policy of the simulator; `errors`: estimated over true work, 1 where not given."""
    slots = Slots(SLOTS)
    workload = workload_of(jobs, load.workload.name)
    scheduler = scheduler_of(policy, slots, {})
    return Simulation(workload, slots, scheduler, lambda job: errors.get(job.name, 1.0)).run()


def share_off(real: Figures, foretold: Figures) -> float:
    """Largest difference of a user's share, as a part of the cluster; NaN where nobody ever had to wait."""
    if not sum(real.received.values()) * sum(foretold.received.values()):
        return math.nan
    return max(abs(real.received[user] - foretold.received[user]) for user in real.received)


def figures_of(schedule: Schedule, scored: Sequence[str]) -> Figures:
    """Of these users' jobs; shares are of all users."""
    counted = np.array([one.user in scored for one in schedule.submissions])
    response_s, finish_s = schedule.response_s[counted], schedule.finish_s
    known = references_of(schedule)
    late = late_by(finish_s, known.capped_s, known.submitted_s)[counted]
    shares = user_shares(schedule)
    makespan_s = float(finish_s.max() - known.submitted_s.min())
    p50_s, p95_s = (float(one) for one in np.percentile(response_s, [50, 95]))
    return Figures(
        jobs=int(counted.sum()),
        mean_s=float(response_s.mean()),
        p50_s=p50_s,
        p95_s=p95_s,
        late=float(late.mean()),
        late_most=float(late.max()),
        used=float((schedule.share * (schedule.end_s - schedule.start_s)).sum()) / makespan_s,
        makespan_s=makespan_s,
        jain=shares.jain,
        entitled=dict(zip(shares.users, shares.entitled.tolist(), strict=True)),
        received=dict(zip(shares.users, shares.received.tolist(), strict=True)),
    )


def told_of(load: Load, told: Estimates) -> Told | None:
    """How good the estimates were; None where there were none."""
    truth_s = {job.name: job.durations_s[0] for job in load.workload.jobs}
    ratios = [told_s / truth_s[name] for name, pods in told.items() for told_s, _ in pods]
    if not ratios:
        return None
    factors = [max(ratio, 1.0 / ratio) for ratio in ratios]
    sources = Counter(source for pods in told.values() for _, source in pods)
    return Told(dict(sources.most_common()), median(factors), float(np.percentile(factors, 90)))


def costs_of(load: Load, jobs: Mapping[str, LiveJob]) -> Costs:
    """Medians over all pods."""
    lives = [life for job in jobs.values() for life in job.lives]
    began_s = min(job.created_s for job in jobs.values())
    late_s = (jobs[job.name].created_s - began_s - job.submitted_s for job in load.workload.jobs)
    return Costs(
        bind_s=median((one.bound_s or 0.0) - (one.open_s or 0.0) for one in lives),
        start_s=median((one.running_s or 0.0) - (one.bound_s or 0.0) for one in lives),
        held_over_s=median((one.ended_s or 0.0) - (one.bound_s or 0.0) - one.ask.run_s for one in lives),
        late_submission_s=max(late_s),
    )
