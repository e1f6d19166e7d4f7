"""A trial of the whole way: a small gang is submitted, and every part of Fairlane must do its share of it.

Admission gates and stamps the pods, the gang waits while it is not complete,
the controller releases it with a receipt, kube-scheduler binds the pods, and
the recorder knows where they are. What they would run does not matter, so
nothing is waited for that depends on images or kubelets.

Where the queue is not installed, pods must not be gated, because nobody would
open their gates. Where our scheduler is not, they join the queue by annotation
and are placed by the cluster's default one.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from scheduler.core.admission.rules import QUEUE, STAMP
from scheduler.core.receipts import Receipt
from scheduler.core.turns import QUEUED
from scheduler.core.types import PREFIX, SCHEDULER_NAME
from scheduler.core.workloads.rules import GATE, RECEIPT
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.recorder_client import RecorderClient, RecorderError

HELD_S = 2.0
"""How long an incomplete gang is watched: it must not be released."""
POLL_S = 0.5
DECIDED_WITHIN_S = 20.0
"""Decisions wait in the extender while pods are placed (extender.hold_s), and are sent some seconds later."""
ADMISSION = "kubectl get mutatingadmissionpolicies,mutatingwebhookconfigurations"

Found = TypeVar("Found")
Tell = Callable[[str], None]


class TrialFailed(Exception):
    """A part did not do its share; the message says which, and where to look."""


class Part(StrEnum):
    """What an installation may be without."""

    QUEUE = "queue"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is submitted, and how long each step may take; `queue` is named where no scheduler of ours is.

    `spec` is more of the pods' specification, such as tolerations.
    """

    namespace: str
    size: int
    image: str
    within_s: float
    without: frozenset[Part] = frozenset()
    queue: str = "default"
    spec: Mapping[str, Any] = field(default_factory=dict)


class _Meta(msgspec.Struct, frozen=True):
    name: str
    annotations: dict[str, str] = {}


class _Gate(msgspec.Struct, frozen=True):
    name: str


class _Spec(msgspec.Struct, frozen=True):
    nodeName: str = ""
    schedulerName: str = ""
    schedulingGates: tuple[_Gate, ...] = ()


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str = ""
    message: str = ""


class _Status(msgspec.Struct, frozen=True):
    conditions: tuple[_Condition, ...] = ()


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def gated(self) -> bool:
        return any(gate.name == GATE for gate in self.spec.schedulingGates)

    def told(self, condition: str) -> str:
        """What a condition of the pod says; empty when it has none of that type."""
        return next((one.message for one in self.status.conditions if one.type == condition), "")


async def try_gang(kube: KubeClient, recorder: RecorderClient | None, plan: Plan, tell: Tell) -> None:
    """Submit the gang of `plan`, tell each step that went well, and remove the gang again.

    Raises:
        TrialFailed: with the part that did not do its share.
    """
    gang = f"fairlane-trial-{uuid.uuid4().hex[:6]}"
    async with _removed_at_last(kube, plan.namespace, [f"{gang}-{n}" for n in range(plan.size)]) as names:
        begun_s = time.monotonic()
        if Part.QUEUE in plan.without:
            await _is_let_past(kube, plan, gang, names, tell)
        else:
            await _is_queued(kube, plan, gang, names, tell)
        nodes = await _is_bound(kube, plan, names)
        whose = "the default scheduler" if Part.SCHEDULER in plan.without else "kube-scheduler"
        tell(f"{whose} placed them on {', '.join(sorted(set(nodes.values())))}")
        if recorder is not None:
            await _is_recorded(recorder, plan, nodes, tell)
        tell(f"all of it took {time.monotonic() - begun_s:.1f} s")


async def _is_let_past(kube: KubeClient, plan: Plan, gang: str, names: list[str], tell: Tell) -> None:
    for name in names:
        if (await _submit(kube, plan, gang, name)).gated:
            raise TrialFailed(
                f"the pod {plan.namespace}/{name} got a gate, but the queue is not installed, so nobody "
                f"opens it: remove the admission ({ADMISSION})"
            )
    tell(f"{plan.size} pods were taken without a gate, as there is no queue")


async def _is_queued(kube: KubeClient, plan: Plan, gang: str, names: list[str], tell: Tell) -> None:
    for name in names[:-1]:
        _stamp(plan, await _submit(kube, plan, gang, name))
    if len(names) > 1:
        await _is_held(kube, plan, names[:-1], tell)
    user = _stamp(plan, await _submit(kube, plan, gang, names[-1]))
    tell(f"admission gated {plan.size} pods and stamped them as {user}")
    await _is_released(kube, plan, names, tell)


async def _submit(kube: KubeClient, plan: Plan, gang: str, name: str) -> _Pod:
    """Create a pod; as admission made it."""
    try:
        body = await kube.post(_pods(plan.namespace), _manifest(plan, gang, name))
    except KubeError as error:
        raise TrialFailed(f"the API server did not take the pod {plan.namespace}/{name}: {error}") from error
    return msgspec.json.decode(body, type=_Pod)


def _stamp(plan: Plan, pod: _Pod) -> str:
    """The user that the pod was stamped with."""
    if not pod.gated or STAMP not in pod.metadata.annotations:
        raise TrialFailed(
            f"the pod {plan.namespace}/{pod.metadata.name} got no gate and no stamp: admission is not "
            f"installed, or leaves it alone ({ADMISSION})"
        )
    return pod.metadata.annotations[STAMP]


async def _is_held(kube: KubeClient, plan: Plan, names: list[str], tell: Tell) -> None:
    await asyncio.sleep(HELD_S)
    for name in names:
        if not (await _read(kube, plan.namespace, name)).gated:
            raise TrialFailed(
                f"{name} was released though its gang is not complete: the controller is at fault"
            )
    tell("the gang waits while one of its pods is missing")


