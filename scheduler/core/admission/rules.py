"""Who may do what: the values that an administrator chooses, and the sentences of refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.core.admission.kinds import BUILT_IN, Kind
from scheduler.core.types import PREFIX, SCHEDULER_NAME

STAMP = PREFIX + "user"
BEHALF = PREFIX + "on-behalf-of"
ASKED_SCHEDULER = PREFIX + "scheduler-name"
QUEUE = PREFIX + "queue-name"
GATE = PREFIX + "queue"
RECEIPT = PREFIX + "receipt"
ENABLED_LABEL = PREFIX + "enabled"

FORGED = (
    f"{STAMP} is set by Fairlane to the authenticated user and by nobody else: "
    "leave it out, or as it was; you are "
)
"""Followed by the caller's name."""
NOT_A_SUBMITTER = (
    f"{BEHALF} is only for submitters that the administrator lists (admission.submitters); not among them is "
)
"""Followed by the caller's name."""
NAMES_A_NODE = (
    "a pod that waits in the queue cannot name its node: remove spec.nodeName "
    "(a node selector or affinity may name nodes)"
)
_REMOVED = "another admission plugin removed it after Fairlane had added it"
NOT_GATED = f"the gate {GATE} is missing: {_REMOVED}"
NOT_STAMPED = f"{STAMP} is missing: {_REMOVED}"
NOT_RENAMED = (
    f"spec.schedulerName is not what {ASKED_SCHEDULER} asks for: "
    "another admission plugin changed it after Fairlane had set it"
)
RELEASED_BY_HAND = (
    f"only the Fairlane controller removes the gate {GATE}: "
    "the pod waits for its turn; delete it to withdraw it"
)
STAMP_CHANGED = f"{STAMP} is set when a pod is created and cannot be changed"
FIXED_AT_CREATION = (BEHALF, ASKED_SCHEDULER, QUEUE)
"""Annotations of a pod that only count when it is created; the controller may change the last two."""
BOUND_WITH_STAMP = f"a binding must not carry {STAMP} or {RECEIPT}: it would overwrite the pod's"
RESIZED = (
    "the queue has counted what the pod requests, so it cannot be resized in place: "
    "make a new pod with other requests"
)
RECEIPT_FORGED = f"{RECEIPT} is written by the Fairlane controller when it releases a pod: leave it out"
"""After a restart the queue reads there what a gang was charged."""


def fixed(annotation: str) -> str:
    """The sentence that refuses to change `annotation` of a pod."""
    return f"{annotation} counts when a pod is created and cannot be changed later: make a new pod"


@dataclass(frozen=True, slots=True)
class Rules:
    """What an administrator decides.

    `controller`: the user that releases pods. `trusted`: controllers whose
    stamps were authenticated when they got them. `submitters`: users that may
    act for others. All by exact name.
    """

    scheduler_name: str = SCHEDULER_NAME
    controller: str = "system:serviceaccount:fairlane-system:fairlane-controller"
    trusted: frozenset[str] = frozenset()
    submitters: frozenset[str] = frozenset()
    excluded_namespaces: tuple[str, ...] = ("kube-system", "fairlane-system")
    kinds: tuple[Kind, ...] = field(default=BUILT_IN)


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated user of a request."""

    name: str
    groups: Sequence[str] = ()

    @property
    def is_node(self) -> bool:
        """A kubelet: it makes mirrors of static pods, which are no jobs."""
        return "system:nodes" in self.groups


def written_by(caller: Caller, behalf: str, rules: Rules) -> str:
    """Whom a caller who is not trusted writes pods for: himself, or another if he is a listed submitter."""
    return behalf if behalf and caller.name in rules.submitters else caller.name


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request: refused with a sentence, or admitted with a JSON patch (perhaps empty)."""

    patch: tuple[Mapping[str, Any], ...] = ()
    refusal: str = ""
