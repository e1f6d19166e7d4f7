"""Fitting the central model (`model.central`).

The trees are fitted to the residual of everything before them; that equals
LightGBM's init_score for these objectives, and nothing has to be added back
that the model does not hold itself. Since LightGBM refuses monotone
constraints for objectives that move leaves to a quantile (l1, quantile), the
constrained form uses the Huber loss, whose small `alpha` makes it a median in
all but name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np

from model.central import Central, Inputs, Recipe, term_weights
from model.fitting.linear import fit_log_linear
from model.fitting.mixture import fit_mixture
from model.snapshot import Floats, Indices

SHIFT_WEIGHT = 10.0
"""Examples that the prior counts for when the residual's median shifts it."""
LEAST_ALPHA = 0.05
RARELY_UNKNOWN = 0.02
"""An input unknown in fewer of the examples than this share is taken as typical where it is unknown."""
PATIENCE = 40
CLEARLY = 1.0
"""Standard errors by which an alternative must be better before it is taken."""
BEST_OF_MANY = 2.0
"""The same for trees: their number is the best of many for these very rows, which alone gains about one."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Examples: inputs, targets in log s, weights; shape (rows,) the latter two."""

    inputs: Inputs
    target: Floats
    weight: Floats

    def rows(self, chosen: Indices) -> Sample:
        """Only these rows."""
        return Sample(self.inputs.rows(chosen), self.target[chosen], self.weight[chosen])


@dataclass(frozen=True, eq=False)
class Settings:
    """What is the same for every fit: trees, step, constraints and categories by input position.

    `expected` are weights of the parts of a mixture before anything is learnt (empty: none known),
    `computed` the positions of those that a node's own processor does, `history` those of the inputs that a
    recipe may leave out.
    """

    trees: int
    learning_rate: float
    monotone: Sequence[int] = ()
    categorical: Sequence[int] = ()
    expected: Sequence[float] = ()
    computed: Sequence[int] = ()
    history: Sequence[int] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def constrained(self) -> bool:
        """Whether any input has a physical sign."""
        return any(self.monotone)


def fit_central(sample: Sample, settings: Settings, recipe: Recipe, held: Sample | None = None) -> Central:
    """Fit to `sample`; with `held`, stop adding trees when those rows no longer gain."""
    inputs, weight = sample.inputs, sample.weight
    mixture = None
    if recipe.mixture:
        mixture = fit_mixture(inputs.parts, sample.target, weight, settings.expected, settings.computed)
    hidden = () if recipe.history else tuple(settings.history)
    typical = _typical(inputs.matrix)
    typical[list(hidden)] = np.nan
    threads = settings.options.get("num_threads", 1)
    start = Central(recipe, 0.0, typical, mixture, None, None, threads, hidden)
    residual = sample.target - start.predict(inputs)
    if recipe.linear:
        completed = start.completed(inputs.matrix)
        linear = fit_log_linear(completed, residual, weight, set(settings.categorical))
        start = replace(start, linear=linear)
        residual = residual - linear.predict(completed)
    from_prior = mixture is not None or term_weights(recipe, inputs.terms.shape[1]).any()
    held_back = SHIFT_WEIGHT if from_prior else 0.0
    shift = _median(residual, weight) * len(residual) / (len(residual) + held_back)
    start = replace(start, shift=shift)
    if len(residual) < 2 * recipe.min_child or settings.trees < 1:
        return start
    return replace(start, booster=_grown(start, sample, residual - shift, settings, held))


def trees_of(central: Central) -> int:
    """How many trees it has."""
    booster: Any = central.booster
    if booster is None:
        return 0
    return int(booster.best_iteration if booster.best_iteration > 0 else booster.num_trees())


def _grown(
    start: Central, sample: Sample, residual: Floats, settings: Settings, held: Sample | None
) -> lgb.Booster | None:
    parameters = _parameters(residual, settings, start.recipe)
    data = lgb.Dataset(
        start.completed(sample.inputs.matrix),
        residual,
        weight=sample.weight,
        categorical_feature=list(settings.categorical),
        params=parameters,
    )
    if held is None:
        return lgb.train(parameters, data, num_boost_round=settings.trees)
    left = held.target - start.predict(held.inputs)
    check = data.create_valid(start.completed(held.inputs.matrix), left, weight=held.weight)
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    booster = lgb.train(
        parameters, data, settings.trees, valid_sets=[check], valid_names=["held"], callbacks=[stop]
    )
    grown = np.abs(left - booster.predict(start.completed(held.inputs.matrix)))
    return booster if clearly_smaller(grown, np.abs(left), held.weight, BEST_OF_MANY) else None


def clearly_smaller(errors: Floats, others: Floats, weight: Floats, by: float) -> bool:
    """Whether these errors are smaller than the others of the same rows, `by` standard errors or more."""
    gain = (others - errors) * weight
    return bool(gain.mean() > by * gain.std() / np.sqrt(len(gain)))


def _parameters(residual: Floats, settings: Settings, recipe: Recipe) -> dict[str, Any]:
    # The Huber loss moves a leaf by at most alpha * learning_rate a tree: enough to reach the outermost.
    reach = float(np.quantile(np.abs(residual), 0.995)) / (0.5 * settings.learning_rate * settings.trees)
    parameters = settings.options | {
        "objective": "regression_l1" if recipe.objective == "l1" else "huber",
        "alpha": max(reach, LEAST_ALPHA),
        "metric": "l1",
        "learning_rate": settings.learning_rate,
        "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.min_child,
        "lambda_l2": 0.1,
        "boost_from_average": False,
        "min_data_per_group": int(np.clip(len(residual) // 50, 5, 100)),
        "cat_smooth": 5.0,
    }
    if settings.constrained:
        parameters |= {
            "monotone_constraints": list(settings.monotone),
            "monotone_constraints_method": "intermediate",
        }
    return parameters


def _typical(matrix: Floats) -> Floats:
    unknown = np.isnan(matrix).mean(axis=0)
    typical = np.full(matrix.shape[1], np.nan)
    for column in np.flatnonzero(unknown < RARELY_UNKNOWN).tolist():
        typical[column] = np.nanmedian(matrix[:, column])
    return typical


def _median(values: Floats, weight: Floats) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
