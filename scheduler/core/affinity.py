"""Node affinity that carries a plan, as Kubernetes spells it: dictionaries in, dictionaries out.

Preferred terms name one node each, by the only field that the API server
matches, and weigh ten times the score; kube-scheduler adds up what matches and
scales the best to 100. Terms that the pod brought stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scheduler.core.plans import PodPlan

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
POINTS = 10
"""Weight of a term for each point of the score; at most 100 is allowed."""
SEVERAL = 2
"""A plan that is binding needs at least so many nodes, or one that fills up would hold the pod for ever."""
Affinity = dict[str, Any]


def advised(plan: PodPlan, require: bool) -> Callable[[Affinity | None], Affinity]:
    """What becomes of a pod's affinity: with `require` the nodes are binding for a pod that is not ours.

    That one must bring no required node affinity itself (it may only be narrowed, by labels), and the plan
    must have several nodes; otherwise they are preferred.
    """
    nodes = plan.nodes

    def added(now: Affinity | None) -> Affinity:
        own = dict((now or {}).get("nodeAffinity") or {})
        if require and not plan.ours and len(nodes) >= SEVERAL and not own.get(REQUIRED):
            own[REQUIRED] = {"nodeSelectorTerms": [_named(node) for node, _ in nodes]}
        own[PREFERRED] = [*(own.get(PREFERRED) or ()), *preferred(nodes)]
        return {**(now or {}), "nodeAffinity": own}

    return added


def preferred(nodes: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """One term for each node with its score, best first."""
    return [{"weight": POINTS * score, "preference": _named(node)} for node, score in nodes if score > 0]


def _named(node: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
