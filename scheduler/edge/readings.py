"""From the answers of one source to values of nodes and pairs, each with its age.

Every value that cannot be trusted is left out, and counted under the reason:
series that could not be read, that name no node of the cluster, whose value
is impossible, whose age is unknown or too great, or that say the same thing
twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.snapshot import PAIR_READINGS, Floats, Indices, Reading
from scheduler.config import ReadingQuery, Source
from scheduler.edge.freshness import (
    INTERVAL_UNKNOWN_S,
    Ask,
    DatingQueries,
    Datings,
)
from scheduler.edge.node_mapping import Labels, SeriesMapper
from scheduler.edge.prometheus import GridQuery, PrometheusError
from scheduler.edge.series import Block, last_known, possible, windows

_PAIR_NAMES = frozenset(reading.name for reading in PAIR_READINGS)


def is_pair(reading: Reading) -> bool:
    """Whether the reading belongs to an ordered pair of nodes."""
    return reading.name in _PAIR_NAMES


@dataclass(frozen=True, slots=True)
class ReadingQueries:
    """What to ask for one reading of one source."""

    source: Source
    reading: Reading
    query: ReadingQuery
    values: GridQuery
    datings: tuple[DatingQueries, ...]


@dataclass(frozen=True)
class ReadingReport:
    """How one reading of one source fared in one poll; counts are series."""

    source: str
    reading: str
    series: int = 0
    known: int = 0
    stale: int = 0
    undated: int = 0
    impossible: int = 0
    unreadable: int = 0
    strangers: int = 0
    duplicates: int = 0
    age_s: float = math.nan
    """Median age of what is known."""
    interval_s: float = math.nan
    """Median time between two measurements."""
    example: str = ""
    """Labels of a series that names no node of the cluster."""
    error: str = ""
    """Why there was no answer at all."""


@dataclass(frozen=True)
class Measured:
    """Values of one reading from one source; each node or pair at most once.

    `source` holds positions of nodes, `target` those of the far ends (-1 for a
    reading of a node); `windows` has one array for each window of a windowed reading.
    """

    source: Indices
    target: Indices
    value: Floats
    age_s: Floats
    windows: Mapping[str, Floats]
    report: ReadingReport


@dataclass(frozen=True)
class _Rows:
    """The series of one answer that are about nodes of the cluster: rows `picked` of it, and whose they are.

    `who` tells of each the source, the target and the instance that measured it: what dates it.
    """

    picked: Indices
    source: Indices
    target: Indices
    who: tuple[tuple[int, int, str], ...]
    labels: Sequence[Labels]
    strangers: Sequence[Labels]


class KnownSeries:
    """Whose the series of each reading are: remembered while neither they nor the nodes change."""

    def __init__(self) -> None:
        self._world: object = None
        self._kept: dict[tuple[str, str], tuple[Sequence[Labels], _Rows]] = {}

    def begin(self, world: object) -> None:
        """A poll begins; what is remembered holds while `world`, all that mapping depends on, is equal."""
        if world != self._world:
            self._world = world
            self._kept.clear()

    def rows(self, queries: ReadingQueries, labels: Sequence[Labels], mapper: SeriesMapper) -> _Rows:
        """Whose the series with these labels are, in their order."""
        name = (queries.source.name, queries.reading.name)
        kept = self._kept.get(name)
        if kept is None or kept[0] != labels:
            kept = self._kept[name] = (labels, _mapped(labels, mapper, is_pair(queries.reading)))
        return kept[1]


class PollAnswers:
    """The answers of one poll at Prometheus' time `now_s`, and how they are dated and mapped.

    A value is stale `scrapes` measurement intervals after it was measured, but not before `least_s`.
    """

    def __init__(
        self,
        ask: Ask,
        mappers: Mapping[str, SeriesMapper],
        known: KnownSeries,
        now_s: float,
        scrapes: float,
        least_s: float = 0.0,
    ) -> None:
        self.ask = ask
        self.mappers = mappers
        self.now_s = now_s
        self.scrapes = scrapes
        self.least_s = least_s
        self.known = known
        self._datings: dict[tuple[str, bool, tuple[DatingQueries, ...]], Datings] = {}
        self._dated: dict[tuple[Datings, tuple[tuple[int, int, str], ...]], tuple[Floats, Floats]] = {}

    def datings(self, queries: ReadingQueries) -> Datings:
        """Datings for a reading; readings that are dated alike share them."""
        pair, source = is_pair(queries.reading), queries.source.name
        key = (source, pair, queries.datings)
        if key not in self._datings:
            self._datings[key] = Datings(queries.datings, self.ask, self.mappers[source], pair, self.now_s)
        return self._datings[key]

    def dated(self, datings: Datings, rows: _Rows) -> tuple[Floats, Floats]:
        """Age and measurement interval of each row; computed once for readings of the same series' owners."""
        key = (datings, rows.who)
        if key not in self._dated:
            self._dated[key] = _dated(rows, datings, self.now_s)
        return self._dated[key]


