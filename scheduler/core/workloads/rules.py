"""Which pods are the queue's, and the names under which others write what concerns it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.types import PREFIX, SCHEDULER_NAME
from scheduler.core.wire import Pod

GATE = PREFIX + "queue"
QUEUE_NAME = PREFIX + "queue-name"
USER = PREFIX + "user"
RECEIPT = PREFIX + "receipt"
"""Written by the patch that opens the gate."""
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Rules:
    """How pods of one queue are told from others.

    `queue`: the queue served; pods that name another one count as foreign. A
    pod belongs to `default_queue` when it names none. `by_namespace`: whoever
    made them, pods are charged to their namespace.
    """

    scheduler_name: str = SCHEDULER_NAME
    gate: str = GATE
    queue: str = "default"
    default_queue: str = "default"
    by_namespace: bool = False

    def ours(self, pod: Pod) -> bool:
        """True for pods that wait in this queue, came out of it, or should have gone through it.

        Pods of a DaemonSet and of a kubelet itself are bound to their node whatever a queue says:
        as long as nobody gave them our gate, they are foreign even if they name our scheduler.
        """
        meta = pod.metadata
        annotations = meta.annotations or {}
        if self.gate_index(pod) < 0 and RECEIPT not in annotations:
            tied = _MIRROR in annotations or any(
                one.kind == "DaemonSet" for one in meta.ownerReferences or ()
            )
            if tied or not (pod.spec.schedulerName == self.scheduler_name or QUEUE_NAME in annotations):
                return False
        # Not the label: anybody may write it at any time, and would be charged no more after a restart.
        return (annotations.get(QUEUE_NAME) or self.default_queue) == self.queue

    def gate_index(self, pod: Pod) -> int:
        """Where our gate is among the pod's gates; -1 when it is open."""
        for index, gate in enumerate(pod.spec.schedulingGates or ()):
            if gate.name == self.gate:
                return index
        return -1
