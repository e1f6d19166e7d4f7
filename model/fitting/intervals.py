"""Fitting `model.intervals`: conformal offsets, and the model of the residual's size.

Residuals are those of predictions for rows that the central model had not
seen. With s(x) the modelled size of the residual, the p10 and p90 offsets are
the finite-sample corrected quantiles of residual / s(x), times s(x) (locally
weighted split conformal prediction: Lei et al. 2018). s(x) for a residual
comes from the half of the rows that it is not in; the halves are of different
spans of time or groups. With few residuals the width is constant and starts
from the prior's spread.
"""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np

from model.intervals import Z_HIGH, Intervals, bounded
from model.snapshot import Floats

LOW, HIGH = 0.1, 0.9
PRIOR_WEIGHT = 5.0
"""Residuals that the prior's spread counts for."""
LEAST_FOR_QUANTILES = 20
LEAST_FOR_SIZE_MODEL = 100
LEAST_SIZE = 1e-3


def fit_intervals(residual: Floats, matrix: Floats, sigma: float, options: dict[str, Any]) -> Intervals:
    """Intervals from held-out residuals in log s (actual - predicted) and the rows they belong to.

    `sigma` is the spread of the prior, `options` are LightGBM parameters
    (seed, threads) shared with the central model.
    """
    typical = max(float(np.median(np.abs(residual))), LEAST_SIZE) if len(residual) else sigma
    if len(residual) < LEAST_FOR_QUANTILES:
        spread = np.sqrt((PRIOR_WEIGHT * sigma**2 + np.sum(residual**2)) / (PRIOR_WEIGHT + len(residual)))
        return Intervals(-Z_HIGH, Z_HIGH, None, float(spread))
    if len(residual) < LEAST_FOR_SIZE_MODEL:
        low, high = _offsets(residual / typical)
        return Intervals(low, high, None, typical)
    crossed = _crossed_sizes(residual, matrix, typical, options)
    low, high = _offsets(residual / crossed)
    return Intervals(
        low, high, _size_model(residual, matrix, options), typical, options.get("num_threads", 1)
    )


def _offsets(scaled: Floats) -> tuple[float, float]:
    """Corrected quantiles: with n residuals the level (n + 1) q / n covers a share q of new ones."""
    stretch = (len(scaled) + 1) / len(scaled)
    high = float(np.quantile(scaled, min(HIGH * stretch, 1.0)))
    low = -float(np.quantile(-scaled, min((1 - LOW) * stretch, 1.0)))
    return min(low, 0.0), max(high, 0.0)


def _crossed_sizes(residual: Floats, matrix: Floats, typical: float, options: dict[str, Any]) -> Floats:
    sizes = np.empty(len(residual))
    # rows come span by span or group by group: neighbours know each other's residuals, new runs will not
    half = np.arange(len(residual)) < len(residual) // 2
    for mine in (half, ~half):
        model = _size_model(residual[~mine], matrix[~mine], options)
        sizes[mine] = bounded(np.exp(model.predict(matrix[mine])), typical)
    return sizes


def _size_model(residual: Floats, matrix: Floats, options: dict[str, Any]) -> lgb.Booster:
    floor = max(float(np.median(np.abs(residual))) / 4, LEAST_SIZE)
    parameters = options | {
        "objective": "regression",
        "learning_rate": 0.05,
        "num_leaves": 8,
        "min_data_in_leaf": max(20, len(residual) // 25),
        "lambda_l2": 5.0,
    }
    data = lgb.Dataset(matrix, np.log(np.abs(residual) + floor), params=parameters, free_raw_data=True)
    return lgb.train(parameters, data, num_boost_round=60)
