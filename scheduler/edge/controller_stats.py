"""Counts of a controller since its start, over all its terms."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.core.queue.actions import ReleaseGang, Settled
from scheduler.core.queue.events import Event, Tick
from scheduler.core.queue.lateness import Verdict

WAIT_EDGES_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
LATENESS_EDGES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0)
"""Time beyond the fluid finish as a part of the time it took there; the first bucket: not late."""
ERROR_EDGES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Actual to estimated work of a gang, whichever is larger over the other."""


@dataclass(slots=True)
class Histogram:
    """Values counted by bucket; the last is for those beyond all edges."""

    edges: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts = self.counts or [0] * (len(self.edges) + 1)
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value


@dataclass(slots=True)
class ControllerStats:
    """Counts; `events` by kind, `troubles` by what was reported."""

    events: Counter[str] = field(default_factory=Counter)
    decisions: int = 0
    deciding_s: float = 0.0
    slowest_decision_s: float = 0.0
    releases: int = 0
    released_pods: int = 0
    backfills: int = 0
    settlements: int = 0
    vanished: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    waits_s: Histogram = field(default_factory=lambda: Histogram(WAIT_EDGES_S))
    errors: dict[str, Histogram] = field(default_factory=dict)
    lateness: Histogram = field(default_factory=lambda: Histogram(LATENESS_EDGES))
    violations: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_bytes: int = 0
    invariant_failures: int = 0
    broken_invariant: str = ""
    terms: int = 0
    terms_failed: int = 0
    _news: bool = False
    _charged: int = 0

    def handled(self, events: Sequence[Event], took_s: float) -> None:
        """The core has decided about these events."""
        self.decisions += 1
        self.deciding_s += took_s
        self.slowest_decision_s = max(self.slowest_decision_s, took_s)
        for event in events:
            self.events[type(event).__name__] += 1
            self._news |= not isinstance(event, Tick)

    def released(self, action: ReleaseGang) -> None:
        """A gang is being released."""
        self.releases += not action.completing
        self.released_pods += len(action.pods)
        self.backfills += action.receipt.backfilled and not action.completing

    def settled(self, action: Settled) -> None:
        """A gang ended."""
        self.settlements += 1
        self.vanished += action.vanished
        self.waits_s.add(max(0.0, action.released_s - action.arrived_s))
        expected = action.share * action.estimate.p50_s
        if action.actual_work > 0 and expected > 0 and not action.vanished:
            ratio = action.actual_work / expected
            errors = self.errors.setdefault(action.estimate.source, Histogram(ERROR_EDGES))
            errors.add(max(ratio, 1 / ratio))

    def judged(self, verdict: Verdict) -> None:
        """A gang was compared with the fluid reference."""
        self.lateness.add(verdict.lateness)
        if verdict.beyond:
            self.violations[verdict.beyond] += 1

    def is_news(self) -> bool:
        """True when something other than time has passed since this was last asked."""
        news, self._news = self._news, False
        return news
