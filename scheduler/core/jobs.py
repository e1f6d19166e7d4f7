"""From a pod to the job it is part of: class, user, gang, framework, requests and hints.

All annotations are optional. One that cannot be read counts as not given, and
a complaint says so; a job must not fail to be placed over a misspelt hint.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from model.placement import FRAMEWORKS, Job
from scheduler.core.quantities import duration_s, quantity
from scheduler.core.requests import requests_of
from scheduler.core.turns import turn_of
from scheduler.core.types import PREFIX, PodFacts
from scheduler.core.wire import Container, Meta, Pod

MAX_DATA_NODES = 64
"""More data nodes than this are cut: each adds a row of pair readings to every prediction."""
DESCRIPTIONS_KEPT = 20_000
"""Pods remembered; one forgotten is described again."""
MAX_TEXT = 253
"""Longest job class, user or gang name; the rest is cut."""
SPARK_APP = "spark-app-selector"
POD_GROUP = "scheduling.x-k8s.io/pod-group"
VOLCANO_GROUP = "scheduling.k8s.io/group-name"
"""An annotation, unlike the others."""
TRAINING_JOB = "training.kubeflow.org/job-name"
RAY_CLUSTER = "ray.io/cluster"
JOBSET = "jobset.sigs.k8s.io/jobset-name"
BATCH_JOB = "batch.kubernetes.io/job-name"
_FRAMEWORK_GANGS = (TRAINING_JOB, RAY_CLUSTER, JOBSET, BATCH_JOB, "job-name")
"""Labels that name a gang where neither our annotation, Spark nor a pod group does, in this order."""
_DRIVER_LABELS = {
    "spark-role": ("driver",),
    "training.kubeflow.org/job-role": ("master", "launcher"),
    "training.kubeflow.org/replica-type": ("master", "launcher"),
    "ray.io/node-type": ("head",),
}
_FRAMEWORK_LABELS = {
    "spark-role": "spark",
    "spark-app-selector": "spark",
    "ray.io/cluster": "ray",
    "training.kubeflow.org/job-name": "torch",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GENERATED = re.compile(
    r"-(?:[bcdfghjklmnpqrstvwxz2456789]{5}|[bcdfghjklmnpqrstvwxz2456789]{8,10}|\d{6,}|[0-9a-f]{8,})$"
)
"""Endings that controllers append: random suffixes (Kubernetes' alphabet has no vowels), template
hashes, schedule times, hexadecimal ids. Short numbers stay: resnet-50 is not resnet-101."""


class Complaint(NamedTuple):
    """An annotation that could not be used."""

    annotation: str
    why: str


class Described(msgspec.Struct, frozen=True):
    """A pod's facts and what could not be understood of it."""

    pod: PodFacts
    complaints: tuple[Complaint, ...] = ()


def describe(pod: Pod) -> Described:
    """Facts of a pod as the API server or kube-scheduler sent it."""
    meta = pod.metadata
    job, complaints = _job_of(pod)
    gang = gang_of(pod)
    facts = PodFacts(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        job=job,
        scheduler=bounded(pod.spec.schedulerName or ""),  # the API server takes any
        gang=f"{meta.namespace}/{gang}" if gang else "",
        is_driver=_is_driver(meta),
        **_passing_facts(pod),
    )
    return Described(facts, tuple(complaints))


class Descriptions:
    """Describes pods, and remembers what can't have changed since it last saw one.

    A pod is reported about five times in its life, and asked about once; all
    but its node and phase stays as it was, unless somebody edits it.
    """

    def __init__(self, limit: int = DESCRIPTIONS_KEPT) -> None:
        self._limit = limit
        self._last: OrderedDict[str, tuple[Pod, Described]] = OrderedDict()

    def of(self, pod: Pod) -> Described:
        """As `describe`."""
        uid = pod.metadata.uid
        last = self._last.get(uid)
        if last and _is_same_version(last[0], pod):
            return last[1]
        described = _passed_on(last[1], pod) if last and _same_job(last[0], pod) else describe(pod)
        self._last[uid] = (pod, described)
        self._last.move_to_end(uid)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return described

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._last.pop(uid, None)


def _passed_on(before: Described, pod: Pod) -> Described:
    """As before, but for what changes in the life of a pod."""
    known, now = before.pod, _passing_facts(pod)
    if now == {name: getattr(known, name) for name in now}:
        return before
    return Described(msgspec.structs.replace(known, **now), before.complaints)


def _is_same_version(one: Pod, other: Pod) -> bool:
    """The API server changes it with everything else; kube-scheduler sends pods as it got them."""
    return one.metadata.resourceVersion == other.metadata.resourceVersion != ""


def _same_job(one: Pod, other: Pod) -> bool:
    ours, theirs = one.metadata, other.metadata
    return (
        ours.annotations == theirs.annotations
        and ours.labels == theirs.labels
        and ours.ownerReferences == theirs.ownerReferences
        and one.spec.containers == other.spec.containers
        and one.spec.initContainers == other.spec.initContainers
        and one.spec.resources == other.spec.resources
        and one.spec.overhead == other.spec.overhead
    )


def _passing_facts(pod: Pod) -> dict[str, Any]:
    """What changes in the life of a pod."""
    gated = bool(pod.spec.schedulingGates)
    return {
        "node": pod.spec.nodeName or "",
        "finished": pod.status.phase in ("Succeeded", "Failed"),
        "gated": gated,
        "turn": turn_of(pod.status) if gated else 0,
    }


def is_recurring(meta: Meta) -> bool:
    """True when the pod is marked as a job of ours, whatever scheduler places it."""
    return PREFIX + "job-class" in (meta.annotations or {})


def job_class(pod: Pod) -> str:
    """The recurrence key: the annotation, else owner kind + name + container image + user.

    Suffixes that controllers generate are taken off the name, and digests off
    the image.
    """
    meta = pod.metadata
    given = (meta.annotations or {}).get(PREFIX + "job-class", "").strip(" \t\r\n")
    if given:
        return _printable(given[:MAX_TEXT])
    kind, name = _owner(meta)
    image = _image_of(pod.spec.containers).partition("@")[0]
    return _printable("|".join(part for part in (f"{kind}/{name}", image, user_of(meta)) if part)[:MAX_TEXT])


def user_of(meta: Meta) -> str:
    """Whose job it is, and who is charged: the stamp that admission writes, else the namespace stands in.

    A label is not read: admission guards the stamp alone.
    """
    return bounded((meta.annotations or {}).get(PREFIX + "user") or f"namespace:{meta.namespace}")


def gang_of(pod: Pod) -> str:
    """Name, inside the namespace, of the pods it works with; empty without one.

    Our annotation comes first, then a Spark application, a pod group (by
    label, by Volcano's annotation, in-tree), then what made the pods. Placing
    and the queue both go by this name; whether all of them start at once is
    another question (core.workloads).
    """
    annotations, labels = pod.metadata.annotations or {}, pod.metadata.labels or {}
    group = pod.spec.schedulingGroup
    named = (
        annotations.get(PREFIX + "gang", "").strip()
        or labels.get(SPARK_APP)
        or labels.get(POD_GROUP)
        or annotations.get(VOLCANO_GROUP)
        or (group.podGroupName if group is not None else "")
        or next((labels[key] for key in _FRAMEWORK_GANGS if labels.get(key)), "")
    )
    return bounded(named or "")


def bounded(text: str) -> str:
    """`text` of at most `MAX_TEXT` characters; different texts stay different."""
    text = _printable(text)
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT - 33]}~{sha256(text.encode()).hexdigest()[:32]}"


