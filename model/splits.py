"""Which examples are fitted on and which are judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from model.dataset import Examples, ExamplesError
from model.estimator import Fold, group_folds
from model.snapshot import Indices

TEST_SHARE = 0.25
FOLDS = 5
LEAST_TO_JUDGE = 10


@dataclass(frozen=True)
class Split:
    """How examples are divided: "time", "group" (with the column) or "random"."""

    kind: str
    column: str = ""

    @staticmethod
    def parse(text: str) -> Split:
        """From "time" or "group:COLUMN". Raises ExamplesError for anything else."""
        kind, _, column = text.partition(":")
        if (kind == "time" and not column) or (kind == "group" and column):
            return Split(kind, column)
        raise ExamplesError(f"--split is 'time' or 'group:COLUMN', not {text!r}")

    def __str__(self) -> str:
        return f"group:{self.column}" if self.column else self.kind


def folds_of(examples: Examples, split: Split, seed: int = 0) -> list[Fold]:
    """Pairs of (rows to fit on, rows to judge on); one pair for a split by time.

    Raises ExamplesError when the examples can't be divided that way.
    """
    if split.kind == "time":
        folds = list(_by_time(examples.frame))
    elif split.kind == "group":
        folds = list(group_folds(group_codes(examples, split.column).astype(np.float64), FOLDS, seed))
    else:
        shuffled = np.random.default_rng(seed).permutation(len(examples.frame))
        parts = [np.sort(part) for part in np.array_split(shuffled, FOLDS)]
        folds = [(np.setdiff1d(shuffled, part), part) for part in parts]
    if not folds or any(len(fit) < 1 or len(held) < 1 for fit, held in folds):
        raise ExamplesError(f"{len(examples.frame)} examples can't be split by {split}")
    return folds


def group_codes(examples: Examples, column: str) -> Indices:
    """A code per row for the values of a column; rows without one are a group together.

    Raises ExamplesError when there is no such column or it has one value only.
    """
    if column not in examples.frame.columns:
        raise ExamplesError(f"--split group:{column}: the table has no column {column}")
    codes, names = pd.factorize(examples.frame[column].astype("string").fillna(""))
    if len(names) < 2:
        raise ExamplesError(f"--split group:{column}: the column has one value only")
    return codes.astype(np.intp)


def _by_time(frame: pd.DataFrame) -> Iterator[Fold]:
    """The newest quarter by end is judged, the rest fitted on; rows of one decision stay together."""
    ended = frame["ended_at"]
    if "decision_id" in frame.columns:
        decision = frame["decision_id"].where(frame["decision_id"] != "", frame.index.astype(str))
        ended = ended.groupby(decision).transform("min")
    cut = float(np.quantile(ended, 1 - TEST_SHARE, method="lower"))
    if cut <= float(ended.min()):
        raise ExamplesError("the examples all ended at the same time: they can't be split by time")
    yield np.flatnonzero(ended < cut), np.flatnonzero(ended >= cut)
