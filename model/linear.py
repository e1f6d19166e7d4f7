"""A ridge regression on logarithms: power laws that trees can't continue beyond what they saw.

Run time is often close to a product of powers (bytes / throughput), which is
linear in logarithms. Fitted beneath the trees it carries over to sizes and
groups that were never trained on. Whether it is used is decided on held-out
rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.snapshot import Floats


@dataclass(frozen=True)
class Term:
    """One input column: which, how it is scaled, its coefficients.

    `kind` is "log" (log(v + offset)), "plain" or "level" (v == offset).
    """

    column: int
    kind: str
    offset: float
    center: float
    scale: float
    low: float
    high: float
    coefficient: float = 0.0


@dataclass(frozen=True)
class LogLinear:
    """`intercept` + the sum of the terms, in log s."""

    intercept: float
    terms: tuple[Term, ...]

    def predict(self, matrix: Floats) -> Floats:
        """Prediction in log s, shape (rows,)."""
        return np.asarray(self.intercept + self.contributions(matrix).sum(axis=1), dtype=np.float64)

    def contributions(self, matrix: Floats) -> Floats:
        """What each column adds to `intercept`, shape of `matrix`."""
        parts = np.zeros(matrix.shape)
        for term in self.terms:
            parts[:, term.column] += term.coefficient * scaled(term, matrix[:, term.column])
        return parts

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> LogLinear:
        """The inverse of `to_json`."""
        return LogLinear(float(values["intercept"]), tuple(Term(**term) for term in values["terms"]))


def scaled(term: Term, values: Floats) -> Floats:
    """The values of a term's column as its coefficient takes them; unknown ones count as the mean."""
    if term.kind == "level":
        return np.asarray(values == term.offset, dtype=np.float64)
    if term.kind == "log":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(values + term.offset)
    moved = (np.clip(values, term.low, term.high) - term.center) / term.scale
    return np.asarray(np.where(np.isfinite(moved), moved, 0.0), dtype=np.float64)
