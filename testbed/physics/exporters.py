"""What the emulated nodes tell: the shapes of node_exporter, ping_exporter and the probe.

The values come from the true state, but as real exporters deliver them:
with measurement noise, from a moment ago, with lost rounds, and at times not
at all. Counters are integrated from the truth, so rates over them are right
only as far as scraping allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from model.snapshot import Floats
from testbed.physics.world import STORE_RATE, State, World

ROUND_S = 1.0
"""Time between two measuring rounds of ping and probe."""
PROBE_PEERS = 14
"""Peers that the probe of one node measures in a round: all of them in the demo, whose jobs take seconds."""
PROBE_BYTES = 4e6
RTT_NOISE, RATE_NOISE = 0.04, 0.08
LOST_ROUND = 0.02
SILENCE_EVERY_S, SILENCE_S = 240.0, 8.0
DELAY_ROUNDS = 1
EXPORTERS = ("node", "ping", "probe")


class Counters:
    """The ever-growing numbers of node_exporter, per node."""

    def __init__(self, world: World) -> None:
        count = len(world.nodes)
        zero = np.zeros(count)
        self.cpu_busy, self.cpu_idle, self.cpu_waiting = zero.copy(), zero.copy(), zero.copy()
        self.received, self.sent = zero.copy(), zero.copy()
        self.segments, self.retransmitted = zero.copy(), zero.copy()
        self.load1 = zero.copy()

    def add(self, world: World, state: State, computing: Floats, job_bytes: Floats, seconds: float) -> None:
        """Integrate `seconds` of the given state; `computing` counts busy cores of jobs on each node."""
        cores = np.array([spec.cores for spec in world.nodes], dtype=np.float64)
        use = np.clip(state.cpu_load + computing / cores, 0, 1)
        self.cpu_busy += use * cores * seconds
        self.cpu_idle += (1 - use) * cores * seconds
        self.cpu_waiting += np.clip(state.cpu_load - 0.5, 0, 1) * seconds
        received = (world.nic_rate - state.receive) * seconds + job_bytes
        sent = (world.nic_rate - state.transmit) * seconds
        self.received += received
        self.sent += sent
        self.segments += (received + sent) / 1460
        self.retransmitted += sent / 1460 * np.nanmean(state.loss, axis=1)
        self.load1 += (use * cores - self.load1) * min(seconds / 60, 1)


@dataclass(frozen=True)
class Round:
    """One measuring round over all pairs; NaN where nothing was measured."""

    at_s: float
    rtt: Floats
    jitter: Floats
    loss: Floats
    transfer: Floats
    measured_at_s: Floats


class Measurements:
    """Rounds of ping and probe, published a round late."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._world = world
        self._rng = rng
        count = len(world.nodes)
        self._transfer = np.full((count, count), np.nan)
        self._measured_at = np.full((count, count), np.nan)
        self._rounds: deque[Round] = deque(maxlen=DELAY_ROUNDS + 1)
        self._next_peer = 0
        self._silent_until = np.zeros(count)

    def measure(self, state: State, readers: Floats, now_s: float, wall_s: float) -> None:
        """One round: ping to all, the probe's transfer to the next few peers.

        A probe transfer shares the receiving link with the `readers` (running
        transfers per node), as a real one would.
        """
        count = len(self._world.nodes)
        rtt = state.rtt * self._lognormal(RTT_NOISE, (count, count))
        lost = self._rng.random((count, count)) < LOST_ROUND
        for offset in range(PROBE_PEERS):
            source = np.arange(count)
            target = (source + 1 + (self._next_peer + offset) % max(count - 1, 1)) % count
            share = state.receive[target] / (readers[target] + 1)
            seconds = PROBE_BYTES / np.minimum(state.rate[source, target], share)
            self._transfer[source, target] = seconds * self._lognormal(RATE_NOISE, count)
            self._measured_at[source, target] = wall_s
        self._next_peer = (self._next_peer + PROBE_PEERS) % max(count - 1, 1)
        loss = self._rng.poisson(np.minimum(state.loss * 100, 50)) / 100.0
        jitter = state.rtt * 0.1 * self._lognormal(0.3, (count, count))
        unknown = np.where(lost, np.nan, 1.0)
        published = Round(
            wall_s, rtt * unknown, jitter, loss, self._transfer.copy(), self._measured_at.copy()
        )
        self._rounds.append(published)
        chance = self._rng.random(count) < ROUND_S / SILENCE_EVERY_S
        self._silent_until = np.where(chance, now_s + SILENCE_S, self._silent_until)

    @property
    def published(self) -> Round | None:
        """The round that the exporters show now; None before the first."""
        return self._rounds[0] if self._rounds else None

    def is_silent(self, node: int, now_s: float) -> bool:
        """Whether the exporters of `node` do not answer now."""
        return bool(now_s < self._silent_until[node])

    def _lognormal(self, sigma: float, shape: tuple[int, ...] | int) -> Floats:
        return np.asarray(np.exp(self._rng.normal(0, sigma, shape)), dtype=np.float64)


