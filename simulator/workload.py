"""What is submitted: jobs of pods, as every trace format and the generator give them.

A *gang* job starts with all of its pods at once and holds them to its end;
any other job is elastic: each pod (a task, in Spark's words) starts when it
gets a place, and the job ends with its last pod.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TIME_LIMIT_S = 1e9
"""Longest duration and longest time between submissions, 32 years: beyond, time is in another unit."""
_TOO_LONG = f"is more than {TIME_LIMIT_S:g}; times are in seconds: divide milliseconds by 1000"


@dataclass(frozen=True, slots=True)
class Request:
    """What one pod asks for: cores, bytes of memory, GPUs; none is asked for where it is 0."""

    cpu: float = 1.0
    memory: float = 0.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(part) and part >= 0 for part in self.parts) or not any(self.parts):
            raise ValueError("cpu, memory and gpu must be 0 or more, and one of them above 0")

    @property
    def parts(self) -> tuple[float, float, float]:
        """Cores, bytes, GPUs."""
        return (self.cpu, self.memory, self.gpu)


@dataclass(frozen=True, slots=True)
class Job:
    """One submission of one user; `durations_s` has one entry a pod.

    Raises:
        ValueError: no pod, a duration that is not above 0, no finite time of
            submission, or a gang whose pods do not all last equally long.
    """

    name: str
    user: str
    submitted_s: float
    durations_s: tuple[float, ...]
    request: Request = field(default_factory=Request)
    gang: bool = False

    def __post_init__(self) -> None:
        if not self.user:
            raise ValueError("user is empty")
        if not math.isfinite(self.submitted_s):
            raise ValueError(f"submitted_s is {self.submitted_s}, must be finite")
        if not self.durations_s:
            raise ValueError("a job needs at least one pod")
        if not (min(self.durations_s) > 0 and math.isfinite(sum(self.durations_s))):
            raise ValueError("every duration must be above 0 seconds and finite")
        if max(self.durations_s) > TIME_LIMIT_S:
            raise ValueError(f"a duration of {max(self.durations_s):g} s {_TOO_LONG}")
        if self.gang and min(self.durations_s) != max(self.durations_s):
            raise ValueError("the pods of a gang end together: give one duration, or a task list instead")

    @property
    def pods(self) -> int:
        """How many pods it has."""
        return len(self.durations_s)

    @property
    def pod_seconds(self) -> float:
        """Work, in pods x seconds (slot-seconds where a pod takes one slot)."""
        return math.fsum(self.durations_s)


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs in order of submission, the first at 0 s; `notes` say what the reader left out."""

    jobs: tuple[Job, ...]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """Names of all users, in order of their first submission."""
        return tuple(dict.fromkeys(job.user for job in self.jobs))


def workload_of(jobs: Sequence[Job], name: str, notes: Sequence[str] = ()) -> Workload:
    """The jobs by time of submission (equal times keep their order), shifted so that the first is at 0 s.

    Raises:
        ValueError: there is no job, or they are spread over more time than `TIME_LIMIT_S`.
    """
    if not jobs:
        raise ValueError(f"{name}: no job to run")
    ordered = sorted(jobs, key=lambda job: job.submitted_s)
    first_s = ordered[0].submitted_s
    if ordered[-1].submitted_s - first_s > TIME_LIMIT_S:
        last_s = ordered[-1].submitted_s - first_s
        raise ValueError(f"{name}: from the first submission to the last, {last_s:g} s {_TOO_LONG}")
    if first_s != 0:
        ordered = [
            Job(job.name, job.user, job.submitted_s - first_s, job.durations_s, job.request, job.gang)
            for job in ordered
        ]
    return Workload(tuple(ordered), name, tuple(notes))


def workload_of_first(workload: Workload, jobs: int) -> Workload:
    """The first `jobs` jobs of it."""
    kept = workload.jobs[:jobs]
    left_out = len(workload.jobs) - len(kept)
    notes = (*workload.notes, f"{left_out} later jobs left out on request") if left_out else workload.notes
    return Workload(kept, workload.name, notes)
