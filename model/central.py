"""The central model: trees on what the prior leaves unexplained, in log seconds.

    log p50 = start + linear + shift + trees

where the start is the prior, or what the mixture of seconds says. `model.boosting` fits it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.linear import LogLinear
from model.mixture import Mixture, Parts
from model.snapshot import Floats, Indices
from model.trees import Booster


@dataclass(frozen=True)
class Recipe:
    """What is decided on held-out rows: where to start, how the prior's terms count, and the trees' form.

    `history`: whether the trees see what was known of the class; what the class is they see anyway.
    """

    mixture: bool = False
    level_weight: float = 1.0
    placement_weight: float = 1.0
    linear: bool = False
    objective: str = "huber"
    min_child: int = 20
    leaves: int = 15
    history: bool = True


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is known of rows: inputs of the trees, terms of the prior in log s, parts of a mixture in s."""

    matrix: Floats
    terms: Floats
    parts: Parts

    def rows(self, chosen: Indices) -> Inputs:
        """Only these rows."""
        return Inputs(self.matrix[chosen], self.terms[chosen], self.parts.rows(chosen))


@dataclass(frozen=True, eq=False)
class Central:
    """A fitted central model.

    `typical` replaces unknown values of inputs that were hardly ever unknown; `hidden` are inputs that
    it does not look at.
    """

    recipe: Recipe
    shift: float
    typical: Floats
    mixture: Mixture | None
    linear: LogLinear | None
    booster: Booster | None
    threads: int = 1
    hidden: tuple[int, ...] = ()

    def predict(self, inputs: Inputs) -> Floats:
        """log p50, shape (rows,)."""
        if self.mixture is not None:
            start = self.mixture.log_s(inputs.parts)
        else:
            start = inputs.terms @ term_weights(self.recipe, inputs.terms.shape[1])
        predicted = start + self.shift
        matrix = self.completed(inputs.matrix)
        if self.linear is not None:
            predicted = predicted + self.linear.predict(matrix)
        if self.booster is not None:
            predicted = predicted + self.booster.predict(matrix, num_threads=self.threads)
        return np.asarray(predicted, dtype=np.float64)

    def contributions(self, matrix: Floats) -> Floats:
        """What each input adds, shape (rows, inputs + 1); the last column is the base without the prior."""
        matrix = self.completed(matrix)
        parts = np.zeros((len(matrix), matrix.shape[1] + 1))
        parts[:, -1] = self.shift
        if self.linear is not None:
            parts[:, :-1] += self.linear.contributions(matrix)
            parts[:, -1] += self.linear.intercept
        if self.booster is not None:
            parts += np.asarray(self.booster.predict(matrix, pred_contrib=True, num_threads=self.threads))
        return parts

    def completed(self, matrix: Floats) -> Floats:
        """With typical values where LightGBM would read an unknown as 0, which would look idle."""
        completed = np.asarray(np.where(np.isnan(matrix), self.typical, matrix), dtype=np.float64)
        completed[:, list(self.hidden)] = np.nan
        return completed

    def surprise(self, matrix: Floats) -> Floats:
        """Share of the inputs that are always known in training but not in this row; shape (rows,)."""
        expected = np.isfinite(self.typical)
        if not expected.any():
            return np.zeros(len(matrix))
        return np.asarray(np.isnan(matrix[:, expected]).mean(axis=1), dtype=np.float64)


def term_weights(recipe: Recipe, terms: int) -> Floats:
    """Weights of the prior's terms: first the level, then the terms of placement; shape (terms,)."""
    weights = np.full(terms, recipe.placement_weight)
    weights[:1] = recipe.level_weight
    return weights
