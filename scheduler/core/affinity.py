"""Node affinity that carries a plan, as Kubernetes spells it: dictionaries in, dictionaries out.

Preferred terms name one node each, by the only field that the API server
matches, and weigh ten times the score; kube-scheduler adds up what matches and
scales the best to 100. Terms that the pod brought stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from scheduler.core.plans import PodPlan

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
POINTS = 10
"""Weight of a term for each point of the score; at most 100 is allowed."""
SEVERAL = 2
"""A plan that is binding needs at least so many nodes, or one that fills up would hold the pod for ever."""
Affinity = dict[str, Any]
Binds = Literal["nobody", "others", "all"]


def advised(plan: PodPlan, binds: Binds) -> Callable[[Affinity | None], Affinity]:
    """What becomes of a pod's affinity; `binds` says for whom the nodes of the plan are required as well.

    Such a pod must bring no required node affinity itself (it may only be narrowed, by labels), and the plan
    must have several nodes; otherwise they are preferred alone.
    """
    binding = binds == "all" or (binds == "others" and not plan.ours)
    nodes = plan.nodes

    def added(now: Affinity | None) -> Affinity:
        own = dict((now or {}).get("nodeAffinity") or {})
        if binding and len(nodes) >= SEVERAL and not own.get(REQUIRED):
            own[REQUIRED] = {"nodeSelectorTerms": [_named(node) for node, _ in nodes]}
        own[PREFERRED] = [*(own.get(PREFERRED) or ()), *preferred(nodes)]
        return {**(now or {}), "nodeAffinity": own}

    return added


def preferred(nodes: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """One term for each node with its score, best first."""
    return [{"weight": POINTS * score, "preference": _named(node)} for node, score in nodes if score > 0]


def _named(node: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
