"""Which examples are fitted on and which are judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from model.cells import is_nested
from model.dataset import Examples
from model.estimator import Fold, group_folds
from model.reading import ExamplesError
from model.snapshot import Indices

TEST_SHARE = 0.25
FOLDS = 5
LEAST_TO_JUDGE = 10
ANSWERS = ("run_s", "ended_at")


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
    if column in ANSWERS:
        raise ExamplesError(f"--split group:{column}: {column} is what is predicted, or tells it; no group")
    if is_nested(examples.frame[column]):
        raise ExamplesError(f"--split group:{column}: the column holds lists or records")
    codes, names = pd.factorize(examples.frame[column].astype(object).astype("string").fillna(""))
    if len(names) < 2:
        raise ExamplesError(f"--split group:{column}: the column has one value only")
    return codes.astype(np.intp)


def undecided(examples: Examples, folds: list[Fold]) -> int:
    """How many rows are neither fitted on nor judged: decisions that ended partly before the judged ones."""
    touched = np.unique(np.concatenate([rows for fold in folds for rows in fold]))
    return len(examples.frame) - len(touched)


def _by_time(frame: pd.DataFrame) -> Iterator[Fold]:
    """The newest quarter by end is judged, and fitted on what had ended before.

    Rows of one decision stay together. A decision some of whose runs ended
    before the judged ones and some later is on neither side.
    """
    first, last = _ends_of_decisions(frame)
    cut = float(np.quantile(first, 1 - TEST_SHARE, method="lower"))
    later = first[first > first.min()]
    if later.empty:
        raise ExamplesError(_why_not_by_time(frame))
    cut = max(cut, float(later.min()))
    yield np.flatnonzero(last < cut), np.flatnonzero(first >= cut)


def _ends_of_decisions(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Per row the first and the last end among the rows of its decision; a row without one is by itself."""
    ended = frame["ended_at"]
    if "decision_id" not in frame.columns:
        return ended, ended
    codes, names = pd.factorize(frame["decision_id"].str.strip())
    alone = codes == np.flatnonzero(names == "")[0] if "" in names else np.zeros(len(codes), dtype=bool)
    by_decision = ended.groupby(np.where(alone, -1 - np.arange(len(codes)), codes))
    return by_decision.transform("min"), by_decision.transform("max")


def _why_not_by_time(frame: pd.DataFrame) -> str:
    if frame["ended_at"].nunique() == 1:
        return "the examples all ended at the same time: they can't be split by time"
    if frame["decision_id"].nunique() == 1:
        return "all examples are of one decision_id, which stays together: they can't be split by time"
    return "the first runs of all decisions (decision_id) ended at the same time: they can't be split by time"
