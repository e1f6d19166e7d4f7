"""What a policy is told of a job's work: the truth, or the truth with an error that is seeded.

A specification is one or more of these, separated by commas, multiplied:
`exact`; `lognormal:S` (each job by exp(S x N(0, 1)), median 1);
`bias:USER=X` (that user's jobs by X; USER may hold * ? [ ] as in file names);
`constant` (every job is said to have the median work of the trace); `model`
(what past runs say, as the queue itself goes by them).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from itertools import count

from scheduler.core.queue.estimates import PastRuns
from scheduler.core.queue.events import Gang
from simulator.workload import Job, Workload

Errors = Callable[[Job], float]
"""Estimated over true work of a job."""
SIGMA_MOST = 10.0
"""One job in six is then told wrong by more than e^10; far beyond, numbers end and nothing is learned."""
BIAS_LIMITS = (1e-9, 1e9)
EXAMPLES = "exact, lognormal:0.5, bias:alice=0.1, constant, model"


def errors_of(specification: str, seed: int, workload: Workload) -> Errors:
    """The errors that it describes; asked once a job, in the order of submission.

    Raises:
        ValueError: it cannot be read; the message says what can.
    """
    parts = [_part(text.strip(), seed, workload) for text in specification.split(",")]
    return lambda job: math.prod(part(job) for part in parts)


def _part(text: str, seed: int, workload: Workload) -> Errors:
    kind, _, argument = text.partition(":")
    if text == "exact":
        return lambda job: 1.0  # noqa: ARG005
    if text == "constant":
        return _constant(workload)
    if text == "model":
        return _past_runs()
    if kind == "lognormal":
        return _lognormal(_positive(argument, text, (0.0, SIGMA_MOST)), seed)
    if kind == "bias" and "=" in argument:
        user, _, factor = argument.rpartition("=")
        return _bias(user, _positive(factor, text, BIAS_LIMITS), workload)
    raise ValueError(f"estimates: {text!r} is unknown; use {EXAMPLES}")


def _positive(number: str, text: str, limits: tuple[float, float]) -> float:
    try:
        value = float(number)
    except ValueError as error:
        raise ValueError(f"estimates: {text!r}: {number!r} is not a number") from error
    least, most = limits
    if not (value > 0 and least <= value <= most):
        least_told = f", at least {least:g}" if least else ""
        raise ValueError(f"estimates: {text!r}: must be above 0{least_told} and at most {most:g}")
    return value


def _lognormal(sigma: float, seed: int) -> Errors:
    source = random.Random(seed)
    return lambda job: math.exp(source.gauss(0.0, sigma))  # noqa: ARG005


def _bias(user: str, factor: float, workload: Workload) -> Errors:
    if not any(fnmatchcase(name, user) for name in workload.users):
        raise ValueError(f"estimates: bias of {user!r}: the trace has no such user")
    return lambda job: factor if fnmatchcase(job.user, user) else 1.0


def _constant(workload: Workload) -> Errors:
    median = statistics.median(job.pod_seconds for job in workload.jobs)
    return lambda job: median / job.pod_seconds


def _past_runs() -> Errors:
    """From the runs of that user and name, else of that user, else of all.

    A job has run as soon as it could have ended; when it really ends depends on
    the policy, and all policies are to be told the same.
    """
    runs, numbers = PastRuns(), count()
    ends: list[tuple[float, int, Job]] = []

    def error(job: Job) -> float:
        while ends and ends[0][0] <= job.submitted_s:
            ended = heappop(ends)[2]
            runs.ended(_gang(ended), _pod_s(ended))
        heappush(ends, (job.submitted_s + max(job.durations_s), next(numbers), job))
        return runs.estimate(_gang(job)).p50_s / _pod_s(job)

    return error


def _gang(job: Job) -> Gang:
    return Gang("", job.user, (), job.submitted_s, job_class=job.name)


def _pod_s(job: Job) -> float:
    return job.pod_seconds / job.pods
