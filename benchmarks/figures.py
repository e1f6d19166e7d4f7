"""The few statistics that the benchmarks quote: quantiles, shares of a histogram, ratios of medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, in milliseconds."""

    calls: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def latency(durations_s: Sequence[float]) -> Latency:
    """A summary of `durations_s`.

    Raises:
        ValueError: there are none.
    """
    if not len(durations_s):
        raise ValueError("no call was measured")
    ms = 1000.0 * np.asarray(durations_s, dtype=np.float64)
    p50, p90, p99 = (float(value) for value in np.percentile(ms, (50, 90, 99)))
    return Latency(len(ms), float(ms.mean()), p50, p90, p99, float(ms.max()))


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram: `cumulative[i]` observations were at most `bounds_s[i]`, the last one inf."""

    bounds_s: tuple[float, ...]
    cumulative: tuple[float, ...]
    sum_s: float

    def __sub__(self, before: Histogram) -> Histogram:
        """What was observed since `before`."""
        if not before.bounds_s:
            return self
        counts = tuple(a - b for a, b in zip(self.cumulative, before.cumulative, strict=True))
        return Histogram(self.bounds_s, counts, self.sum_s - before.sum_s)

    @property
    def count(self) -> int:
        """Observations."""
        return int(self.cumulative[-1]) if self.cumulative else 0

    @property
    def mean_ms(self) -> float:
        """Mean in milliseconds; NaN without an observation."""
        return 1000.0 * self.sum_s / self.count if self.count else float("nan")

    def bound_ms(self, share: float) -> float:
        """The least bucket bound that `share` of the observations do not exceed, in milliseconds."""
        needed = share * self.count
        return next(
            (1000.0 * b for b, n in zip(self.bounds_s, self.cumulative, strict=True) if n >= needed and n),
            float("nan"),
        )

    def share_within(self, bound_s: float) -> float:
        """Share of the observations in the buckets up to `bound_s`."""
        within = [n for b, n in zip(self.bounds_s, self.cumulative, strict=True) if b <= bound_s + 1e-12]
        return within[-1] / self.count if within and self.count else float("nan")


def histogram(text: str, name: str, labels: Mapping[str, str] | None = None) -> Histogram:
    """The histogram `name` in a Prometheus exposition, summed over all its series that carry `labels`."""
    from prometheus_client.parser import text_string_to_metric_families

    buckets: dict[float, float] = {}
    sum_s = 0.0
    ours = "\n".join(line for line in text.splitlines() if line.lstrip("# TYPEHL").startswith(name))
    for family in text_string_to_metric_families(ours + "\n"):
        for sample in family.samples:
            if any(sample.labels.get(key) != value for key, value in (labels or {}).items()):
                continue
            if sample.name == f"{name}_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
            elif sample.name == f"{name}_sum":
                sum_s += sample.value
    bounds = tuple(sorted(buckets))
    return Histogram(bounds, tuple(buckets[bound] for bound in bounds), sum_s)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two medians with its 90 % bootstrap interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Ratio:
    """median(over) / median(under); the interval resamples rounds of both."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    tops = np.median(rng.choice(a, (RESAMPLES, len(a))), axis=1)
    bottoms = np.median(rng.choice(b, (RESAMPLES, len(b))), axis=1)
    low, high = (float(value) for value in np.percentile(tops / bottoms, (5, 95)))
    return Ratio(float(np.median(a) / np.median(b)), low, high)
