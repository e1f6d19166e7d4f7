"""What a pod says of itself: whose it is, which gang it belongs to, and who knows the gang's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.core.jobs import (
    JOBSET,
    POD_GROUP,
    RAY_CLUSTER,
    SPARK_APP,
    TRAINING_JOB,
    VOLCANO_GROUP,
    Hints,
    gang_of,
    job_class,
    user_of,
)
from scheduler.core.quantities import duration_s
from scheduler.core.types import PREFIX
from scheduler.core.wire import Meta, OwnerReference, Pod

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
_JOBSET_UID = "jobset.sigs.k8s.io/jobset-uid"
_JOBSET_ATTEMPT = "jobset.sigs.k8s.io/restart-attempt"
_TRAINING_ROLE = "training.kubeflow.org/job-role"
_SPARK_ROLE = "spark-role"
_SPARK_OPERATED = "sparkoperator.k8s.io/app-name"
_SPARK_CONF_VOLUME = "spark-conf-volume-driver"
RECREATE = "recreate"
"""Our annotation by which a user lets us delete a pod that cannot start."""
TRAINING = ("PyTorchJob", "TFJob", "MPIJob", "XGBoostJob", "PaddleJob", "JAXJob")
"""Kinds of kubeflow.org whose objects are read: no others may be (helm/fairlane/templates/rbac.yaml)."""
_RECREATING = frozenset({"ReplicaSet", "StatefulSet", "ReplicationController", "RayCluster", *TRAINING})
"""Owners that make a deleted pod again and count no failure. A Job counts one towards its backoffLimit."""


class ObjectRef(NamedTuple):
    """An object that knows a gang's size; `group` is that of its API, empty for the core's."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class FamilyKey(NamedTuple):
    """Pods of one gang name and one user. `generation`: the owner's uid, where the name may be reused."""

    namespace: str
    name: str
    generation: str
    flow: str

    def __str__(self) -> str:
        name = self.name.replace("%", "%25").replace("/", "%2F")
        return f"{self.namespace}/{name}/{self.generation}/{self.flow}"


@dataclass(frozen=True, slots=True)
class Membership:
    """`family` is None for a pod on its own. `claimed`: the size the pod names, 0 if none.

    `source` knows the size where nobody names it. `parent`: uid of the driver
    pod that made this executor. `job`: what the pod is a part of in the order.
    `executors`: requests that a driver's annotation names for its executors.
    `maker`: uid of what makes such pods until enough have ended well; empty for none.
    """

    flow: str
    job: str
    family: FamilyKey | None
    claimed: int
    source: ObjectRef | None
    parent: str
    driver: bool
    executors: str
    priority: int
    job_class: str
    hint_s: float
    recreates: bool
    service_account: str
    maker: str


def membership_of(pod: Pod, complain: Callable[[str, str], None]) -> Membership:
    """What the pod says; an annotation that cannot be read counts as not given and is complained of."""
    meta = pod.metadata
    hints = Hints(meta.annotations or {})
    labels = meta.labels or {}
    flow, name = user_of(meta), gang_of(pod)
    claimed = hints.whole("gang-size", default=0)
    if claimed > 1 and not name:
        complain(
            PREFIX + "gang-size", f"{claimed} pods are claimed, but nothing names the gang: set {PREFIX}gang"
        )
    source = source_of(pod, labels)
    owner = _controller(meta)
    spark = labels.get(_SPARK_ROLE, "")
    parent = owner.uid if spark == "executor" and owner is not None and owner.kind == "Pod" else ""
    # Only where more pods than this one can matter: a large elastic job is so many pods on their own.
    together = name and (claimed or source is not None or parent or hints.text("gang"))
    family = FamilyKey(meta.namespace, name, _generation(pod, labels, owner), flow) if together else None
    member = Membership(
        flow,
        str(family) if family is not None else _job(meta, name, owner, flow),
        family,
        claimed,
        source,
        parent,
        spark == "driver",
        hints.text("executor-requests"),
        pod.spec.priority or 0,
        job_class(pod),
        hints.number("expected-duration", duration_s),
        hints.text(RECREATE) == "true" or (owner is not None and owner.kind in _RECREATING),
        pod.spec.serviceAccountName or "default",
        (family.generation if family is not None else "") or (owner.uid if owner is not None else ""),
    )
    for complaint in hints.complaints:
        complain(complaint.annotation, complaint.why)
    return member


