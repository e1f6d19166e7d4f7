"""What decisions are worth, policy by policy, each judged by the times on every choice. No I/O.

Ours and the default scheduler's are real placements. The other policies are
given our decision: the same candidates with the same telemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.prior import log_prior
from model.schema import NAMES, POSITION, without
from model.snapshot import Floats
from scheduler.core.receipts import Candidate
from testbed.judgement import Choice as Judged
from testbed.judgement import Estimate, Judgement, Predict, bootstrap, judge, pick_lowest, random_choices
from testbed.kind.links import State

OURS, DEFAULT = "Fairlane", "default scheduler"

Choice = tuple[str, ...]
"""The nodes of a job, sorted: one for a transfer, a pair for a gang."""


@dataclass(frozen=True)
class Decision:
    """One placement: what was chosen, and how many seconds the job takes on every choice.

    `candidates` is what our decision was recorded to know, in any order;
    empty for gangs, which are placed pod by pod.
    """

    kind: str
    name: str
    state: State
    ours: Choice
    default: Choice
    seconds: Mapping[Choice, float]
    candidates: Sequence[Candidate] = ()
    job_class: str = ""
    """What our decision took it to be."""
    reason: str = ""
    """Why the answer was not simply a fresh prediction of the model (scheduler.core.types.Fallback)."""

    @property
    def choices(self) -> list[Choice]:
        """Every choice there was, in an order that says nothing of ours."""
        return sorted(self.seconds)

    @property
    def truth(self) -> Floats:
        """The seconds in the order of `choices`."""
        return np.array([self.seconds[choice] for choice in self.choices])

    def judged(self, choice: Choice) -> Judged:
        """The choice as one that can be judged."""
        return Judged(self.truth, self.choices.index(choice))

    @property
    def features(self) -> Floats:
        """What was known of each choice, in the order of `choices`; NaN where nothing was."""
        known = {one.node: one.features for one in self.candidates}
        rows = [[known.get(choice[0], {}).get(name) for name in NAMES] for choice in self.choices]
        return np.array(rows, dtype=np.float64)

    @property
    def predicted(self) -> Floats:
        """p10, p50, p90 of the node we chose; NaN where nothing was predicted."""
        for one in self.candidates:
            if (one.node,) == self.ours:
                return np.array([one.p10_s, one.p50_s, one.p90_s])
        return np.full(3, np.nan)


def compare(decisions: Sequence[Decision], blind: Predict | None = None, seed: int = 0) -> list[Judgement]:
    """Judgements of every policy; `blind` is the model trained without network features, if there is one."""
    rng = np.random.default_rng(seed)
    found = [
        judge(OURS, [one.judged(one.ours) for one in decisions], rng),
        judge(DEFAULT, [one.judged(one.default) for one in decisions], rng),
        judge("random", random_choices([one.truth for one in decisions]), rng),
    ]
    for name, key in _keys(blind).items():
        picked = [(one.truth, key(one)) for one in decisions if one.candidates]
        # a policy that knows nothing at all of a decision has not decided it
        told = [pick_lowest(truth, keys) for truth, keys in picked if np.isfinite(keys).any()]
        if told:
            found.append(judge(name, told, rng))
    return found


def _keys(blind: Predict | None) -> dict[str, Callable[[Decision], Floats]]:
    keys: dict[str, Callable[[Decision], Floats]] = {
        "least RTT to the data": lambda one: one.features[:, POSITION["rtt_data_mean"]],
        "analytic prior only": lambda one: log_prior(one.features),
    }
    if blind is not None:
        keys["model without network features"] = lambda one: blind(
            without(one.features, ["network"]), one.job_class, [choice[0] for choice in one.choices]
        )
    return keys


def above_default(decisions: Sequence[Decision], seed: int = 0) -> Estimate:
    """How far our Top-1 lies above the default's, paired by decision."""
    hits = [_hit(one, one.ours) - _hit(one, one.default) for one in decisions]
    return bootstrap(hits, np.random.default_rng(seed))


def _hit(decision: Decision, choice: Choice) -> float:
    return float(decision.judged(choice).rank == 0)


def median_error(decisions: Sequence[Decision]) -> float:
    """Median of |predicted / measured - 1| of our transfers; NaN when nothing was predicted."""
    errors = [abs(one.predicted[1] / one.seconds[one.ours] - 1.0) for one in decisions]
    known = [error for error in errors if np.isfinite(error)]
    return float(np.median(known)) if known else float("nan")


def coverage(decisions: Sequence[Decision]) -> float:
    """Share of our transfers that took between p10 and p90 of what was predicted."""
    known = [one for one in decisions if np.isfinite(one.predicted).all()]
    inside = [one.predicted[0] <= one.seconds[one.ours] <= one.predicted[2] for one in known]
    return float(np.mean(inside)) if inside else float("nan")
