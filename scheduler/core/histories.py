"""The past run times of a job class or a user, summed up for the features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.placement import NO_HISTORY, RunHistory

EWMA_WEIGHT = 0.3
"""Of the newest run."""
RUNS_USED = 200
"""Newest runs that are summed up; the count tells all."""


def summed_up(run_s: Sequence[float], count: int) -> RunHistory:
    """History of runs in s, oldest first; `count` is the number of all runs, also of those left out."""
    logs = np.log([one for one in run_s if one > 0])
    if not len(logs):
        return NO_HISTORY
    ewma = float(logs[0])
    for value in logs[1:].tolist():
        ewma += EWMA_WEIGHT * (value - ewma)
    return RunHistory(
        count=count,
        mean_log_s=float(logs.mean()),
        ewma_log_s=ewma,
        last_log_s=float(logs[-1]),
        std_log_s=float(logs.std(ddof=1)) if len(logs) > 1 else float("nan"),
    )