class NodeExporter(Collector):
    """The series of node_exporter that telemetry reads, for one node."""

    def __init__(self, world: World, counters: Counters, node: int, wall_s: float) -> None:
        self._world, self._counters, self._node, self._wall_s = world, counters, node, wall_s

    def collect(self) -> Iterator[Metric]:
        """Families in the shape of node_exporter 1.5."""
        spec, node, c = self._world.nodes[self._node], self._node, self._counters
        cpu = CounterMetricFamily("node_cpu_seconds", "CPU time", labels=["cpu", "mode"])
        for core in range(spec.cores):
            cpu.add_metric([str(core), "user"], c.cpu_busy[node] / spec.cores)
            cpu.add_metric([str(core), "idle"], c.cpu_idle[node] / spec.cores)
        yield cpu
        yield _gauge("node_load1", c.load1[node])
        yield _gauge("node_time_seconds", self._wall_s)
        yield _gauge("node_memory_MemTotal_bytes", 64e9)
        yield _gauge("node_memory_MemAvailable_bytes", 48e9)
        speed = STORE_RATE if spec.store else self._world.nic_rate[node]
        for name, total in (("receive", c.received[node]), ("transmit", c.sent[node])):
            moved = CounterMetricFamily(f"node_network_{name}_bytes", "bytes", labels=["device"])
            moved.add_metric(["eth0"], total)
            yield moved
        link = GaugeMetricFamily("node_network_speed_bytes", "link speed", labels=["device"])
        link.add_metric(["eth0"], speed)
        yield link
        yield _gauge("node_netstat_Tcp_OutSegs", c.segments[node])
        yield _gauge("node_netstat_Tcp_RetransSegs", c.retransmitted[node])
        waiting = CounterMetricFamily("node_pressure_cpu_waiting_seconds", "pressure")
        waiting.add_metric([], c.cpu_waiting[node])
        yield waiting
        uname = GaugeMetricFamily("node_uname_info", "identity", labels=["nodename"])
        uname.add_metric([spec.name], 1)
        yield uname


class PingExporter(Collector):
    """The gauges of ping_exporter for one node's pings to all others."""

    def __init__(self, world: World, published: Round, node: int) -> None:
        self._world, self._round, self._node = world, published, node

    def collect(self) -> Iterator[Metric]:
        """Families in the shape of czerwonk's ping_exporter; a lost round has no series."""
        columns = {
            "ping_rtt_mean_seconds": self._round.rtt,
            "ping_rtt_std_deviation_seconds": self._round.jitter,
            "ping_loss_ratio": self._round.loss,
        }
        for name, values in columns.items():
            yield from _pairs(self._world, name, ["target"], self._node, values, named_source=False)


class Probe(Collector):
    """The gauges of the probe for one node's transfers to its peers."""

    def __init__(self, world: World, published: Round, node: int) -> None:
        self._world, self._round, self._node = world, published, node

    def collect(self) -> Iterator[Metric]:
        """Families in the shape of `fairlane probe`."""
        seconds = self._round.transfer
        columns = {
            "fairlane_probe_transfer_seconds": seconds,
            "fairlane_probe_throughput_bytes_per_second": PROBE_BYTES / seconds,
            "fairlane_probe_round_timestamp_seconds": self._round.measured_at_s,
        }
        for name, values in columns.items():
            yield from _pairs(self._world, name, ["source", "target"], self._node, values)


def render(collector: Collector) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _gauge(name: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, name)
    family.add_metric([], float(value))
    return family


def _pairs(
    world: World, name: str, labels: list[str], node: int, values: Floats, named_source: bool = True
) -> Iterator[Metric]:
    family = GaugeMetricFamily(name, name, labels=labels)
    for peer, spec in enumerate(world.nodes):
        value = float(values[node, peer])
        if peer != node and np.isfinite(value):
            names = [world.nodes[node].name, spec.name] if named_source else [spec.name]
            family.add_metric(names, value)
    yield family
