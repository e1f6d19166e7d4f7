"""The policies side by side, each judged on the same ground truths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from model.prior import log_prior
from model.snapshot import Floats
from testbed.demo.evidence import Evidence
from testbed.judgement import Choice, Judgement, Predict, judge, pick_lowest, random_choices

OURS, DEFAULT = "Fairlane", "default scheduler"


def compare(
    ours: Sequence[Evidence], default: Sequence[Evidence], blind: Predict, seed: int = 0
) -> list[Judgement]:
    """Judgements of every policy: what was really placed first, then what others would have chosen."""
    rng = np.random.default_rng(seed)
    placed = [Choice(one.run_s, one.chosen) for one in ours]
    baseline = [Choice(one.run_s, one.chosen) for one in default]
    return [judge(OURS, placed, rng), judge(DEFAULT, baseline, rng), *alternatives(ours, blind, rng)]


def alternatives(ours: Sequence[Evidence], blind: Predict, rng: np.random.Generator) -> list[Judgement]:
    """Judgements of what others would have chosen in our place.

    They are given our decisions: the same candidates, the same telemetry, the
    same ground truths. `blind` is the model that was trained on the same
    examples without the network features.
    """
    decided = [one for one in ours if one.features is not None]
    others: Mapping[str, Callable[[Evidence], Floats]] = {
        "least RTT to the data": lambda one: one.reading("rtt_data_mean"),
        "least CPU load": lambda one: one.reading("cpu_use"),
        "analytic prior only": lambda one: log_prior(_features(one)),
        "true state of the moment": lambda one: one.standing_s,
        "model without network features": lambda one: blind(one.without_network(), one.job_class, one.nodes),
    }
    return [
        judge("random", random_choices([one.run_s for one in ours]), rng),
        *(
            judge(name, [pick_lowest(one.run_s, key(one)) for one in decided], rng)
            for name, key in others.items()
        ),
    ]


def fallbacks(ours: Sequence[Evidence]) -> dict[str, int]:
    """How many of our placements were decided by what."""
    counts: dict[str, int] = {}
    for one in ours:
        reason = one.decision.reason if one.decision is not None else "no decision recorded"
        counts[reason or "model"] = counts.get(reason or "model", 0) + 1
    return counts


def coverage(ours: Sequence[Evidence]) -> float:
    """Share of our placements whose run time lay inside the predicted p10 to p90."""
    inside = [
        one.times_s[0, one.chosen] <= one.run_s[one.chosen] <= one.times_s[2, one.chosen]
        for one in ours
        if one.times_s is not None
    ]
    return float(np.mean(inside)) if inside else float("nan")


def _features(one: Evidence) -> Floats:
    assert one.features is not None
    return one.features
