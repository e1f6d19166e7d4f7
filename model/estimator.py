"""The completion-time estimator: median and interval of the run time, scikit-learn contract.

Fitting, in this order: decide the recipe on held-out rows, keep the residuals
that it had there, refit on all rows, and turn the kept residuals into
intervals. Held-out rows are later than those they are predicted from; with a
group column they are of groups not seen, for tables whose question is how far
the model carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from model.boosting import (
    BEST_OF_MANY,
    CLEARLY,
    Sample,
    Settings,
    clearly_smaller,
    fit_central,
    trees_of,
)
from model.central import Central, Recipe
from model.fitted import Columns, Fitted
from model.fitting.intervals import fit_intervals
from model.prior import PRIOR_SIGMA
from model.snapshot import Floats, Indices
from model.weights import example_weights

Fold = tuple[Indices, Indices]
"""Rows to fit on, rows held out."""

LEAST_FOR_FOLDS = 40
"""With fewer examples nothing is decided and no tree is grown: the prior, a little shifted."""
TIME_FOLDS = 2
"""Each held out after everything before it: one alone is decided by what happened in that span of time."""
GROUP_FOLDS = 4
FEW_LEAVES = 4
ERROR_AT_MOST = 1.0
"""A held-out error in log s counts at most this much when recipes are compared."""


class CompletionTimeEstimator(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient-boosted trees on the residual of a prior of log(run_s), with p10 / p50 / p90.

    Column indices refer to X. `prior_columns` hold terms of the prior in log
    s: first the level, then the terms of placement; `seconds_columns` hold
    parts of the run in s, of which it may be a mixture (of `expected_weights`
    before anything is learnt). `computing_columns` are those of them that the
    processor of the node does, which `node_column` names by a code: each node
    then has a slowness of its own. `time_column` (unix s)
    orders the rows, which otherwise are taken to be oldest first;
    `group_column` (unknown everywhere: as if not given) makes held-out rows
    those of unseen groups. `class_column`
    and `time_column` with `class_temper` and `half_life_s` weigh the examples
    (see `model.weights`). None of these columns is an input of the trees.

    `recipe` (fields of `model.boosting.Recipe`) skips the decision.

    `monotone` has one sign per column of X; unknown (NaN) inputs are allowed
    everywhere but in `prior_columns`, and targets must be positive.
    """

    def __init__(
        self,
        *,
        trees: int = 300,
        learning_rate: float = 0.1,
        prior_columns: Sequence[int] = (),
        seconds_columns: Sequence[int] = (),
        expected_weights: Sequence[float] = (),
        computing_columns: Sequence[int] = (),
        prior_sigma: float = PRIOR_SIGMA,
        categorical_columns: Sequence[int] = (),
        monotone: Sequence[int] | None = None,
        linear: bool = True,
        class_column: int | None = None,
        node_column: int | None = None,
        class_temper: float = 0.0,
        time_column: int | None = None,
        half_life_s: float | None = None,
        group_column: int | None = None,
        history_columns: Sequence[int] = (),
        held_out: float = 0.25,
        recipe: Mapping[str, Any] | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.trees = trees
        self.learning_rate = learning_rate
        self.prior_columns = prior_columns
        self.seconds_columns = seconds_columns
        self.expected_weights = expected_weights
        self.computing_columns = computing_columns
        self.prior_sigma = prior_sigma
        self.categorical_columns = categorical_columns
        self.monotone = monotone
        self.linear = linear
        self.class_column = class_column
        self.node_column = node_column
        self.class_temper = class_temper
        self.time_column = time_column
        self.half_life_s = half_life_s
        self.group_column = group_column
        self.history_columns = history_columns
        self.held_out = held_out
        self.recipe = recipe
        self.seed = seed
        self.threads = threads

    def __sklearn_tags__(self) -> Tags:
        """Targets are positive; unknown inputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.positive_only = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to X of shape (rows, columns) and run times y in s, shape (rows,).

        Raises ValueError for targets that are not positive, and parameters that can't be used.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True)
        self._require_usable_parameters()
        self._require_known_prior(X)
        if not (y > 0).all():
            raise ValueError("run times must be positive (Negative or zero y values are not supported)")
        order = self._oldest_first(X)
        X, y = X[order], y[order]
        sample = self._sample(X, np.log(y))
        settings = self._settings()
        folds = list(self._folds(X))
        self.recipe_, residual, matrix, trees = self._decided(sample, settings, folds)
        self.central_ = fit_central(sample, replace(settings, trees=trees), self.recipe_)
        if not folds:
            residual = sample.target - self.central_.predict(sample.inputs)
            matrix = self.central_.completed(sample.inputs.matrix)
        self.intervals_ = fit_intervals(residual, matrix, self.prior_sigma, settings.options)
        return self

    def predict(self, X: Any) -> Floats:
        """The median run time in s; shape (rows,)."""
        X = self._validated(X)
        return self.fitted_model.predict(X)

    def predict_quantiles(self, X: Any) -> Floats:
        """p10, p50, p90 of the run time in s; shape (rows, 3), ascending in each row."""
        X = self._validated(X)
        return self.fitted_model.predict_quantiles(X)

    def contributions(self, X: Any) -> Floats:
        """What each column of X adds to log(p50_s); shape (rows, columns + 1), the last being the base."""
        X = self._validated(X)
        return self.fitted_model.contributions(X)

    @property
    def fitted_model(self) -> Fitted:
        """What predicts, without anything that fits."""
        return Fitted(self._columns(), self.central_, self.intervals_, self.prior_sigma)

    @property
    def trees_(self) -> int:
        """How many trees the central model has."""
        return trees_of(self.central_)

    def _validated(self, X: Any) -> Floats:
        check_is_fitted(self)
        checked: Floats = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        self._require_known_prior(checked)
        return checked

    def _require_known_prior(self, X: Floats) -> None:
        unknown = np.isnan(X[:, list(self.prior_columns)]).any(axis=1)
        if unknown.any():
            raise ValueError(
                f"the prior (columns {list(self.prior_columns)}) is not known in {int(unknown.sum())} of "
                f"{len(X)} rows: what is to be learnt is its error"
            )

    def _require_usable_parameters(self) -> None:
        """LightGBM would end the whole process over some of them."""
        usable = {
            "trees": self.trees >= 0,
            "learning_rate": 0 < self.learning_rate < np.inf,
            "prior_sigma": 0 <= self.prior_sigma < np.inf,
            "threads": self.threads >= 1,
            "held_out": 0 < self.held_out < 1 / TIME_FOLDS,
            "half_life_s": self.half_life_s is None or self.half_life_s > 0,
        }
        if wrong := [name for name, is_usable in usable.items() if not is_usable]:
            told = ", ".join(f"{name}={getattr(self, name)}" for name in wrong)
            raise ValueError(f"parameters out of range: {told}")
        own = (self.class_column, self.node_column, self.time_column, self.group_column)
        roles = [
            *self.prior_columns, *self.seconds_columns, *self.computing_columns, *self.categorical_columns,
            *self.history_columns, *(column for column in own if column is not None),
        ]  # fmt: skip
        if not set(roles) <= set(range(self.n_features_in_)):
            raise ValueError(f"columns {sorted(set(roles))} are named, X has {self.n_features_in_}")

    def _oldest_first(self, X: Floats) -> Indices:
        if self.time_column is None:
            return np.arange(len(X), dtype=np.intp)
        return np.argsort(X[:, self.time_column], kind="stable")

    def _columns(self) -> Columns:
        ignored = tuple(c for c in (self.time_column, self.group_column) if c is not None)
        return Columns(
            self.n_features_in_,
            tuple(self.prior_columns),
            tuple(self.seconds_columns),
            self.class_column,
            self.node_column,
            ignored,
        )

    def _sample(self, X: Floats, target: Floats) -> Sample:
        classes = X[:, self.class_column] if self.class_column is not None else None
        ended = X[:, self.time_column] if self.time_column is not None else None
        weight = example_weights(
            classes, ended, len(X), temper=self.class_temper, half_life_s=self.half_life_s
        )
        return Sample(self._columns().split(X), target, weight)

    def _settings(self) -> Settings:
        inputs = self._columns().inputs.tolist()
        position = {column: i for i, column in enumerate(inputs)}
        signs = [0] * self.n_features_in_ if self.monotone is None else list(self.monotone)
        if len(signs) != self.n_features_in_:
            raise ValueError(f"monotone has {len(signs)} signs for {self.n_features_in_} columns")
        if any(signs[column] for column in self.categorical_columns):
            raise ValueError("monotone has a sign for a categorical column, whose codes have no order")
        options = {
            "verbosity": -1,
            "seed": self.seed,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,
        }
        return Settings(
            trees=self.trees,
            learning_rate=self.learning_rate,
            monotone=[signs[column] for column in inputs],
            categorical=[position[c] for c in self.categorical_columns if c in position],
            expected=self.expected_weights,
            computed=[list(self.seconds_columns).index(c) for c in self.computing_columns],
            history=[position[c] for c in self.history_columns],
            options=options,
        )

    def _folds(self, X: Floats) -> Iterator[Fold]:
        """Later rows held out, or rows of unseen groups where there are several; none with too few rows."""
        rows = len(X)
        if rows < LEAST_FOR_FOLDS:
            return
        groups = np.full(rows, np.nan) if self.group_column is None else X[:, self.group_column]
        if len(np.unique(groups[np.isfinite(groups)])) > 1:
            yield from group_folds(groups, GROUP_FOLDS, self.seed)
            return
        everything = np.arange(rows)
        for part in range(TIME_FOLDS, 0, -1):
            start = int(rows * (1 - part * self.held_out))
            stop = int(rows * (1 - (part - 1) * self.held_out))
            yield everything[:start], everything[start:stop]

    def _decided(
        self, sample: Sample, settings: Settings, folds: list[Fold]
    ) -> tuple[Recipe, Floats, Floats, int]:
        """The recipe, its held-out residuals with their inputs, and how many trees it took."""
        undecided = bool(folds) and self.recipe is None
        # with seconds to mix, the mixture goes without saying, and it takes more to be led away from it
        mixes = undecided and sample.inputs.parts.seconds.shape[1] > 0
        begun = Recipe(mixture=True, leaves=FEW_LEAVES) if mixes else Recipe(**(self.recipe or {}))
        best = _Trial(begun, sample, settings, folds)
        for alternatives in self._questions(sample, settings) if undecided else ():
            for changes in alternatives:
                trial = _Trial(replace(best.recipe, **changes), sample, settings, folds)
                by = BEST_OF_MANY if mixes else CLEARLY
                best = trial if trial.clearly_better_than(best, by) else best
        return best.recipe, best.residual, best.matrix, best.trees

    def _questions(self, sample: Sample, settings: Settings) -> Iterator[list[dict[str, Any]]]:
        if sample.inputs.parts.seconds.shape[1] > 0:
            # what a mixture leaves over is small, and large trees would learn its noise
            yield [{"leaves": Recipe.leaves}, {"mixture": False, "leaves": Recipe.leaves}]
        if sample.inputs.terms.shape[1] > 1:
            yield [{"placement_weight": 0.5}, {"placement_weight": 0.0}]
        if sample.inputs.terms.shape[1] > 0:
            yield [{"level_weight": 0.0}]
        if settings.history:
            yield [{"history": False}]
        yield [{"min_child": 5}, {"min_child": 5, "leaves": 31}]
        if self.linear and not settings.constrained:  # its coefficients know no signs
            yield [{"linear": True}]
        if not settings.constrained:
            yield [{"objective": "l1"}]


class _Trial:
    """One recipe tried on all folds."""

    def __init__(self, recipe: Recipe, sample: Sample, settings: Settings, folds: list[Fold]) -> None:
        self.recipe = recipe
        fitted = _agreed(
            [fit_central(sample.rows(fit), settings, recipe, sample.rows(held)) for fit, held in folds]
        )
        held_rows = np.concatenate([held for _, held in folds]) if folds else np.arange(0)
        held = [sample.rows(rows) for _, rows in folds]
        predicted = [model.predict(part.inputs) for model, part in zip(fitted, held, strict=True)]
        self.residual = np.concatenate(
            [part.target - p for part, p in zip(held, predicted, strict=True)] or [np.zeros(0)]
        )
        completed = [model.completed(part.inputs.matrix) for model, part in zip(fitted, held, strict=True)]
        self.matrix = np.concatenate(completed) if completed else sample.inputs.matrix[:0]
        self._weight = sample.weight[held_rows]
        counts = [trees_of(model) for model in fitted]
        self.trees = round(float(np.mean(counts))) if counts else 0

    def clearly_better_than(self, other: _Trial, by: float) -> bool:
        """Smaller held-out errors, by so many standard errors at least."""
        ours, theirs = (np.minimum(np.abs(trial.residual), ERROR_AT_MOST) for trial in (self, other))
        return clearly_smaller(ours, theirs, self._weight, by)


def _agreed(fitted: list[Central]) -> list[Central]:
    """The models of the folds, without trees where not most of them gained by theirs.

    Trees that one span of time gains by and the next does not have learnt that span.
    """
    if 2 * sum(model.booster is not None for model in fitted) > len(fitted):
        return fitted
    return [replace(model, booster=None) for model in fitted]


def group_folds(groups: Floats, count: int, seed: int) -> Iterator[Fold]:
    """Folds in which a group is either fitted on or held out, of about equal size, largest group first."""
    names, code, size = np.unique(groups, return_inverse=True, return_counts=True)
    count = min(count, len(names))
    if count < 2:
        return
    shuffled = np.random.default_rng(seed).permutation(len(names))
    fold_of, filled = np.zeros(len(names), dtype=np.intp), np.zeros(count)
    for name in shuffled[np.argsort(-size[shuffled], kind="stable")].tolist():
        fold_of[name] = int(np.argmin(filled))
        filled[fold_of[name]] += size[name]
    for fold in range(count):
        held = fold_of[code] == fold
        yield np.flatnonzero(~held), np.flatnonzero(held)
