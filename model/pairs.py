"""Readings of node pairs with the gaps filled.

Probes measure a few pairs a round, so most ordered pairs of a large cluster
are never measured. A gap is filled, in this order, by the reverse direction
and by a log-additive model fitted to the measured pairs:

    log(v[i, j] + floor) = cell[zone(i), zone(j)] + source[i] + destination[j]

where `cell` is the median of the zone pair (else of the reverse zone pair,
else of all pairs inside one zone or between two zones) and the node effects
are mean residuals shrunk to 0 by `SHRINKAGE` pseudo-measurements. Whatever
was not measured in its own direction counts as estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.snapshot import Floats, Indices, PairReadings

SHRINKAGE = 2.0
BACKFITTING_PASSES = 2
MEDIAN_SAMPLE = 20_000
"""Medians of zone pairs are taken from at most about this many pairs."""
MAX_ZONES = 256
"""With more zones than this the zones are ignored: the cells would outnumber the measurements."""

Mask = NDArray[np.bool_]


def mean(rows: Floats) -> Floats:
    """Mean over the first axis of what is known; NaN where nothing is."""
    if not len(rows):
        return np.full(rows.shape[1:], np.nan)
    if len(rows) == 1:  # most jobs have one data node, no peers, no driver
        return np.where(np.isfinite(rows[0]), rows[0], np.nan)
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    total = np.where(known, rows, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), dtype=np.float64)


def least(rows: Floats) -> Floats:
    """Least known value over the first axis; NaN where nothing is known."""
    return np.asarray(np.fmin.reduce(rows, axis=0, initial=np.nan), dtype=np.float64)


def greatest(rows: Floats) -> Floats:
    """Greatest known value over the first axis; NaN where nothing is known."""
    return np.asarray(np.fmax.reduce(rows, axis=0, initial=np.nan), dtype=np.float64)


@dataclass(frozen=True)
class Ends:
    """Nodes as ends of pairs: positions in the snapshot (-1 unknown to telemetry) and zone codes."""

    position: Indices
    zone: Indices

    def one(self, row: int) -> tuple[int, int]:
        """Position and zone code of one of the nodes."""
        return int(self.position[row]), int(self.zone[row])


def usable(readings: PairReadings) -> PairReadings:
    """Without pairs of a node with itself and without values that are no numbers."""
    keep = np.isfinite(readings.value) & (readings.source != readings.destination)
    if keep.all():
        return readings
    kept = (array[keep] for array in (readings.source, readings.destination, readings.value, readings.age_s))
    return PairReadings(readings.node_count, *kept)


def zone_codes(zones: Sequence[str]) -> tuple[Indices, dict[str, int]]:
    """Codes of zone names, shape (len(zones),), and the code of each name.

    All nodes share code 0 when there are more than `MAX_ZONES` zones.
    """
    code = {name: i for i, name in enumerate(dict.fromkeys(zones))}
    if len(code) > MAX_ZONES:
        code = dict.fromkeys(code, 0)
    return np.array([code[name] for name in zones], dtype=np.intp), code


@dataclass(frozen=True, eq=False)
class PairField:
    """One pair reading over all ordered pairs: measured where possible, else estimated.

    `zone` holds the zone code of every snapshot node; the code `zone_count - 1`
    is kept for nodes of no known zone, for which nothing is estimated. `floor`
    is added before the logarithm so that a reading of 0 (loss, jitter) has one.
    """

    readings: PairReadings
    zone: Indices
    zone_count: int
    floor: float

    def outward(self, source: tuple[int, int], ends: Ends) -> tuple[Floats, Mask]:
        """Values from one node to each of `ends`, and which of them were measured in this direction."""
        values = self._picked(self.readings.from_node, source[0], ends)
        measured = np.isfinite(values)
        if not measured.all():
            reverse = self._picked(self.readings.to_node, source[0], ends)
            values = np.where(measured, values, reverse)
            values = np.where(np.isfinite(values), values, self._estimate(source, ends, from_source=True))
        return values, measured

    def inward(self, destination: tuple[int, int], ends: Ends) -> tuple[Floats, Mask]:
        """Values from each of `ends` to one node, and which of them were measured in this direction."""
        values = self._picked(self.readings.to_node, destination[0], ends)
        measured = np.isfinite(values)
        if not measured.all():
            reverse = self._picked(self.readings.from_node, destination[0], ends)
            values = np.where(measured, values, reverse)
            estimate = self._estimate(destination, ends, from_source=False)
            values = np.where(np.isfinite(values), values, estimate)
        return values, measured

    @cached_property
    def mean_inward(self) -> Floats:
        """Mean over all other nodes of the value from them to each node; shape (node_count,)."""
        model, count = self._model, len(self.zone)
        weights = np.bincount(self.zone, weights=np.exp(model.source), minlength=len(model.cell))
        sizes = np.bincount(self.zone, minlength=len(model.cell))
        known = np.isfinite(model.cell)
        level = np.exp(np.where(known, model.cell, -np.inf))
        own_cell = level[self.zone, self.zone]
        total = np.exp(model.destination) * ((weights @ level)[self.zone] - own_cell * np.exp(model.source))
        partners = (sizes @ known)[self.zone] - known[self.zone, self.zone]
        correction = self.readings.value + self.floor - np.exp(model.fitted)
        total = total + np.bincount(self.readings.destination, weights=correction, minlength=count)
        with np.errstate(invalid="ignore", divide="ignore"):
            average = total / partners - self.floor
        return np.asarray(np.where(partners > 0, np.maximum(average, 0.0), np.nan), dtype=np.float64)

    @cached_property
    def greatest_inward(self) -> Floats:
        """Greatest value measured from any node to each node, NaN where none was; shape (node_count,)."""
        found = np.full(len(self.zone), np.nan)
        np.fmax.at(found, self.readings.destination, self.readings.value)
        return found

    @cached_property
    def measured_inward(self) -> Floats:
        """Ratio of the other nodes from which a value was measured to each node; shape (node_count,)."""
        count = np.bincount(self.readings.destination, minlength=len(self.zone))
        return np.asarray(np.minimum(count / max(len(self.zone) - 1, 1), 1.0), dtype=np.float64)

    @cached_property
    def ages(self) -> PairReadings:
        """The age in s of each measured pair, as pair readings of its own."""
        r = self.readings
        return PairReadings(r.node_count, r.source, r.destination, r.age_s, r.age_s)

    def _picked(self, row_of: Callable[[int], Floats], node: int, ends: Ends) -> Floats:
        if node < 0 or self.readings.node_count == 0:
            return np.full(len(ends.position), np.nan)
        return np.where(ends.position >= 0, row_of(node)[ends.position], np.nan)

    def _estimate(self, node: tuple[int, int], ends: Ends, *, from_source: bool) -> Floats:
        model = self._model
        own, others = (model.source, model.destination) if from_source else (model.destination, model.source)
        cell = model.cell[node[1], ends.zone] if from_source else model.cell[ends.zone, node[1]]
        effect = (own[node[0]] if node[0] >= 0 else 0.0) + np.append(others, 0.0)[ends.position]
        return np.asarray(np.maximum(np.exp(cell + effect) - self.floor, 0.0), dtype=np.float64)

    def age_outward(self, source: tuple[int, int], ends: Ends) -> Floats:
        """Age in s of the value from one node to each of `ends`, in either direction; NaN if neither."""
        forth = self._picked(self.ages.from_node, source[0], ends)
        back = self._picked(self.ages.to_node, source[0], ends)
        return np.asarray(np.where(np.isfinite(forth), forth, back), dtype=np.float64)

    @cached_property
    def _model(self) -> _Additive:
        return _fit(self.readings, self.zone, self.zone_count, self.floor)


@dataclass(frozen=True, eq=False)
class _Additive:
    cell: Floats
    source: Floats
    destination: Floats
    fitted: Floats


def _fit(readings: PairReadings, zone: Indices, zones: int, floor: float) -> _Additive:
    logs = np.log(readings.value + floor)
    source_zone, destination_zone = zone[readings.source], zone[readings.destination]
    cell = _cells(logs, source_zone, destination_zone, zones)
    level = cell[source_zone, destination_zone]
    source, destination = np.zeros(len(zone)), np.zeros(len(zone))
    for _ in range(BACKFITTING_PASSES):
        destination = _effects(logs - level - source[readings.source], readings.destination, len(zone))
        source = _effects(logs - level - destination[readings.destination], readings.source, len(zone))
    fitted = level + source[readings.source] + destination[readings.destination]
    return _Additive(cell, source, destination, fitted)


def _effects(residual: Floats, end: Indices, count: int) -> Floats:
    total = np.bincount(end, weights=residual, minlength=count)
    measurements = np.bincount(end, minlength=count)
    return np.asarray(total / (measurements + SHRINKAGE), dtype=np.float64)


def _cells(logs: Floats, source_zone: Indices, destination_zone: Indices, zones: int) -> Floats:
    step = max(1, len(logs) // MEDIAN_SAMPLE)
    code = source_zone * zones + destination_zone
    cell = _medians(logs[::step], code[::step], zones * zones)
    if step > 1:  # a zone pair that the sample missed still has its mean
        cell = np.where(np.isfinite(cell), cell, _means(logs, code, zones * zones))
    cell = cell.reshape(zones, zones)
    cell = np.where(np.isfinite(cell), cell, cell.T)
    inside = source_zone == destination_zone
    by_kind = _medians(logs[::step], inside[::step].astype(np.intp), 2)
    cell = np.where(np.isfinite(cell), cell, by_kind[np.eye(zones, dtype=np.intp)])
    cell[-1, :] = cell[:, -1] = np.nan
    return cell


def _medians(values: Floats, code: Indices, count: int) -> Floats:
    order = np.lexsort((values, code))
    values, code = values[order], code[order]
    starts = np.searchsorted(code, np.arange(count + 1))
    medians = np.full(count, np.nan)
    sizes = np.diff(starts)
    some = sizes > 0
    low, high = (starts[:-1] + (sizes - 1) // 2)[some], (starts[:-1] + sizes // 2)[some]
    medians[some] = (values[low] + values[high]) / 2
    return medians


def _means(values: Floats, code: Indices, count: int) -> Floats:
    total, size = np.bincount(code, weights=values, minlength=count), np.bincount(code, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(size > 0, total / size, np.nan), dtype=np.float64)
