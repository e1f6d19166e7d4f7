"""How good predictions are: error, coverage, and whether the fastest node would have been picked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.pairs import Mask
from model.snapshot import Floats

LEAST_PER_USER = 5
ROUNDING = 1e-9
"""Predictions come from logarithms: what differs by so little is the same time."""


@dataclass(frozen=True)
class Part:
    """Figures of one part of the examples: a duration decile or a user."""

    name: str
    rows: int
    median_error: float
    coverage: float


@dataclass(frozen=True)
class Ranking:
    """Figures over decisions of which several candidates' run times are known.

    `top1` and `top2`: share of the decisions in which the truly fastest
    candidate is predicted first, or among the first two. `regret`: run time on
    the node predicted fastest over that on the truly fastest, minus 1.
    """

    decisions: int
    candidates: float
    top1: float
    top2: float
    mean_regret: float
    median_regret: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one set of predictions.

    `median_error` and `p90_error` are of |predicted / actual - 1|, `coverage`
    is the share of run times within [p10, p90] (0.8 is right), `mean_log_error`
    the mean of |log(predicted / actual)|.
    """

    rows: int
    median_error: float
    p90_error: float
    mean_log_error: float
    coverage: float
    deciles: tuple[Part, ...] = ()
    users: tuple[Part, ...] = ()
    ranking: Ranking | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def evaluate(frame: pd.DataFrame, quantiles: Floats) -> Evaluation:
    """Judge predictions of shape (rows, 3) (p10, p50, p90 in s) for the examples in `frame`."""
    actual = frame["run_s"].to_numpy(dtype=np.float64)
    error = np.abs(quantiles[:, 1] / actual - 1)
    lowest, highest = quantiles[:, 0] * (1 - ROUNDING), quantiles[:, 2] * (1 + ROUNDING)
    covered = (lowest <= actual) & (actual <= highest)
    return Evaluation(
        rows=len(frame),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        mean_log_error=float(np.abs(np.log(quantiles[:, 1] / actual)).mean()),
        coverage=float(covered.mean()),
        deciles=_deciles(actual, error, covered),
        users=_users(frame, error, covered),
        ranking=ranking(frame, quantiles[:, 1]),
    )


def _deciles(actual: Floats, error: Floats, covered: Mask) -> tuple[Part, ...]:
    order = np.argsort(actual, kind="stable")
    parts = [rows for rows in np.array_split(order, 10) if len(rows)]
    return tuple(
        _part(f"{actual[rows[0]]:.3g} to {actual[rows[-1]]:.3g} s", error[rows], covered[rows])
        for rows in parts
    )


def _users(frame: pd.DataFrame, error: Floats, covered: Mask) -> tuple[Part, ...]:
    if "user" not in frame.columns:
        return ()
    users = frame["user"].to_numpy()
    rows_of = {str(user): np.flatnonzero(users == user) for user in pd.unique(frame["user"])}
    return tuple(
        _part(user or "(no user)", error[rows], covered[rows])
        for user, rows in sorted(rows_of.items())
        if len(rows) >= LEAST_PER_USER
    )


def _part(name: str, error: Floats, covered: Mask) -> Part:
    return Part(name, len(error), float(np.median(error)), float(covered.mean()))


def ranking(frame: pd.DataFrame, predicted_s: Floats) -> Ranking | None:
    """Judge the order of candidates within each decision; None where no decision has two of them."""
    if "decision_id" not in frame.columns:
        return None
    actual, found = frame["run_s"].to_numpy(dtype=np.float64), []
    for decision, rows in frame.groupby("decision_id", sort=False).indices.items():
        if decision != "" and len(rows) > 1:
            found.append(_choice(actual[rows], predicted_s[rows]))
    if not found:
        return None
    place, regret, candidates = np.array(found).T
    return Ranking(
        decisions=len(found),
        candidates=float(candidates.mean()),
        top1=float((place == 0).mean()),
        top2=float((place <= 1).mean()),
        mean_regret=float(regret.mean()),
        median_regret=float(np.median(regret)),
    )


def _choice(actual: Floats, predicted: Floats) -> tuple[float, float, float]:
    """At which place the fastest candidate is predicted, the regret of the first, how many there are.

    Among candidates predicted alike the slowest counts as chosen first, so
    that a predictor that can't tell them apart gains nothing by luck.
    """
    order = np.lexsort((-actual, predicted))
    place = int(np.flatnonzero(actual[order] == actual.min())[0])
    return place, float(actual[order[0]] / actual.min() - 1), len(actual)
