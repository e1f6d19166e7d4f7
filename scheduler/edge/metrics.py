"""Metrics families for Prometheus, made from counters only when somebody scrapes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Scrape:
    """Renders what `collector` yields, with the process' own memory, CPU and garbage collection.

    `part` is the word after `fairlane` that the process was started with. Only it tells whose memory it is:
    jobs and other labels are as the configuration of Prometheus calls them.
    """

    def __init__(self, part: str, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_BuildInfo(part))
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def __call__(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)


class _BuildInfo(Collector):
    def __init__(self, part: str) -> None:
        self._labels = {"part": part, "version": importlib.metadata.version("fairlane")}

    def collect(self) -> Iterable[Metric]:
        """One series, which says what runs here."""
        yield labelled(
            "fairlane_build_info", "Which part of Fairlane this is, of which version.", self._labels
        )


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels."""
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def counters(
    name: str, text: str, label: str, values: Mapping[str, float], known: Iterable[str] = ()
) -> Metric:
    """A counter per value of one label.

    Those `known` beforehand begin at 0: Prometheus sees no increase in a series that begins at 1, so the
    first of something rare would be missed.
    """
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in {**dict.fromkeys(known, 0.0), **values}.items():
        family.add_metric([value], count)
    return family


def labelled(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    """A gauge of 1 that carries words."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def histogram(name: str, text: str, edges: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """A histogram from counts per bucket, the last one for values beyond all `edges`."""
    return HistogramMetricFamily(name, text, buckets=cumulated(edges, counts), sum_value=total)


def cumulated(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them: each counts all that is below its edge."""
    names = (*map(str, edges), "+Inf")
    return [(name, float(total)) for name, total in zip(names, accumulate(counts), strict=True)]
