"""A ridge regression on logarithms: power laws that trees can't continue beyond what they saw.

Run time is often close to a product of powers (bytes / throughput), which is
linear in logarithms. Fitted beneath the trees it carries over to sizes and
groups that were never trained on. Whether it is used is decided on held-out
rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from model.snapshot import Floats

LEVELS_AT_MOST = 50
"""Categories beyond this many have no coefficient of their own."""
OUTREACH = 1.0
"""How far beyond the seen range, in ranges, an input may pull the prediction."""


@dataclass(frozen=True)
class Term:
    """One input column: which, how it is scaled, its coefficients.

    `kind` is "log" (log(v + offset)), "plain" or "level" (v == offset).
    """

    column: int
    kind: str
    offset: float
    center: float
    scale: float
    low: float
    high: float
    coefficient: float = 0.0


@dataclass(frozen=True)
class LogLinear:
    """`intercept` + the sum of the terms, in log s."""

    intercept: float
    terms: tuple[Term, ...]

    def predict(self, matrix: Floats) -> Floats:
        """Prediction in log s, shape (rows,)."""
        return np.asarray(self.intercept + self.contributions(matrix).sum(axis=1), dtype=np.float64)

    def contributions(self, matrix: Floats) -> Floats:
        """What each column adds to `intercept`, shape of `matrix`."""
        parts = np.zeros(matrix.shape)
        for term in self.terms:
            parts[:, term.column] += term.coefficient * _scaled(term, matrix[:, term.column])
        return parts

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> LogLinear:
        """The inverse of `to_json`."""
        return LogLinear(float(values["intercept"]), tuple(Term(**term) for term in values["terms"]))


def fit_log_linear(matrix: Floats, target: Floats, weight: Floats, categorical: set[int]) -> LogLinear:
    """Fit to `target` in log s; unknown inputs count as the mean of their column."""
    terms = [
        term for column in range(matrix.shape[1]) for term in _terms(matrix[:, column], column, categorical)
    ]
    level = float(np.average(target, weights=weight))
    if not terms:
        return LogLinear(level, ())
    inputs = np.column_stack([_scaled(term, matrix[:, term.column]) for term in terms])
    ridge = RidgeCV(alphas=np.logspace(-1, 4, 11)).fit(inputs, target, sample_weight=weight)
    fitted = (
        Term(**(asdict(t) | {"coefficient": float(c)})) for t, c in zip(terms, ridge.coef_, strict=True)
    )
    return LogLinear(float(ridge.intercept_), tuple(fitted))


def _terms(values: Floats, column: int, categorical: set[int]) -> list[Term]:
    known = values[np.isfinite(values)]
    levels = np.unique(known)
    if len(levels) < 2:
        return []
    if column in categorical:
        kept = levels if len(levels) <= LEVELS_AT_MOST else levels[:0]
        return [Term(column, "level", float(level), 0.0, 1.0, 0.0, 1.0) for level in kept]
    kind, offset = "plain", 0.0
    if known.min() >= 0:
        positive = known[known > 0]
        kind, offset = "log", 0.0 if known.min() > 0 else float(np.quantile(positive, 0.05))
    seen = np.log(known + offset) if kind == "log" else known
    low, high = float(seen.min()), float(seen.max())
    reach = OUTREACH * (high - low)
    scale = float(seen.std())
    if not scale > 0:
        return []
    return [Term(column, kind, offset, float(seen.mean()), scale, low - reach, high + reach)]


def _scaled(term: Term, values: Floats) -> Floats:
    if term.kind == "level":
        return np.asarray(values == term.offset, dtype=np.float64)
    if term.kind == "log":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(values + term.offset)
    scaled = (np.clip(values, term.low, term.high) - term.center) / term.scale
    return np.asarray(np.where(np.isfinite(scaled), scaled, 0.0), dtype=np.float64)
