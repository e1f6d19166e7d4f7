"""Reads telemetry from Prometheus in the background, one immutable snapshot per epoch.

Nothing that serves requests waits for it: the poller replaces its `snapshot`
attribute, and whoever wants telemetry reads that. A poll that fails leaves the
last snapshot in place, whose age then grows for all to see; a poll that takes
longer than an epoch makes the next epochs skip, never pile up.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model.snapshot import EMPTY, NODE_READINGS, PAIR_READINGS, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.edge.assembly import assemble
from scheduler.edge.freshness import dating_queries, merged
from scheduler.edge.node_mapping import Joins, Labels, NodeDirectory, NodeIdentity, SeriesMapper
from scheduler.edge.prometheus import Answer, GridQuery, PrometheusError, PrometheusReader
from scheduler.edge.readings import (
    KnownSeries,
    Measured,
    PollAnswers,
    ReadingQueries,
    ReadingReport,
    measure,
)
from scheduler.edge.series import LONGEST_WINDOW_S
from scheduler.edge.sources import load_sources
from scheduler.settings_section import without_password

log = logging.getLogger(__name__)

NODENAMES = "node_uname_info"
PODS = "kube_pod_info"
_READINGS = {reading.name: reading for reading in (*NODE_READINGS, *PAIR_READINGS)}
_WINDOW_STEP_S = (2, 60)
_SHORT_STEP_S = (5, 60)
_SHORT_STEPS_MIN = 4
_CLOCK_DIFFERENCE_S_MAX = 30.0

Nodes = Callable[[], Sequence[NodeIdentity]]
"""Tells the nodes of the cluster, from the API server; called once a poll, from the poller's thread."""


@dataclass(frozen=True, slots=True)
class PollerStats:
    """Counts since start, and how the last poll went."""

    polls: int = 0
    failures: int = 0
    skipped: int = 0
    """Epochs that began while a poll was still running."""
    last_duration_s: float = math.nan
    failure: str = ""
    """Why the last poll brought no snapshot; empty if it did."""