def _printable(text: str) -> str:
    """Without control characters, which admission refuses where it is installed.

    An annotation may hold NUL, PostgreSQL's text may not: one pod would stop all that is recorded.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _is_driver(meta: Meta) -> bool:
    if (meta.annotations or {}).get(PREFIX + "role") == "driver":
        return True
    labels = meta.labels or {}
    return any(labels.get(key, "").lower() in roles for key, roles in _DRIVER_LABELS.items())


def _owner(meta: Meta) -> tuple[str, str]:
    """Kind and stable name of what the pod belongs to."""
    labels = meta.labels or {}
    if labels.get("spark-app-name"):
        return "Spark-" + labels.get("spark-role", "pod"), _stable(labels["spark-app-name"])
    owners = meta.ownerReferences or []
    owner = next((one for one in owners if one.controller), owners[0] if owners else None)
    if owner is not None:
        return owner.kind, _stable(owner.name)
    return "Pod", _stable(meta.generateName.rstrip("-") or meta.name)


@lru_cache(maxsize=4096)
def _stable(name: str) -> str:
    """`name` without the suffixes that controllers generate."""
    while (shorter := _GENERATED.sub("", name)) not in (name, ""):
        name = shorter
    return name


def _job_of(pod: Pod) -> tuple[Job, list[Complaint]]:
    meta, spec = pod.metadata, pod.spec
    hints = Hints(meta.annotations or {})
    requests = requests_of(spec, hints.complain_of_request)
    job = Job(
        job_class=job_class(pod),
        user=user_of(meta),
        framework=_framework(meta, hints),
        gang=gang_of(pod),
        gang_size=hints.whole("gang-size"),
        cpu=requests.get("cpu", 0.0),
        memory_bytes=requests.get("memory", 0.0),
        gpu=sum(amount for resource, amount in requests.items() if resource.endswith("/gpu")),
        input_bytes=hints.number("input-bytes", quantity),
        shuffle_bytes=hints.number("shuffle-bytes", quantity),
        expected_s=hints.number("expected-duration", duration_s),
        image=_image_of(spec.containers),
        data_nodes=hints.nodes("data-nodes"),
    )
    return job, hints.complaints


class Hints:
    """Reads our annotations; what cannot be read is complained of and counts as not given."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.complaints: list[Complaint] = []

    def text(self, name: str) -> str:
        return self._annotations.get(PREFIX + name, "").strip()

    def complain(self, name: str, why: str) -> None:
        self.complaints.append(Complaint(PREFIX + name, why))

    def complain_of_request(self, resource: str, why: str) -> None:
        self.complaints.append(Complaint(f"requests.{resource}", why))

    def number(self, name: str, read: Callable[[str], float]) -> float:
        """A value that is not below zero; NaN when it is not given."""
        given = self.text(name)
        if not given:
            return math.nan
        try:
            value = read(given)
        except ValueError as error:
            self.complain(name, str(error))
            return math.nan
        if value < 0:
            self.complain(name, f"{given!r} is below zero")
            return math.nan
        return value

    def whole(self, name: str, default: int = 1) -> int:
        """A count of at least 1; `default` when it is not given."""
        given = self.text(name)
        if not given:
            return default
        if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) < 10**6 or len(given) > 9:
            self.complain(name, f"{given!r} is not a whole number from 1 to 999999")
            return default
        return int(given)

    def nodes(self, name: str) -> tuple[str, ...]:
        """Node names, comma separated, each once, in their order."""
        named = tuple(dict.fromkeys(part.strip() for part in self.text(name).split(",") if part.strip()))
        if len(named) > MAX_DATA_NODES:
            self.complain(name, f"{len(named)} nodes are named; the first {MAX_DATA_NODES} count")
        return named[:MAX_DATA_NODES]


def _framework(meta: Meta, hints: Hints) -> str:
    given = hints.text("framework").lower()
    if given and given not in FRAMEWORKS:
        hints.complain("framework", f"{given!r} is none of {', '.join(FRAMEWORKS)}")
    if given in FRAMEWORKS:
        return given
    if any(owner.kind == "MPIJob" for owner in meta.ownerReferences or ()):
        return "mpi"
    labels = meta.labels or {}
    return next((framework for key, framework in _FRAMEWORK_LABELS.items() if key in labels), FRAMEWORKS[0])


def _image_of(containers: list[Container] | None) -> str:
    return (containers[0].image or "") if containers else ""
