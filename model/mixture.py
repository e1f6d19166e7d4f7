"""A run time as a non-negative mixture of seconds: how much of each part a job's time holds.

    run_s = sum over parts of weight_k * slowness_k(node) * seconds_k,   weight_k >= 0

fitted to relative errors, those beyond `ROBUST` counting less (iteratively
reweighted non-negative least squares): once to all rows, and once to the rows
of each job class that has enough, held to the former as by `POOLED` rows that agree with it
(partial pooling). The slowness of a node multiplies the parts that its
processor does, is 1 for the others, and is held to 1 in the same way: machines
of one cluster differ, and no reading says by how much. Unlike trees it can go
beyond what it saw, and unlike the analytic prior it is measured on this cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from model.snapshot import Floats, Indices

ROUNDS = 12
ROBUST = 0.1
"""Relative errors (log) beyond this count as absolute, below it as squared."""
POOLED = 2.0
"""Rows that what all classes have in common counts for in a class, and what all nodes have in a node."""
OWN_FROM = 8
"""A class with fewer rows takes the weights of all."""
STEP_AT_MOST = 0.7
"""A row asks for at most a doubling in one step."""
LEAST_S = 0.01
TURNS = 3
"""Weights and slowness are fitted in turn so many times."""
SLOWNESS_AT_MOST = 4.0
"""Of a node, and its inverse: what says more is no longer a matter of the processor."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows in seconds: shape (rows, parts), NaN where unknown, with codes of job class and node, (rows,)."""

    seconds: Floats
    classes: Floats
    nodes: Floats

    def rows(self, chosen: Indices) -> Parts:
        """Only these rows."""
        return Parts(self.seconds[chosen], self.classes[chosen], self.nodes[chosen])


@dataclass(frozen=True, eq=False)
class Mixture:
    """`weights` of all classes together, `own` ones by class code, `typical` seconds for an unknown part.

    Weights and seconds have shape (parts,). A class without own weights, or
    unknown (NaN), takes those of all. `slowness` of a node, by its code,
    multiplies the parts at the positions `computed`; of others it is 1.
    """

    weights: Floats
    typical: Floats
    own: Mapping[int, Floats] = field(default_factory=dict)
    slowness: Mapping[int, float] = field(default_factory=dict)
    computed: tuple[int, ...] = ()

    def log_s(self, parts: Parts) -> Floats:
        """Log of the mixed time, shape (rows,)."""
        mixed = self.mixed(parts).sum(axis=1)
        return np.asarray(np.log(np.maximum(mixed, LEAST_S)), dtype=np.float64)

    def mixed(self, parts: Parts) -> Floats:
        """The seconds that each part takes of the run, shape (rows, parts)."""
        return np.asarray(self.on_nodes(parts) * self._weights_of(parts.classes), dtype=np.float64)

    def on_nodes(self, parts: Parts) -> Floats:
        """The seconds of the parts on the nodes as they are, typical ones where unknown, (rows, parts)."""
        seconds = np.where(np.isfinite(parts.seconds), parts.seconds, self.typical)
        slowness = np.array([self.slowness.get(code, 1.0) for code in np.nan_to_num(parts.nodes, nan=-1.0)])
        seconds[:, self.computed] *= slowness[:, None]
        return np.asarray(seconds, dtype=np.float64)

    def contributions(self, parts: Parts) -> tuple[Floats, Floats]:
        """What each part adds to the log of the typical time, (rows, parts), and that log, (rows,).

        Additive and complete by the logarithmic mean (Ang 2004, LMDI):
        (x - typical) / L with L = (T - T0) / log(T / T0).
        """
        own, typical = self.mixed(parts), self.typical * self._weights_of(parts.classes)
        total, usual = (np.maximum(each.sum(axis=1), LEAST_S) for each in (own, typical))
        ratio = np.log(total / usual)
        mean = np.where(np.abs(ratio) < 1e-9, usual, (total - usual) / np.where(ratio == 0, 1.0, ratio))
        return np.asarray((own - typical) / mean[:, None], dtype=np.float64), np.log(usual)

    def _weights_of(self, classes: Floats) -> Floats:
        """Shape (rows, parts)."""
        weights = np.tile(self.weights, (len(classes), 1))
        for code in set(classes[np.isfinite(classes)].astype(int).tolist()) & set(self.own):
            weights[classes == code] = self.own[code]
        return weights

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "weights": self.weights.tolist(),
            "typical": self.typical.tolist(),
            "own": {str(code): weights.tolist() for code, weights in self.own.items()},
            "slowness": {str(code): slowness for code, slowness in self.slowness.items()},
            "computed": list(self.computed),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Mixture:
        """The inverse of `to_json`."""
        return Mixture(
            np.array(values["weights"], dtype=float),
            np.array(values["typical"], dtype=float),
            {int(code): np.array(weights, dtype=float) for code, weights in values["own"].items()},
            {int(code): float(slowness) for code, slowness in values["slowness"].items()},
            tuple(values["computed"]),
        )


def fit_mixture(parts: Parts, target: Floats, weight: Floats, computed: Sequence[int] = ()) -> Mixture:
    """Fit to `target` in log s; targets and weights have shape (rows,).

    `computed` are the positions of the parts that a node's own processor does.
    """
    typical = np.array([_median(column) for column in parts.seconds.T])
    mixture = Mixture(np.zeros(len(typical)), typical, computed=tuple(computed))
    mixture = _weighed(mixture, parts, target, weight)
    for _ in range(TURNS if computed else 0):
        mixture = replace(mixture, slowness=_slowness(mixture, parts, target, weight))
        mixture = _weighed(mixture, parts, target, weight)
    return mixture


def _weighed(mixture: Mixture, parts: Parts, target: Floats, weight: Floats) -> Mixture:
    """With weights of all classes together, and of each that has enough rows."""
    seconds = mixture.on_nodes(parts)
    common = _fitted(seconds, target, weight, np.zeros(seconds.shape[1]), 0.0)
    own = {}
    codes, count = np.unique(parts.classes[np.isfinite(parts.classes)], return_counts=True)
    for code in codes[count >= OWN_FROM].astype(int).tolist():
        rows = parts.classes == code
        own[code] = _fitted(seconds[rows], target[rows], weight[rows] / weight[rows].mean(), common, POOLED)
    return replace(mixture, weights=common, own=own)


def _slowness(mixture: Mixture, parts: Parts, target: Floats, weight: Floats) -> Mapping[int, float]:
    """Of each node that the rows name, one Gauss-Newton step from what the mixture has, drawn towards 1."""
    mixed = mixture.mixed(parts)
    share = mixed[:, mixture.computed].sum(axis=1) / np.maximum(mixed.sum(axis=1), LEAST_S)
    error = target - mixture.log_s(parts)
    counts = weight / weight.mean() / np.maximum(np.abs(error), ROBUST)
    bound = np.log(SLOWNESS_AT_MOST)
    found = {}
    for code in np.unique(parts.nodes[np.isfinite(parts.nodes)]).astype(int).tolist():
        rows = parts.nodes == code
        before = np.log(mixture.slowness.get(code, 1.0))
        wanted = (counts * share * (error + share * before))[rows].sum()
        log_slowness = wanted / ((counts * share**2)[rows].sum() + POOLED / ROBUST)
        found[code] = float(np.exp(np.clip(log_slowness, -bound, bound)))
    return found


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
