"""Pods that could be placed and that no kube-scheduler has looked at: the one that should does not run."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scheduler.core.outcomes import parse_time_s
from scheduler.core.types import SCHEDULER_NAME
from scheduler.core.wire import Pod
from scheduler.core.workloads.rules import RECEIPT


class _Released(msgspec.Struct, frozen=True):
    released_s: float = 0.0


def is_unseen(pod: Pod) -> bool:
    """Whether the pod could be placed, and got no word of a kube-scheduler.

    Who cannot place a pod gives a reason; that of the gate is the API server's, and stays until then.
    A pod whose claims are not there yet is held back by kube-scheduler without a word.
    """
    spec = pod.spec
    free = not (
        spec.nodeName or spec.schedulingGates or spec.resourceClaims or pod.metadata.deletionTimestamp
    )
    return free and pod.status.phase == "Pending" and not _reasons(pod) - {"", "SchedulingGated"}


def unseen_since_s(pods: Iterable[Pod]) -> float:
    """When the first of them was free that got no word of a kube-scheduler, unix seconds; 0: none."""
    return min(filter(None, (_free_since_s(pod) for pod in pods if is_unseen(pod))), default=0.0)


class UnseenPods:
    """Follows the pods of our scheduler; its length is how many of them are unseen now."""

    def __init__(self) -> None:
        self._uids: set[str] = set()

    def __len__(self) -> int:
        return len(self._uids)

    def observe(self, pod: Pod) -> None:
        """A pod as it is now."""
        if pod.spec.schedulerName == SCHEDULER_NAME and is_unseen(pod):
            self._uids.add(pod.metadata.uid)
        else:
            self._uids.discard(pod.metadata.uid)

    def observe_all(self, pods: Iterable[Pod]) -> None:
        """The whole collection: pods not in it any more are gone."""
        self._uids.clear()
        for pod in pods:
            self.observe(pod)

    def deleted(self, pod: Pod) -> None:
        """A pod is gone."""
        self._uids.discard(pod.metadata.uid)


def _reasons(pod: Pod) -> set[str]:
    """What was last said of its place."""
    return {one.reason or "" for one in pod.status.conditions or () if one.type == "PodScheduled"}


def _free_since_s(pod: Pod) -> float:
    try:
        receipt = msgspec.json.decode((pod.metadata.annotations or {}).get(RECEIPT, "{}"), type=_Released)
    except msgspec.DecodeError:
        receipt = _Released()
    return receipt.released_s or parse_time_s(pod.metadata.creationTimestamp) or 0.0
