"""What Kubernetes sends, cut down to the fields used, and what kube-scheduler gets back.

The structs serve both ways in: the `Pod` inside `ExtenderArgs` and the objects
of list and watch are the same JSON. Every field is optional and may be null,
because Go writes nil slices and maps as null. They are decoded by msgspec in
strict mode: a field of the wrong type is a clear error, an unknown one is skipped.

Extender wire format: k8s.io/kube-scheduler/extender/v1; the Go types carry no
json tags, so the keys are capitalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class OwnerReference(msgspec.Struct, frozen=True, gc=False):
    """Who made the object."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(msgspec.Struct, frozen=True, gc=False):
    """The part of an object's metadata that is used; times are RFC 3339, whole seconds."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generateName: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[OwnerReference] | None = None
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None


class ResourceNeeds(msgspec.Struct, frozen=True, gc=False):
    """Requests and limits of one container, as Kubernetes quantities."""

    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class Container(msgspec.Struct, frozen=True, gc=False):
    """One container of a pod's specification."""

    name: str = ""
    image: str | None = None
    resources: ResourceNeeds | None = None
    restartPolicy: str | None = None


class SchedulingGate(msgspec.Struct, frozen=True, gc=False):
    """A reason for kube-scheduler not to look at the pod yet."""

    name: str = ""


class NodeRequirement(msgspec.Struct, frozen=True, gc=False):
    """One expression about labels (or the name) of a node."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class NodeTerm(msgspec.Struct, frozen=True, gc=False):
    """Expressions that must hold together."""

    matchExpressions: list[NodeRequirement] | None = None
    matchFields: list[NodeRequirement] | None = None


class NodeTerms(msgspec.Struct, frozen=True, gc=False):
    """Terms of which one must hold."""

    nodeSelectorTerms: list[NodeTerm] | None = None


class Preference(msgspec.Struct, frozen=True, gc=False):
    """Something that a pod would rather have; what it is, is kube-scheduler's business."""


class NodeAffinity(msgspec.Struct, frozen=True, gc=False):
    """What nodes must be like."""

    requiredDuringSchedulingIgnoredDuringExecution: NodeTerms | None = None
    preferredDuringSchedulingIgnoredDuringExecution: list[Preference] | None = None


class PodAffinity(msgspec.Struct, frozen=True, gc=False):
    """Of which pods to be near, or far; what is required of them is kube-scheduler's business."""

    preferredDuringSchedulingIgnoredDuringExecution: list[Preference] | None = None


class Affinity(msgspec.Struct, frozen=True, gc=False):
    """Where a pod must be, and would rather be."""

    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


class SpreadConstraint(msgspec.Struct, frozen=True, gc=False):
    """How evenly pods like this one are spread: DoNotSchedule must hold, ScheduleAnyway is a preference."""

    whenUnsatisfiable: str = ""


class Toleration(msgspec.Struct, frozen=True, gc=False):
    """A taint that the pod puts up with; no operator means Equal."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class SchedulingGroup(msgspec.Struct, frozen=True, gc=False):
    """The in-tree pod group that the pod belongs to."""

    podGroupName: str | None = None


class ConfigMapVolume(msgspec.Struct, frozen=True, gc=False):
    """A ConfigMap that is mounted."""

    name: str | None = None


class Volume(msgspec.Struct, frozen=True, gc=False):
    """A volume; only mounted ConfigMaps are looked at."""

    name: str = ""
    configMap: ConfigMapVolume | None = None


class PodSpec(msgspec.Struct, frozen=True, gc=False):
    """What was asked for; `resources` are those of the pod as a whole, where somebody set them."""

    nodeName: str | None = None
    schedulerName: str | None = None
    serviceAccountName: str | None = None
    priority: int | None = None
    containers: list[Container] | None = None
    initContainers: list[Container] | None = None
    resources: ResourceNeeds | None = None
    overhead: dict[str, str] | None = None
    schedulingGates: list[SchedulingGate] | None = None
    schedulingGroup: SchedulingGroup | None = None
    resourceClaims: list[msgspec.Raw] | None = None
    nodeSelector: dict[str, str] | None = None
    affinity: Affinity | None = None
    topologySpreadConstraints: list[SpreadConstraint] | None = None
    tolerations: list[Toleration] | None = None
    volumes: list[Volume] | None = None


class Running(msgspec.Struct, frozen=True, gc=False):
    """State of a container that runs."""

    startedAt: str | None = None


class Terminated(msgspec.Struct, frozen=True, gc=False):
    """State of a container that ended."""

    startedAt: str | None = None
    finishedAt: str | None = None
    exitCode: int = 0
    reason: str | None = None


class ContainerState(msgspec.Struct, frozen=True, gc=False):
    """Exactly one of the two is set, or none while the container waits."""

    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, gc=False):
    """What the kubelet says of one container."""

    name: str = ""
    restartCount: int = 0
    state: ContainerState | None = None


class Condition(msgspec.Struct, frozen=True, gc=False):
    """One condition of a pod or node."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    lastTransitionTime: str | None = None


