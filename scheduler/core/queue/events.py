"""What happened, as plain values: everything the fair queue ever learns comes in as one of these.

Events may be delivered twice, late or in another order than they happened;
whoever sends them need not care. An `at_s` is the instant at which something
happened, in the same seconds as `now_s` of `Gatekeeper.handle`; None means now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.taints import Taint, Toleration


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of required node affinity; `operator` as Kubernetes spells it (In, NotIn, Exists, ...).

    A key that starts with `metadata.name` matches the node's name (matchFields).
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What one pod needs of its node: requests by resource, and where it may go.

    `requests` are pairs (resource, amount) in base units (cores, bytes,
    devices); `affinity` holds terms of which one must hold as a whole.
    """

    requests: tuple[tuple[str, float], ...]
    selector: tuple[tuple[str, str], ...] = ()
    affinity: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class GangPod:
    """A pod that exists, as a member of its gang."""

    uid: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted duration of a gang at the best feasible placement, with the source that knew it."""

    p10_s: float
    p50_s: float
    p90_s: float
    source: str = "model"

    @staticmethod
    def exactly(duration_s: float, source: str = "exact") -> Estimate:
        """An estimate without spread."""
        return Estimate(duration_s, duration_s, duration_s, source)


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that start together or not at all; a lone pod is a gang of one.

    `job` names what the gang is a part of: the elastic pods of one job are
    gangs of one with the same job, and the job is what has a place in the
    order. Empty: the gang is a job by itself. `promised` are pods that do not
    exist yet but must have room (executors of a driver). `size` is the number
    of pods, promised ones included, that make the gang complete; 0 when the
    pods given are all. `estimate` is the predictor's; None when it has none,
    then the queue falls back to past runs and `hint_s`, the user's own word.
    `recreates`: the owner makes a deleted pod again without counting a failure,
    or the user allowed it. `group` matters only in a grouped queue.
    """

    uid: str
    flow: str
    pods: tuple[GangPod, ...]
    arrived_s: float
    estimate: Estimate | None = None
    job: str = ""
    group: str = ""
    priority: int = 0
    size: int = 0
    promised: tuple[Shape, ...] = ()
    job_class: str = ""
    hint_s: float = math.nan
    recreates: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node as capacity sees it; `allocatable` by resource in base units, pod count as `pods`."""

    name: str
    allocatable: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    schedulable: bool = True


@dataclass(frozen=True, slots=True)
class GangArrived:
    """A gang whose gates are closed was seen, complete or not, for the first time or changed."""

    gang: Gang


@dataclass(frozen=True, slots=True)
class GangChanged:
    """The pods of a known gang changed; new pods of a released gang are replacements or promised ones."""

    gang: Gang


@dataclass(frozen=True, slots=True)
class GangWithdrawn:
    """All pods of a gang are gone without having ended: deleted by their user or owner."""

    uid: str
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class GangFound:
    """A gang whose gates are open already, found when pods were listed.

    `charged_work` (share-seconds) and `released_s` are what its pods' receipt
    says; NaN when they carry none (it slipped past admission: it is charged
    all the same). `nodes` maps the uid of each bound pod to its node; `gated`
    are pods (uids) whose gates are still closed.
    """

    gang: Gang
    nodes: Mapping[str, str]
    started_s: float | None = None
    released_s: float = math.nan
    charged_work: float = math.nan
    gated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Listed:
    """A full list of pods was worked off; gangs not in `present` (uids) are gone."""

    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReleaseDone:
    """The gates of `pods` (uids) are open."""

    uid: str
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """Released pods (by uid) were advised to go to these nodes, not to those that room was kept on first."""

    uid: str
    nodes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReleaseFailed:
    """Not one gate of the gang could be opened."""

    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseHalfFailed:
    """Only the gates of `released` (pod uids) could be opened; the gang is half open."""

    uid: str
    released: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PodStarted:
    """A pod of a gang was bound to a node."""

    uid: str
    pod: str
    node: str
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class PodEnded:
    """A pod of a gang ended; `lost`: evicted, deleted or gone with its node; a replacement may come.

    `started_s`: when it was bound, for the case that its start was never reported.
    """

    uid: str
    pod: str
    at_s: float | None = None
    lost: bool = False
    started_s: float | None = None


@dataclass(frozen=True, slots=True)
class GangStarted:
    """All released pods of a gang run where they were planned (or on `nodes`, by pod uid)."""

    uid: str
    at_s: float | None = None
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GangEnded:
    """The last pod of a gang ended; `started_s` for the case that its start was never reported."""

    uid: str
    at_s: float | None = None
    started_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """kube-scheduler finds no node for a released pod of the gang; `reason` in its words."""

    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeSet:
    """A node is there, new or changed."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """A node is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class ForeignUsage:
    """Sum of requests of pods that are not ours on a node, their number as `pods`; replaces what was said."""

    node: str
    requests: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class WeightSet:
    """A flow's entitlement changed; `path` is (user,), or (group,) and (group, user) in a grouped queue."""

    path: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class QueueConfigured:
    """The queue's settings were changed; another reference rescales meters, charges and ledgers."""

    settings: QueueSettings


@dataclass(frozen=True, slots=True)
class QueuePaused:
    """Nothing is released until the queue is resumed."""


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """Releases go on."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """An administrator puts a waiting gang before all others; it is charged like any other."""

    uid: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by: overruns are charged and timeouts looked at. At least every 30 s."""


Event = (
    GangArrived
    | GangChanged
    | GangWithdrawn
    | GangFound
    | Listed
    | ReleaseDone
    | Planned
    | ReleaseFailed
    | ReleaseHalfFailed
    | PodStarted
    | PodEnded
    | GangStarted
    | GangEnded
    | Unschedulable
    | NodeSet
    | NodeRemoved
    | ForeignUsage
    | WeightSet
    | QueueConfigured
    | QueuePaused
    | QueueResumed
    | Promoted
    | Tick
)
