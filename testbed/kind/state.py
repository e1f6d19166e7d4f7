"""What runs in a kind cluster and what does not: `fairlane testbed status --kind`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.kind.cluster import KindCluster


@dataclass(frozen=True, slots=True)
class Part:
    """A node, or a set of pods, with how many of its `wanted` pods are ready; a node wants one of itself."""

    name: str
    ready: int
    wanted: int

    @property
    def complete(self) -> bool:
        """True when nothing of it is missing."""
        return self.ready >= self.wanted


def parts(cluster: KindCluster) -> list[Part]:
    """Every node, deployment and daemon set; empty where no cluster is up."""
    if not cluster.is_up:
        return []
    listed = cluster.kubectl("get", "nodes,deployments,daemonsets", "-A", "-o", "json", timeout_s=30)
    return [part_of(item) for item in json.loads(listed)["items"]]


def part_of(item: Mapping[str, Any]) -> Part:
    """A part from what the API server tells of a node, a deployment or a daemon set."""
    status, meta = item["status"], item["metadata"]
    if item["kind"] == "Node":
        conditions = {one["type"]: one["status"] for one in status["conditions"]}
        return Part(f"node {meta['name']}", int(conditions.get("Ready") == "True"), 1)
    name = f"{meta['namespace']}/{meta['name']}"
    if item["kind"] == "DaemonSet":
        return Part(name, status["numberReady"], status["desiredNumberScheduled"])
    return Part(name, status.get("readyReplicas", 0), item["spec"]["replicas"])
