"""How old a value is, and how old it may be.

Prometheus answers a query with samples up to five minutes old without a word,
and an exporter may hang while it is still scraped. So the age of a value is
asked for separately: the time that the measurement itself reports
(`measured_at`: the probe's round, node_time_seconds) where there is one, else
the time of the newest raw sample (`newest`). The time between two
measurements is configured, or learned from the last five minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.config import Freshness
from scheduler.edge.node_mapping import Labels, SeriesMapper
from scheduler.edge.prometheus import Answer, GridQuery, PrometheusError
from scheduler.edge.series import last_known

INTERVAL_UNKNOWN_S = 60.0
"""Assumed between two measurements until it is learned: Prometheus' own default."""
CLOCK_AHEAD_S = 2.0
"""A measurement later than this after Prometheus' now comes from a clock that is ahead."""
Ask = Callable[[GridQuery], Answer | PrometheusError]


@dataclass(frozen=True, slots=True)
class Dating:
    """When something was last measured, and the seconds between two measurements (NaN: not known)."""

    at_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class DatingQueries:
    """The two queries of one way to date a reading."""

    at: GridQuery
    interval: GridQuery


def dating_queries(freshness: Freshness, step_s: int, steps: int) -> tuple[DatingQueries, ...]:
    """Ways to date a reading, the preferred first; `freshness` names at least one selector.

    What was last measured before the grid of `steps` columns is not dated.
    """
    ways = []
    if freshness.measured_at:
        ways.append(_by_value(freshness, step_s, steps))
    ways.append(_by_sample(freshness, freshness.newest or freshness.measured_at, step_s, steps))
    return tuple(ways)


def merged(reading: Freshness, source: Freshness) -> Freshness:
    """What the reading says, completed by what its source says; both selectors come from the same one."""
    selectors = reading if reading.newest or reading.measured_at else source
    interval = reading.interval if reading.interval is not None else source.interval
    return Freshness(newest=selectors.newest, measured_at=selectors.measured_at, interval=interval)


def _by_value(freshness: Freshness, step_s: int, steps: int) -> DatingQueries:
    series = freshness.measured_at
    learned = f"(max_over_time({series}[5m]) - min_over_time({series}[5m])) / changes({series}[5m])"
    return DatingQueries(
        GridQuery(series, step_s, steps), GridQuery(_interval(freshness, learned), step_s, 1)
    )


def _by_sample(freshness: Freshness, series: str, step_s: int, steps: int) -> DatingQueries:
    # a series that did not exist five minutes ago would seem to be scraped seldom
    grown = f"300 / count_over_time({series}[5m]) and ({series} offset 5m)"
    learned = f"({grown}) or 60 / count_over_time({series}[1m])"
    return DatingQueries(
        GridQuery(f"timestamp({series})", step_s, steps),
        GridQuery(_interval(freshness, learned), step_s, 1),
    )


def _interval(freshness: Freshness, learned: str) -> str:
    """A number holds for all; PromQL fills in where five minutes were too short to learn from."""
    if freshness.interval is None:
        return learned
    if isinstance(freshness.interval, str):
        return f"({learned}) or {freshness.interval}"
    return f"vector({freshness.interval:g})"


class Datings:
    """Dating of nodes and pairs, from the answers to the dating queries of one reading."""

    def __init__(
        self, ways: Sequence[DatingQueries], ask: Ask, mapper: SeriesMapper, is_pair: bool, now_s: float
    ) -> None:
        self._mapper = mapper
        self._is_pair = is_pair
        self._now_s = now_s
        self._ways = [self._read(way, ask) for way in ways]
        self.error = next((a for way in ways if isinstance(a := ask(way.at), PrometheusError)), None)

    def of(self, source: int, target: int, labels: Labels) -> Dating | None:
        """Dating of a series; of its own instance where that is known, else of its pair, else of its node."""
        keys = _keys(source, target, labels)
        if target >= 0:
            keys += _keys(source, _NO_TARGET, labels)
        for way in self._ways:
            for key in keys:
                if (dating := way.get(key)) is not None:
                    return dating
        return None

    def _read(self, way: DatingQueries, ask: Ask) -> Mapping[_Key, Dating]:
        answer = ask(way.at)
        if isinstance(answer, PrometheusError):
            return {}
        intervals = self._intervals(ask(way.interval))
        times, _ = last_known(answer.block)
        datings: dict[_Key, Dating] = {}
        for labels, at_s in zip(answer.labels, times.tolist(), strict=True):
            if math.isfinite(at_s) and at_s <= self._now_s + CLOCK_AHEAD_S:
                self._insert(datings, labels, at_s, intervals)
        return datings

    def _insert(
        self, datings: dict[_Key, Dating], labels: Labels, at_s: float, intervals: Mapping[_Key, float]
    ) -> None:
        for key in self._keys_of(labels):
            known = datings.get(key)
            if known is None or known.at_s < at_s:
                datings[key] = Dating(at_s, _interval_of(key, intervals))

    def _intervals(self, answer: Answer | PrometheusError) -> Mapping[_Key, float]:
        if isinstance(answer, PrometheusError):
            return {}
        values, _ = last_known(answer.block)
        intervals: dict[_Key, float] = {}
        for labels, interval_s in zip(answer.labels, values.tolist(), strict=True):
            if math.isfinite(interval_s) and interval_s > 0:
                keys = self._keys_of(labels) if labels else [_ANY]
                intervals.update(dict.fromkeys(keys, interval_s))
        return intervals

    def _keys_of(self, labels: Labels) -> list[_Key]:
        """Under what a dating series is found: its pair if it names a far end, else its node."""
        source = self._mapper.node(labels)
        names_target = self._is_pair and self._mapper.names_target(labels)
        target = self._mapper.target(labels) if names_target else _NO_TARGET
        usable = source >= 0 and (target >= 0 or not names_target)
        return _keys(source, target, labels) if usable else []


_Key = tuple[int, int, str]
_NO_TARGET = -1
_ANY: _Key = (-1, -1, "")
"""Key of a stated interval that holds for all series."""


def _interval_of(key: _Key, intervals: Mapping[_Key, float]) -> float:
    source, target, instance = key
    candidates = (key, (source, target, ""), (source, _NO_TARGET, instance), (source, _NO_TARGET, ""), _ANY)
    return next((intervals[each] for each in candidates if each in intervals), math.nan)


def _keys(source: int, target: int, labels: Labels) -> list[_Key]:
    """The keys of a node or pair: with the instance that measured, then without."""
    instance = labels.get("instance", "")
    return [(source, target, name) for name in ((instance, "") if instance else ("",))]
