"""What real exporters say of real paths and a real machine comes through the presets as it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from real_exporters import may_ping, running
from real_prometheus import RealPrometheus, binary, eventually

from scheduler.config import Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller
from testbed.building import BinaryError

pytestmark = pytest.mark.skipif(binary("prometheus") is None, reason="needs the program `prometheus`")
DEAD = "240.0.0.1"
"""Of a range that nobody has."""
NODES = [
    NodeIdentity("here", ("127.0.0.1",)),
    NodeIdentity("near", ("127.0.0.2",)),
    NodeIdentity("none", (DEAD,)),
]
NEAR, NONE = 1, 2
FAR_ENDS = [node.addresses[0] for node in NODES[1:]]
ICMP = {"prober": "icmp", "timeout": "900ms", "icmp": {"preferred_ip_protocol": "ip4"}}


@dataclass
class Scraped:
    """A Prometheus that scrapes every exporter that is to be had; why others are not."""

    prometheus: RealPrometheus
    missing: dict[str, str] = field(default_factory=dict)

    def poller(self, preset: str) -> TelemetryPoller:
        """A poller of that preset alone; the test is skipped where its exporter is missing."""
        if preset in self.missing:
            pytest.skip(self.missing[preset])
        values = {
            "prometheus": {"url": self.prometheus.url, "rate_range_s": 5.0, "timeout_s": 10.0},
            "sources": [preset],
            "epoch_s": 1,
        }
        return TelemetryPoller(Settings.model_validate(values), lambda: NODES)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """All exporters at once: what takes time is to wait until rates are known."""
    folder = tmp_path_factory.mktemp("exporters")
    (folder / "blackbox.yml").write_text(json.dumps({"modules": {"icmp": ICMP}}))
    options = {
        "node_exporter": ("prometheus-node-exporter",),
        "smokeping": ("prometheus-smokeping-prober", "--ping.interval=200ms", *FAR_ENDS),
        "blackbox": ("prometheus-blackbox-exporter", f"--config.file={folder}/blackbox.yml"),
    }
    addresses, missing = {}, {}
    with ExitStack() as stack:
        for preset, argv in options.items():
            if preset != "node_exporter" and not may_ping():
                missing[preset] = "pings are forbidden here"
                continue
            try:
                addresses[preset] = stack.enter_context(running(*argv))
            except BinaryError as error:
                missing[preset] = str(error)
        jobs = [_pairwise(addresses.pop("blackbox"))] if "blackbox" in addresses else []
        prometheus = RealPrometheus(folder, {one: {"node": "here"} for one in addresses.values()}, jobs)
        stack.callback(prometheus.close)
        prometheus.start()
        yield Scraped(prometheus, missing)


def _pairwise(address: str) -> dict[str, Any]:
    """A scrape for every far end, as docs/telemetry.md says."""
    relabel: list[dict[str, Any]] = [
        {"source_labels": ["__address__"], "target_label": "__param_target"},
        {"source_labels": ["__param_target"], "target_label": "target"},
        {"target_label": "source", "replacement": "here"},
        {"target_label": "__address__", "replacement": address},
    ]
    return {
        "job_name": "blackbox",
        "metrics_path": "/probe",
        "params": {"module": ["icmp"]},
        "static_configs": [{"targets": FAR_ENDS}],
        "relabel_configs": relabel,
    }


def of_pair(poller: TelemetryPoller, reading: str, target: int) -> float:
    """A reading of the path from here to the node at that position; NaN while it is unknown."""
    found = poller.snapshot.pair_readings.get(reading)
    return math.nan if found is None else float(found.from_node(0)[target])


def of_here(poller: TelemetryPoller, reading: str) -> float:
    found = poller.snapshot.node_readings.get(reading)
    return math.nan if found is None else float(found[0])


@pytest.mark.parametrize("preset", ["smokeping", "blackbox"])
def test_a_path_has_its_round_trip_and_a_dead_one_none(scraped: Scraped, preset: str) -> None:
    poller = scraped.poller(preset)

    def known() -> bool:
        return poller.poll() and of_pair(poller, "loss", NEAR) < 0.5 and of_pair(poller, "loss", NONE) == 1.0

    assert eventually(known), poller.reports
    assert 0 < of_pair(poller, "rtt", NEAR) < 0.5
    assert math.isnan(of_pair(poller, "rtt", NONE))  # no answer is not an answer at once
    assert [report.error for report in poller.reports if report.error] == []


def test_node_exporter_tells_what_this_machine_has(scraped: Scraped) -> None:
    poller = scraped.poller("node_exporter")
    rates = ("cpu_use", "tcp_retransmit")  # which need two scrapes

    def known() -> bool:
        return poller.poll() and not any(math.isnan(of_here(poller, rate)) for rate in rates)

    assert eventually(known), poller.reports
    memory = _memory_bytes()
    expected = memory["MemAvailable"] / memory["MemTotal"]
    assert of_here(poller, "memory_available") == pytest.approx(expected, abs=0.2)
    assert of_here(poller, "cpu_cores") == os.cpu_count()
    assert 0 <= of_here(poller, "cpu_use") <= 1
    assert 0 <= of_here(poller, "tcp_retransmit") <= 1
    assert of_here(poller, "load1_per_core") >= 0
    assert math.isnan(of_here(poller, "pressure_cpu")) != Path("/proc/pressure/cpu").exists()
    assert [report.error for report in poller.reports if report.error] == []


def _memory_bytes() -> dict[str, float]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines}
