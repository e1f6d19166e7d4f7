"""How good the choices were: Top-1, Top-2, regret and completion time, with bootstrap intervals.

A choice is judged against the ground truth of its own moment: the run time
of the same job on every candidate node. Regret is T(chosen) / T(best) - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.snapshot import Floats

BOOTSTRAPS = 2000
INTERVAL = (5.0, 95.0)
"""Percentiles of the 90 % intervals."""
Predict = Callable[[Floats, str, Sequence[str]], Floats]
"""Medians of the run time in s, or anything that orders alike, from features, job class and node names."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: the run time on every candidate, and the position of the node that was chosen."""

    run_s: Floats
    chosen: int

    @property
    def rank(self) -> int:
        """How many candidates would have been faster."""
        return int((self.run_s < self.run_s[self.chosen]).sum())

    @property
    def regret(self) -> float:
        """T(chosen) / T(best) - 1."""
        return float(self.run_s[self.chosen] / self.run_s.min() - 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 90 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The figures of one policy."""

    policy: str
    decisions: int
    top1: Estimate
    top2: Estimate
    regret: Estimate
    run_s: Estimate


def bootstrap(values: Sequence[float] | Floats, rng: np.random.Generator) -> Estimate:
    """Mean of `values` and its 90 % percentile interval; NaN for no values."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    means = data[rng.integers(0, len(data), (BOOTSTRAPS, len(data)))].mean(axis=1)
    low, high = np.percentile(means, INTERVAL)
    return Estimate(float(data.mean()), float(low), float(high))


def judge(policy: str, choices: Sequence[Choice], rng: np.random.Generator) -> Judgement:
    """The figures of `policy` over its `choices`."""
    ranks = np.array([choice.rank for choice in choices], dtype=np.float64)
    return Judgement(
        policy,
        len(choices),
        top1=bootstrap((ranks == 0).astype(np.float64), rng),
        top2=bootstrap((ranks <= 1).astype(np.float64), rng),
        regret=bootstrap([choice.regret for choice in choices], rng),
        run_s=bootstrap([float(choice.run_s[choice.chosen]) for choice in choices], rng),
    )


def random_choices(truths: Sequence[Floats]) -> list[Choice]:
    """What choosing at random is worth: every candidate once for each truth."""
    return [Choice(truth, position) for truth in truths for position in range(len(truth))]


def pick_lowest(truth: Floats, key: Floats) -> Choice:
    """The choice of a policy that takes the lowest `key`; unknown keys come last."""
    return Choice(truth, int(np.argmin(np.where(np.isfinite(key), key, np.inf))))


def difference(ours: Judgement, theirs: Judgement) -> float:
    """How far our Top-1 lies above another policy's."""
    return ours.top1.mean - theirs.top1.mean


def as_table(judgements: Sequence[Judgement]) -> list[Mapping[str, object]]:
    """Rows for JSON."""
    return [
        {
            "policy": j.policy,
            "decisions": j.decisions,
            **{
                name: {"mean": e.mean, "low": e.low, "high": e.high}
                for name, e in (("top1", j.top1), ("top2", j.top2), ("regret", j.regret), ("run_s", j.run_s))
            },
        }
        for j in judgements
    ]
