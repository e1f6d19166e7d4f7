"""The simulation: a heap of (time_s, sequence, event) around one scheduler.

All events of one instant are told before the scheduler is asked what starts:
what happens at the same time has no order. Sequence numbers make equal runs
equal. The scheduler is either a published policy on a list
(`ListScheduler`) or the production core (`simulator.policies.fairlane`).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from simulator.cluster import Cluster
from simulator.state import Run, Schedule, Submission
from simulator.workload import Job, Workload


class Scheduler(Protocol):
    """Decides what starts; told of everything that happens."""

    name: str

    def submitted(self, submission: Submission, now_s: float) -> None:
        """A job came."""
        ...

    def ended(self, run: Run, now_s: float) -> None:
        """Pods ended and gave their room back."""
        ...

    def tick(self, now_s: float) -> None:
        """Time went by; only called where `next_tick_s` asked for it."""
        ...

    def next_tick_s(self, now_s: float) -> float | None:
        """When `tick` is due next; None: not before another job comes. Asked after each, and as jobs come."""
        ...

    def starts(self, now_s: float) -> Iterable[Run]:
        """What starts now."""
        ...

    def notes(self) -> Sequence[str]:
        """What it had to say meanwhile, for the report."""
        ...


class StuckError(Exception):
    """Nothing runs, nothing comes, and jobs still wait: a defect of the scheduler."""


Follow = Callable[[Submission, float], Sequence[Job]]
"""Jobs that come because this one ended, at that time: closed-loop users."""
Watch = Callable[[int], None]
"""Told how many jobs have ended."""


class Simulation:
    """One run of one scheduler over one workload."""

    def __init__(
        self,
        workload: Workload,
        cluster: Cluster,
        scheduler: Scheduler,
        errors: Callable[[Job], float],
        weights: Mapping[str, float] | None = None,
        follow: Follow | None = None,
        until_s: float = float("inf"),
    ) -> None:
        self._workload, self._cluster, self._scheduler = workload, cluster, scheduler
        self._errors, self._weights, self._follow = errors, weights or {}, follow
        self._until_s = until_s
        self._heap: list[tuple[float, int, Submission | Run | None]] = []
        self._sequence = 0
        self._tick_due = False
        self._open = 0
        self._ended = 0
        self._submissions: list[Submission] = []
        self._left_out: list[Job] = []
        self._runs: list[Run] = []

    def run(self, watch: Watch = lambda _: None) -> Schedule:
        """Simulate to the end of the last job, or to `until_s`.

        Raises:
            StuckError: jobs wait for ever.
        """
        began = time.process_time()
        for job in self._workload.jobs:
            self._submit(job, job.submitted_s)
        while self._heap and self._heap[0][0] <= self._until_s:
            self._instant(watch)
        if self._open and not self._heap:
            raise StuckError(f"{self._scheduler.name}: {self._open} jobs wait and nothing runs")
        return self._schedule(time.process_time() - began)

    def _submit(self, job: Job, now_s: float) -> None:
        if not self._cluster.could_fit(job):
            self._left_out.append(job)
            return
        submission = Submission(
            index=len(self._submissions),
            job=job,
            share=self._cluster.share(job.request),
            weight=self._weights.get(job.user, 1.0),
            error=self._errors(job),
        )
        self._submissions.append(submission)
        self._open += 1
        self._push(now_s, submission)

    def _push(self, time_s: float, event: Submission | Run | None) -> None:
        heapq.heappush(self._heap, (time_s, self._sequence, event))
        self._sequence += 1

    def _instant(self, watch: Watch) -> None:
        now_s = self._heap[0][0]
        while self._heap and self._heap[0][0] == now_s:
            self._tell(heapq.heappop(self._heap)[2], now_s)
        for run in self._scheduler.starts(now_s):
            self._start(run, now_s)
        if self._heap:  # else nothing is left to happen, however long the clock runs
            self._set_tick(now_s)
        watch(self._ended)

    def _tell(self, event: Submission | Run | None, now_s: float) -> None:
        if isinstance(event, Run):
            self._end(event, now_s)
        elif event is not None:
            self._scheduler.submitted(event, now_s)
            self._set_tick(now_s)
        else:
            self._tick_due = False
            self._scheduler.tick(now_s)

    def _set_tick(self, now_s: float) -> None:
        """See that the clock goes on while the scheduler has a use for it: one tick is due at a time."""
        due_s = None if self._tick_due else self._scheduler.next_tick_s(now_s)
        if due_s is not None:
            self._tick_due = True
            self._push(due_s, None)

    def _start(self, run: Run, now_s: float) -> None:
        if run.submission.started_s is None:
            run.submission.started_s = now_s
        self._runs.append(run)
        self._push(run.end_s, run)

    def _end(self, run: Run, now_s: float) -> None:
        submission = run.submission
        submission.running -= run.pods
        self._cluster.free(run.place)
        self._scheduler.ended(run, now_s)
        if submission.waiting or submission.running:
            return
        submission.finished_s = now_s
        self._open -= 1
        self._ended += 1
        for job in self._follow(submission, now_s) if self._follow else ():
            self._submit(job, now_s)

    def _schedule(self, cpu_s: float) -> Schedule:
        return Schedule(
            policy=self._scheduler.name,
            workload=self._workload,
            submissions=tuple(self._submissions),
            left_out=tuple(self._left_out),
            job=np.array([run.submission.index for run in self._runs], dtype=np.int64),
            start_s=np.array([run.start_s for run in self._runs], dtype=float),
            end_s=np.array([run.end_s for run in self._runs], dtype=float),
            share=np.array([run.share for run in self._runs], dtype=float),
            events=self._sequence,
            cpu_s=cpu_s,
            notes=tuple(self._scheduler.notes()),
        )


class Policy(Protocol):
    """A published order of jobs: which one's next pod (or gang) starts when there is room."""

    name: str

    def submitted(self, submission: Submission, now_s: float) -> None:
        """A job came."""
        ...

    def head(self) -> Submission | None:
        """The job whose turn it is, of those with pods that wait."""
        ...

    def started(self, submission: Submission, now_s: float) -> None:
        """Its next pod, or the gang, started."""
        ...

    def ended(self, submission: Submission, now_s: float) -> None:
        """Pods of it ended."""
        ...


