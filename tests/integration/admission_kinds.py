"""Objects of every kind that makes pods, with templates that opt in."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
STAMP = "fairlane.dev/user"
LABELS = {"app": "x"}


def template(opted: bool = True) -> Object:
    """A pod template; `opted` names our scheduler."""
    spec: Object = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
    if opted:
        spec["schedulerName"] = "fairlane"
    return {"metadata": {"labels": dict(LABELS)}, "spec": spec}


@dataclass(frozen=True)
class Made:
    """One kind: its URL, its specification around a template, and its templates again."""

    group: str
    plural: str
    kind: str
    around: Callable[[Object], Object]
    found: Callable[[Object], list[Object]]
    flat: bool = False

    def path(self, namespace: str) -> str:
        """URL of the collection."""
        start = f"/apis/{self.group}" if "/" in self.group else f"/api/{self.group}"
        return f"{start}/namespaces/{namespace}/{self.plural}"

    def make(self, opted: bool = True) -> Object:
        """A new object."""
        inner = template(opted)
        if self.kind not in ("Job", "CronJob"):
            inner["spec"]["restartPolicy"] = "Always"
        if self.flat:
            inner = {"labels": dict(LABELS), "image": "none"} | (
                {"schedulerName": "fairlane"} if opted else {}
            )
        name = f"{self.kind.lower()}-{uuid.uuid4().hex[:8]}"
        return {
            "apiVersion": self.group,
            "kind": self.kind,
            "metadata": {"name": name},
            **self.around(inner),
        }

    def templates(self, whole: Object) -> list[Object]:
        """Its templates, to read or to change."""
        return self.found(whole)

    def annotations(self, one: Object) -> dict[str, str]:
        """Annotations of a template, to read or to change."""
        where = one if self.flat else one.setdefault("metadata", {})
        found: dict[str, str] = where.setdefault("annotations", {})
        return found

    def stamps(self, whole: Object) -> list[str | None]:
        """The stamp of every template."""
        return [self.annotations(one).get(STAMP) for one in self.templates(copy.deepcopy(whole))]

    def change(self, whole: Object) -> Object:
        """The object with all its templates changed."""
        changed = copy.deepcopy(whole)
        for one in self.templates(changed):
            where = one if self.flat else one["metadata"]
            where.setdefault("labels", {})["changed"] = uuid.uuid4().hex[:6]
        return changed

    def give(self, whole: Object, **annotations: str) -> Object:
        """The object with annotations (their prefix left out, `_` for `-`) in its last template."""
        changed = copy.deepcopy(whole)
        last = self.templates(changed)[-1]
        self.annotations(last).update(
            {f"fairlane.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        )
        return changed


def _selected(inner: Object) -> Object:
    return {"spec": {"selector": {"matchLabels": dict(LABELS)}, "template": inner, "replicas": 0}}


def _daemons(inner: Object) -> Object:
    nowhere = {"fairlane.dev/none": "true"}
    inner["spec"]["nodeSelector"] = nowhere
    return {"spec": {"selector": {"matchLabels": dict(LABELS)}, "template": inner}}


def _plain(whole: Object) -> list[Object]:
    return [whole["spec"]["template"]]


def _kinds() -> Iterator[Made]:
    yield Made("batch/v1", "jobs", "Job", lambda t: {"spec": {"template": t, "suspend": True}}, _plain)
    yield Made(
        "batch/v1",
        "cronjobs",
        "CronJob",
        lambda t: {"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": t}}}},
        lambda whole: [whole["spec"]["jobTemplate"]["spec"]["template"]],
    )
    yield Made("apps/v1", "deployments", "Deployment", _selected, _plain)
    yield Made("apps/v1", "replicasets", "ReplicaSet", _selected, _plain)
    yield Made("apps/v1", "statefulsets", "StatefulSet", _selected, _plain)
    yield Made("apps/v1", "daemonsets", "DaemonSet", _daemons, _plain)
    yield Made(
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        lambda t: {"spec": {"selector": dict(LABELS), "template": t, "replicas": 0}},
        _plain,
    )
    yield Made(
        "apps/v1",
        "controllerrevisions",
        "ControllerRevision",
        lambda t: {"revision": 1, "data": {"spec": {"template": t}}},
        lambda whole: [whole["data"]["spec"]["template"]],
    )
    yield Made(
        "jobset.x-k8s.io/v1alpha2",
        "jobsets",
        "JobSet",
        lambda t: {
            "spec": {
                "replicatedJobs": [
                    {"name": name, "template": {"spec": {"template": copy.deepcopy(t)}}} for name in "ab"
                ]
            }
        },
        lambda whole: [one["template"]["spec"]["template"] for one in whole["spec"]["replicatedJobs"]],
    )
    yield Made(
        "kubeflow.org/v1",
        "pytorchjobs",
        "PyTorchJob",
        lambda t: {
            "spec": {
                "pytorchReplicaSpecs": {role: {"template": copy.deepcopy(t)} for role in ("Master", "a/b")}
            }
        },
        lambda whole: [one["template"] for one in whole["spec"]["pytorchReplicaSpecs"].values()],
    )
    yield Made(
        "sparkoperator.k8s.io/v1beta2",
        "sparkapplications",
        "SparkApplication",
        lambda t: {"spec": {"driver": t}},
        lambda whole: [whole["spec"]["driver"]],
        flat=True,
    )


KINDS = {made.kind: made for made in _kinds()}
