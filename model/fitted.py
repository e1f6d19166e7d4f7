"""A fitted completion-time model: from the estimator's matrix to quantiles of run_s.

It is all that a model server needs; `model.estimator` fits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.central import Central, Inputs, term_weights
from model.intervals import Z_HIGH, Intervals
from model.mixture import Parts
from model.snapshot import Floats, Indices


@dataclass(frozen=True)
class Columns:
    """What the columns of a matrix are, by position.

    `prior` are terms of the prior, `seconds` parts of the run, `job_class` and
    `node` codes. All but these and `ignored` are inputs of the trees.
    """

    count: int
    prior: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    job_class: int | None = None
    node: int | None = None
    ignored: tuple[int, ...] = ()

    @cached_property
    def inputs(self) -> Indices:
        """Positions of the inputs of the trees."""
        roles = {self.job_class, self.node, *self.ignored, *self.prior, *self.seconds}
        return np.array([column for column in range(self.count) if column not in roles], dtype=np.intp)

    @cached_property
    def terms(self) -> Indices:
        """Positions of the prior's terms."""
        return np.array(self.prior, dtype=np.intp)

    def split(self, matrix: Floats) -> Inputs:
        """The same rows by what their columns are."""
        classes, nodes = (
            np.full(len(matrix), np.nan) if column is None else matrix[:, column]
            for column in (self.job_class, self.node)
        )
        parts = Parts(matrix[:, list(self.seconds)], classes, nodes)
        return Inputs(matrix[:, self.inputs], matrix[:, self.terms], parts)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Predicts for rows of a matrix with these columns; unknown (NaN) inputs are allowed everywhere."""

    columns: Columns
    central: Central
    intervals: Intervals
    prior_sigma: float

    def predict(self, matrix: Floats) -> Floats:
        """The median run time in s; shape (rows,)."""
        return np.asarray(np.exp(self.central.predict(self.columns.split(matrix))), dtype=np.float64)

    def predict_quantiles(self, matrix: Floats) -> Floats:
        """p10, p50, p90 of the run time in s; shape (rows, 3), ascending in each row.

        Inputs that were always known in training but are not now widen the
        interval towards that of the prior.
        """
        inputs = self.columns.split(matrix)
        median = self.central.predict(inputs)
        size = self.intervals.size_of(self.central.completed(inputs.matrix))
        surprise = self.central.surprise(inputs.matrix)
        low, high = self.intervals.low * size, self.intervals.high * size
        wide = Z_HIGH * self.prior_sigma
        low = low + surprise * (np.minimum(low, -wide) - low)
        high = high + surprise * (np.maximum(high, wide) - high)
        return np.exp(np.stack([median + low, median, median + high], axis=1))

    def contributions(self, matrix: Floats) -> Floats:
        """What each column adds to log(p50_s); shape (rows, columns + 1), the last being the base."""
        inputs, columns = self.columns.split(matrix), self.columns
        parts = np.zeros((len(matrix), columns.count + 1))
        by_input = self.central.contributions(inputs.matrix)
        parts[:, columns.inputs] = by_input[:, :-1]
        parts[:, -1] = by_input[:, -1]
        if self.central.mixture is not None:
            parts[:, list(columns.seconds)], usual = self.central.mixture.contributions(inputs.parts)
            parts[:, -1] += usual
        else:
            parts[:, columns.terms] = inputs.terms * term_weights(self.central.recipe, len(columns.terms))
        return parts
