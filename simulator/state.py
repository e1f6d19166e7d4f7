"""What the simulation knows of a job while it waits and runs, and what it leaves behind.

Shares are dominant shares of the whole cluster (1.0 = all of it), work is in
share-seconds. A policy may read `estimated_*`, never `job.durations_s`: that
is what it cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.workload import Job, Workload

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(eq=False, slots=True)
class Submission:
    """A job in the simulation; `error` is estimated over true work, `share` that of one pod."""

    index: int
    job: Job
    share: float
    weight: float
    error: float
    waiting: int = 0
    running: int = 0
    started_s: float | None = None
    finished_s: float | None = None

    def __post_init__(self) -> None:
        self.waiting = self.job.pods

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.job.user

    @property
    def order(self) -> tuple[float, int]:
        """First come first served."""
        return (self.job.submitted_s, self.index)

    @property
    def estimated_work(self) -> float:
        """Of the whole job, share-seconds."""
        return self.share * self.job.pod_seconds * self.error

    @property
    def estimated_waiting_work(self) -> float:
        """Of the pods that have not started, share-seconds."""
        return self.estimated_work * self.waiting / self.job.pods

    @property
    def running_share(self) -> float:
        """Share held now."""
        return self.running * self.share

    def estimated_pod_s(self, pod: int) -> float:
        """Estimated run time of the pod of that index."""
        return self.job.durations_s[pod] * self.error


@dataclass(eq=False, slots=True)
class Run:
    """Pods of one job that started together: one pod, or a gang; `place` is the cluster's own note."""

    submission: Submission
    pod: int
    pods: int
    start_s: float
    end_s: float
    place: Any = None
    key: str = ""

    @property
    def share(self) -> float:
        """Share held while it runs."""
        return self.pods * self.submission.share


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one policy did: one row a run, in order of start; `left_out` could never have fitted."""

    policy: str
    workload: Workload
    submissions: tuple[Submission, ...]
    left_out: tuple[Job, ...]
    job: Whole
    start_s: Floats
    end_s: Floats
    share: Floats
    events: int
    cpu_s: float
    notes: tuple[str, ...] = field(default=())

    @property
    def response_s(self) -> Floats:
        """Submission to end of the last pod, one a submission."""
        return np.array([each.finished_s - each.job.submitted_s for each in finished(self.submissions)])

    @property
    def finish_s(self) -> Floats:
        """End of the last pod, one a submission."""
        return np.array([each.finished_s for each in finished(self.submissions)], dtype=float)


def finished(submissions: Sequence[Submission]) -> Sequence[Any]:
    """The same, all of which have ended.

    Raises:
        RuntimeError: one has not; a schedule with holes must not be measured.
    """
    for each in submissions:
        if each.finished_s is None:
            raise RuntimeError(f"job {each.job.name} of {each.user} never finished")
    return submissions
