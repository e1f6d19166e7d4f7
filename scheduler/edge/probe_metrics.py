"""What the probe tells Prometheus: the latest round of every peer that there still is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from scheduler.edge.probe_client import PairResult

_PAIR_GAUGES: tuple[tuple[str, str, Callable[[PairResult], float]], ...] = (
    ("rtt_seconds", "Mean round trip of the latest round", lambda r: r.rtt_s),
    ("rtt_p95_seconds", "95th percentile of the round trips of the latest round", lambda r: r.rtt_p95_s),
    ("rtt_jitter_seconds", "Mean difference of successive round trips", lambda r: r.rtt_jitter_s),
    ("loss_ratio", "Share of round trips that failed or took too long", lambda r: r.loss_ratio),
    ("transfer_seconds", "First byte sent to last byte acknowledged, one transfer", lambda r: r.transfer_s),
    ("throughput_bytes_per_second", "Payload over transfer time", lambda r: r.throughput_bytes_per_s),
    ("round_timestamp_seconds", "Unix time of the latest round", lambda r: r.measured_at_s),
)


@dataclass(frozen=True)
class ProbeState:
    """Everything the metrics are made from, at the time of a scrape."""

    node: str
    results: Mapping[str, PairResult]
    cycle_s: float
    peers: int
    rounds: int
    overruns: int
    skipped: Mapping[tuple[str, str], int]
    """(target, reason) -> peers not measured."""
    refused: Mapping[str, int]
    """reason -> connections and requests that our server turned away."""
    sent_bytes: int
    received_bytes: int
    refresh_failures: int


class ProbeCollector(Collector):
    """Yields the metric families of `state()` at every scrape."""

    def __init__(self, state: Callable[[], ProbeState]) -> None:
        self._state = state

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """The families; a reading that is unknown has no series."""
        state = self._state()
        for name, text, value in _PAIR_GAUGES:
            gauge = GaugeMetricFamily(f"fairlane_probe_{name}", text, labels=["source", "target"])
            for target, result in sorted(state.results.items()):
                if math.isfinite(value(result)):
                    gauge.add_metric([state.node, target], value(result))
            yield gauge
        yield from _own(state)


def _own(state: ProbeState) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
    cycle = GaugeMetricFamily(
        "fairlane_probe_cycle_seconds", "Time until the same peer is measured again", labels=["source"]
    )
    cycle.add_metric([state.node], state.cycle_s)
    skipped = CounterMetricFamily(
        "fairlane_probe_skipped", "Peers not measured in a round", labels=["target", "reason"]
    )
    for labels, count in sorted(state.skipped.items()):
        skipped.add_metric(list(labels), count)
    refused = CounterMetricFamily(
        "fairlane_probe_server_refused", "Connections and requests turned away", labels=["reason"]
    )
    for reason, count in sorted(state.refused.items()):
        refused.add_metric([reason], count)
    yield from (cycle, skipped, refused)
    yield GaugeMetricFamily("fairlane_probe_peers", "Peers in the rotation", state.peers)
    counters = {
        "rounds": state.rounds,
        "overruns": state.overruns,
        "sent_bytes": state.sent_bytes,
        "received_bytes": state.received_bytes,
        "peer_refresh_failures": state.refresh_failures,
    }
    for name, count in counters.items():
        yield CounterMetricFamily(f"fairlane_probe_{name}", name.replace("_", " "), count)