def measure(queries: ReadingQueries, poll: PollAnswers) -> Measured:
    """What one source says about one reading."""
    report = ReadingReport(queries.source.name, queries.reading.name)
    answer = poll.ask(queries.values)
    if isinstance(answer, PrometheusError):
        return _nothing(replace(report, error=str(answer)))
    rows = poll.known.rows(queries, answer.labels, poll.mappers[queries.source.name])
    report = replace(
        report,
        series=len(answer.labels) + answer.rejected,
        unreadable=answer.rejected,
        strangers=len(rows.strangers),
        example=_shown(rows.strangers[0]) if rows.strangers else "",
    )
    if not len(rows.picked):
        return _nothing(report)
    return _judged(queries, Block(answer.block.times_s, answer.block.values[rows.picked]), rows, poll, report)


def _mapped(series: Sequence[Labels], mapper: SeriesMapper, pair: bool) -> _Rows:
    picked, who, of, strangers = [], [], [], []
    for row, labels in enumerate(series):
        source = mapper.node(labels)
        target = mapper.target(labels) if pair else -1
        if source < 0 or (pair and target < 0):
            strangers.append(labels)
        elif source != target:
            picked.append(row)
            who.append((source, target, labels.get("instance", "")))
            of.append(labels)
    ends = np.array([one[:2] for one in who], dtype=np.intp).reshape(len(who), 2)
    return _Rows(np.array(picked, dtype=np.intp), ends[:, 0], ends[:, 1], tuple(who), of, strangers)


def _judged(
    queries: ReadingQueries, block: Block, rows: _Rows, poll: PollAnswers, report: ReadingReport
) -> Measured:
    datings = poll.datings(queries)
    raw = Block(block.times_s, block.values * queries.query.scale)
    clean = Block(raw.times_s, possible(raw.values, queries.reading))
    value, at_s = last_known(clean)
    dated_s, interval_s = poll.dated(datings, rows)
    # a value is at least as old as its place on the grid
    age_s = np.where(np.isnan(dated_s), np.nan, np.fmax(dated_s, clean.times_s[-1] - at_s))
    limit_s = np.fmax(
        poll.scrapes * np.where(np.isnan(interval_s), INTERVAL_UNKNOWN_S, interval_s), poll.least_s
    )
    known, fresh = np.isfinite(value), age_s <= limit_s
    kept = _once_each(rows, np.flatnonzero(known & fresh), age_s)
    dated = np.isfinite(age_s)
    report = replace(
        report,
        known=len(kept),
        impossible=int((np.isfinite(raw.values[:, -1]) & np.isnan(clean.values[:, -1])).sum()),
        undated=int((known & ~dated).sum()),
        stale=int((known & dated & ~fresh).sum()),
        duplicates=int((known & fresh).sum()) - len(kept),
        age_s=_median(age_s[kept]),
        interval_s=_median(interval_s),
        error=str(datings.error) if datings.error and not dated.any() else "",
    )
    block = Block(clean.times_s, clean.values[kept])
    views = windows(block, queries.reading) if queries.reading.windowed else {}
    return Measured(rows.source[kept], rows.target[kept], value[kept], age_s[kept], views, report)


def _dated(rows: _Rows, datings: Datings, now_s: float) -> tuple[Floats, Floats]:
    ages, intervals = np.full(len(rows.picked), np.nan), np.full(len(rows.picked), np.nan)
    for row, ((source, target, _), labels) in enumerate(zip(rows.who, rows.labels, strict=True)):
        dating = datings.of(source, target, labels)
        if dating is not None:
            ages[row] = max(0.0, now_s - dating.at_s)
            intervals[row] = dating.interval_s
    return ages, intervals


def _once_each(rows: _Rows, usable: Indices, age_s: Floats) -> Indices:
    """Of several series about the same node or pair, the freshest; the first of equally fresh ones."""
    source, target = rows.source[usable], rows.target[usable]
    order = np.lexsort((usable, age_s[usable], target, source))
    source, target = source[order], target[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return np.sort(usable[order[first]])


def _nothing(report: ReadingReport) -> Measured:
    nobody, nothing = np.empty(0, dtype=np.intp), np.empty(0)
    return Measured(nobody, nobody, nothing, nothing, {}, report)


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _shown(labels: Labels) -> str:
    inside = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{{{inside}}}"