class TelemetryPoller:
    """Keeps `snapshot` (EMPTY at first), `reports` and `stats` up to date from `start` to `stop`.

    `nodes` tells the cluster's nodes; `clock` is unix time and dates the snapshots; `after_poll` is
    called in the poller's thread after every poll of `start`.
    """

    def __init__(
        self,
        settings: Settings,
        nodes: Nodes,
        clock: Callable[[], float] = time.time,
        after_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._nodes = nodes
        self._clock = clock
        self._after_poll = after_poll
        self._sources = load_sources(settings)
        self._reader: PrometheusReader | None = None
        self._intervals_s: dict[str, float] = {}
        self._known = KnownSeries()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.snapshot: TelemetrySnapshot = EMPTY
        self.reports: tuple[ReadingReport, ...] = ()
        self.stats = PollerStats()

    def __enter__(self) -> TelemetryPoller:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Poll in a background thread until `stop`, at once and then every epoch."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for the poll in progress, which its time limits end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def poll(self) -> bool:
        """Poll once; whether a new snapshot came of it. Never raises."""
        begun_s = time.monotonic()
        try:
            self.snapshot = self._poll()
            failure = ""
        except PrometheusError as error:
            failure = f"Prometheus at {without_password(self._settings.prometheus.url)}: {error}."
        except Exception as error:
            log.exception("the telemetry poll failed")
            failure = f"The poll failed: {type(error).__name__}: {error}."
        self._count(failure, time.monotonic() - begun_s)
        return not failure

    def _count(self, failure: str, duration_s: float) -> None:
        if failure and failure != self.stats.failure:
            log.warning("no new telemetry: %s", failure)
        if self.stats.failure and not failure:
            log.info("telemetry is back")
        self.stats = replace(
            self.stats,
            polls=self.stats.polls + 1,
            failures=self.stats.failures + bool(failure),
            last_duration_s=duration_s,
            failure=failure,
        )

    def _run(self) -> None:
        epoch_s = self._settings.epoch_s
        due_s = time.monotonic()
        while not self._stop.is_set():
            self.poll()
            late = max(0, math.ceil((time.monotonic() - due_s) / epoch_s) - 1)
            self.stats = replace(self.stats, skipped=self.stats.skipped + late)
            self._after_poll()
            due_s += (late + 1) * epoch_s
            self._stop.wait(max(0.0, due_s - time.monotonic()))

    def _poll(self) -> TelemetrySnapshot:
        if not self._settings.prometheus.url:
            raise PrometheusError("no URL is configured; set prometheus.url")
        reader = self._reader = self._reader or PrometheusReader(self._settings.prometheus)
        taken_at_s = self._clock()
        now_s = reader.server_time_s()
        plan = self._plan()
        answers = reader.read(_all_queries(plan), now_s)
        directory = NodeDirectory(self._nodes())
        measured = self._measure(plan, answers.__getitem__, directory, now_s)
        self.reports = tuple(each.report for each in measured)
        errors = [report.error for report in self.reports if report.error]
        if errors and len(errors) == len(self.reports):
            raise PrometheusError(f"no query was answered; the first error: {errors[0]}")
        self._learn_intervals()
        problems = (*_general_problems(directory, taken_at_s - now_s), *_problems(self.reports))
        return assemble(self.snapshot.epoch + 1, taken_at_s, directory.names, measured, problems)

    def _plan(self) -> list[ReadingQueries]:
        window_step_s = _clamped(self._settings.epoch_s, _WINDOW_STEP_S)
        window_steps = round(LONGEST_WINDOW_S / window_step_s) + 1
        plan = []
        for source in self._sources:
            step_s = _clamped(self._intervals_s.get(source.name, self._settings.epoch_s), _SHORT_STEP_S)
            # as far back as a value may be old; one that is measured often enough is dated by its last column
            steps = max(_SHORT_STEPS_MIN, math.ceil(self._settings.stale_at_least_s / step_s) + 1)
            for name, query in source.readings.items():
                reading = _READINGS[name]
                expr = promql(query.expr, self._settings.prometheus.rate_range_s)
                grid = (window_step_s, window_steps) if reading.windowed else (step_s, steps)
                datings = dating_queries(merged(query, source), step_s, steps)
                plan.append(ReadingQueries(source, reading, query, GridQuery(expr, *grid), datings))
        return plan

    def _measure(
        self,
        plan: Sequence[ReadingQueries],
        ask: Callable[[GridQuery], Answer | PrometheusError],
        directory: NodeDirectory,
        now_s: float,
    ) -> list[Measured]:
        joins = Joins.read(_labels(ask(_JOIN_QUERIES[0])), _labels(ask(_JOIN_QUERIES[1])))
        self._known.begin((directory.nodes, joins))
        mappers = {source.name: SeriesMapper(source, directory, joins) for source in self._sources}
        limits = (self._settings.stale_after_scrapes, self._settings.stale_at_least_s)
        poll = PollAnswers(ask, mappers, self._known, now_s, *limits)
        return [measure(queries, poll) for queries in plan]

    def _learn_intervals(self) -> None:
        """The grid of the next poll is as fine as the measurements, so that one gap is one step."""
        for name in {report.source for report in self.reports}:
            learned = [report.interval_s for report in self.reports if report.source == name]
            self._intervals_s[name] = min(filter(math.isfinite, learned), default=self._settings.epoch_s)


_RATE = re.compile(r"\$rate\(([^()]*)\)")
_JOIN_QUERIES = (GridQuery(NODENAMES, 60, 1), GridQuery(PODS, 60, 1))


def promql(expr: str, range_s: float) -> str:
    """`expr` with $range and $rate(selector) written out.

    rate() divides by the whole range even where a series has only just begun, or has ended: a
    busy node would look idle for a minute. So $rate asks for a sample at both ends of the range.
    """
    covered = _RATE.sub(r"(rate(\1[$range]) and \1 and (\1 offset $range))", expr)
    return covered.replace("$range", f"{round(range_s * 1000)}ms")


def _all_queries(plan: Sequence[ReadingQueries]) -> list[GridQuery]:
    queries = [*_JOIN_QUERIES]
    for each in plan:
        queries += [each.values, *(query for way in each.datings for query in (way.at, way.interval))]
    return list(dict.fromkeys(queries))


def _labels(answer: Answer | PrometheusError) -> Sequence[Labels]:
    return [] if isinstance(answer, PrometheusError) else answer.labels


def _clamped(seconds: float, bounds: tuple[int, int]) -> int:
    return max(bounds[0], min(bounds[1], math.ceil(seconds)))


def _general_problems(directory: NodeDirectory, clock_difference_s: float) -> list[str]:
    problems = []
    if not directory.names:
        problems.append("The API server has told no nodes yet, so no series can be mapped.")
    if abs(clock_difference_s) > _CLOCK_DIFFERENCE_S_MAX:
        problems.append(f"Our clock and Prometheus' clock differ by {clock_difference_s:.0f} s; set NTP.")
    return problems


def _problems(reports: Sequence[ReadingReport]) -> list[str]:
    """Sentences about what could not be read; what is merely not installed is for doctor to tell."""
    counts = {
        "strangers": "name no node of the cluster",
        "stale": "are stale",
        "undated": "have no known age",
        "impossible": "have an impossible value",
        "unreadable": "could not be read",
        "duplicates": "repeat a node or pair",
    }
    problems = []
    for report in reports:
        who = f"{report.reading} from {report.source}"
        if report.error:
            problems.append(f"{who}: {report.error}.")
        for name, what in counts.items():
            if count := getattr(report, name):
                example = f", e.g. {report.example}" if name == "strangers" else ""
                problems.append(f"{who}: {count} of {report.series} series {what}{example}.")
    return problems
