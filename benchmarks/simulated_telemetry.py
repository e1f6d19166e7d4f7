"""Telemetry of an emulated world on a simulated clock: the exporters' readings as the poller would have them.

The world, the noise, the gaps and the delay of its exporters are the demo's own,
and so are windows and snapshot. Left out are HTTP and PromQL; in their place
stands the time that they take.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.snapshot import (
    EMPTY,
    NODE_READINGS,
    PAIR_READINGS,
    Floats,
    PairReadings,
    Reading,
    TelemetrySnapshot,
)
from scheduler.edge.series import LONGEST_WINDOW_S, Block, last_known, windows
from testbed.configuration import EPOCH_S, RATE_SCRAPES
from testbed.layout import Options
from testbed.physics.exporters import PROBE_BYTES, ROUND_S, Counters, Measurements
from testbed.physics.world import State, World

HANDLING_S = 1.5
"""From the moment of a snapshot until decisions rest on it: a poll, predictions, a table. In a live demo the
readings behind a decision were 4.2 s older than the start of the job; that is about so here."""
RATE_RANGE_S = RATE_SCRAPES * Options.scrape_interval_s
"""Rates of counters are taken over so long, as in the testbed's settings."""
STALE_S = 30.0
"""An older value counts as unknown."""
_READINGS = {one.name: one for one in (*NODE_READINGS, *PAIR_READINGS)}


@dataclass(frozen=True, slots=True)
class _Sample:
    """All readings at one moment: of nodes, shape (nodes,), or of pairs, shape (nodes, nodes)."""

    at_s: float
    values: dict[str, Floats]


class SimulatedTelemetry:
    """Feed it each step of the world by `step`; `snapshot` is what a decision may rest on."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._names = tuple(spec.name for spec in world.nodes)
        self._cores = np.array([float(spec.cores) for spec in world.nodes])
        self._measurements = Measurements(world, np.random.default_rng([seed, 1]))
        self._counters = Counters(world)
        self._counted: deque[tuple[float, dict[str, Floats]]] = deque(
            maxlen=round(RATE_RANGE_S / ROUND_S) + 1
        )
        self._samples: deque[_Sample] = deque(maxlen=round((LONGEST_WINDOW_S + STALE_S) / ROUND_S))
        self._handled: deque[TelemetrySnapshot] = deque()
        self._round_s = self._epoch_s = -np.inf
        self._epoch = 0
        self.snapshot = EMPTY

    def step(
        self,
        now_s: float,
        state: State,
        computing: Floats,
        job_bytes: Floats,
        readers: Floats,
        seconds: float,
    ) -> None:
        """The world went on by `seconds` until `now_s` since it began; counts and bytes are per node."""
        self._counters.add(self._world, state, computing, job_bytes, seconds)
        if now_s - self._round_s >= ROUND_S:
            self._round_s = now_s
            self._measurements.measure(self._world.at(now_s), readers, now_s, now_s)
            self._sample(now_s)
        if now_s - self._epoch_s >= EPOCH_S and self._samples:
            self._epoch_s, self._epoch = now_s, self._epoch + 1
            self._handled.append(self._snapshot(now_s))
        while self._handled and self._handled[0].taken_at_s + HANDLING_S <= now_s:
            self.snapshot = self._handled.popleft()

    def _sample(self, now_s: float) -> None:
        silent = [self._measurements.is_silent(node, now_s) for node in range(len(self._names))]
        values = self._of_nodes(now_s) | self._of_pairs()
        for name in values:
            values[name] = values[name].astype(np.float64)
            values[name][silent] = np.nan
        self._samples.append(_Sample(now_s, values))

    def _of_nodes(self, now_s: float) -> dict[str, Floats]:
        c = self._counters
        totals = {"busy": c.cpu_busy, "received": c.received, "sent": c.sent, "waited": c.cpu_waiting}
        totals |= {"segments": c.segments, "again": c.retransmitted}
        self._counted.append((now_s, {name: total.copy() for name, total in totals.items()}))
        (before_s, before), (_, now) = self._counted[0], self._counted[-1]
        if now_s <= before_s:
            return {}
        grown = {name: now[name] - before[name] for name in now}
        seconds = now_s - before_s
        with np.errstate(invalid="ignore", divide="ignore"):
            again = grown["again"] / grown["segments"]
        return {
            "cpu_use": np.clip(grown["busy"] / self._cores / seconds, 0, 1),
            "cpu_cores": self._cores,
            "load1_per_core": c.load1 / self._cores,
            "network_receive": grown["received"] / seconds,
            "network_transmit": grown["sent"] / seconds,
            "network_speed": self._world.nic_rate,
            "tcp_retransmit": again,
            "pressure_cpu": np.clip(grown["waited"] / seconds, 0, 1),
        }

    def _of_pairs(self) -> dict[str, Floats]:
        told = self._measurements.published
        if told is None:
            return {}
        found = {
            "rtt": told.rtt,
            "rtt_jitter": told.jitter,
            "loss": told.loss,
            "transfer_time": told.transfer,
        }
        return found | {"throughput": PROBE_BYTES / told.transfer}

    def _snapshot(self, now_s: float) -> TelemetrySnapshot:
        back = np.arange(round(LONGEST_WINDOW_S / EPOCH_S), -1, -1, dtype=np.float64)
        times_s = now_s - EPOCH_S * back
        columns = [self._at(time_s) for time_s in times_s.tolist()]
        of_nodes, of_pairs = _blocks(NODE_READINGS, columns), _blocks(PAIR_READINGS, columns)
        count = len(self._names)
        source, destination = np.divmod(np.arange(count * count), count)
        pairs: dict[str, PairReadings] = {}
        for name, (values, age_s) in _windowed(of_pairs, times_s).items():
            told = np.isfinite(values) & (source != destination)
            pairs[name] = PairReadings(count, source[told], destination[told], values[told], age_s[told])
        found = _windowed(of_nodes, times_s)
        nodes, ages = ({name: each[which] for name, each in found.items()} for which in (0, 1))
        return TelemetrySnapshot(self._epoch, now_s, self._names, nodes, ages, pairs)

    def _at(self, time_s: float) -> dict[str, Floats]:
        """The newest sample of that moment; empty where there is none that is fresh enough."""
        count = bisect_right(self._samples, time_s, key=lambda sample: sample.at_s)
        newest = self._samples[count - 1] if count else None
        return newest.values if newest is not None and time_s - newest.at_s <= STALE_S else {}


def _blocks(readings: Sequence[Reading], columns: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """Values of shape (series, columns) of those `readings` that the newest column has."""
    newest, found = columns[-1], {}
    for name in [one.name for one in readings if one.name in newest]:
        nowhere = np.full(newest[name].size, np.nan)
        found[name] = np.stack([one.get(name, nowhere).ravel() for one in columns], axis=-1)
    return found


def _windowed(blocks: dict[str, Floats], times_s: Floats) -> dict[str, tuple[Floats, Floats]]:
    """The newest known value of each reading, and its windows, each with the ages in s of its values."""
    found: dict[str, tuple[Floats, Floats]] = {}
    for name, values in blocks.items():
        block = Block(times_s, values)
        newest, at_s = last_known(block)
        age_s = ROUND_S + times_s[-1] - at_s
        found[name] = np.where(age_s <= STALE_S, newest, np.nan), age_s
        if _READINGS[name].windowed:
            of_block = windows(block, _READINGS[name])
            found |= {f"{name}_{suffix}": (one, age_s) for suffix, one in of_block.items()}
    return found
