"""What a policy is told of a job's work: the truth, or the truth with an error that is seeded.

A specification is one or more of these, separated by commas, multiplied:
`exact`; `lognormal:S` (each job by exp(S x N(0, 1)), median 1);
`bias:USER=X` (that user's jobs by X; USER may hold * ? [ ] as in file names);
`constant` (every job is said to have the median work of the trace).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from fnmatch import fnmatchcase

from simulator.workload import Job, Workload

Errors = Callable[[Job], float]
"""Estimated over true work of a job."""
SIGMA_MOST = 10.0
"""One job in six is then told wrong by more than e^10; far beyond, numbers end and nothing is learned."""
BIAS_LIMITS = (1e-9, 1e9)
EXAMPLES = "exact, lognormal:0.5, bias:alice=0.1, constant"


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
