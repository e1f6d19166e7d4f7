"""Where in a cluster Fairlane's own containers run: by labels, since names and places differ. Pure.

The extender is beside kube-scheduler, or with placement at release beside the
controller, or not there at all; releases may have any name and namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "fairlane-system"
"""Where a release is by default."""
OURS = "app.kubernetes.io/name=fairlane"
PROBES, OTHERS = (f"{OURS},app.kubernetes.io/component{which}probe" for which in ("=", "!="))
"""Each node has a probe; of the others there are few."""
EXTENDER, CONTROLLER = "extender", "controller"
LEASES = ("fairlane-scheduler", "fairlane-controller")
"""Of the replicas beside an extender the one that leads asks it; the other extender has nothing to tell."""
KNOW_ALL = (EXTENDER, CONTROLLER)
"""Containers that can ask every part; the extender is asked by nobody outside its own pod."""


@dataclass(frozen=True, slots=True)
class Place:
    """A container that runs."""

    namespace: str
    pod: str
    container: str

    def leads(self, leaders: Iterable[str]) -> bool:
        """Whether one of the holders of Leases is a process of this pod."""
        return any(holder.startswith((f"{self.pod}_", f"{self.pod}-")) for holder in leaders)


def place(
    pods: Iterable[Mapping[str, Any]], containers: Sequence[str], leaders: Sequence[str] = ()
) -> Place | None:
    """The first of `containers` that runs in a pod; one that is ready is preferred, then one that leads.

    `leaders`: holders of Leases, whose names begin with those of their pods.
    """
    running = list(_running(pods))
    for wanted in containers:
        fitting = sorted(
            (not ready, not at.leads(leaders), at.namespace, at.pod)
            for at, ready in running
            if at.container == wanted
        )
        if fitting:
            return Place(*fitting[0][2:], wanted)
    return None


def places(pods: Iterable[Mapping[str, Any]]) -> list[Place]:
    """Every container that runs."""
    return [at for at, _ready in _running(pods)]


def _running(pods: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Place, bool]]:
    for pod in pods:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            continue
        for told in pod.get("status", {}).get("containerStatuses") or ():
            if "running" in (told.get("state") or {}):
                at = Place(meta.get("namespace", ""), meta["name"], told["name"])
                yield at, told.get("ready") is True


def not_found(containers: Sequence[str], namespace: str) -> str:
    """The sentence about it."""
    where = f"in namespace {namespace}" if namespace else "in any namespace"
    wanted = " or ".join(containers)
    return (
        f"no pod of Fairlane with a container {wanted} runs {where}; what there is, "
        f"`kubectl get pods --all-namespaces --selector {OURS}` tells"
    )
