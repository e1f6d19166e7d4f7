"""Figures of a schedule: response, slowdown, lateness, shares, use of the cluster.

Lateness of a job = max(0, finish - fluid finish) / (fluid finish -
submission); means are over all jobs, late or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simulator.capped import capped_finish_s
from simulator.fluid import FluidJob, uncapped_finish_s
from simulator.shares import UserShares, user_shares
from simulator.state import Floats, Schedule

SLICES = {"0-80": (0.0, 0.8), "80-95": (0.8, 0.95), "95-100": (0.95, 1.0)}
"""Of the jobs in the order of response (as published) or of work: percent."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles, of what the field that holds it says."""

    mean: float
    p50: float
    p95: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """Against one fluid reference; `beyond` counts jobs later than the theorem's bound."""

    mean: float
    largest: float
    beyond: int


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Finish against the finish under user-job-fair (UJF), as the UWFQ evaluation counts it.

    ratio = (finish - UJF finish) / UJF response; DVR is the mean of the
    positive ratios over `violations` jobs, DSR of the others over `slacks`;
    0.0 where there are none.
    """

    dvr: float
    violations: int
    dsr: float
    slacks: int


@dataclass(frozen=True, slots=True)
class Measures:
    """All figures of one schedule; times in seconds."""

    policy: str
    jobs: int
    left_out: int
    response_s: Spread
    response_by_percent_s: Mapping[str, float]
    response_by_work_s: Mapping[str, float]
    slowdown: Spread
    late_uncapped: Lateness
    late_capped: Lateness
    deadlines: Deadlines
    shares: UserShares
    utilisation: float
    makespan_s: float
    cpu_s: float
    events: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; shares become one entry a user."""
        plain = asdict(self)
        shares = self.shares
        plain["shares"] = {
            "contended_s": shares.contended_s,
            "jain": None if np.isnan(shares.jain) else shares.jain,
            "largest_error": shares.largest_error,
            "users": {
                user: {"entitled": float(entitled), "received": float(received)}
                for user, entitled, received in zip(
                    shares.users, shares.entitled, shares.received, strict=True
                )
            },
        }
        return plain


@dataclass(frozen=True, slots=True)
class References:
    """Fluid finishes of the jobs of one workload, in the order of submissions; seconds."""

    submitted_s: Floats
    uncapped_s: Floats
    capped_s: Floats
    bound_s: float
    """2 l_max + L_max / M."""


def fluid_jobs(schedule: Schedule) -> list[FluidJob]:
    """The schedule's jobs as the fluid cluster sees them."""
    return [
        FluidJob(
            user=each.user,
            submitted_s=each.job.submitted_s,
            work=each.job.pod_seconds * each.share,
            cap=each.share * each.job.pods,
        )
        for each in schedule.submissions
    ]


def references_of(schedule: Schedule) -> References:
    """Both fluid references of the workload; the schedule only says which jobs took part."""
    jobs = fluid_jobs(schedule)
    weights = {each.user: each.weight for each in schedule.submissions}
    longest_s = max((max(each.job.durations_s) for each in schedule.submissions), default=0.0)
    return References(
        submitted_s=np.array([job.submitted_s for job in jobs]),
        uncapped_s=uncapped_finish_s(jobs, weights),
        capped_s=capped_finish_s(jobs, weights),
        bound_s=2 * longest_s + max((job.work for job in jobs), default=0.0),
    )


def measure(schedule: Schedule, references: References, baseline: Schedule) -> Measures:
    """All figures; `baseline` is the schedule of user-job-fair on the same workload.

    Raises:
        ValueError: no job took part.
    """
    if not schedule.submissions:
        raise ValueError("no job fits the cluster: nothing to measure")
    response_s, finish_s = schedule.response_s, schedule.finish_s
    work = np.array([job.work for job in fluid_jobs(schedule)])
    busy = float((schedule.share * (schedule.end_s - schedule.start_s)).sum())
    makespan_s = float(finish_s.max() - references.submitted_s.min())
    return Measures(
        policy=schedule.policy,
        jobs=len(schedule.submissions),
        left_out=len(schedule.left_out),
        response_s=spread(response_s),
        response_by_percent_s=_sliced(response_s, response_s),
        response_by_work_s=_sliced(response_s, work),
        slowdown=spread(response_s / _alone_s(schedule)),
        late_uncapped=lateness(finish_s, references.uncapped_s, references),
        late_capped=lateness(finish_s, references.capped_s, references),
        deadlines=deadlines(schedule, baseline),
        shares=user_shares(schedule),
        utilisation=busy / makespan_s,
        makespan_s=makespan_s,
        cpu_s=schedule.cpu_s,
        events=schedule.events,
        notes=schedule.notes,
    )


def spread(values: Floats) -> Spread:
    """Mean and percentiles (linear interpolation) of at least one value."""
    p50, p95, p99 = (float(each) for each in np.percentile(values, [50, 95, 99]))
    return Spread(float(values.mean()), p50, p95, p99, float(values.max()))


def _sliced(values: Floats, by: Floats) -> dict[str, float]:
    """Mean of `values` in slices of the order of `by`; a slice without jobs is absent."""
    ordered = values[np.argsort(by, kind="stable")]
    cuts = {name: ordered[int(low * len(by)) : int(high * len(by))] for name, (low, high) in SLICES.items()}
    return {name: float(cut.mean()) for name, cut in cuts.items() if len(cut)}


def _alone_s(schedule: Schedule) -> Floats:
    """Least possible time of each job alone: its longest pod, or all of its work at full rate."""
    return np.array(
        [max(*each.job.durations_s, each.job.pod_seconds * each.share) for each in schedule.submissions]
    )


def late_by(finish_s: Floats, fluid_s: Floats, submitted_s: Floats) -> Floats:
    """Lateness of each job."""
    late: Floats = np.maximum(0.0, finish_s - fluid_s) / (fluid_s - submitted_s)
    return late


def lateness(finish_s: Floats, fluid_s: Floats, references: References) -> Lateness:
    """Against that fluid finish."""
    late = late_by(finish_s, fluid_s, references.submitted_s)
    beyond = finish_s > fluid_s + references.bound_s + 1e-6
    return Lateness(float(late.mean()), float(late.max()), int(beyond.sum()))


def deadlines(schedule: Schedule, baseline: Schedule) -> Deadlines:
    """DVR and DSR.

    Source: the evaluation scripts of arXiv 2510.15485 (its section 5.2 names
    the metrics "deadline violation ratio" and "deadline slack ratio"); they
    count each job twice in their totals, which leaves the means as they are
    and doubles the counts. Counted once here.
    """
    ratio = (schedule.finish_s - baseline.finish_s) / baseline.response_s
    late, early = ratio[ratio > 0], ratio[ratio <= 0]
    return Deadlines(
        dvr=float(late.mean()) if len(late) else 0.0,
        violations=len(late),
        dsr=float(early.mean()) if len(early) else 0.0,
        slacks=len(early),
    )
