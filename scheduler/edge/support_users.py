"""The names of users, from everywhere they are written down, so that none is overlooked when they are hashed.

The queue tells them all while it answers. Where it does not, which is when
bundles are made, they are read from where the queue would read them again:
stamps of pods, FairQueue objects, and the checkpoint for those who have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scheduler.config import Settings
from scheduler.core.admission.rules import BEHALF, STAMP
from scheduler.edge.checkpoints import CheckpointError, Checkpoints
from scheduler.edge.fair_queue import PATH
from scheduler.edge.kube import KubeClient, KubeError

REQUEST_S = 20.0


@dataclass
class Users:
    """Names, and sentences about sources that could not be read; `from_queue`: the queue itself told them."""

    names: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)
    from_queue: bool = False

    @property
    def known(self) -> bool:
        """Whether there is reason to believe that these are the users, or that there are none."""
        return self.from_queue or bool(self.names)


class _Meta(msgspec.Struct, frozen=True):
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


def add_queue(users: Users, text: str | None) -> None:
    """Take what `fairlane queue -o json` told; None: it did not."""
    try:
        told = json.loads(text or "")
        users.names |= {one["user"] for part in ("flows", "gangs") for one in told[part]}
        users.from_queue = True
    except (ValueError, KeyError, TypeError):
        users.unread.append("users: the queue does not tell them")


async def add_written(users: Users, kube: KubeClient, settings: Settings, namespace: str) -> None:
    """Take the names that FairQueue objects, pods and the checkpoint have."""
    users.names |= set(settings.controller.weights)
    by_namespace = False
    try:
        for queue in await kube.list_all(PATH, dict[str, Any]):
            users.names |= _of_queue(queue)
            by_namespace |= queue.get("spec", {}).get("flowKey") == "Namespace"
    except KubeError as error:
        users.unread.append(f"users: FairQueue objects: {error}")
    try:
        users.names |= _of_pods(await kube.list_all("/api/v1/pods", _Pod), by_namespace)
    except KubeError as error:
        users.unread.append(f"users: stamps of pods: {error}")
    try:
        users.names |= await _of_checkpoint(kube, settings, namespace)
    except (KubeError, CheckpointError, LookupError, TypeError) as error:
        users.unread.append(f"users: the controller's checkpoint: {error}")


def _of_queue(queue: Mapping[str, Any]) -> set[str]:
    told = [*_listed(queue.get("spec"), "weights"), *_listed(queue.get("status"), "flows")]
    return {one["user"] for one in told if isinstance(one, dict) and isinstance(one.get("user"), str)}


def _listed(section: Any, name: str) -> list[Any]:
    found = section.get(name) if isinstance(section, dict) else None
    return found if isinstance(found, list) else []


def _of_pods(pods: Iterable[_Pod], by_namespace: bool) -> set[str]:
    names: set[str] = set()
    for pod in pods:
        given = pod.metadata.annotations or {}
        names |= {given[key] for key in (STAMP, BEHALF) if given.get(key)}
        if by_namespace and STAMP in given:
            names.add(pod.metadata.namespace)
    return names


async def _of_checkpoint(kube: KubeClient, settings: Settings, namespace: str) -> set[str]:
    own = settings.controller
    kept = Checkpoints(kube, own.namespace or namespace, own.name, "", lambda: False, REQUEST_S)
    core = ((await kept.read()) or {}).get("core", {})
    return {path[-1] for part in ("received", "weights") for path, _ in core.get(part, ()) if path}
