"""The queue as the JSON API tells it; what is not known is null."""

from __future__ import annotations

import math
from typing import Any

from scheduler.core.queue.receipts import FlowView, GangReceipt
from scheduler.edge.controller import Term


def queue_view(term: Term, user: str | None, limit: int) -> dict[str, Any]:
    """Flows and gangs (of one user); shares are of the queue's reference, times unix seconds."""
    keeper = term.keeper
    assert keeper is not None
    view = keeper.dump()
    received = sum(flow.received for flow in view.flows)
    return {
        "queue": view.name,
        "paused": view.paused,
        "waiting": view.waiting,
        "incomplete": view.incomplete,
        "infeasible": view.infeasible,
        "running": view.opening + view.running,
        "held": view.held,
        "complaints": list(term.complaints),
        "flows": [_flow(flow, received) for flow in view.flows if user in (None, flow.path[-1])],
        "gangs": [gang_view(term, gang) for gang in keeper.gangs(user, limit)],
    }


def gang_view(term: Term, gang: GangReceipt) -> dict[str, Any]:
    """One gang."""
    pods = [pod for uid in gang.pods if (pod := term.feeds.assembly.pod_of(uid)) is not None]
    estimate = gang.estimate
    return {
        "uid": gang.uid,
        "user": gang.path[-1],
        "state": str(gang.phase),
        "position": gang.position or None,
        "share": gang.share,
        "work": gang.work,
        "tag": _known(gang.tag),
        "estimate": {
            "p10_s": _known(estimate.p10_s),
            "p50_s": _known(estimate.p50_s),
            "p90_s": _known(estimate.p90_s),
            "source": estimate.source,
        },
        "expected_start": _expected(term, gang),
        "why": gang.why,
        "pods": [f"{pod.namespace}/{pod.name}" for pod in pods],
    }


def _expected(term: Term, gang: GangReceipt) -> dict[str, Any] | None:
    """`p10_s`, `p50_s`, `p90_s`: null where all that is known is that it is later than `later_than_s`."""
    start = term.expected.of(gang)
    if start is None:
        return None
    return {
        "p10_s": _known(start.p10_s),
        "p50_s": _known(start.p50_s),
        "p90_s": _known(start.p90_s),
        "later_than_s": _known(start.later_than_s),
        "source": str(start.source),
        "futures": start.futures,
    }


def _flow(flow: FlowView, received: float) -> dict[str, Any]:
    return {
        "user": flow.path[-1],
        "weight": flow.weight,
        "entitled": flow.entitled,
        "held": flow.held,
        "received": flow.received,
        "received_share": flow.received / received if received > 0 else None,
        "lead": flow.lead,
        "waiting": flow.waiting,
        "running": flow.running,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
