"""The status of the FairQueue object: how the queue is doing, for `kubectl get fairqueues`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from scheduler.core.queue.receipts import FlowView, QueueView
from scheduler.edge.fair_queue import PATH
from scheduler.edge.kube import KubeClient, KubeError

FLOWS_MAX = 200
"""Users told of; the object must stay small."""
DIGITS = 3

log = logging.getLogger(__name__)


async def keep_status(
    kube: KubeClient, name: str, status: Callable[[], dict[str, Any] | None], every_s: float
) -> None:
    """Write `status()` into the object whenever it has changed, until cancelled; None: there is no object."""
    told: dict[str, Any] | None = None
    while True:
        await asyncio.sleep(every_s)
        now = status()
        if now is None or now == told:
            continue
        try:
            conditions = [_dated(one) for one in now["conditions"]]
            await kube.patch(f"{PATH}/{name}/status", {"status": {**now, "conditions": conditions}})
            told = now
        except KubeError as error:
            if error.status != 404:
                log.warning("the status of FairQueue %s was not written: %s", name, error)


def status_of(view: QueueView, generation: int, unready: str, complaints: tuple[str, ...]) -> dict[str, Any]:
    """The status without its times."""
    received = sum(flow.received for flow in view.flows)
    largest = sorted(view.flows, key=lambda flow: (-flow.held, -flow.waiting_work, flow.path))[:FLOWS_MAX]
    ready = {
        "type": "Ready",
        "status": "False" if unready else "True",
        "reason": "Rebuilding" if unready else "Deciding",
        "message": unready or "gangs are released in fair order",
        "observedGeneration": generation,
    }
    accepted = {
        "type": "Accepted",
        "status": "False" if complaints else "True",
        "reason": "PartlyIgnored" if complaints else "AsSpecified",
        "message": "; ".join(complaints) or "all of the specification is obeyed",
        "observedGeneration": generation,
    }
    return {
        "observedGeneration": generation,
        "users": sum(1 for flow in view.flows if flow.waiting or flow.running),
        "waiting": view.waiting,
        "running": view.opening + view.running,
        "incomplete": view.incomplete,
        "infeasible": view.infeasible,
        "held": round(view.held, DIGITS),
        "flows": [_flow(flow, received) for flow in largest],
        "conditions": [ready, accepted],
    }


def _flow(flow: FlowView, received: float) -> dict[str, Any]:
    return {
        "user": flow.path[-1],
        "weight": flow.weight,
        "entitled": round(flow.entitled, DIGITS),
        "received": round(flow.received / received, DIGITS) if received > 0 else 0.0,
        "held": round(flow.held, DIGITS),
        "waiting": flow.waiting,
        "running": flow.running,
    }


def _dated(condition: dict[str, Any]) -> dict[str, Any]:
    return {**condition, "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
