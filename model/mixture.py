"""A run time as a non-negative mixture of seconds: how much of each part a job's time holds.

    run_s = sum over parts of weight_k * seconds_k,   weight_k >= 0

fitted to relative errors, those beyond `ROBUST` counting less (iteratively
reweighted non-negative least squares). Unlike trees it can go beyond what it
saw, and unlike the analytic prior it is measured on this cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from model.snapshot import Floats

ROUNDS = 6
ROBUST = 0.1
"""Relative errors (log) beyond this count as absolute, below it as squared."""
LEAST_S = 0.01


@dataclass(frozen=True, eq=False)
class Mixture:
    """`weights` per part, and the `typical` seconds that stand for an unknown part; shape (parts,) both."""

    weights: Floats
    typical: Floats

    def log_s(self, seconds: Floats) -> Floats:
        """Log of the mixed time, shape (rows,), from parts of shape (rows, parts)."""
        return np.asarray(np.log(np.maximum(self._known(seconds) @ self.weights, LEAST_S)), dtype=np.float64)

    def contributions(self, seconds: Floats) -> Floats:
        """What each part adds to the log of the typical time, shape (rows, parts).

        Additive and complete by the logarithmic mean (Ang 2004, LMDI):
        (x - typical) / L with L = (T - T0) / log(T / T0).
        """
        own, typical = self._known(seconds) * self.weights, self.typical * self.weights
        total, usual = own.sum(axis=1), max(float(typical.sum()), LEAST_S)
        total = np.maximum(total, LEAST_S)
        ratio = np.log(total / usual)
        mean = np.where(np.abs(ratio) < 1e-9, usual, (total - usual) / np.where(ratio == 0, 1.0, ratio))
        return np.asarray((own - typical) / mean[:, None], dtype=np.float64)

    @property
    def typical_log_s(self) -> float:
        """Log of the typical time, to which `contributions` are added."""
        return float(np.log(max(float(self.typical @ self.weights), LEAST_S)))

    def _known(self, seconds: Floats) -> Floats:
        return np.where(np.isfinite(seconds), seconds, self.typical)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"weights": self.weights.tolist(), "typical": self.typical.tolist()}

    @staticmethod
    def from_json(values: dict[str, Sequence[float]]) -> Mixture:
        """The inverse of `to_json`."""
        return Mixture(np.array(values["weights"], dtype=float), np.array(values["typical"], dtype=float))


def fit_mixture(seconds: Floats, target: Floats, weight: Floats) -> Mixture:
    """Fit to `target` in log s, shape (rows,)."""
    typical = np.array([_median(column) for column in seconds.T])
    parts = np.where(np.isfinite(seconds), seconds, typical)
    relative = parts / np.exp(target)[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    mixture = Mixture(np.zeros(parts.shape[1]), typical)
    counts = weight
    for _ in range(ROUNDS):
        fit = LinearRegression(fit_intercept=False, positive=True)
        fit.fit(relative / scale, np.ones(len(target)), sample_weight=counts)
        mixture = Mixture(np.asarray(fit.coef_ / scale, dtype=np.float64), typical)
        counts = weight / np.maximum(np.abs(target - mixture.log_s(parts)), ROBUST)
    return mixture


def _median(values: Floats) -> float:
    """Of the known values; 0 when none is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else 0.0
