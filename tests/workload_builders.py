"""Pods and what makes them, as the API server sends them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from scheduler.core.wire import Pod, Workload

T0 = 1_700_000_000.0
_numbers = itertools.count(1)


def at(seconds: float) -> str:
    """A moment of the test as Kubernetes writes it."""
    return datetime.fromtimestamp(T0 + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_pod(
    name: str,
    *,
    user: str = "ann",
    gated: bool = True,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    owner: tuple[str, str, str] | None = None,
    requests: dict[str, str] | None = None,
    created: float = 0.0,
    namespace: str = "team",
    node: str = "",
    bound: float | None = None,
    phase: str = "Pending",
    ended: float | None = None,
    deleted: bool = False,
    version: int | None = None,
    uid: str | None = None,
    reason: str | None = None,
    conditions: Sequence[dict[str, str]] = (),
    **spec: Any,
) -> Pod:
    """A pod of ours; `owner` is (kind, name, uid), times are in seconds, annotations need no prefix."""
    stamped = {"fairlane.dev/user": user} if user else {}
    given = {
        key if "/" in key else f"fairlane.dev/{key}": value for key, value in (annotations or {}).items()
    }
    bindings = [] if bound is None else [("PodScheduled", at(bound))]
    scheduled = [{"type": kind, "status": "True", "lastTransitionTime": when} for kind, when in bindings]
    statuses = [] if ended is None else [{"name": "c", "state": {"terminated": {"finishedAt": at(ended)}}}]
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}" if uid is None else uid,
                "resourceVersion": str(next(_numbers) if version is None else version),
                "annotations": stamped | given,
                "labels": labels or {},
                "ownerReferences": [{"kind": owner[0], "name": owner[1], "uid": owner[2], "controller": True}]
                if owner
                else [],
                "creationTimestamp": at(created),
                "deletionTimestamp": at(created) if deleted else None,
            },
            "spec": {
                "schedulerName": "fairlane",
                "schedulingGates": [{"name": "fairlane.dev/queue"}] if gated else [],
                "containers": [
                    {"name": "c", "image": "img", "resources": {"requests": requests or {"cpu": "1"}}}
                ],
                "nodeName": node or None,
                **spec,
            },
            "status": {
                "phase": phase,
                "reason": reason,
                "conditions": [*scheduled, *conditions],
                "containerStatuses": statuses,
            },
        },
        Pod,
    )


_API = {
    "Job": "batch/v1",
    "JobSet": "jobset.x-k8s.io/v1alpha2",
    "RayCluster": "ray.io/v1",
    "ConfigMap": "v1",
    "SparkApplication": "sparkoperator.k8s.io/v1beta2",
    "PyTorchJob": "kubeflow.org/v1",
    "MPIJob": "kubeflow.org/v2beta1",
}


def a_workload(kind: str, name: str, spec: dict[str, Any] | None = None, **more: Any) -> Workload:
    """An object that makes pods or knows their number."""
    more = {"apiVersion": _API.get(kind, ""), **more}
    meta = {"name": name, "namespace": "team", "uid": f"uid-{name}"}
    return msgspec.convert({"kind": kind, "spec": spec, **{"metadata": meta, **more}}, Workload)
