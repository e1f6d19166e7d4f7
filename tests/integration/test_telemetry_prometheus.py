"""The poller, its presets and its staleness against a real Prometheus that scrapes every second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from real_prometheus import Exporter, RealPrometheus, binary, eventually

from scheduler.config import Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.sources import preset_names
from scheduler.edge.telemetry import TelemetryPoller

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(binary("prometheus") is None, reason="needs the program `prometheus`"),
]
NODES = [
    NodeIdentity("n0", ("10.0.0.10",)),
    NodeIdentity("n1", ("10.0.0.11",)),
    NodeIdentity("n2", ("10.0.0.12",)),
]
SETTINGS = {"rate_range_s": 5.0, "timeout_s": 10.0}


@dataclass
class Machine:
    """What a node's exporters would say: 4 cores, a quarter of them busy, 1 MB/s sent."""

    name: str
    speed_bytes: float = 1.25e8
    frozen_at_s: float = 0.0
    reset_at_s: float = 0.0
    born_s: float = field(default_factory=lambda: time.time() - 1000)

    def text(self) -> str:
        now_s = self.frozen_at_s or time.time()
        up_s = now_s - (self.reset_at_s or self.born_s)
        idle = "".join(f'node_cpu_seconds_total{{cpu="{i}",mode="idle"}} {0.75 * up_s}\n' for i in range(4))
        busy = "".join(f'node_cpu_seconds_total{{cpu="{i}",mode="user"}} {0.25 * up_s}\n' for i in range(4))
        return idle + busy + self._gauges(now_s, up_s) + self._pairs(now_s)

    def _gauges(self, now_s: float, up_s: float) -> str:
        values = {
            "node_time_seconds": now_s,
            "node_load1": 2.0,
            "node_memory_MemAvailable_bytes": 3e9,
            "node_memory_MemTotal_bytes": 4e9,
            'node_network_transmit_bytes_total{device="eth0"}': 1e6 * up_s,
            'node_network_transmit_bytes_total{device="veth1"}': 9e9 * up_s,
            'node_network_speed_bytes{device="eth0"}': self.speed_bytes,
            "node_netstat_Tcp_OutSegs": 1000 * up_s,
            "node_netstat_Tcp_RetransSegs": 20 * up_s,
            "node_pressure_cpu_waiting_seconds_total": 0.1 * up_s,
            f'node_uname_info{{nodename="{self.name}"}}': 1,
        }
        return "".join(f"{name} {value}\n" for name, value in values.items())

    def _pairs(self, now_s: float) -> str:
        ends = [
            (f'{{source="{self.name}",target="{n.name}"}}', i)
            for i, n in enumerate(NODES)
            if n.name != self.name
        ]
        return "".join(
            f"fairlane_probe_rtt_seconds{ends} {0.001 * (i + 1)}\n"
            f"fairlane_probe_loss_ratio{ends} 0\n"
            f"fairlane_probe_round_timestamp_seconds{ends} {math.floor(now_s)}\n"
            f'ping_rtt_mean_seconds{{target="x",ip="{NODES[i].addresses[0]}"}} 0.5\n'
            for ends, i in ends
        )


@dataclass
class Cluster:
    machines: list[Machine]
    exporters: list[Exporter]
    prometheus: RealPrometheus

    def poller(self, *sources: str) -> TelemetryPoller:
        wanted = sources or ("node_exporter", "fairlane_probe", "ping_exporter")
        values = {
            "prometheus": {"url": self.prometheus.url, **SETTINGS},
            "sources": wanted,
            "epoch_s": 1,
            "stale_at_least_s": 0,
        }
        return TelemetryPoller(Settings.model_validate(values), lambda: NODES)


@contextmanager
def scraped(folder: Path) -> Iterator[Cluster]:
    """Three machines and a Prometheus of their own that begins to scrape them."""
    machines = [Machine(node.name) for node in NODES]
    machines[1].speed_bytes = -125000
    exporters = [Exporter(machine.text) for machine in machines]
    prometheus = RealPrometheus(folder, {exporter.address: {} for exporter in exporters})
    prometheus.start(wait=False)
    try:
        yield Cluster(machines, exporters, prometheus)
    finally:
        prometheus.close()
        for exporter in exporters:
            exporter.close()


@pytest.fixture(scope="module", autouse=True)
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cluster]]:
    """One for tests that disturb nothing, and one for each that does.

    They grow old together: the first tests here need young series, and the others find theirs settled.
    """
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(scraped(tmp_path_factory.mktemp(name)))
            for name in ("steady", "dead", "hanging", "reset", "restarted")
        }
        for one in made.values():
            one.prometheus.wait_ready()
        yield made


@pytest.fixture
def steady(clusters: dict[str, Cluster]) -> Cluster:
    """Machines that nothing happens to."""
    return clusters["steady"]


@pytest.fixture
def young(tmp_path: Path) -> Iterator[Cluster]:
    """Machines that are not known yet."""
    with scraped(tmp_path) as made:
        made.prometheus.wait_ready()
        yield made


def value(poller: TelemetryPoller, reading: str, node: int = 0) -> float:
    poller.poll()
    column = poller.snapshot.node_readings.get(reading)
    return math.nan if column is None else float(column[node])


