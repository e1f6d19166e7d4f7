"""What was known of a job class before a run began, for tables that don't bring it along.

No run contributes to its own history. Over time only runs that had ended when
it began do; across groups only runs of other groups do, since the question
there is how far what is known of a class carries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.snapshot import Floats, Indices

COLUMNS = ("class_runs", "class_mean_log_s", "class_ewma_log_s", "class_last_log_s", "class_std_log_s")
EWMA_WEIGHT = 0.3
"""Weight of the newest run in the moving average."""

Mask = NDArray[np.bool_]


def history_before(classes: Indices, ended_at: Floats, run_s: Floats) -> Floats:
    """History of each run's class at its start, shape (rows, 5), columns as `COLUMNS`, NaN where none.

    `classes` are codes; a run began at `ended_at` - `run_s`.
    """
    history = _nothing_known(len(classes))
    for code in np.unique(classes):
        rows = np.flatnonzero(classes == code)
        rows = rows[np.argsort(ended_at[rows], kind="stable")]
        started = ended_at[rows] - run_s[rows]
        ended_before = np.minimum(
            np.searchsorted(ended_at[rows], started, side="right"),
            # unix seconds know no tenth of a microsecond: such a run would end as it begins, and know itself
            np.searchsorted(ended_at[rows], ended_at[rows], side="left"),
        )
        history[rows] = _summaries(np.log(run_s[rows]))[ended_before]
    return history


def mean_outside(classes: Indices, groups: Indices, run_s: Floats, known: Mask) -> tuple[Floats, Floats]:
    """Count and mean log s of each run's class in the `known` runs of all other groups.

    For the prior only. As an input of the trees it would give the answer away:
    a class's mean without a group tells the mean of that group.
    """
    logs = np.log(run_s)
    cell = np.unique(classes * (int(groups.max(initial=0)) + 1) + groups, return_inverse=True)[1]
    count, total = (
        _sum_by(classes, values) - _sum_by(cell, values)
        for values in (known.astype(np.float64), np.where(known, logs, 0.0))
    )
    count = np.round(count)
    return count, np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def _sum_by(codes: Indices, values: Floats) -> Floats:
    return np.asarray(np.bincount(codes, weights=values)[codes], dtype=np.float64)


def _nothing_known(rows: int) -> Floats:
    history = np.full((rows, len(COLUMNS)), np.nan)
    history[:, 0] = 0.0
    return history


def _summaries(logs: Floats) -> Floats:
    """History after the first 0, 1, ... n runs, shape (n + 1, 5)."""
    count = np.arange(1, len(logs) + 1)
    mean = np.cumsum(logs) / count
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(np.cumsum(logs**2) / count - mean**2, 0.0) * count / (count - 1)
    average = np.empty(len(logs))
    level = logs[0]
    for position, value in enumerate(logs):
        level += EWMA_WEIGHT * (value - level)
        average[position] = level
    after = np.column_stack([count, mean, average, logs, np.sqrt(variance)])
    return np.concatenate([_nothing_known(1), after])
