"""What a pod would rather have, or not: kube-scheduler knows how to weigh it, and is left a choice for it."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.core.queue.taints import Taint, is_avoided
from scheduler.core.wire import PodSpec
from scheduler.core.workloads.shapes import tolerations_of


def has_preferences(spec: PodSpec) -> bool:
    """Whether the pod itself prefers some nodes, neighbours or spreading."""
    affinity = spec.affinity
    kinds = (affinity.nodeAffinity, affinity.podAffinity, affinity.podAntiAffinity) if affinity else ()
    if any(kind is not None and kind.preferredDuringSchedulingIgnoredDuringExecution for kind in kinds):
        return True
    return any(one.whenUnsatisfiable == "ScheduleAnyway" for one in spec.topologySpreadConstraints or ())


def would_rather_not(spec: PodSpec, taints: Sequence[Taint]) -> bool:
    """Whether the pod should have a node with these taints only where others are no better."""
    return bool(taints) and is_avoided(taints, list(tolerations_of(spec)))
