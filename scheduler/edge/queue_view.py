"""The queue as the JSON API tells it; what is not known is null."""

from __future__ import annotations

import math
from typing import Any

from scheduler.core.queue.receipts import FlowView, GangReceipt
from scheduler.core.queue.usage import Usage
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
        "turned_away": view.turned_away,
        "incomplete": view.incomplete,
        "infeasible": view.infeasible,
        "running": view.opening + view.running,
        "held": view.held,
        "complaints": list(term.complaints),
        "expected_starts": term.expected.status(),
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
        "arrived_s": _known(gang.arrived_s),
        "expected_start": _expected(term, gang),
        "released_s": _known(gang.released_s),
        "charged_work": _known(gang.charged_work),
        "backfilled": gang.backfilled,
        "user_entitled": gang.entitled,
        "user_received": gang.received,
        "why": gang.why,
        "placement": term.hints.said_of(gang.uid) or None,
        "pods": [f"{pod.namespace}/{pod.name}" for pod in pods],
    }


def usage_view(term: Term, since_s: float, user: str | None) -> dict[str, Any]:
    """Usage by user; works in share-seconds, amounts in base units x seconds, times unix seconds."""
    book = term.state.usage
    found = book.report(since_s, user)
    work = sum(usage.work for usage in book.report(since_s).values())
    return {
        "queue": term.name,
        "since_s": book.begin_s(since_s),
        "complete_since_s": book.since_s,
        "users": {name: _usage(usage, work) for name, usage in sorted(found.items())},
    }


def _usage(usage: Usage, work: float) -> dict[str, Any]:
    return {
        "jobs": usage.jobs,
        "gangs": usage.gangs,
        "gangs_unseen": usage.unseen,
        "requested_seconds": dict(usage.resource_seconds),
        "work": usage.work,
        "work_share": usage.work / work if work > 0 else None,
        "wait_mean_s": usage.wait_s / usage.gangs if usage.gangs else None,
        "wait_most_s": usage.wait_s_most if usage.gangs else None,
        "while_waiting": {
            "seconds": usage.waiting_s,
            "received_share": usage.received / usage.delivered if usage.delivered > 0 else None,
            "entitled_share": usage.entitled / usage.delivered if usage.delivered > 0 else None,
        },
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
