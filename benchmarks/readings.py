"""Generated telemetry of a cluster of any size: plausible values, the real path from PromQL on.

A real Prometheus with exporters for thousands of nodes would take the two
cores on which the scheduler is measured; in production it runs elsewhere. So
the values are drawn once, and a small server (telemetry_source.py) answers
the same range queries as Prometheus would. Poller, snapshot, features,
predictor and tables are the product's own, at the product's own pace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.snapshot import Floats, PairReadings, TelemetrySnapshot

NEIGHBOURS = 3
"""Besides the data nodes, so many other nodes measure each node."""
SPREAD: Mapping[str, tuple[float, float]] = {
    "cpu_use": (0.02, 0.9),
    "load1_per_core": (0.02, 1.5),
    "cpu_cores": (16.0, 16.0),
    "memory_available": (0.2, 0.95),
    "disk_read": (0.0, 2e8),
    "disk_write": (0.0, 2e8),
    "network_receive": (1e6, 2.5e8),
    "network_transmit": (1e6, 2.5e8),
    "network_speed": (3.75e8, 1.25e9),
    "network_drops": (0.0, 2.0),
    "tcp_retransmit": (0.0, 0.02),
    "pressure_cpu": (0.0, 0.5),
    "pressure_io": (0.0, 0.3),
    "pressure_memory": (0.0, 0.05),
    "rtt": (2e-4, 0.03),
    "rtt_jitter": (1e-5, 3e-3),
    "loss": (0.0, 0.01),
    "transfer_time": (3e-3, 0.2),
    "throughput": (2e7, 1.1e9),
}
"""Least and greatest value of each reading; evenly spread."""
PAIRS = ("rtt", "rtt_jitter", "loss", "transfer_time", "throughput")
NODES = tuple(name for name in SPREAD if name not in PAIRS)
MEASURED_AT = "bench_measured_at_seconds"
INTERVAL_S = 15


def metric(reading: str) -> str:
    """The name of the reading's series in the generated Prometheus."""
    return f"bench_{reading}"


def source_settings() -> dict[str, Any]:
    """The source as the settings describe it: one plain selector per reading."""
    return {
        "name": "generated",
        "node_label": "node",
        "target_labels": ["target"],
        "mapping": ["label"],
        "measured_at": MEASURED_AT,
        "interval": INTERVAL_S,
        "readings": {name: {"expr": metric(name)} for name in SPREAD},
    }


def pairs(nodes: Sequence[str], data_nodes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sources and targets of the measured pairs: data nodes to all, and a few others to each node."""
    source, target = [], []
    for number, name in enumerate(nodes):
        others = [nodes[(number + step) % len(nodes)] for step in range(1, NEIGHBOURS + 1)]
        near = [*data_nodes, *others]
        source += [one for one in near if one != name]
        target += [name for one in near if one != name]
    return source, target


def draw(rng: np.random.Generator, reading: str, shape: int | tuple[int, ...]) -> Floats:
    """Values of `reading`, in its unit."""
    return np.asarray(rng.uniform(*SPREAD[reading], shape), dtype=np.float64)


@dataclass(frozen=True)
class Series:
    """One metric of the generated Prometheus: labels and a base value per series."""

    labels: Sequence[Mapping[str, str]]
    values: Floats


def all_series(nodes: Sequence[str], data_nodes: Sequence[str], seed: int) -> dict[str, Series]:
    """Every metric by name, except the time of measurement."""
    rng = np.random.default_rng(seed)
    everybody = [*nodes, *data_nodes]
    of_node = [{"node": name} for name in everybody]
    of_pair = [{"node": a, "target": b} for a, b in zip(*pairs(nodes, data_nodes), strict=True)]
    found = {metric(name): Series(of_node, draw(rng, name, len(of_node))) for name in NODES}
    return found | {metric(name): Series(of_pair, draw(rng, name, len(of_pair))) for name in PAIRS}


def snapshot(
    rng: np.random.Generator, nodes: Sequence[str], data_nodes: Sequence[str], taken_at_s: float
) -> TelemetrySnapshot:
    """A snapshot drawn from the same values, for making training examples without a cluster."""
    names = (*nodes, *data_nodes)
    index = {name: position for position, name in enumerate(names)}
    source, target = (
        np.array([index[name] for name in side], dtype=np.intp) for side in pairs(nodes, data_nodes)
    )
    age_s = np.full(len(source), INTERVAL_S / 2)
    of_nodes = {name: draw(rng, name, len(names)) for name in NODES}
    of_pairs = {
        name: PairReadings(len(names), source, target, draw(rng, name, len(age_s)), age_s) for name in PAIRS
    }
    ages = {name: np.full(len(names), INTERVAL_S / 2) for name in NODES}
    return TelemetrySnapshot(1, taken_at_s, names, of_nodes | _windows(of_nodes), ages, of_pairs)


def _windows(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Windows of readings that stand still: means and forecast are the value, slopes are 0."""
    still = ("mean_1m", "mean_5m", "forecast", "best")
    found = {f"{name}_{suffix}": value for name, value in values.items() for suffix in still}
    slopes = {
        f"{name}_{suffix}": np.zeros_like(value)
        for name, value in values.items()
        for suffix in ("slope_1m", "slope_5m")
    }
    return found | slopes