async def _is_released(kube: KubeClient, plan: Plan, names: list[str], tell: Tell) -> None:
    waiting = ""

    async def receipt(name: str) -> str | None:
        nonlocal waiting
        pod = await _read(kube, plan.namespace, name)
        waiting = pod.told(QUEUED) or waiting
        return None if pod.gated else pod.metadata.annotations.get(RECEIPT, "")

    for name in names:
        found = await _within(plan.within_s, partial(receipt, name))
        if found is None:
            raise TrialFailed(
                f"{name} was not released within {plan.within_s:.0f} s: "
                + (waiting or "the controller says nothing about it; see its log and `fairlane queue`")
            )
        if not found:
            raise TrialFailed(f"{name} was released without a receipt: not by Fairlane's controller")
        _checked_receipt(name, found)
    tell("the controller released the whole gang, with a receipt on every pod")


def _checked_receipt(name: str, text: str) -> None:
    try:
        told = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise TrialFailed(f"the receipt of {name} cannot be read: {error}") from error
    if missing := {"gang", "flow", "released_s", "charged_work"} - told.keys():
        raise TrialFailed(f"the receipt of {name} does not tell {', '.join(sorted(missing))}")


async def _is_bound(kube: KubeClient, plan: Plan, names: list[str]) -> dict[str, str]:
    why, nodes = "", {}

    async def node(name: str) -> str | None:
        nonlocal why
        pod = await _read(kube, plan.namespace, name)
        why = pod.told("PodScheduled") or why
        return pod.spec.nodeName or None

    for name in names:
        found = await _within(plan.within_s, partial(node, name))
        if found is None:
            raise TrialFailed(
                f"{name} was released but not placed within {plan.within_s:.0f} s: " + (why or _silent(plan))
            )
        nodes[name] = found
    return nodes


def _silent(plan: Plan) -> str:
    if Part.SCHEDULER in plan.without:
        return "no scheduler says anything about it; does the cluster's default one run?"
    return "kube-scheduler says nothing about it; does deploy/fairlane-scheduler run?"


async def _is_recorded(recorder: RecorderClient, plan: Plan, nodes: dict[str, str], tell: Tell) -> None:
    failure = ""

    async def receipt(decided: bool, name: str) -> Receipt | None:
        nonlocal failure
        try:
            known = await recorder.receipt(plan.namespace, name, 1)
        except RecorderError as error:
            failure = str(error)
            return None
        return known if known.chosen_node and (known.decision is not None or not decided) else None

    for name, node in nodes.items():
        known = await _within(plan.within_s, partial(receipt, False, name))
        if known is None:
            told = failure or "it knows no node for it"
            raise TrialFailed(f"the recorder has no receipt of {name} after {plan.within_s:.0f} s: {told}")
        if known.chosen_node != node:
            raise TrialFailed(f"the recorder says that {name} is on {known.chosen_node}, but it is on {node}")
    tell("the recorder knows the placement of every pod")
    if Part.SCHEDULER in plan.without:
        return
    decided = await asyncio.gather(
        *(_within(DECIDED_WITHIN_S, partial(receipt, True, name)) for name in nodes)
    )
    if None in decided:
        asked = len(nodes) - decided.count(None)
        tell(
            f"note: the extender was asked about {asked} of {len(nodes)} pods; with prioritizeVerb and one "
            "feasible node kube-scheduler asks nobody, otherwise `fairlane doctor` says why"
        )


async def _within(within_s: float, look: Callable[[], Awaitable[Found | None]]) -> Found | None:
    """What `look` finds first; None when it finds nothing in time."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = await look()
        if found is not None or time.monotonic() > deadline_s:
            return found
        await asyncio.sleep(POLL_S)


async def _read(kube: KubeClient, namespace: str, name: str) -> _Pod:
    try:
        return msgspec.json.decode(await kube.get(f"{_pods(namespace)}/{name}"), type=_Pod)
    except KubeError as error:
        raise TrialFailed(f"the pod {namespace}/{name} cannot be read: {error}") from error


@asynccontextmanager
async def _removed_at_last(kube: KubeClient, namespace: str, names: list[str]) -> AsyncIterator[list[str]]:
    """`names`; pods of these names are deleted at the end, whatever happened.

    What failed first is told first.
    """
    failed: TrialFailed | KubeError | None = None
    left: dict[str, KubeError] = {}
    try:
        yield names
    except (TrialFailed, KubeError) as error:
        failed = error
    finally:
        for name in names:
            try:
                await kube.delete(f"{_pods(namespace)}/{name}")
            except KubeError as error:
                if error.status != 404:
                    left[name] = error
    told = [str(failed)] if failed else []
    if left:
        why = "" if failed else f": {next(iter(left.values()))}"
        told.append(f"of the pods of the trial {', '.join(left)} may stay behind in {namespace}{why}")
    if told:
        raise TrialFailed("; ".join(told)) from failed


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _manifest(plan: Plan, gang: str, name: str) -> dict[str, Any]:
    told = {"gang": gang, "gang-size": str(plan.size), "job-class": "fairlane-trial"}
    annotations = {PREFIX + key: value for key, value in told.items()}
    scheduler = {"schedulerName": SCHEDULER_NAME}
    if Part.SCHEDULER in plan.without:
        annotations, scheduler = {**annotations, QUEUE: plan.queue}, {}
    hardened = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": plan.image,
        "args": ["--help"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": hardened,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            **plan.spec,
            **scheduler,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
