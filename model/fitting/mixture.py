"""Fitting `model.mixture` to relative errors, those beyond `ROBUST` counting less.

By iteratively reweighted non-negative least squares: once to all rows, and
once to the rows of each job class that has enough, held to the former as by
`POOLED` rows that agree with it (partial pooling). The slowness of a node is
held to 1 in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LinearRegression

from model.mixture import LEAST_S, Mixture, Parts
from model.snapshot import Floats

ROUNDS = 12
ROBUST = 0.1
"""Relative errors (log) beyond this count as absolute, below it as squared."""
POOLED = 2.0
"""Rows that what all classes have in common counts for in a class, and what all nodes have in a node."""
EXPECTED_ROWS = 8.0
"""Rows that the weights expected before anything was learnt count for."""
OWN_FROM = 8
"""A class with fewer rows takes the weights of all."""
STEP_AT_MOST = 0.7
"""A row asks for at most a doubling in one step."""
TURNS = 3
"""Weights and slowness are fitted in turn so many times."""
SLOWNESS_AT_MOST = 4.0
"""Of a node, and its inverse: what says more is no longer a matter of the processor."""


def fit_mixture(
    parts: Parts,
    target: Floats,
    weight: Floats,
    expected: Sequence[float] = (),
    computed: Sequence[int] = (),
) -> Mixture:
    """Fit to `target` in log s; targets and weights have shape (rows,).

    `expected` are weights that count as `EXPECTED_ROWS` rows; `computed` are the
    positions of the parts that a node's own processor does.
    """
    typical = np.array([_median(column) for column in parts.seconds.T])
    pull = np.array(expected, dtype=np.float64) if len(expected) else np.zeros(len(typical))
    mixture = Mixture(pull, typical, computed=tuple(computed))
    mixture = _weighed(mixture, parts, target, weight, pull)
    for _ in range(TURNS if computed else 0):
        mixture = replace(mixture, slowness=_slowness(mixture, parts, target, weight))
        mixture = _weighed(mixture, parts, target, weight, pull)
    return mixture


def _weighed(mixture: Mixture, parts: Parts, target: Floats, weight: Floats, pull: Floats) -> Mixture:
    """With weights of all classes together, and of each that has enough rows."""
    seconds = mixture.on_nodes(parts)
    common = _fitted(seconds, target, weight / weight.mean(), pull, EXPECTED_ROWS if pull.any() else 0.0)
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
