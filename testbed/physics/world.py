"""The true state of the emulated network and of the nodes, at any time.

The base is measured: round-trip times between sites from a public matrix
series, link rates per NIC class from iperf3 runs between pods. On top of it
lies synthetic competing load that comes and goes: episodes on every node's
NIC, on every ordered pair of sites and on every node's cores. All of it is a
deterministic function of the seed, the node's name and the time, so that the
same job can be replayed on every node under the same conditions.

Rates are bytes/s, times are seconds, loads are ratios of capacity.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from model.snapshot import Floats

DATA = Path(__file__).parent.parent / "data"
HORIZON_S = 4 * 3600
"""Series are generated for this long and then repeat."""
SLICE_S = 20.0
"""One measured RTT matrix holds for this long (the real ones are minutes apart)."""
STREAMS = 8
"""A transfer uses this many TCP connections, as shuffle clients do."""
SEGMENT_BYTES = 1460
STORE_RATE = 25e9 / 8
NIC_VM_TYPE = {"3g": "t3micro", "5g": "m5large", "10g": "c5nlarge"}
"""The measured machine type that stands for each NIC class; others count as the slowest."""
CORE_SPEED = {"3g": 0.9, "5g": 1.0, "10g": 1.1}
"""Cores of the machine types differ too; those of one type by a few percent."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What is fixed of one node; a store holds data and runs no job."""

    name: str
    site: str
    nic_class: str
    store: bool = False
    cores: int = 16


@dataclass(frozen=True)
class State:
    """The truth at one instant. Arrays follow `World.nodes`; `rate` and `rtt` are [from, to]."""

    transmit: Floats
    receive: Floats
    cpu_load: Floats
    rtt: Floats
    loss: Floats
    rate: Floats


