"""Settings and readings of any kind: taken, or told what is wrong with them; never a crash."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bad_inputs import FIRST, counts, damaged_bytes, damaged_trees

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from canned_prometheus import CannedPrometheus

from model.snapshot import NODE_READINGS, PAIR_READINGS
from scheduler.config import ConfigError, Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.sources import load_sources
from scheduler.edge.telemetry import TelemetryPoller

Object = dict[str, Any]

CONFIG: Object = {
    "epoch_s": 15.0,
    "prometheus": {"url": "http://p:9090", "timeout_s": 2, "headers": {"X-Scope-OrgID": "a"}},
    "sources": [
        "node_exporter",
        {
            "name": "mesh",
            "target_labels": ["to"],
            "newest": "m",
            "readings": {"rtt": {"expr": "rtt_ms", "scale": 0.001}},
        },
    ],
    "token": "secret",
    "exploration": {"rate": 0.1},
    "extender": {"port": 8080, "max_listed": 5},
    "controller": {"reference": {"cpu": 4.0}, "lease_s": 15},
    "recorder": {"store_url": "sqlite:///x.db"},
    "admission": {"submitters": ["system:serviceaccount:a:b"], "kinds": ["jobsets"]},
    "probe": {"port": 9000},
}
ENVIRONMENT = {
    "FAIRLANE_EPOCH_S": "3",
    "FAIRLANE_SOURCES": "[dcgm]",
    "FAIRLANE_EXTENDER__PORT": "1",
    "FAIRLANE_PROMETHEUS__URL": "http://b",
}


@pytest.mark.parametrize("count", counts(100, 20_000))
def test_settings_are_taken_or_told_what_is_wrong_with_them(tmp_path: Path, count: int) -> None:
    file, seen = tmp_path / "fairlane.yaml", {True: 0, False: 0}
    told: set[str] = set()
    for number, tree in damaged_trees("config", [CONFIG], count):
        rng = random.Random(f"config {number} more")
        text = (json.dumps if rng.random() < 0.5 else yaml.safe_dump)(tree).encode(errors="surrogatepass")
        file.write_bytes(damaged_bytes(rng, text) if rng.random() < 0.3 else text)
        environment = dict(ENVIRONMENT) if rng.random() < 0.3 else {}
        for name in environment:
            given = damaged_bytes(rng, environment[name].encode())
            environment[name] = given.decode(errors="replace").replace("\0", "")
        try:
            settings = Settings.load(file, environment)
            load_sources(settings)
        except ConfigError as error:
            seen[False] += 1
            told.add(str(error).partition(":")[0])
        else:
            assert settings.epoch_s > 0, number
            seen[True] += 1
    assert min(seen.values()) > 0
    assert all(told)


class _DamagedPrometheus(CannedPrometheus):
    """Answers most queries well, and the others with something damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(0)
        self.damaged = 0

    def answer(self, path: str, query: dict[str, list[str]]) -> bytes:
        good = super().answer(path, query)
        if self.rng.random() < 0.3:
            return good
        self.damaged += 1
        if self.rng.random() < 0.3:
            return damaged_bytes(self.rng, good)
        ((_, tree),) = damaged_trees("telemetry", [json.loads(good)], 1, self.rng.randrange(10**9))
        return json.dumps(tree, separators=(",", ":")).encode()


@pytest.fixture
def damaged_prometheus() -> Iterator[_DamagedPrometheus]:
    with _DamagedPrometheus() as canned:
        ends = {"source": "n0", "target": "n1"}
        canned.series = {
            "load": [({"source": "n0"}, 0.5), ({"source": "n1"}, 1.5)],
            "rtt": [(ends, 0.001)],
            "measured": [
                ({"source": "n0"}, lambda t: t),
                ({"source": "n1"}, lambda t: t),
                (ends, lambda t: t),
            ],
            "vector(5)": [({}, 5.0)],
        }
        yield canned


@pytest.mark.parametrize("count", counts(80, 20_000))
def test_telemetry_is_possible_or_unknown(damaged_prometheus: _DamagedPrometheus, count: int) -> None:
    canned = damaged_prometheus
    source = {
        "name": "loads",
        "measured_at": "measured",
        "interval": 5,
        "node_label": "source",
        "readings": {"load1_per_core": {"expr": "load"}, "cpu_use": {"expr": "load"}, "rtt": {"expr": "rtt"}},
    }
    values: Object = {"prometheus": {"url": canned.url}, "sources": [source], "epoch_s": 5}
    nodes = [NodeIdentity("n0"), NodeIdentity("n1")]
    poller, epochs, number = TelemetryPoller(Settings.model_validate(values), lambda: nodes), 0, FIRST
    while canned.damaged < count:
        canned.rng, number = random.Random(f"telemetry {number}"), number + 1
        if poller.poll():
            epochs += 1
        assert not poller.stats.failure.startswith("The poll failed"), (number - 1, poller.stats.failure)
        _check_readings(poller, number - 1)
    poller.stop()
    assert epochs > 0


def _check_readings(poller: TelemetryPoller, number: int) -> None:
    for one in NODE_READINGS:
        found = poller.snapshot.node_readings.get(one.name)
        assert found is None or _possible(found, one), (number, one.name, found)
    for one in PAIR_READINGS:
        pairs = poller.snapshot.pair_readings.get(one.name)
        if pairs is not None:
            assert all(_possible(pairs.from_node(node), one) for node in (0, 1)), (number, one.name)


def _possible(values: Any, reading: Any) -> bool:
    finite = values[~np.isnan(values)]
    return bool((finite >= reading.low).all() and (finite <= reading.high).all())
