"""Fitting `model.linear`: a ridge regression whose terms are chosen by what a column holds."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from sklearn.linear_model import RidgeCV

from model.linear import LogLinear, Term, scaled
from model.snapshot import Floats

LEVELS_AT_MOST = 50
"""Categories beyond this many have no coefficient of their own."""
OUTREACH = 1.0
"""How far beyond the seen range, in ranges, an input may pull the prediction."""


def fit_log_linear(matrix: Floats, target: Floats, weight: Floats, categorical: set[int]) -> LogLinear:
    """Fit to `target` in log s; unknown inputs count as the mean of their column."""
    terms = [
        term for column in range(matrix.shape[1]) for term in _terms(matrix[:, column], column, categorical)
    ]
    level = float(np.average(target, weights=weight))
    if not terms:
        return LogLinear(level, ())
    inputs = np.column_stack([scaled(term, matrix[:, term.column]) for term in terms])
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
