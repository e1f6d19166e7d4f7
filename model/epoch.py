"""What the features need of one telemetry snapshot, computed once per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import repeat
from operator import attrgetter
from weakref import WeakKeyDictionary

import numpy as np

from model.pairs import Ends, PairField, usable, zone_codes
from model.placement import NOWHERE, ClusterView
from model.schema import FEATURES
from model.snapshot import Floats, Indices, TelemetrySnapshot, positions_in

_FLOOR = {"rtt": 1e-6, "rtt_jitter": 1e-6, "loss": 1e-4, "transfer_time": 1e-6, "throughput": 1.0}
_NODE_FEATURES = (
    *(feature.name for feature in FEATURES if feature.group == "node"),
    "network_receive",
    "network_transmit",
    "network_receive_mean_1m",
    "network_transmit_mean_1m",
    "network_speed",
    "network_drops",
    "tcp_retransmit",
    "tcp_retransmit_mean_5m",
)
_UTILISATION = {
    "receive_use": "network_receive",
    "receive_use_mean_1m": "network_receive_mean_1m",
    "receive_use_forecast": "network_receive_forecast",
    "transmit_use": "network_transmit",
    "transmit_use_mean_1m": "network_transmit_mean_1m",
    "transmit_use_forecast": "network_transmit_forecast",
}
_AGES = {"age_cpu_s": "cpu_use", "age_network_s": "network_receive"}
_MEANS = {
    "rtt_all": "rtt",
    "loss_all": "loss",
    "jitter_all": "rtt_jitter",
    "transfer_time_all": "transfer_time",
    "throughput_all": "throughput",
}
_ZONE = attrgetter("zone")


class EpochView:
    """One snapshot with the zones of its nodes: node columns and gap-filled pair fields.

    `zone_is_named[code]` is False for the code of nodes whose zone is not known.
    """

    def __init__(self, snapshot: TelemetrySnapshot, zones: tuple[str, ...]) -> None:
        # Holds what it needs and not the snapshot itself: the snapshot is the weak key of the memo below.
        self.zones = zones
        self._index, self.taken_at_s = snapshot.index, snapshot.taken_at_s
        self._nodes, self._node_age_s = snapshot.node_readings, snapshot.node_age_s
        self._pairs = snapshot.pair_readings
        self._count = len(snapshot.nodes)
        self._zone, self._code = zone_codes(zones)
        self._fields: dict[str, PairField | None] = {}
        nobody = np.zeros(0, dtype=np.intp)
        self._candidates: tuple[Sequence[str], Ends] = (), Ends(nobody, nobody)
        self.zone_is_named = np.array([name != "" for name in self._code] + [False])

    def candidate_ends(self, names: Sequence[str], cluster: ClusterView) -> Ends:
        """`ends` of the candidates, which are the same for most jobs of an epoch."""
        asked, ends = self._candidates
        if names is asked:
            return ends
        ends = self.ends(names, cluster)
        if isinstance(names, tuple) and (ends.position >= 0).all():  # else the cluster has a say
            self._candidates = names, ends
        return ends

    def ends(self, names: Sequence[str], cluster: ClusterView) -> Ends:
        """Positions and zone codes of nodes by name; a zone without telemetry has a code of its own."""
        position = positions_in(self._index, names)
        nowhere = len(self.zone_is_named) - 1
        zone = np.append(self._zone, nowhere)[position]
        for row in np.flatnonzero(position < 0).tolist():
            fact = cluster.get(names[row])
            zone[row] = nowhere if fact is None else self._code.get(fact.zone, nowhere)
        return Ends(position, zone)

    def node_columns(self, position: Indices) -> dict[str, Floats | float]:
        """Readings and ages of nodes at `position` (-1: unknown), by feature name."""
        names, table = self._node_table
        return dict(zip(names, table[:, position], strict=True))

    def all_columns(self, position: Indices) -> dict[str, Floats]:
        """Means over the pairs with all other nodes, for nodes at `position`, by feature name."""
        names, table = self._all_table
        return dict(zip(names, table[:, position], strict=True))

    def field(self, reading: str) -> PairField | None:
        """The gap-filled field of a pair reading; None when no pair has it."""
        if reading not in self._fields:
            self._fields[reading] = self._new_field(reading)
        return self._fields[reading]

    def _new_field(self, reading: str) -> PairField | None:
        readings = self._pairs.get(reading)
        readings = usable(readings) if readings is not None else None
        if readings is None or not len(readings.value):
            return None
        return PairField(readings, self._zone, len(self.zone_is_named), _floor(reading))

    @cached_property
    def _node_table(self) -> tuple[tuple[str, ...], Floats]:
        """Names and rows of node features; the last column, position -1, is the unknown node."""
        rows = {name: self._nodes.get(name) for name in _NODE_FEATURES}
        rows |= {name: self._utilisation(reading) for name, reading in _UTILISATION.items()}
        rows |= {name: self._node_age_s.get(reading) for name, reading in _AGES.items()}
        return tuple(rows), self._stacked(list(rows.values()))

    def _utilisation(self, reading: str) -> Floats | None:
        rate, speed = self._nodes.get(reading), self._nodes.get("network_speed")
        return None if rate is None or speed is None else rate / speed

    @cached_property
    def _all_table(self) -> tuple[tuple[str, ...], Floats]:
        rows = {name: self._mean_of(reading) for name, reading in _MEANS.items()}
        field = self.field("rtt") or self.field("throughput")
        best = self.field("throughput_best") or self.field("throughput")
        rows["throughput_link"] = None if best is None else best.greatest_inward
        rows["estimated_all"] = None if field is None else 1.0 - field.measured_inward
        rows["age_pairs_all_s"] = None if field is None else field.ages.mean_per_node
        return tuple(rows), self._stacked(list(rows.values()))

    def _mean_of(self, reading: str) -> Floats | None:
        field = self.field(reading)
        return None if field is None else field.mean_inward

    def _stacked(self, rows: Sequence[Floats | None]) -> Floats:
        table = np.full((len(rows), self._count + 1), np.nan)
        for row, values in enumerate(rows):
            if values is not None:
                table[row, : self._count] = values
        return table


def _floor(reading: str) -> float:
    """What to add to a reading before its logarithm; a windowed reading has the floor of its base."""
    bases = [base for base in _FLOOR if reading == base or reading.startswith(f"{base}_")]
    return _FLOOR[max(bases, key=len)]


_VIEWS: WeakKeyDictionary[TelemetrySnapshot, EpochView] = WeakKeyDictionary()
"""Memo of the newest view per snapshot: pure, it only saves computing the same again."""


def view_of(snapshot: TelemetrySnapshot, cluster: ClusterView) -> EpochView:
    """The view of a snapshot, computed anew only for another snapshot or other zones."""
    zones = tuple(map(_ZONE, map(cluster.get, snapshot.nodes, repeat(NOWHERE))))
    view = _VIEWS.get(snapshot)
    if view is None or view.zones != zones:
        view = _VIEWS[snapshot] = EpochView(snapshot, zones)
    return view