def rtts(poller: TelemetryPoller) -> list[float]:
    return [float(rtt) for rtt in poller.snapshot.pair_readings["rtt"].from_node(0)[1:]]


def settled(poller: TelemetryPoller) -> bool:
    """Whether every machine is known by rate, and the scrape interval has been learned."""
    poller.poll()
    known = poller.snapshot.node_readings.get("cpu_use")
    intervals = {report.reading: report.interval_s for report in poller.reports}
    return known is not None and bool(np.isfinite(known).all()) and intervals["cpu_use"] < 3


def test_a_series_younger_than_the_range_of_its_rate_is_unknown_not_idle(young: Cluster) -> None:
    poller = young.poller()
    seen: list[float] = []
    assert eventually(lambda: not math.isnan(seen.append(value(poller, "network_transmit")) or seen[-1]))
    assert seen[-1] == pytest.approx(1e6, rel=0.2)
    assert len(seen) > 1


def test_the_interval_of_a_young_series_is_not_learned_too_short(young: Cluster) -> None:
    poller = young.poller("ping_exporter")
    assert eventually(lambda: poller.poll() and poller.reports[0].series == 6)
    seen = [poller.reports[0].interval_s for _ in range(8) if time.sleep(0.5) is None and poller.poll()]
    assert all(math.isnan(interval_s) or interval_s >= 0.9 for interval_s in seen)


def test_readings_come_out_in_their_units(steady: Cluster) -> None:
    poller = steady.poller()
    assert eventually(lambda: settled(poller)), poller.stats
    expected = {
        "cpu_use": 0.25,
        "cpu_use_mean_1m": 0.25,
        "load1_per_core": 0.5,
        "cpu_cores": 4,
        "memory_available": 0.75,
        "network_transmit": 1e6,
        "network_speed": 1.25e8,
        "tcp_retransmit": 0.02,
        "pressure_cpu": 0.1,
    }
    found = {name: float(poller.snapshot.node_readings[name][0]) for name in expected}
    assert found == pytest.approx(expected, rel=0.2)
    assert math.isnan(poller.snapshot.node_readings["network_speed"][1])
    assert poller.snapshot.node_age_s["cpu_use"][0] < 4


def test_pairs_come_from_the_first_source_and_name_both_nodes(steady: Cluster) -> None:
    poller = steady.poller()
    assert eventually(lambda: settled(poller))
    assert eventually(lambda: poller.poll() and rtts(poller) == [0.002, 0.003])
    assert poller.snapshot.pair_readings["loss"].to_node(0).tolist()[1:] == [0.0, 0.0]
    ping_first = steady.poller("ping_exporter", "fairlane_probe")
    assert eventually(lambda: ping_first.poll() and rtts(ping_first) == [0.5, 0.5])


def test_a_dead_exporter_is_unknown_long_before_prometheus_forgets_it(clusters: dict[str, Cluster]) -> None:
    cluster = clusters["dead"]
    poller = cluster.poller()
    assert eventually(lambda: settled(poller))
    cluster.exporters[2].close()
    died_s = time.monotonic()
    assert eventually(lambda: math.isnan(value(poller, "memory_available", 2)))
    assert eventually(lambda: math.isnan(value(poller, "cpu_use", 2)))
    assert time.monotonic() - died_s < 60
    assert value(poller, "cpu_use", 0) == pytest.approx(0.25, rel=0.3)


def test_a_hanging_exporter_that_is_still_scraped_is_unknown(clusters: dict[str, Cluster]) -> None:
    cluster = clusters["hanging"]
    poller = cluster.poller()
    assert eventually(lambda: settled(poller))
    cluster.machines[0].frozen_at_s = time.time()
    assert eventually(lambda: math.isnan(value(poller, "memory_available", 0)))
    assert value(poller, "memory_available", 1) == 0.75
    assert any(report.stale == 1 for report in poller.reports if report.reading == "cpu_use")


def test_a_counter_reset_is_never_a_negative_rate(clusters: dict[str, Cluster]) -> None:
    cluster = clusters["reset"]
    poller = cluster.poller()
    assert eventually(lambda: settled(poller))
    cluster.machines[0].reset_at_s = time.time()
    seen = [value(poller, "network_transmit", 0) for _ in range(10) if time.sleep(0.5) is None]
    assert all(math.isnan(rate) or 0 <= rate < 2e6 for rate in seen)
    assert eventually(lambda: value(poller, "network_transmit", 0) == pytest.approx(1e6, rel=0.2))


def test_when_prometheus_dies_the_snapshot_ages_and_comes_back(clusters: dict[str, Cluster]) -> None:
    cluster = clusters["restarted"]
    poller = cluster.poller()
    assert eventually(lambda: settled(poller))
    before = poller.snapshot
    cluster.prometheus.stop()
    assert not poller.poll()
    assert poller.snapshot is before
    cluster.prometheus.start()
    assert eventually(lambda: poller.poll() and value(poller, "memory_available") == 0.75)
    assert poller.snapshot.taken_at_s > before.taken_at_s


def test_every_query_of_every_preset_is_understood(steady: Cluster) -> None:
    poller = steady.poller(*preset_names())
    assert poller.poll(), poller.stats.failure
    assert [report.error for report in poller.reports if report.error] == []
