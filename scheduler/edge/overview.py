"""The one screen of `fairlane status`, as plain values made from the facts; null stands for unknown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from scheduler.core.types import Fallback
from scheduler.edge.diagnosis import Finding, Level
from scheduler.edge.diagnosis_telemetry import coverage
from scheduler.edge.facts import Facts, queue_only

NO_OPINION = frozenset(
    {
        *(Fallback.NO_TELEMETRY, Fallback.STALE_TELEMETRY, Fallback.NO_DIFFERENCE),
        *(Fallback.NO_CANDIDATES, Fallback.ERROR),
    }
)
"""Reasons for which an answer left the choice to kube-scheduler."""
_QUEUE = ("queue", "paused", "waiting", "incomplete", "infeasible", "running", "held")

Plain = dict[str, Any]


def overview(facts: Facts, findings: Sequence[Finding]) -> Plain:
    """`ok`; queue, shares, placement, model, telemetry and training, or null; `trouble` in sentences.

    Times are unix seconds, ages seconds, shares parts of 1.
    """
    trouble = [asdict(one) for one in findings if one.level is Level.PROBLEM]
    return {
        "ok": not trouble,
        "at_s": facts.now_s,
        "queue": _queue(facts),
        "shares": facts.queue.answer.get("flows"),
        "placement": _placement(facts.extender.answer),
        "model": _model(facts),
        "telemetry": _telemetry(facts),
        "training": _training(facts),
        "trouble": trouble,
    }


def _queue(facts: Facts) -> Plain | None:
    told = facts.queue.answer
    if not told:
        return None
    waits = [
        facts.now_s - gang["arrived_s"]
        for gang in told["gangs"]
        if gang["state"] not in ("running", "opening") and gang["arrived_s"] is not None
    ]
    status = facts.controller.answer
    return {name: told[name] for name in _QUEUE} | {
        "longest_wait_s": max(waits, default=None),
        "releases": status.get("releases"),
        "bound_violations": status.get("bound_violations"),
    }


def _placement(status: Plain) -> Plain | None:
    if not status:
        return None
    reasons: dict[str, int] = status.get("answers_by_reason") or {}
    return {
        "calls": status.get("calls"),
        "last_call_s": status.get("last_call_s"),
        "no_opinion": sum(count for reason, count in reasons.items() if reason in NO_OPINION),
        "answers_by_reason": reasons,
        "latency_mean_ms": status.get("latency_mean_ms"),
        "tables": status.get("tables"),
        "tables_made": status.get("tables_made"),
    }


def _model(facts: Facts) -> Plain | None:
    model = facts.model
    if model is None:
        return None
    judged = (facts.recorder.answer.get("predictions") or {}).get(model.version)
    return asdict(model) | {"serving": facts.predictor_serving, "judged": judged}


def _telemetry(facts: Facts) -> Plain | None:
    if not facts.settings.prometheus.url or queue_only(facts.settings):
        return None
    rows = coverage(facts) if facts.snapshot.epoch else []
    return {
        "failure": facts.poll.failure or None,
        "readings_known": sum(row.known > 0 for row in rows),
        "readings_offered": len(rows),
        "unknown": [row.reading for row in rows if not row.known],
        "snapshot_age_s": facts.extender.answer.get("epoch_age_s"),
    }


def _training(facts: Facts) -> Plain | None:
    rows = facts.recorder.answer.get("rows")
    if facts.model is None and not rows:
        return None
    return {
        "published_s": facts.model.trained_at_s if facts.model else None,
        "examples": facts.model.examples if facts.model else None,
        "recorded_examples": rows.get("examples") if rows else None,
        "problem": facts.model.problem or None if facts.model else None,
    }
