"""What a pod would rather have: kube-scheduler knows how to weigh it, and is left a choice for it."""

from __future__ import annotations

from scheduler.core.wire import PodSpec


def has_preferences(spec: PodSpec) -> bool:
    """Whether the pod itself prefers some nodes, neighbours or spreading."""
    affinity = spec.affinity
    kinds = (affinity.nodeAffinity, affinity.podAffinity, affinity.podAntiAffinity) if affinity else ()
    if any(kind is not None and kind.preferredDuringSchedulingIgnoredDuringExecution for kind in kinds):
        return True
    return any(one.whenUnsatisfiable == "ScheduleAnyway" for one in spec.topologySpreadConstraints or ())