class ListScheduler:
    """Starts the head of a policy as long as it fits; what does not fit holds up the rest (no backfill)."""

    def __init__(self, policy: Policy, cluster: Cluster) -> None:
        self.name = policy.name
        self._policy, self._cluster = policy, cluster

    def submitted(self, submission: Submission, now_s: float) -> None:
        """Told to the policy."""
        self._policy.submitted(submission, now_s)

    def ended(self, run: Run, now_s: float) -> None:
        """Told to the policy."""
        self._policy.ended(run.submission, now_s)

    def tick(self, now_s: float) -> None:
        """Nothing to do: the policies know of no clock but the events'."""

    def next_tick_s(self, now_s: float) -> float | None:  # noqa: ARG002
        """Never, for the same reason."""
        return None

    def notes(self) -> Sequence[str]:
        """A policy says nothing."""
        return ()

    def starts(self, now_s: float) -> Iterable[Run]:
        """The head, and the next, until one does not fit."""
        while (head := self._policy.head()) is not None:
            run = start_of(head, self._cluster, now_s)
            if run is None:
                return
            self._policy.started(head, now_s)
            yield run


def start_of(submission: Submission, cluster: Cluster, now_s: float) -> Run | None:
    """The next pod of the job, or its gang, placed; None where it does not fit now."""
    job = submission.job
    pods = job.pods if job.gang else 1
    place = cluster.take(job.request, pods)
    if place is None:
        return None
    pod = job.pods - submission.waiting
    submission.waiting -= pods
    submission.running += pods
    return Run(submission, pod, pods, now_s, now_s + job.durations_s[pod], place)
