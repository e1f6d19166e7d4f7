"""How good the predictions were, of pods that have ended; counted per model for Prometheus."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field

from scheduler.edge.store import Judged

ERROR_EDGES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Of |log(run / predicted)|: 0.1 is about ten percent."""
PRIOR = "prior"


@dataclass(slots=True)
class ModelRecord:
    """Counts for one model."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(ERROR_EDGES) + 1))
    error_sum: float = 0.0
    signed_sum: float = 0.0
    inside: int = 0
    """Runs that ended inside the predicted interval."""

    @property
    def judged(self) -> int:
        """Predictions counted."""
        return sum(self.counts)


class Judgement:
    """Errors by model version; the analytic prior counts as a model called `prior`."""

    def __init__(self) -> None:
        self.models: dict[str, ModelRecord] = {}

    def add(self, judged: Judged) -> None:
        """Count one ended run."""
        record = self.models.setdefault(judged.model_version or PRIOR, ModelRecord())
        error = math.log(judged.run_s / judged.p50_s)
        record.counts[bisect_left(ERROR_EDGES, abs(error))] += 1
        record.error_sum += abs(error)
        record.signed_sum += error
        record.inside += judged.p10_s <= judged.run_s <= judged.p90_s
