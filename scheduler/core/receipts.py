"""Why a pod is where it is, in sentences: what `fairlane explain` prints.

A `Receipt` is everything known of one pod's placement: the decision with its
candidates, what became of the pod, and, once the predictor was asked, which
readings moved the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from model.snapshot import Floats
from scheduler.core.outcomes import EndState, Outcome
from scheduler.core.records import DecisionRecord, read_decision
from scheduler.core.table_records import ReadTable
from scheduler.core.types import Fallback

MATTERED = 6
"""Readings listed per node, the strongest first."""


class Candidate(msgspec.Struct, frozen=True):
    """One offered node: predicted run time with interval in s, score given, readings by feature name."""

    node: str
    p10_s: float
    p50_s: float
    p90_s: float
    score: int
    propensity: float
    features: dict[str, float | None] = {}


class DecisionSummary(msgspec.Struct, frozen=True):
    """The decision without its candidates."""

    decision_id: str
    at_s: float
    job_class: str
    model_version: str
    epoch: int
    epoch_age_s: float
    reason: str
    candidates: int
    recommended: str
    explored: bool
    tie_width: float
    latency_ms: float
    schema_version: int
    at_release: bool = False
    """Planned when the pod was released, and written as its preference; kube-scheduler did not ask."""


class Contribution(msgspec.Struct, frozen=True):
    """What one reading of the chosen node did to the predicted time: a factor, against its base value."""

    feature: str
    value: float | None
    factor: float


class Receipt(msgspec.Struct, frozen=True):
    """Why a pod is where it is, and how that went."""

    outcome: Outcome | None
    decision: DecisionSummary | None = None
    candidates: list[Candidate] = []
    """Best first, the chosen node among them; not necessarily all."""
    chosen_node: str = ""
    note: str = ""
    """What is missing from this receipt and why."""
    mattered: list[Contribution] = []
    mattered_note: str = ""

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that the pod was bound to, else the recommended one."""
        recommended = self.decision.recommended if self.decision else ""
        wanted = self.chosen_node or recommended
        return next((one for one in self.candidates if one.node == wanted), None)


def receipt_of(
    outcome: Outcome | None, record: DecisionRecord | None, table: ReadTable | None, limit: int
) -> Receipt:
    """The receipt of what was recorded, with the `limit` best candidates and the chosen node."""
    chosen_node = (outcome.node or "") if outcome is not None else ""
    if record is None:
        return Receipt(outcome, chosen_node=chosen_node)
    wanted = {chosen_node, record.recommended}
    candidates = [] if table is None else _candidates(record, table, limit, wanted)
    return Receipt(outcome, _summary(record), candidates, chosen_node, _note(record, table))


def _summary(record: DecisionRecord) -> DecisionSummary:
    return DecisionSummary(*(getattr(record, name) for name in DecisionSummary.__struct_fields__))


def _note(record: DecisionRecord, table: ReadTable | None) -> str:
    if table is None and record.table_id:
        return "the score table of this decision is not kept (any more), so its candidates are not known"
    return ""


