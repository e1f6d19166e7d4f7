"""A run time as a non-negative mixture of seconds: how much of each part a job's time holds.

    run_s = sum over parts of weight_k * seconds_k,   weight_k >= 0

fitted to relative errors, those beyond `ROBUST` counting less (iteratively
reweighted non-negative least squares): once to all rows, and once to the rows
of each job class that has enough, held to the former as by `POOLED` rows that agree with it
(partial pooling). Unlike trees it can go beyond what it saw, and unlike the
analytic prior it is measured on this cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from model.snapshot import Floats

ROUNDS = 12
ROBUST = 0.1
"""Relative errors (log) beyond this count as absolute, below it as squared."""
POOLED = 2.0
"""Rows of a class that what all classes have in common counts for, in each part."""
OWN_FROM = 8
"""A class with fewer rows takes the weights of all."""
STEP_AT_MOST = 0.7
"""A row asks for at most a doubling in one step."""
LEAST_S = 0.01


@dataclass(frozen=True, eq=False)
class Mixture:
    """`weights` of all classes together, `own` ones by class code, `typical` seconds for an unknown part.

    Weights and seconds have shape (parts,). A class without own weights, or
    unknown (NaN), takes those of all.
    """

    weights: Floats
    typical: Floats
    own: Mapping[int, Floats] = field(default_factory=dict)

    def log_s(self, seconds: Floats, classes: Floats) -> Floats:
        """Log of the mixed time, shape (rows,), from parts of shape (rows, parts)."""
        mixed = (self._known(seconds) * self._weights_of(classes)).sum(axis=1)
        return np.asarray(np.log(np.maximum(mixed, LEAST_S)), dtype=np.float64)

    def contributions(self, seconds: Floats, classes: Floats) -> tuple[Floats, Floats]:
        """What each part adds to the log of the typical time, (rows, parts), and that log, (rows,).

        Additive and complete by the logarithmic mean (Ang 2004, LMDI):
        (x - typical) / L with L = (T - T0) / log(T / T0).
        """
        weights = self._weights_of(classes)
        own, typical = self._known(seconds) * weights, self.typical * weights
        total, usual = (np.maximum(parts.sum(axis=1), LEAST_S) for parts in (own, typical))
        ratio = np.log(total / usual)
        mean = np.where(np.abs(ratio) < 1e-9, usual, (total - usual) / np.where(ratio == 0, 1.0, ratio))
        return np.asarray((own - typical) / mean[:, None], dtype=np.float64), np.log(usual)

    def _known(self, seconds: Floats) -> Floats:
        return np.where(np.isfinite(seconds), seconds, self.typical)

    def _weights_of(self, classes: Floats) -> Floats:
        """Shape (rows, parts)."""
        weights = np.tile(self.weights, (len(classes), 1))
        for code in set(classes[np.isfinite(classes)].astype(int).tolist()) & set(self.own):
            weights[classes == code] = self.own[code]
        return weights

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        own = {str(code): weights.tolist() for code, weights in self.own.items()}
        return {"weights": self.weights.tolist(), "typical": self.typical.tolist(), "own": own}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Mixture:
        """The inverse of `to_json`."""
        own = {int(code): np.array(weights, dtype=float) for code, weights in values["own"].items()}
        return Mixture(
            np.array(values["weights"], dtype=float), np.array(values["typical"], dtype=float), own
        )


def fit_mixture(seconds: Floats, classes: Floats, target: Floats, weight: Floats) -> Mixture:
    """Fit parts of shape (rows, parts) to `target` in log s; class codes and weights have shape (rows,)."""
    typical = np.array([_median(column) for column in seconds.T])
    parts = np.where(np.isfinite(seconds), seconds, typical)
    common = _fitted(parts, target, weight, np.zeros(parts.shape[1]), 0.0)
    own = {}
    codes, count = np.unique(classes[np.isfinite(classes)], return_counts=True)
    for code in codes[count >= OWN_FROM].astype(int).tolist():
        rows = classes == code
        own[code] = _fitted(parts[rows], target[rows], weight[rows] / weight[rows].mean(), common, POOLED)
    return Mixture(common, typical, own)


def _fitted(parts: Floats, target: Floats, weight: Floats, pull: Floats, strength: float) -> Floats:
    """Weights of the parts, drawn towards `pull` as by `strength` rows of small error; shape (parts,).

    Gauss-Newton steps on the errors in log s, each a non-negative least squares.
    """
    weights = _step(parts, np.exp(target), np.ones(len(target)), weight / ROBUST, pull, strength)
    for _ in range(ROUNDS):
        mixed = np.maximum(parts @ weights, LEAST_S)
        error = target - np.log(mixed)
        counts = weight / np.maximum(np.abs(error), ROBUST)
        wanted = 1.0 + np.clip(error, -STEP_AT_MOST, STEP_AT_MOST)
        weights = _step(parts, mixed, wanted, counts, pull, strength)
    return weights


def _step(
    parts: Floats, size: Floats, wanted: Floats, counts: Floats, pull: Floats, strength: float
) -> Floats:
    """Weights so that parts / size @ weights is about `wanted`; shape (parts,)."""
    relative = parts / size[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    rows = np.concatenate([relative / scale, np.eye(len(scale))])
    wanted = np.concatenate([wanted, pull * scale])
    counts = np.concatenate([counts, np.full(len(scale), strength / ROBUST)])
    fit = LinearRegression(fit_intercept=False, positive=True)
    fit.fit(rows, wanted, sample_weight=counts)
    return np.asarray(fit.coef_ / scale, dtype=np.float64)


def _median(values: Floats) -> float:
    """Of the known values; 0 when none is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else 0.0
