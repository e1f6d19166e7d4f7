"""The names of users, from everywhere they are written down, so that none is overlooked when they are hashed.

The queue tells them all while it answers. Where it does not, which is when
bundles are made, they are read from where the queue would read them again:
FairQueue objects, stamps of pods, and the checkpoint for those who have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scheduler.config import ControllerSettings
from scheduler.core.admission.rules import BEHALF, STAMP
from scheduler.edge.checkpoints import CheckpointError, Checkpoints
from scheduler.edge.controller_state import ControllerState
from scheduler.edge.fair_queue import PATH
from scheduler.edge.kube import KubeClient, KubeError

QUEUE, OBJECTS, PODS, CHECKPOINT = "the queue", "FairQueue objects", "stamps of pods", "the checkpoint"
REQUEST_S = 20.0


@dataclass
class Users:
    """Names; `unread`: who could not be asked for them, and why."""

    names: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys((QUEUE, OBJECTS, PODS, CHECKPOINT), "it could not be asked")
    )

    @property
    def known(self) -> bool:
        """Whether these are all: the queue told them, or everything did from which it would know them."""
        return QUEUE not in self.unread or len(self.unread) == 1

    def add(self, source: str, names: Iterable[str]) -> None:
        """Take what a source told."""
        self.names |= set(names) - {""}
        self.unread.pop(source, None)


class _Meta(msgspec.Struct, frozen=True):
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


def add_queue(users: Users, text: str | None) -> None:
    """Take what `fairlane queue -o json` told; None: nothing."""
    try:
        told = json.loads(text or "")
        users.add(QUEUE, _users_in([told["flows"], told["gangs"]]))
    except (ValueError, KeyError, TypeError):
        users.unread[QUEUE] = "it does not tell them"


async def add_written(users: Users, kube: KubeClient, own: ControllerSettings, namespace: str) -> None:
    """Take the names that FairQueue objects, pods and the checkpoint have."""
    by_namespace = False
    try:
        queues = await kube.list_all(PATH, dict[str, Any])
        by_namespace = any((one.get("spec") or {}).get("flowKey") == "Namespace" for one in queues)
        users.add(OBJECTS, _users_in(queues))
    except KubeError as error:
        if error.status == 404:  # without the CRD there are none
            users.add(OBJECTS, ())
        else:
            users.unread[OBJECTS] = str(error)
    try:
        users.add(PODS, _of_pods(await kube.list_all("/api/v1/pods", _Pod), by_namespace))
    except KubeError as error:
        users.unread[PODS] = str(error)
    try:
        users.add(CHECKPOINT, await _of_checkpoint(kube, own, namespace))
    except (KubeError, CheckpointError, LookupError, TypeError, ValueError) as error:
        users.unread[CHECKPOINT] = str(error)


def _users_in(found: Any) -> Iterator[str]:
    """What is called `user` in plain values, wherever it is in them."""
    if isinstance(found, list):
        for one in found:
            yield from _users_in(one)
    elif isinstance(found, Mapping):
        if isinstance(user := found.get("user"), str):
            yield user
        for value in found.values():
            yield from _users_in(value)


def _of_pods(pods: Iterable[_Pod], by_namespace: bool) -> Iterator[str]:
    for pod in pods:
        given = pod.metadata.annotations or {}
        yield from (given[key] for key in (STAMP, BEHALF) if key in given)
        if by_namespace and STAMP in given:
            yield pod.metadata.namespace


async def _of_checkpoint(kube: KubeClient, own: ControllerSettings, namespace: str) -> set[str]:
    where = own.namespace or namespace
    state = await Checkpoints(kube, where, own.name, "", lambda: False, REQUEST_S).read()
    if state is None:
        raise LookupError(f"there is no ConfigMap {where}/{own.name}")
    by_hand = ControllerState.of(state).weights  # refuses a state that is not read as it was meant
    flows = {path[-1] for part in ("received", "weights") for path, _ in state["core"][part] if path}
    rows = state["usage"]["rows"] if "usage" in state else ()
    return flows | {user for _begin, _length, user, *_ in rows} | set(by_hand)
