"""One telemetry epoch: what was known about nodes and node pairs at one instant.

A `TelemetrySnapshot` is immutable; everything scored within an epoch sees the
same one. Unknown is NaN, never zero: a missing, stale or impossible reading
must not look like an idle node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reading:
    """The definition of one quantity that telemetry may deliver.

    `low` and `high` bound what is physically possible; a value outside is
    unknown. `windowed` readings also carry `_mean_1m`, `_mean_5m`,
    `_slope_1m`, `_slope_5m` (per second), `_forecast` (60 s ahead) and
    `_best`, the best of the newest few: the highest where `more_is_better`.
    """

    name: str
    unit: str
    low: float
    high: float
    windowed: bool = False
    more_is_better: bool = False


NODE_READINGS: tuple[Reading, ...] = (
    Reading("cpu_use", "ratio of all cores", 0.0, 1.0, windowed=True),
    Reading("load1_per_core", "runnable threads per core", 0.0, 1e4, windowed=True),
    Reading("cpu_cores", "cores", 1.0, 1e5),
    Reading("memory_available", "ratio", 0.0, 1.0),
    Reading("disk_read", "bytes/s", 0.0, 1e12),
    Reading("disk_write", "bytes/s", 0.0, 1e12),
    Reading("network_receive", "bytes/s", 0.0, 1e12, windowed=True),
    Reading("network_transmit", "bytes/s", 0.0, 1e12, windowed=True),
    Reading("network_speed", "bytes/s", 1.0, 1e12),
    Reading("network_drops", "packets/s", 0.0, 1e9),
    Reading("tcp_retransmit", "ratio of segments sent", 0.0, 1.0, windowed=True),
    Reading("pressure_cpu", "ratio of time", 0.0, 1.0, windowed=True),
    Reading("pressure_io", "ratio of time", 0.0, 1.0),
    Reading("pressure_memory", "ratio of time", 0.0, 1.0),
    Reading("gpu_use", "ratio", 0.0, 1.0),
    Reading("gpu_memory_use", "ratio", 0.0, 1.0),
    Reading("gpu_clock", "ratio of the highest clock", 0.0, 1.5),
    Reading("gpu_throttled", "ratio of time", 0.0, 1.0),
)
"""Readings of one node, in the order in which reports list them."""

PAIR_READINGS: tuple[Reading, ...] = (
    Reading("rtt", "s", 0.0, 60.0, windowed=True),
    Reading("rtt_jitter", "s", 0.0, 60.0),
    Reading("loss", "ratio", 0.0, 1.0),
    Reading("transfer_time", "s for one probe transfer", 0.0, 600.0),
    Reading(
        "throughput", "bytes/s attained by one probe transfer", 1.0, 1e12, windowed=True, more_is_better=True
    ),
)
"""Readings of an ordered pair of nodes (measured from source to destination)."""

WINDOWS: tuple[str, ...] = ("mean_1m", "mean_5m", "slope_1m", "slope_5m", "forecast", "best")
"""Suffixes of a windowed reading, e.g. `rtt_mean_1m`."""


@dataclass(frozen=True, eq=False)
class PairReadings:
    """One reading of ordered node pairs, sparse: only measured pairs are stored.

    `source` and `destination` are positions in the snapshot's `nodes`;
    the three arrays have one entry per measured pair, each pair at most once.
    `age_s` is the age of each value at the snapshot's `taken_at_s`.
    """

    node_count: int
    source: Indices
    destination: Indices
    value: Floats
    age_s: Floats

    @cached_property
    def _by_source(self) -> tuple[Indices, Indices]:
        order = np.argsort(self.source, kind="stable")
        return order, np.searchsorted(self.source[order], np.arange(self.node_count + 1))

    @cached_property
    def _by_destination(self) -> tuple[Indices, Indices]:
        order = np.argsort(self.destination, kind="stable")
        return order, np.searchsorted(self.destination[order], np.arange(self.node_count + 1))

    def from_node(self, source: int) -> Floats:
        """Values from `source` to every node; shape (node_count,), NaN where unmeasured."""
        order, starts = self._by_source
        picked = order[starts[source] : starts[source + 1]]
        return self._scatter(self.destination[picked], self.value[picked])

    def to_node(self, destination: int) -> Floats:
        """Values from every node to `destination`; shape (node_count,), NaN where unmeasured."""
        order, starts = self._by_destination
        picked = order[starts[destination] : starts[destination + 1]]
        return self._scatter(self.source[picked], self.value[picked])

    @cached_property
    def mean_per_node(self) -> Floats:
        """Mean over all measured pairs a node takes part in; shape (node_count,), NaN if none."""
        ends = np.concatenate([self.source, self.destination])
        values = np.concatenate([self.value, self.value])
        total = np.bincount(ends, weights=values, minlength=self.node_count)
        count = np.bincount(ends, minlength=self.node_count)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(count > 0, total / count, np.nan), dtype=np.float64)

    def _scatter(self, positions: Indices, values: Floats) -> Floats:
        row = np.full(self.node_count, np.nan)
        row[positions] = values
        return row


@dataclass(frozen=True, eq=False)
class TelemetrySnapshot:
    """All readings of one epoch.

    `node_readings` maps a reading's name (with window suffix where windowed)
    to an array of shape (len(nodes),); `node_age_s` maps the base name to the
    age of the newest sample behind it. `pair_readings` likewise for pairs.
    `problems` says in sentences what could not be read, for `fairlane doctor`.
    """

    epoch: int
    taken_at_s: float
    nodes: tuple[str, ...]
    node_readings: Mapping[str, Floats] = field(default_factory=dict)
    node_age_s: Mapping[str, Floats] = field(default_factory=dict)
    pair_readings: Mapping[str, PairReadings] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("node_readings", "node_age_s", "pair_readings"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each node name in the arrays."""
        return MappingProxyType({name: i for i, name in enumerate(self.nodes)})

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Which nodes have at least one known reading of their own or of a pair; shape (len(nodes) + 1,).

        The last is False: position -1, a node that telemetry does not know.
        """
        known = np.zeros(len(self.nodes) + 1, dtype=bool)
        for values in self.node_readings.values():
            known[:-1] |= np.isfinite(values)
        for pairs in self.pair_readings.values():
            known[:-1] |= np.isfinite(pairs.mean_per_node)
        return known

    def positions(self, names: Sequence[str]) -> Indices:
        """Positions of `names`; -1 for a node that telemetry does not know."""
        return positions_in(self.index, names)

    def of_nodes(self, reading: str, positions: Indices) -> Floats:
        """Values of `reading` at `positions`; NaN for -1 or an absent reading."""
        values = self.node_readings.get(reading)
        if values is None or len(self.nodes) == 0:
            return np.full(len(positions), np.nan)
        return np.asarray(np.where(positions >= 0, values[positions], np.nan), dtype=np.float64)

    def is_empty(self) -> bool:
        """True when no reading of any node or pair is known."""
        node_known = any(bool(np.isfinite(v).any()) for v in self.node_readings.values())
        return not node_known and not any(len(p.value) for p in self.pair_readings.values())


EMPTY = TelemetrySnapshot(epoch=0, taken_at_s=0.0, nodes=())
"""What is known before the first successful poll: nothing."""


def positions_in(index: Mapping[str, int], names: Sequence[str]) -> Indices:
    """The position of each name in `index`; -1 for one that is not there."""
    return np.fromiter(map(index.get, names, repeat(-1)), dtype=np.intp, count=len(names))