def source_of(pod: Pod, labels: dict[str, str]) -> ObjectRef | None:
    """The object that says how many pods start together; None for pods that start each by itself."""
    meta = pod.metadata
    if SPARK_APP in labels or _SPARK_ROLE in labels:
        return _spark_source(pod, labels)
    return _pod_group(pod, labels) or _made_by(meta, labels)


def _pod_group(pod: Pod, labels: dict[str, str]) -> ObjectRef | None:
    in_tree = pod.spec.schedulingGroup
    named = {
        "scheduling.x-k8s.io": labels.get(POD_GROUP),
        "scheduling.volcano.sh": (pod.metadata.annotations or {}).get(VOLCANO_GROUP),
        "scheduling.k8s.io": in_tree.podGroupName if in_tree is not None else None,
    }
    found = ((group, name) for group, name in named.items() if name)
    return next((ObjectRef(group, "PodGroup", pod.metadata.namespace, name) for group, name in found), None)


def _made_by(meta: Meta, labels: dict[str, str]) -> ObjectRef | None:
    owner, namespace = _controller(meta), meta.namespace
    if TRAINING_JOB in labels and owner is not None and owner.kind in TRAINING:
        return ObjectRef("kubeflow.org", owner.kind, namespace, owner.name)
    if _is_mpi_launcher(labels, owner):
        return ObjectRef("kubeflow.org", "MPIJob", namespace, labels[TRAINING_JOB])
    if labels.get(RAY_CLUSTER):
        return ObjectRef("ray.io", "RayCluster", namespace, labels[RAY_CLUSTER])
    if labels.get(JOBSET):
        return ObjectRef("jobset.x-k8s.io", "JobSet", namespace, labels[JOBSET])
    if owner is not None and owner.kind == "Job" and _together(meta, labels):
        return ObjectRef("batch", "Job", namespace, owner.name)
    return None


def _is_mpi_launcher(labels: dict[str, str], owner: OwnerReference | None) -> bool:
    """MPIJob's launcher is the pod of a Job that the operator makes; its workers are the MPIJob's own."""
    launches = labels.get(_TRAINING_ROLE) == "launcher" and bool(labels.get(TRAINING_JOB))
    return launches and owner is not None and owner.kind == "Job"


def _together(meta: Meta, labels: dict[str, str]) -> bool:
    """True for pods of a Job that may need each other: numbered ones, and those that name a gang."""
    annotations = meta.annotations or {}
    return COMPLETION_INDEX in labels or COMPLETION_INDEX in annotations or PREFIX + "gang" in annotations


def _spark_source(pod: Pod, labels: dict[str, str]) -> ObjectRef | None:
    """The driver knows the size: by its SparkApplication, or by the properties that spark-submit mounts.

    Its arguments and environment name no executors.
    """
    if labels.get(_SPARK_ROLE) != "driver":
        return None
    namespace = pod.metadata.namespace
    if labels.get(_SPARK_OPERATED):
        return ObjectRef("sparkoperator.k8s.io", "SparkApplication", namespace, labels[_SPARK_OPERATED])
    for volume in pod.spec.volumes or ():
        if volume.name == _SPARK_CONF_VOLUME and volume.configMap is not None and volume.configMap.name:
            return ObjectRef("", "ConfigMap", namespace, volume.configMap.name)
    return None


def _generation(pod: Pod, labels: dict[str, str], owner: OwnerReference | None) -> str:
    """Tells a Job from one of the same name before it, whose pods may still be ending.

    Where the user or an application chose the name, pods of several owners may share it.
    """
    annotations = pod.metadata.annotations or {}
    chosen = (
        PREFIX + "gang" in annotations or VOLCANO_GROUP in annotations or pod.spec.schedulingGroup is not None
    )
    if chosen or owner is None or SPARK_APP in labels or POD_GROUP in labels:
        return ""
    if owner.kind == "MPIJob" or _is_mpi_launcher(labels, owner):
        return ""
    if JOBSET in labels:
        return "~".join(filter(None, (labels.get(_JOBSET_UID), labels.get(_JOBSET_ATTEMPT))))
    return owner.uid


def _job(meta: Meta, name: str, owner: OwnerReference | None, flow: str) -> str:
    """Pods on their own that one owner made are parts of one job."""
    if owner is None:
        return str(FamilyKey(meta.namespace, name, "", flow)) if name else ""
    return str(FamilyKey(meta.namespace, name or owner.name, owner.uid, flow))


def _controller(meta: Meta) -> OwnerReference | None:
    owners = meta.ownerReferences or ()
    return next((one for one in owners if one.controller), owners[0] if owners else None)
