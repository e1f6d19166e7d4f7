"""Kinds of objects that make pods, and where their pod templates lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Fields = Mapping[str, Any]


class Step(NamedTuple):
    """Where a place begins to repeat: the fields before the list or map, and those inside each item."""

    before: tuple[str, ...]
    inside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Templates at `path`, e.g. `spec.template`; at most one `[]` (a list) or `{}` (a map) repeats it.

    `flat`: annotations, labels and scheduler name lie in the template itself
    and not in `metadata` and `spec`, as in SparkApplication's `spec.driver`.
    """

    path: str
    flat: bool = False

    @property
    def repeats(self) -> bool:
        """Whether there may be several templates."""
        return "[]" in self.path or "{}" in self.path

    @property
    def step(self) -> Step:
        """The path in two parts; the second is empty where nothing repeats."""
        before, _, inside = self.path.replace("{}", "[]").partition("[]")
        return Step(tuple(before.split(".")), tuple(part for part in inside.split(".") if part))


@dataclass(frozen=True, slots=True)
class Barred:
    """Keys of the map at `path` by which a controller would be made to stamp pods past admission."""

    path: str
    keys: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Why one of the keys is refused."""
        return (
            f"{self.path} must not have {' or '.join(self.keys)}: pods would get annotations that nobody "
            "checked; use the pod template of the object"
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that makes pods, and the service accounts of its controllers."""

    resource: str
    group: str
    versions: tuple[str, ...]
    places: tuple[Place, ...]
    controllers: tuple[str, ...] = ()
    barred: Barred | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Group and resource, as a request names them."""
        return self.group, self.resource


def _system(*names: str) -> tuple[str, ...]:
    return tuple(f"system:serviceaccount:kube-system:{name}" for name in names)


_TEMPLATE = (Place("spec.template"),)
BUILT_IN = (
    Kind("jobs", "batch", ("v1",), _TEMPLATE, _system("job-controller")),
    Kind("deployments", "apps", ("v1",), _TEMPLATE, _system("deployment-controller")),
    Kind("replicasets", "apps", ("v1",), _TEMPLATE, _system("replicaset-controller")),
    Kind("statefulsets", "apps", ("v1",), _TEMPLATE, _system("statefulset-controller")),
    Kind("daemonsets", "apps", ("v1",), _TEMPLATE, _system("daemon-set-controller")),
    Kind("replicationcontrollers", "", ("v1",), _TEMPLATE, _system("replication-controller")),
    Kind(
        "cronjobs",
        "batch",
        ("v1",),
        (Place("spec.jobTemplate.spec.template"),),
        _system("cronjob-controller"),
    ),
    # StatefulSets and DaemonSets make pods from these copies of their templates
    Kind("controllerrevisions", "apps", ("v1",), (Place("data.spec.template"),)),
)
"""Kinds of every cluster."""

_ANY = ("*",)
"""A version that we left out would let a forged stamp through: their controllers are trusted."""
_SPARK_KEYS = (
    "spark.kubernetes.driver.annotation.fairlane.dev/user",
    "spark.kubernetes.driver.podTemplateFile",
)
_RAY = ("headGroupSpec.template", "workerGroupSpecs[].template")
_KUBERAY = ("system:serviceaccount:ray-system:kuberay-operator",)
_KUBEFLOW = ("system:serviceaccount:kubeflow:training-operator",)
KNOWN = {
    "jobsets": Kind(
        "jobsets",
        "jobset.x-k8s.io",
        _ANY,
        (Place("spec.replicatedJobs[].template.spec.template"),),
        ("system:serviceaccount:jobset-system:jobset-controller-manager",),
    ),
    # only the driver: executors are made by the driver's own service account
    "sparkapplications": Kind(
        "sparkapplications",
        "sparkoperator.k8s.io",
        _ANY,
        (Place("spec.driver", flat=True), Place("spec.driver.template")),
        ("system:serviceaccount:spark-operator:spark-operator-controller",),
        Barred("spec.sparkConf", _SPARK_KEYS),
    ),
    "scheduledsparkapplications": Kind(
        "scheduledsparkapplications",
        "sparkoperator.k8s.io",
        _ANY,
        (Place("spec.template.driver", flat=True), Place("spec.template.driver.template")),
        ("system:serviceaccount:spark-operator:spark-operator-controller",),
        Barred("spec.template.sparkConf", _SPARK_KEYS),
    ),
    "pytorchjobs": Kind(
        "pytorchjobs",
        "kubeflow.org",
        _ANY,
        (Place("spec.pytorchReplicaSpecs{}.template"),),
        _KUBEFLOW,
    ),
    "tfjobs": Kind("tfjobs", "kubeflow.org", _ANY, (Place("spec.tfReplicaSpecs{}.template"),), _KUBEFLOW),
    "mpijobs": Kind(
        "mpijobs",
        "kubeflow.org",
        _ANY,
        (Place("spec.mpiReplicaSpecs{}.template"),),
        (*_KUBEFLOW, "system:serviceaccount:mpi-operator:mpi-operator"),
    ),
    "rayclusters": Kind(
        "rayclusters", "ray.io", _ANY, tuple(Place(f"spec.{path}") for path in _RAY), _KUBERAY
    ),
    "rayjobs": Kind(
        "rayjobs",
        "ray.io",
        _ANY,
        (*(Place(f"spec.rayClusterSpec.{path}") for path in _RAY), Place("spec.submitterPodTemplate")),
        _KUBERAY,
    ),
    "rayservices": Kind(
        "rayservices",
        "ray.io",
        _ANY,
        tuple(Place(f"spec.rayClusterConfig.{path}") for path in _RAY),
        _KUBERAY,
    ),
}
"""Kinds that a cluster may have; named in the settings, they are stamped and their controllers trusted."""


class Found(NamedTuple):
    """A template of an object, and where it is as the parts of a JSON pointer."""

    at: tuple[str, ...]
    template: Fields
    flat: bool


def templates_of(whole: Fields, places: tuple[Place, ...]) -> Iterator[Found]:
    """Every pod template in an object."""
    for place in places:
        before, inside = place.step
        start = _dig(whole, before)
        if not place.repeats:
            yield from _found(before, start, place)
            continue
        for key, item in _items(start):
            yield from _found((*before, key, *inside), _dig(item, inside), place)


def barred_keys(now: Fields, before: Fields | None, barred: Barred) -> bool:
    """Whether the object has barred keys that were not there before."""
    path = tuple(barred.path.split("."))
    given, known = _dig(now, path), _dig(before or {}, path)
    if not isinstance(given, Mapping):
        return False
    was = known if isinstance(known, Mapping) else {}
    return any(key in given and given[key] != was.get(key) for key in barred.keys)


def _found(at: tuple[str, ...], template: Any, place: Place) -> Iterator[Found]:
    if isinstance(template, Mapping):
        yield Found(at, template, place.flat)


def _items(collection: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(collection, Mapping):
        yield from collection.items()
    elif isinstance(collection, list):
        yield from ((str(index), item) for index, item in enumerate(collection))


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
