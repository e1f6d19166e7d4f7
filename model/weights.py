"""How much each example counts in training: rare classes more, old runs less."""

from __future__ import annotations

import numpy as np

from model.snapshot import Floats


def example_weights(
    classes: Floats | None, ended_at_s: Floats | None, rows: int, *, temper: float, half_life_s: float | None
) -> Floats:
    """Weights of mean 1, shape (rows,).

    A class with n of the rows weighs n ** -`temper` a row (0: all rows alike,
    1: all classes alike); a run that ended `half_life_s` before the newest one
    counts half. Rows of unknown class or time weigh as the rarest or oldest.
    """
    weight = np.ones(rows)
    if classes is not None and temper > 0:
        _, position, count = np.unique(classes, return_inverse=True, return_counts=True, equal_nan=True)
        weight *= count[position] ** -temper
    if ended_at_s is not None and half_life_s is not None and np.isfinite(ended_at_s).any():
        age_s = np.nanmax(ended_at_s) - ended_at_s
        weight *= 0.5 ** (np.where(np.isfinite(age_s), age_s, np.nanmax(age_s)) / half_life_s)
    return np.asarray(weight / weight.mean(), dtype=np.float64)
