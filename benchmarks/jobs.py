"""The recurring jobs that the benchmarks submit, and pods of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "default"
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
CPU, MEMORY = "1", "1Gi"
IMAGE = "fairlane.local/job:1"
HINTS: tuple[tuple[str, str, str, float], ...] = (
    ("etl-copy", "batch", "ana", 1.5e9),
    ("etl-join", "spark", "ana", 0.8e9),
    ("sessions", "spark", "ben", 0.6e9),
    ("features", "spark", "ben", 1.0e9),
    ("train-small", "torch", "cho", 0.1e9),
    ("train-large", "torch", "cho", 2.0e9),
    ("report", "batch", "dia", 0.2e9),
    ("backfill", "batch", "dia", 3.0e9),
)
"""Class, framework, user and input in bytes of each kind of job."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One recurring job: pods of one kind share a score table."""

    job_class: str
    framework: str
    user: str
    input_bytes: float
    data_node: str

    @property
    def annotations(self) -> dict[str, str]:
        """What its user tells about it."""
        return {
            "fairlane.dev/job-class": self.job_class,
            "fairlane.dev/framework": self.framework,
            "fairlane.dev/user": self.user,
            "fairlane.dev/input-bytes": str(int(self.input_bytes)),
            "fairlane.dev/data-nodes": self.data_node,
        }


def kinds(data_nodes: Sequence[str]) -> list[Kind]:
    """Every class with its input on every data node in turn."""
    return [Kind(*hints, data_node=node) for node in data_nodes for hints in HINTS]


def pods(
    count: int, prefix: str, scheduler: str, of: Sequence[Kind], gate: str = ""
) -> dict[str, Mapping[str, Any]]:
    """`count` manifests by name, the kinds in turn; with a gate they wait behind it."""
    names = [f"{prefix}-{number:05d}" for number in range(count)]
    return {name: manifest(of[number % len(of)], name, scheduler, gate) for number, name in enumerate(names)}


def manifest(kind: Kind, name: str, scheduler: str, gate: str = "") -> Mapping[str, Any]:
    """The pod that a user would submit."""
    requests = {"cpu": CPU, "memory": MEMORY}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": kind.annotations},
        "spec": {
            "schedulerName": scheduler,
            "schedulingGates": [{"name": gate}] if gate else [],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "job", "image": IMAGE, "resources": {"requests": requests}}],
        },
    }
