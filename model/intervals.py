"""How wide the prediction interval is: offsets scaled by a model of the residual's size.

`model.fitting.intervals` says where both come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.snapshot import Floats
from model.trees import Booster

Z_HIGH = 1.2815515655446004
"""The 0.9 quantile of the standard normal distribution."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Offsets in log s from the median: `low` <= 0 <= `high`, both times the residual's size."""

    low: float
    high: float
    size: Booster | None
    typical_size: float
    threads: int = 1

    def size_of(self, matrix: Floats) -> Floats:
        """Size of the residual in log s for each row of the booster's matrix; shape (rows,)."""
        if self.size is None:
            return np.full(len(matrix), self.typical_size)
        return bounded(np.exp(self.size.predict(matrix, num_threads=self.threads)), self.typical_size)


def bounded(sizes: Floats, typical: float) -> Floats:
    """No more than eight times the typical size, and no less than an eighth of it."""
    return np.asarray(np.clip(sizes, typical / 8, typical * 8), dtype=np.float64)
