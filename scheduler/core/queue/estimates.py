"""How long a gang will take when the predictor does not say: past runs, then the user's hint.

In order: the predictor; the mean of the last runs of the job class; the user's
hint; the median of the user's runs; the median of the queue; a constant. The
estimate only orders gangs: shares are settled by what is measured.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from statistics import median

from scheduler.core.queue.events import Estimate, Gang

CLASS_RUNS = 5
FLOW_RUNS = 25
JOB_RUNS, JOB_RUNS_LEAST = 10, 3
QUEUE_RUNS = 101
KEYS_KEPT = 20_000
"""Classes and users remembered; the least recently used are forgotten."""
UNKNOWN_S = 60.0
"""Duration assumed when nothing ever ran here."""
SHORTEST_S, LONGEST_S = 1e-3, 1e9
_SPREAD = 2.0
"""p90 / p50 and p50 / p10 assumed where only one number is known."""


class PastRuns:
    """Durations of the last runs by class and by user, and of the queue."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, deque[float]] = OrderedDict()
        self._flows: OrderedDict[str, deque[float]] = OrderedDict()
        self._jobs: OrderedDict[str, deque[float]] = OrderedDict()
        self._queue: deque[float] = deque(maxlen=QUEUE_RUNS)

    def ended(self, gang: Gang, duration_s: float, expected_s: float = 0.0) -> None:
        """Remember a run from start to end; of a gang of a job also how it compares with its estimate."""
        if gang.job and expected_s > 0:
            _remember(self._jobs, f"{gang.flow}/{gang.job}", duration_s / expected_s, JOB_RUNS)
        if gang.job_class:
            _remember(self._classes, _class_key(gang), duration_s, CLASS_RUNS)
        _remember(self._flows, gang.flow, duration_s, FLOW_RUNS)
        self._queue.append(duration_s)

    def ratios(self, flow: str, job: str) -> tuple[float, ...]:
        """Actual over expected duration of the last gangs of a job that ended; none of fewer than three."""
        found = self._jobs.get(f"{flow}/{job}", ())
        return tuple(found) if len(found) >= JOB_RUNS_LEAST else ()

    def estimate(self, gang: Gang) -> Estimate:
        """The best estimate there is, with its source; always finite and above 0."""
        given = gang.estimate
        if given is not None and _sensible(given):
            return given
        of_class = self._classes.get(_class_key(gang), ())
        if of_class:
            return _around(sum(of_class) / len(of_class), "class", of_class)
        if SHORTEST_S <= gang.hint_s <= LONGEST_S:
            return _around(gang.hint_s, "hint")
        for runs, source in ((self._flows.get(gang.flow, ()), "user"), (self._queue, "queue")):
            if runs:
                return _around(median(runs), source, runs)
        return _around(UNKNOWN_S, "nothing known")

    def export(self) -> dict[str, object]:
        """Plain values for `revive`."""
        groups = {"classes": self._classes, "flows": self._flows}
        plain: dict[str, object] = {
            name: {key: list(runs) for key, runs in group.items()} for name, group in groups.items()
        }
        return {**plain, "queue": list(self._queue)}

    def revive(self, state: Mapping[str, object]) -> None:
        """Take over an export."""
        for name, group, length in (
            ("classes", self._classes, CLASS_RUNS),
            ("flows", self._flows, FLOW_RUNS),
        ):
            kept = state.get(name)
            assert isinstance(kept, Mapping)
            group.update({str(key): deque(runs, length) for key, runs in kept.items()})
        queue = state.get("queue")
        assert isinstance(queue, Sequence)
        self._queue.extend(queue)


def _class_key(gang: Gang) -> str:
    return f"{gang.flow}/{gang.job_class}" if gang.job_class else ""


def _remember(group: OrderedDict[str, deque[float]], key: str, duration_s: float, length: int) -> None:
    group.setdefault(key, deque(maxlen=length)).append(duration_s)
    group.move_to_end(key)
    if len(group) > KEYS_KEPT:
        group.popitem(last=False)


def _sensible(estimate: Estimate) -> bool:
    ordered = estimate.p10_s <= estimate.p50_s <= estimate.p90_s
    return ordered and estimate.p10_s >= 0 and SHORTEST_S <= estimate.p50_s <= LONGEST_S


def _around(middle_s: float, source: str, runs: Sequence[float] | deque[float] = ()) -> Estimate:
    middle_s = min(max(middle_s, SHORTEST_S), LONGEST_S)
    low_s, high_s = min(runs, default=middle_s), max(runs, default=middle_s)
    if len(runs) < CLASS_RUNS:
        low_s, high_s = min(low_s, middle_s / _SPREAD), max(high_s, middle_s * _SPREAD)
    return Estimate(min(low_s, middle_s), middle_s, max(high_s, middle_s), source)