class World:
    """Truth of all nodes and links for one seed."""

    def __init__(self, seed: int, nodes: Sequence[NodeSpec]) -> None:
        self.seed = seed
        self.nodes = tuple(nodes)
        self.index = {spec.name: i for i, spec in enumerate(self.nodes)}
        self._sites = sorted({spec.site for spec in nodes})
        self._site_of = np.array([self._sites.index(spec.site) for spec in nodes])
        self.nic_rate = np.array([_nic_rate(spec) for spec in nodes])
        self.speed = np.array([self._speed(spec) for spec in nodes])
        self._nic_in = self._node_series("nic-in", (300, 330), (0.25, 0.85))
        self._nic_out = self._node_series("nic-out", (300, 420), (0.15, 0.7))
        self._cpu = self._node_series("cpu", (330, 360), (0.2, 0.9))
        self._wan_load, self._wan_rate, self._site_host = self._between_sites()

    def at(self, time_s: float) -> State:
        """The true state at `time_s` (seconds since the world began)."""
        second = int(time_s) % HORIZON_S
        nic_in, nic_out, cpu = self._nic_in[:, second], self._nic_out[:, second], self._cpu[:, second]
        wan_load = self._wan_load[:, :, second]
        rtt = self._rtt(time_s, nic_in, nic_out, wan_load)
        loss = self._loss(nic_in, nic_out, wan_load)
        transmit, receive = self.nic_rate * (1 - nic_out), self.nic_rate * (1 - nic_in)
        return State(transmit, receive, cpu, rtt, loss, self._rate(transmit, receive, rtt, loss, wan_load))

    def _rate(self, transmit: Floats, receive: Floats, rtt: Floats, loss: Floats, wan_load: Floats) -> Floats:
        """Rate of a lone transfer: NICs, the link between sites, TCP (Mathis et al. 1997)."""
        here = np.minimum(transmit[:, None], receive[None, :])
        wan = self._wan_rate * (1 - wan_load)
        link = wan[np.ix_(self._site_of, self._site_of)]
        tcp = STREAMS * SEGMENT_BYTES * 1.22 / (np.maximum(rtt, 1e-4) * np.sqrt(loss))
        return np.asarray(np.minimum(np.minimum(here, link), tcp), dtype=np.float64)

    def _rtt(self, time_s: float, nic_in: Floats, nic_out: Floats, wan_load: Floats) -> Floats:
        matrices = _measured_rtt_s()
        base = matrices[int(time_s / SLICE_S) % len(matrices)][np.ix_(self._site_host, self._site_host)]
        between = base[np.ix_(self._site_of, self._site_of)]
        near = np.where(self._site_of[:, None] == self._site_of[None, :], 0.0009, 0.0)
        queue = 0.002 * _queueing(nic_out)[:, None] + 0.002 * _queueing(nic_in)[None, :]
        wan_queue = 0.006 * _queueing(wan_load)[np.ix_(self._site_of, self._site_of)]
        rtt = between + near + queue + wan_queue
        np.fill_diagonal(rtt, 2e-5)
        return np.asarray(rtt, dtype=np.float64)

    def _loss(self, nic_in: Floats, nic_out: Floats, wan_load: Floats) -> Floats:
        link = wan_load[np.ix_(self._site_of, self._site_of)]
        busiest = np.maximum(np.maximum(nic_out[:, None], nic_in[None, :]), link)
        return np.asarray(1e-6 + 2e-4 * np.clip(busiest - 0.6, 0, None) ** 2, dtype=np.float64)

    def _node_series(self, what: str, on_off_s: tuple[float, float], level: tuple[float, float]) -> Floats:
        rows = [
            _episodes(self._rng(what, spec.name), on_off_s, (0, 0.1) if spec.store else level)
            for spec in self.nodes
        ]
        return np.array(rows)

    def _between_sites(self) -> tuple[Floats, Floats, list[int]]:
        count = len(self._sites)
        load = np.zeros((count, count, HORIZON_S))
        rate = np.full((count, count), np.inf)
        for i, source in enumerate(self._sites):
            for j, target in enumerate(self._sites):
                if i != j:
                    rng = self._rng("wan", f"{source}>{target}")
                    rate[i, j] = rng.uniform(0.35, 0.8) * _vm_rates()["c5nlarge", False]
                    load[i, j] = _episodes(rng, (270, 300), (0.3, 0.9))
        hosts = self._rng("hosts", "").permutation(_measured_rtt_s().shape[1])[:count]
        return load, rate, [int(h) for h in hosts]

    def _speed(self, spec: NodeSpec) -> float:
        """Core-seconds of work a core does per second: faster in machines with the faster NIC."""
        return CORE_SPEED.get(spec.nic_class, 1.0) * self._rng("speed", spec.name).uniform(0.96, 1.04)

    def _rng(self, what: str, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{what}/{name}".encode())])


def _nic_rate(spec: NodeSpec) -> float:
    return STORE_RATE if spec.store else _vm_rates()[NIC_VM_TYPE.get(spec.nic_class, "t3micro"), True]


def _queueing(load: Floats) -> Floats:
    """Mean queue length of M/M/1 at `load`, bounded by the buffer."""
    return np.asarray(np.minimum(load / (1 - np.minimum(load, 0.95)), 15.0), dtype=np.float64)


def _episodes(rng: np.random.Generator, on_off_s: tuple[float, float], level: tuple[float, float]) -> Floats:
    """Load over time, one value a second: idle stretches and episodes, with ramps and a slow wobble."""
    series = np.zeros(HORIZON_S)
    second, busy = 0, bool(rng.random() < 0.5)
    while second < HORIZON_S:
        length = int(max(15.0, rng.gamma(4.0, on_off_s[0 if busy else 1] / 4.0)))
        series[second : second + length] = rng.uniform(*level) if busy else rng.uniform(0.0, 0.1)
        second, busy = second + length, not busy
    ramp = np.convolve(series, np.ones(5) / 5, mode="same")
    noise = np.convolve(rng.normal(0, 0.06, HORIZON_S), np.ones(8) / 8, mode="same")
    return np.clip(ramp + noise, 0.0, 0.93)


@cache
def _measured_rtt_s() -> Floats:
    with np.load(DATA / "seattle_rtt.npz") as stored:
        matrices = np.asarray(stored["rtt_ms"], dtype=np.float64) / 1000
    # the longest of the measured paths cross an ocean; a cluster's sites are nearer: scale to data centres
    return matrices * 0.25


@cache
def _vm_rates() -> Mapping[tuple[str, bool], float]:
    """Median measured bytes/s by (machine type, same zone)."""
    rates: dict[tuple[str, bool], list[float]] = {}
    with (DATA / "aws_iperf3_pairs.csv").open() as rows:
        for row in csv.DictReader(rows):
            key = (row["vm_type"], row["zone_from"] == row["zone_to"])
            rates.setdefault(key, []).append(float(row["recv_bps"]) / 8)
    return {key: float(np.median(values)) for key, values in rates.items()}