class PodStatus(msgspec.Struct, frozen=True, gc=False):
    """How far the pod is."""

    phase: str | None = None
    reason: str | None = None
    startTime: str | None = None
    conditions: list[Condition] | None = None
    containerStatuses: list[ContainerStatus] | None = None


class Pod(msgspec.Struct, frozen=True, gc=False):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Image(msgspec.Struct, frozen=True, gc=False):
    """A container image present on a node, under all its names."""

    names: list[str] | None = None


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    """One address of a node; `type` is InternalIP, Hostname ..."""

    type: str = ""
    address: str = ""


class NodeTaint(msgspec.Struct, frozen=True, gc=False):
    """What keeps pods away from a node."""

    key: str = ""
    value: str | None = None
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True, gc=False):
    """How a node is meant to be used; `unschedulable`: cordoned."""

    unschedulable: bool | None = None
    taints: list[NodeTaint] | None = None


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """What a node offers and holds."""

    allocatable: dict[str, str] | None = None
    conditions: list[Condition] | None = None
    images: list[Image] | None = None
    addresses: list[NodeAddress] | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Workload(msgspec.Struct, frozen=True):
    """Anything that says how many pods belong together: a Job, a JobSet, a PodGroup, a ConfigMap of Spark ...

    Items of a list come without `apiVersion` and `kind`; whoever reads them fills them in.
    `spec` is as various as its kinds, so it stays plain values; `data` is a ConfigMap's.
    """

    apiVersion: str = ""
    kind: str = ""
    metadata: Meta = Meta()
    spec: dict[str, Any] | None = None
    data: dict[str, str] | None = None


class ExtenderArgs(msgspec.Struct, frozen=True, gc=False):
    """The body of a filter or prioritize call: the pod and its candidate nodes, by name.

    The names stay as they came, for core.candidate_names to read: kube-scheduler
    sends the same thousands again and again.
    """

    Pod: Pod
    NodeNames: msgspec.Raw = msgspec.Raw(b"null")
    Nodes: msgspec.Raw = msgspec.Raw(b"null")


class HostPriority(msgspec.Struct, frozen=True, gc=False):
    """The score of one node; kube-scheduler drops the whole answer unless it is an integer."""

    Host: str
    Score: int


class FilterResult(msgspec.Struct, frozen=True, gc=False):
    """The nodes that are left; kube-scheduler takes no list for no node, and an unknown name for a fault."""

    NodeNames: Sequence[str]


class BadRequest(ValueError):
    """The request is not a usable call of kube-scheduler; the message says why."""


_ARGS = msgspec.json.Decoder(ExtenderArgs)
_LONGEST = {"uid": 64, "namespace": 63, "name": 253}
"""Kubernetes gives no longer ones, and the experience store has no room for them."""
_ENCODER = msgspec.json.Encoder()


def decode_extender_args(body: bytes | bytearray) -> ExtenderArgs:
    """The filter or prioritize call in `body`.

    Raises:
        BadRequest: not JSON, not `ExtenderArgs`, whole Node objects instead of names, a pod that cannot be.
    """
    try:
        args = _ARGS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not ExtenderArgs: {error}") from error
    if bytes(args.NodeNames) == b"null" and bytes(args.Nodes) != b"null":
        raise BadRequest(
            "the candidates came as whole Node objects; set nodeCacheCapable: true for this extender "
            "in the KubeSchedulerConfiguration, so that kube-scheduler sends their names"
        )
    _require_possible(args.Pod.metadata)
    return args


def _require_possible(meta: Meta) -> None:
    """PostgreSQL refuses other text, and with it all decisions that are sent beside this one."""
    for what, longest in _LONGEST.items():
        text: str = getattr(meta, what)
        if len(text) > longest or "\0" in text:
            raise BadRequest(f"no pod has a {what} like {text[:80]!r} ({len(text)} characters)")


def encode_priorities(scores: Iterable[tuple[str, int]]) -> bytes:
    """A HostPriorityList: `[{"Host": ..., "Score": ...}]`; nodes left out count 0."""
    return _ENCODER.encode([HostPriority(node, score) for node, score in scores])


def encode_filtered(nodes: Sequence[str]) -> bytes:
    """An ExtenderFilterResult: `{"NodeNames": [...]}`."""
    return _ENCODER.encode(FilterResult(nodes))


def encode_json(value: Any) -> bytes:
    """Any plain value as JSON."""
    return _ENCODER.encode(value)
