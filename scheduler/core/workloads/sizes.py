"""How many pods start together, by the object that made them; and the shapes of those that come later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.core.queue.events import Shape
from scheduler.core.requests import Complain
from scheduler.core.wire import Workload
from scheduler.core.workloads.membership import TRAINING, ObjectRef
from scheduler.core.workloads.shapes import Shapes
from scheduler.core.workloads.spark import Executors, application_conf, executors_of, read_properties

MOST = 10_000
"""Pods that can start together. A larger gang is told so and waits for ever, at no cost to the queue."""


@dataclass(frozen=True, slots=True)
class Size:
    """`pods` start together; 1: each by itself. `why`: who says so.

    `promised` are shapes of pods, among them, that come only when the others
    run. `executors` are a Spark driver's. `owner`: uid of the object that says so.
    """

    pods: int
    why: str
    promised: tuple[Shape, ...] = ()
    executors: Executors | None = None
    owner: str = ""


def ref_of(workload: Workload, group: str = "") -> ObjectRef:
    """By what name the object is asked for, whatever version of its API it came in."""
    group = group or workload.apiVersion.rpartition("/")[0]
    return ObjectRef(group, workload.kind, workload.metadata.namespace, workload.metadata.name)


def size_of(ref: ObjectRef, workload: Workload, shapes: Shapes, complain: Complain) -> Size:
    """The size that an object gives the gang of its pods; each pod by itself where it gives none."""
    read = _READERS.get(ref.kind, _training if ref.kind in TRAINING else _unknown)
    size = read(_Source(ref, workload.spec or {}, workload.data or {}, shapes, complain))
    if size.pods < 1:
        size = Size(1, f"{ref} gives no size")
    elif size.pods > MOST:
        complain("size", f"{ref} asks for {size.pods} pods at once; at most {MOST} can start together")
        size = replace(size, promised=())
    return replace(size, owner=workload.metadata.uid)


@dataclass(frozen=True, slots=True)
class _Source:
    ref: ObjectRef
    spec: Mapping[str, Any]
    data: Mapping[str, str]
    shapes: Shapes
    complain: Complain

    def shape(self, template: object) -> Shape | None:
        return self.shapes.of_template(_at(template, "spec") or {}, self.complain)


def _job(source: _Source) -> Size:
    """Numbered pods that all run at once may need each other; those that come in waves cannot."""
    parallelism, completions = _waves(source.spec)
    if completions > parallelism and _at(source.spec, "completionMode") == "Indexed":
        return Size(1, f"{source.ref} runs {completions} pods, {parallelism} at a time")
    return Size(min(parallelism, completions), f"{source.ref} has parallelism {parallelism}")


def _waves(spec: object) -> tuple[int, int]:
    """Parallelism and completions of a Job's specification."""
    parallelism = _count(_at(spec, "parallelism"), 1)
    return parallelism, _count(_at(spec, "completions"), parallelism)


def _jobset(source: _Source) -> Size:
    """All pods of all its Jobs; those of Jobs that are started after others are promised."""
    pods, later = 0, []
    in_order = _at(source.spec, "startupPolicy", "startupPolicyOrder") == "InOrder"
    for index, one in enumerate(_list(_at(source.spec, "replicatedJobs"))):
        job = _at(one, "template", "spec")
        count = _count(_at(one, "replicas"), 1) * min(_waves(job))
        pods += count
        if pods <= MOST and ((in_order and index) or _at(one, "dependsOn")):
            later += _promise(source, _at(job, "template"), count)
    return Size(pods, f"{source.ref} has {pods} pods in all its Jobs", tuple(later[:MOST]))


def _training(source: _Source) -> Size:
    """All replicas, or the fewest that its scheduling policy or elastic policy is content with."""
    given = next((value for key, value in source.spec.items() if key.endswith("ReplicaSpecs")), None)
    roles: dict[str, Any] = given if isinstance(given, dict) else {}
    counts = {role: _count(_at(one, "replicas"), 1) for role, one in roles.items()}
    least = _at(source.spec, "runPolicy", "schedulingPolicy", "minAvailable")
    pods = _count(least, sum(counts.values()))
    elastic = _count(_at(source.spec, "elasticPolicy", "minReplicas"), 0)
    if least is None and elastic and "Worker" in counts:
        pods += min(elastic, counts["Worker"]) - counts["Worker"]
    later: list[Shape] = []
    if _at(source.spec, "launcherCreationPolicy") == "WaitForWorkersReady" and "Launcher" in roles:
        later = _promise(source, _at(roles["Launcher"], "template"), counts["Launcher"])
    return Size(pods, f"{source.ref} starts with {pods} replicas", tuple(later))


def _ray(source: _Source) -> Size:
    """The head and its workers; with an autoscaler, the fewest workers."""
    key = "minReplicas" if _at(source.spec, "enableInTreeAutoscaling") is True else "replicas"
    groups = _list(_at(source.spec, "workerGroupSpecs"))
    workers = sum(
        _count(_at(one, key), 0 if key == "minReplicas" else 1) * _count(_at(one, "numOfHosts"), 1)
        for one in groups
        if _at(one, "suspend") is not True
    )
    return Size(1 + workers, f"{source.ref} starts with a head and {workers} workers")


def _pod_group(source: _Source) -> Size:
    least = _at(source.spec, "schedulingPolicy", "gang", "minCount") or _at(source.spec, "minMember")
    pods = _count(least, 1)
    return Size(pods, f"{source.ref} needs {pods} pods at once")


def _config_map(source: _Source) -> Size:
    conf = read_properties(source.data.get("spark.properties", ""))
    if not conf:
        source.complain("spark.properties", f"{source.ref} has none, so the number of executors is unknown")
        return Size(1, f"{source.ref} names no executors")
    return _spark(source, conf)


def _spark_application(source: _Source) -> Size:
    executor = _at(source.spec, "executor")
    where = {
        key: _at(executor, key) or _at(executor, "template", "spec", key)
        for key in ("nodeSelector", "affinity", "tolerations")
    }
    return _spark(source, application_conf(source.spec), source.shape({"spec": where}))


def _spark(source: _Source, conf: Mapping[str, str], where: Shape | None = None) -> Size:
    """`where`: on which nodes executors may run, as far as the configuration cannot say it."""
    executors = executors_of(conf, source.complain)
    shape = executors.shape
    if where is not None:
        selector = tuple(sorted((dict(shape.selector) | dict(where.selector)).items()))
        shape = Shape(shape.requests, selector, where.affinity, where.tolerations)
    executors = Executors(executors.count, source.shapes.same(shape))
    why = f"{source.ref} asks for {executors.count} executors"
    return Size(1 + executors.count, why, (executors.shape,) * min(executors.count, MOST), executors)


def _unknown(source: _Source) -> Size:
    return Size(1, f"{source.ref} is of a kind that is not known to start pods together")


_READERS: dict[str, Callable[[_Source], Size]] = {
    "Job": _job,
    "JobSet": _jobset,
    "RayCluster": _ray,
    "PodGroup": _pod_group,
    "ConfigMap": _config_map,
    "SparkApplication": _spark_application,
}


def _promise(source: _Source, template: object, count: int) -> list[Shape]:
    shape = source.shape(template)
    return [] if shape is None or count > MOST else [shape] * count


def _at(value: object, *path: str) -> Any:
    """What lies there; None where nothing does, or something of another form is in the way."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _list(value: object) -> Iterator[object]:
    yield from value if isinstance(value, list) else ()


def _count(value: object, default: int) -> int:
    """A whole number that is not below zero; `default` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
