"""From the answers of one source to values of nodes and pairs, each with its age.

Every value that cannot be trusted is left out, and counted under the reason:
series that could not be read, that name no node of the cluster, whose value
is impossible, whose age is unknown or too great, or that say the same thing
twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
from scheduler.edge.prometheus import Answer, GridQuery, PrometheusError
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


@dataclass
class _Rows:
    """The series of one reading that are about nodes of the cluster."""

    block: Block
    labels: list[Labels] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    picked: list[int] = field(default_factory=list)
    strangers: list[Labels] = field(default_factory=list)


class PollAnswers:
    """The answers of one poll at Prometheus' time `now_s`, and how they are dated and mapped.

    A value is stale `scrapes` measurement intervals after it was measured, but not before `least_s`.
    """

    def __init__(
        self,
        ask: Ask,
        mappers: Mapping[str, SeriesMapper],
        now_s: float,
        scrapes: float,
        least_s: float = 0.0,
    ) -> None:
        self.ask = ask
        self.mappers = mappers
        self.now_s = now_s
        self.scrapes = scrapes
        self.least_s = least_s
        self._datings: dict[tuple[str, bool, tuple[DatingQueries, ...]], Datings] = {}

    def datings(self, queries: ReadingQueries) -> Datings:
        """Datings for a reading; readings that are dated alike share them."""
        pair, source = is_pair(queries.reading), queries.source.name
        key = (source, pair, queries.datings)
        if key not in self._datings:
            self._datings[key] = Datings(queries.datings, self.ask, self.mappers[source], pair, self.now_s)
        return self._datings[key]


def measure(queries: ReadingQueries, poll: PollAnswers) -> Measured:
    """What one source says about one reading."""
    report = ReadingReport(queries.source.name, queries.reading.name)
    answer = poll.ask(queries.values)
    if isinstance(answer, PrometheusError):
        return _nothing(replace(report, error=str(answer)))
    rows = _mapped(answer, poll.mappers[queries.source.name], is_pair(queries.reading))
    report = replace(
        report,
        series=len(answer.labels) + answer.rejected,
        unreadable=answer.rejected,
        strangers=len(rows.strangers),
        example=_shown(rows.strangers[0]) if rows.strangers else "",
    )
    if not rows.picked:
        return _nothing(report)
    return _judged(queries, rows, poll, report)


def _mapped(answer: Answer, mapper: SeriesMapper, pair: bool) -> _Rows:
    rows = _Rows(answer.block)
    for row, labels in enumerate(answer.labels):
        source = mapper.node(labels)
        target = mapper.target(labels) if pair else -1
        if source < 0 or (pair and target < 0):
            rows.strangers.append(labels)
        elif source != target:
            rows.picked.append(row)
            rows.labels.append(labels)
            rows.source.append(source)
            rows.target.append(target)
    return rows


def _judged(queries: ReadingQueries, rows: _Rows, poll: PollAnswers, report: ReadingReport) -> Measured:
    datings = poll.datings(queries)
    raw = Block(rows.block.times_s, rows.block.values[rows.picked] * queries.query.scale)
    clean = Block(raw.times_s, possible(raw.values, queries.reading))
    value, at_s = last_known(clean)
    age_s, interval_s = _ages(rows, datings, at_s, poll.now_s)
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
    source, target = (np.array(ends, dtype=np.intp)[kept] for ends in (rows.source, rows.target))
    return Measured(source, target, value[kept], age_s[kept], views, report)


def _ages(rows: _Rows, datings: Datings, at_s: Floats, now_s: float) -> tuple[Floats, Floats]:
    """Age and measurement interval of each row; a value is at least as old as its place on the grid."""
    ages, intervals = np.full(len(rows.picked), np.nan), np.full(len(rows.picked), np.nan)
    grid_age_s = rows.block.times_s[-1] - at_s
    for row, (source, target, labels) in enumerate(zip(rows.source, rows.target, rows.labels, strict=True)):
        dating = datings.of(source, target, labels)
        if dating is not None:
            ages[row] = max(0.0, now_s - dating.at_s)
            intervals[row] = dating.interval_s
    return np.where(np.isnan(ages), np.nan, np.fmax(ages, grid_age_s)), intervals


def _once_each(rows: _Rows, usable: Indices, age_s: Floats) -> Indices:
    """Of several series about the same node or pair, the freshest; the first of equally fresh ones."""
    best: dict[tuple[int, int], int] = {}
    for row in usable.tolist():
        key = (rows.source[row], rows.target[row])
        if key not in best or age_s[row] < age_s[best[key]]:
            best[key] = row
    return np.array(sorted(best.values()), dtype=np.intp)


def _nothing(report: ReadingReport) -> Measured:
    nobody, nothing = np.empty(0, dtype=np.intp), np.empty(0)
    return Measured(nobody, nobody, nothing, nothing, {}, report)


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _shown(labels: Labels) -> str:
    inside = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{{{inside}}}"
