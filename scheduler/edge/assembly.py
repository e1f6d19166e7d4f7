"""One snapshot from the measurements of all sources: the first source that knows a value wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from model.snapshot import NODE_READINGS, PAIR_READINGS, WINDOWS, Floats, PairReadings, TelemetrySnapshot
from scheduler.edge.readings import Measured

_WINDOWED = {reading.name: reading.windowed for reading in (*NODE_READINGS, *PAIR_READINGS)}
_PAIRS = frozenset(reading.name for reading in PAIR_READINGS)


def assemble(
    epoch: int,
    taken_at_s: float,
    nodes: tuple[str, ...],
    measured: Iterable[Measured],
    problems: Sequence[str] = (),
) -> TelemetrySnapshot:
    """The snapshot of one poll; `measured` in order of precedence.

    A value, its age and its windows always come from the same source.
    """
    node_readings: dict[str, Floats] = {}
    node_age_s: dict[str, Floats] = {}
    pair_readings: dict[str, PairReadings] = {}
    for name, those in _by_reading(measured):
        chosen = _first_wins(those, len(nodes))
        if name in _PAIRS:
            pair_readings.update(_pairs(name, chosen, len(nodes)))
        else:
            node_readings.update(_columns(name, chosen, len(nodes)))
            node_age_s[name] = _scattered(chosen, chosen.age_s, len(nodes))
    return TelemetrySnapshot(
        epoch, taken_at_s, nodes, node_readings, node_age_s, pair_readings, tuple(problems)
    )


def _by_reading(measured: Iterable[Measured]) -> Iterable[tuple[str, list[Measured]]]:
    def name(each: Measured) -> str:
        return each.report.reading

    return [(key, list(those)) for key, those in groupby(sorted(measured, key=name), key=name)]


def _first_wins(those: Sequence[Measured], node_count: int) -> Measured:
    """All that the sources know, each node or pair from the first source that knows it."""
    keys = np.concatenate([each.source * (node_count + 1) + each.target + 1 for each in those])
    _, first = np.unique(keys, return_index=True)
    names = WINDOWS if _WINDOWED[those[0].report.reading] else ()
    windows: Mapping[str, Floats] = {
        name: np.concatenate([each.windows.get(name, np.empty(0)) for each in those])[first] for name in names
    }
    return Measured(
        np.concatenate([each.source for each in those])[first],
        np.concatenate([each.target for each in those])[first],
        np.concatenate([each.value for each in those])[first],
        np.concatenate([each.age_s for each in those])[first],
        windows,
        those[0].report,
    )


def _columns(name: str, chosen: Measured, node_count: int) -> dict[str, Floats]:
    columns = {name: _scattered(chosen, chosen.value, node_count)}
    for suffix, values in chosen.windows.items():
        columns[f"{name}_{suffix}"] = _scattered(chosen, values, node_count)
    return columns


def _scattered(chosen: Measured, values: Floats, node_count: int) -> Floats:
    column = np.full(node_count, np.nan)
    column[chosen.source] = values
    return column


def _pairs(name: str, chosen: Measured, node_count: int) -> dict[str, PairReadings]:
    views = {name: chosen.value, **{f"{name}_{suffix}": v for suffix, v in chosen.windows.items()}}
    return {key: _known_pairs(chosen, values, node_count) for key, values in views.items()}


def _known_pairs(chosen: Measured, values: Floats, node_count: int) -> PairReadings:
    known = np.isfinite(values)
    return PairReadings(
        node_count, chosen.source[known], chosen.target[known], values[known], chosen.age_s[known]
    )
