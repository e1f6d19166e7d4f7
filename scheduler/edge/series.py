"""Windows over a block of series: means, slopes and a short forecast. Pure arithmetic.

A block has one row per series and one column per step of a regular grid, NaN
where nothing was measured. The windows are 1 and 5 minutes before the newest
column. The forecast is Holt's linear method with a damped trend (Gardner and
McKenzie, 1985): a job runs in the future, not at scrape time, and a damped
trend does not run away over a horizon as long as the smoothing memory.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from model.snapshot import Floats, Reading

MEAN_WINDOWS_S = {"1m": 60.0, "5m": 300.0}
LONGEST_WINDOW_S = 300.0
FORECAST_S = 60.0
"""How far ahead the forecast looks."""
_LEVEL_MEMORY_S = 20.0
_TREND_MEMORY_S = 120.0
_DAMPING_S = 120.0
"""In these times level, trend and the trend's force forget 63 %. Of seven triples tried on ramps, noise,
drifts, steps and slow waves, this one was at or below the error of the last value in most."""
BEST_OF = 3
"""Newest columns among which the best is looked for. A probe that met a short transfer tells too little of
the path; one of several meets none (the windowed maximum of BBR: Cardwell et al. 2016)."""
_SLOPE_POINTS_MIN = 3
_RATIO_SLACK = 0.05
"""rate() extrapolates to the ends of its range, so an idle node's CPU use may come out as -0.004, and on a
busy machine with short scrape intervals further off."""


@dataclass(frozen=True)
class Block:
    """Values of several series on one regular time grid; shape (series, steps), NaN where unknown."""

    times_s: Floats
    values: Floats

    @property
    def step_s(self) -> float:
        """Seconds between two columns; 1 for a single column."""
        return float(self.times_s[1] - self.times_s[0]) if len(self.times_s) > 1 else 1.0


def possible(values: Floats, reading: Reading) -> Floats:
    """`values` with the impossible (infinite, outside [low, high]) made NaN.

    A ratio within 0.05 of its bound is moved onto it: that is rounding, not an error.
    """
    slack = _RATIO_SLACK * (reading.high - reading.low) if reading.high <= 2.0 else 0.0
    with np.errstate(invalid="ignore"):
        inside = (values >= reading.low - slack) & (values <= reading.high + slack)
    return np.where(inside, np.clip(values, reading.low, reading.high), np.nan)


def last_known(block: Block) -> tuple[Floats, Floats]:
    """The newest known value of each series and its time; both shape (series,), NaN where none."""
    known = np.isfinite(block.values)
    newest = block.values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    rows = np.arange(len(block.values))
    some = known.any(axis=1)
    value = np.where(some, block.values[rows, newest], np.nan)
    return value, np.where(some, block.times_s[newest], np.nan)


def windows(block: Block, reading: Reading) -> dict[str, Floats]:
    """Each window of model.snapshot.WINDOWS -> shape (series,); NaN where too little is known."""
    answer: dict[str, Floats] = {}
    for suffix, length_s in MEAN_WINDOWS_S.items():
        inside = block.times_s > block.times_s[-1] - length_s
        values = block.values[:, inside]
        answer[f"mean_{suffix}"] = _mean(values)
        answer[f"slope_{suffix}"] = _slope(block.times_s[inside], values)
    answer["forecast"] = np.clip(forecast(block), reading.low, reading.high)
    best = np.fmax if reading.more_is_better else np.fmin
    answer["best"] = np.asarray(best.reduce(block.values[:, -BEST_OF:], axis=1), dtype=np.float64)
    return answer


def forecast(block: Block, horizon_s: float = FORECAST_S) -> Floats:
    """Damped-trend forecast `horizon_s` after the newest column; shape (series,), NaN for empty series.

    Steps without a value carry the state on by one step of the damped trend.
    """
    step_s = block.step_s
    alpha, beta = (1 - np.exp(-step_s / memory_s) for memory_s in (_LEVEL_MEMORY_S, _TREND_MEMORY_S))
    phi = np.exp(-step_s / _DAMPING_S)
    level = np.full(len(block.values), np.nan)
    trend = np.zeros(len(block.values))
    for column in block.values.T:
        expected = level + phi * trend
        seen, begun = np.isfinite(column), np.isfinite(level)
        corrected = np.where(seen, expected + alpha * (column - expected), expected)
        trend = np.where(seen & begun, beta * (corrected - level) + (1 - beta) * phi * trend, phi * trend)
        level = np.where(begun, corrected, column)
    steps_ahead = max(1, round(horizon_s / step_s))
    return np.asarray(level + trend * np.sum(phi ** np.arange(1, steps_ahead + 1)), dtype=np.float64)


def _mean(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row without any value is NaN, as it should be
        return np.asarray(np.nanmean(values, axis=1), dtype=np.float64)


def _slope(times_s: Floats, values: Floats) -> Floats:
    """Least-squares slope per second of each row; NaN with fewer than three known values."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    t = np.where(known, times_s - times_s[-1], 0.0)
    v = np.where(known, values, 0.0)
    spread = count * (t * t).sum(axis=1) - t.sum(axis=1) ** 2
    common = count * (t * v).sum(axis=1) - t.sum(axis=1) * v.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = common / spread
    return np.where((count >= _SLOPE_POINTS_MIN) & (spread > 0), slope, np.nan)