def _candidates(record: DecisionRecord, table: ReadTable, limit: int, wanted: set[str]) -> list[Candidate]:
    seen, scores = read_decision(record, table), dict(record.listed)
    best = [row for row in np.argsort(seen.times_s[1], kind="stable").tolist() if seen.offered[row]]
    rows = [row for place, row in enumerate(best) if place < limit or seen.nodes[row] in wanted]
    return [
        Candidate(
            node=seen.nodes[row],
            p10_s=float(seen.times_s[0, row]),
            p50_s=float(seen.times_s[1, row]),
            p90_s=float(seen.times_s[2, row]),
            score=scores.get(seen.nodes[row], 0),
            propensity=float(seen.propensity[row]),
            features=dict(zip(seen.feature_names, map(_finite, seen.features[row].tolist()), strict=True)),
        )
        for row in rows
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


_REASONS: Mapping[str, str] = {
    Fallback.SIMILAR: "the same job with other sizes had been predicted, and the prior told the difference",
    Fallback.PEERS: "the newest members of its gang were added by the analytic prior",
    Fallback.STALE_TABLE: "the predictor did not answer for that epoch, so its last prediction was used",
    Fallback.MISS: "its class had not been predicted yet, so the analytic prior answered",
    Fallback.NO_PREDICTOR: "no predictor was configured, so the analytic prior answered",
    Fallback.PREDICTOR_DOWN: "the predictor did not answer, so the analytic prior did",
    Fallback.NO_TELEMETRY: "no telemetry of any candidate was known",
    Fallback.STALE_TELEMETRY: "the telemetry was too old to be believed",
    Fallback.NO_DIFFERENCE: "all candidates were predicted alike",
    Fallback.NO_CANDIDATES: "none of the offered nodes was known",
    Fallback.ERROR: "the extender failed; its log says how",
}


def why_fallback(reason: str) -> str:
    """A fallback reason in words; empty for none."""
    return _REASONS.get(reason, reason)


def which_telemetry(decision: DecisionSummary) -> str:
    """The epoch that a decision was made with, in words; the epochs count from 1."""
    if not decision.epoch:
        return "there was none"
    return f"epoch {decision.epoch}, {decision.epoch_age_s:.0f} s old"


def why_not(reason: str) -> str:
    """Why there was no opinion at a release, in words."""
    return why_fallback(reason) or "nothing was known"


def sentence(receipt: Receipt) -> str:
    """One sentence: why this node."""
    decision = receipt.decision
    if decision is None:
        return _without_decision(receipt.outcome)
    return _at_release(receipt, decision) if decision.at_release else _when_asked(receipt, decision)


def _when_asked(receipt: Receipt, decision: DecisionSummary) -> str:
    where = receipt.chosen_node
    if not decision.recommended:
        bound = f"was placed on {where} by kube-scheduler's own plugins" if where else "is not bound yet"
        return f"The pod {bound}: Fairlane had no opinion because {why_fallback(decision.reason)}."
    if not where:
        return f"The pod is not bound yet; Fairlane recommended {decision.recommended}{_time(receipt)}."
    if where != decision.recommended:
        return (
            f"The pod runs on {where} although Fairlane recommended {decision.recommended}: "
            f"kube-scheduler's other plugins decided among near ties or outweighed the scores, "
            f"or it did not wait for the answer."
        )
    if decision.candidates == 1:
        predicted = f"; its time was predicted{time}" if (time := _time(receipt)) else ""
        return f"The pod was placed on {where}, the only node that kube-scheduler offered{predicted}."
    if decision.explored:
        return f"The pod was sent to {where} to explore{_time(receipt)}; it was not the predicted best."
    return f"The pod was placed on {where}, predicted fastest{_time(receipt)}{_margin(receipt)}."


def _at_release(receipt: Receipt, decision: DecisionSummary) -> str:
    where, planned = receipt.chosen_node, decision.recommended
    if not planned:
        bound = f"was placed on {where} by kube-scheduler's own plugins" if where else "is not bound yet"
        why = why_not(decision.reason)
        return f"The pod {bound}: no hint was written when it was released, because {why}."
    if not where:
        return f"The pod is not bound yet; it was planned on {planned}{_time(receipt)} when it was released."
    if where != planned:
        return (
            f"The pod runs on {where} although it was planned on {planned} when it was released: "
            f"there was no room any more, or kube-scheduler's other plugins outweighed the preference."
        )
    explored = " to explore" if decision.explored else ""
    margin = "" if decision.explored else _margin(receipt)
    return f"The pod runs on {where}, as planned at its release{explored}: predicted{_time(receipt)}{margin}."


def _without_decision(outcome: Outcome | None) -> str:
    if outcome is None:
        return "Nothing is known of this pod."
    if not outcome.node:
        return "The pod is not bound yet, and Fairlane has not been asked about it."
    return (
        f"The pod was placed on {outcome.node} without asking Fairlane: only one node was feasible, "
        f"or another scheduler placed it, or the decision was not recorded."
    )


def _time(receipt: Receipt) -> str:
    chosen = receipt.chosen
    if chosen is None:
        return ""
    return f" at {seconds(chosen.p50_s)} ({seconds(chosen.p10_s)} to {seconds(chosen.p90_s)})"


def _margin(receipt: Receipt) -> str:
    """How far the runner-up was behind."""
    chosen, decision = receipt.chosen, receipt.decision
    others = [one.p50_s for one in receipt.candidates if chosen is not None and one.node != chosen.node]
    if chosen is None or decision is None or not others:
        return ""
    behind = min(others) / chosen.p50_s - 1.0
    if math.log1p(max(behind, 0.0)) <= decision.tie_width:
        return f", a near tie with the next of {decision.candidates} candidates"
    return f", {behind:.0%} ahead of the next of {decision.candidates} candidates"


def what_happened(outcome: Outcome | None, chosen: Candidate | None) -> str:
    """How it went, against the prediction; empty while nothing is known."""
    if outcome is None or outcome.started_at_s is None:
        return ""
    if outcome.end_state is None:
        return "It is running."
    run_s = outcome.run_s
    if outcome.end_state != EndState.SUCCEEDED or run_s is None:
        return f"It ended as {outcome.end_state}; that does not count as a completion."
    told = f"It ran for {seconds(run_s)}"
    if chosen is None:
        return told + "."
    inside = "inside" if chosen.p10_s <= run_s <= chosen.p90_s else "outside"
    beyond = round(run_s / chosen.p50_s - 1.0, 2) + 0.0  # never -0
    return f"{told}: {beyond:+.0%} against the prediction, {inside} its interval."


def mattered(names: Sequence[str], values: Floats, contributions: Floats) -> list[Contribution]:
    """The strongest contributions to one node's log time, as factors; shapes (features,)."""
    strongest = np.argsort(-np.abs(contributions[: len(names)]), kind="stable")[:MATTERED]
    return [
        Contribution(
            feature=names[position],
            value=float(values[position]) if math.isfinite(values[position]) else None,
            factor=math.exp(float(contributions[position])),
        )
        for position in strongest.tolist()
        if abs(contributions[position]) > 1e-4
    ]


def seconds(value_s: float) -> str:
    """A time for people: 3.2 s, 48 s, 7 min 5 s, 3 h 12 min."""
    if value_s < 10:
        return f"{value_s:.1f} s"
    if value_s < 120:
        return f"{value_s:.0f} s"
    minutes, rest_s = divmod(round(value_s), 60)
    if minutes < 120:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60} h {minutes % 60} min"
