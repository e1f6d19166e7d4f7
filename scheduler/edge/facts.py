"""Gathers, for `fairlane doctor` and `fairlane status`, what every part says of itself; judges nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import msgspec

from model import protocol
from model.snapshot import EMPTY, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.core.outcomes import scheduled_s
from scheduler.core.unseen import unseen_since_s
from scheduler.core.wire import Node, Pod
from scheduler.edge.cluster_view import identity
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.predictions import CurrentModel, PredictionClient, PredictionError
from scheduler.edge.readings import ReadingReport
from scheduler.edge.telemetry import PollerStats, TelemetryPoller

SCHEDULER_NAME = "fairlane"
SCHEDULER_LEASE = "fairlane-scheduler"
"""Of kube-scheduler's replicas in the chart; it names the pod that leads, and after _ a random word."""
_PAGE = 500
_TIMEOUT_S = 5.0
STATUS, QUEUE = "/v1/status", "/v1/queue?limit=1000"
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Asked:
    """The answer of one part, or why there is none; both empty: it is not configured."""

    answer: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    protocol_version: int | None = None
    """Its protocol version, as it names it; None where nothing answered."""


@dataclass(frozen=True)
class Facts:
    """All that was found out, at `now_s` (unix seconds)."""

    settings: Settings
    now_s: float
    nodes: tuple[NodeIdentity, ...] = ()
    kube_failure: str = ""
    last_bound_s: float = 0.0
    """When kube-scheduler last bound a pod that names our scheduler; 0: never."""
    bound_pods: int = 0
    unseen_since_s: float = 0.0
    """When the first pod that names our scheduler was released that no kube-scheduler looked at; 0: none."""
    scheduler_leader: str = ""
    """The pod whose kube-scheduler leads, by the Lease of the chart; empty where it is not known."""
    snapshot: TelemetrySnapshot = EMPTY
    reports: tuple[ReadingReport, ...] = ()
    poll: PollerStats = field(default_factory=PollerStats)
    extender: Asked = Asked()
    recorder: Asked = Asked()
    controller: Asked = Asked()
    queue: Asked = Asked()
    """Users, shares and gangs, as the leading controller tells them."""
    model: CurrentModel | None = None
    predictor_serving: bool = False
    predictor_failure: str = ""


async def gather(settings: Settings) -> Facts:
    """Ask every part that is configured, side by side, each within seconds."""
    kube, predictor, *asked = await asyncio.gather(
        _cluster(settings),
        _model(settings),
        _asked(settings.extender_url, STATUS),
        _asked(settings.recorder_url, STATUS),
        _leading(settings.controller_url),
        _asked(settings.controller_url, QUEUE, settings.token.get_secret_value()),
    )
    extender, recorder, controller, queue = asked
    nodes, pods, leader, kube_failure = kube
    bound_s = [at_s for pod in pods if (at_s := scheduled_s(pod.status.conditions))]
    model, serving, predictor_failure = predictor
    poller = TelemetryPoller(settings, lambda: nodes)
    if settings.prometheus.url and not queue_only(settings):
        await asyncio.to_thread(_poll_once, poller)
    return Facts(
        settings=settings,
        now_s=time.time(),
        nodes=nodes,
        kube_failure=kube_failure,
        last_bound_s=max(bound_s, default=0.0),
        bound_pods=len(bound_s),
        unseen_since_s=unseen_since_s(pods),
        scheduler_leader=leader,
        snapshot=poller.snapshot,
        reports=poller.reports,
        poll=poller.stats,
        extender=extender,
        recorder=recorder,
        controller=controller,
        queue=queue,
        model=model,
        predictor_serving=serving,
        predictor_failure=predictor_failure,
    )


def queue_only(settings: Settings) -> bool:
    """True where the queue is kept and nobody scores nodes, so that nobody needs telemetry either."""
    return bool(settings.controller_url) and not settings.extender_url


def _poll_once(poller: TelemetryPoller) -> None:
    poller.poll()
    poller.stop()


class _LeaseSpec(msgspec.Struct, frozen=True):
    holderIdentity: str | None = None


class _Lease(msgspec.Struct, frozen=True):
    spec: _LeaseSpec = _LeaseSpec()


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]
    metadata: dict[str, Any] = {}


async def _cluster(settings: Settings) -> tuple[tuple[NodeIdentity, ...], list[Pod], str, str]:
    """Nodes, our pods, who leads as kube-scheduler, and why not all of it could be read."""
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    nodes: list[Node] = []
    pods: list[Pod] = []
    leader, failure = "", ""
    try:
        async with asyncio.timeout(3 * _TIMEOUT_S), KubeClient.connect(kubeconfig) as kube:
            nodes = await _listed(kube, "/api/v1/nodes", Node, {})
            ours = {"fieldSelector": f"spec.schedulerName={SCHEDULER_NAME}"}
            pods = await _listed(kube, "/api/v1/pods", Pod, ours)
            leader = await _scheduler_leader(kube, settings.controller.namespace)
    except (KubeError, msgspec.DecodeError) as error:
        failure = str(error)
    except TimeoutError:
        failure = f"no answer within {3 * _TIMEOUT_S:g} s"
    return tuple(map(identity, nodes)), pods, leader, failure


async def _scheduler_leader(kube: KubeClient, namespace: str) -> str:
    """Empty where that cannot be read: there may be no such Lease, or no right to it."""
    if not namespace:
        return ""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{SCHEDULER_LEASE}"
    try:
        lease = msgspec.json.decode(await kube.get(path), type=_Lease)
    except (KubeError, msgspec.DecodeError):
        return ""
    return (lease.spec.holderIdentity or "").rpartition("_")[0]


async def _listed(kube: KubeClient, path: str, kind: type[Answer], params: dict[str, str]) -> list[Answer]:
    found: list[Answer] = []
    params = {**params, "limit": str(_PAGE)}
    while True:
        page = msgspec.json.decode(await kube.get(path, params), type=_Page)
        found += [msgspec.json.decode(item, type=kind) for item in page.items]
        if not (go_on := page.metadata.get("continue")):
            return found
        params["continue"] = go_on


async def _leading(url: str) -> Asked:
    """What the controller that leads tells; behind a Service another may answer, which counts nothing."""
    told = await _asked(url, STATUS)
    if told.answer.get("leads") is not False or not told.answer.get("leader_url"):
        return told
    leading = await _asked(told.answer["leader_url"], STATUS)
    return leading if leading.answer else told


async def _asked(url: str, path: str, token: str = "") -> Asked:
    """What a part answers to a GET; `url` is empty where it is not configured."""
    if not url:
        return Asked()
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    headers = dict([protocol.own()]) | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(url.rstrip("/") + path) as response,
        ):
            body = await response.read()
            if response.status != 200:
                return Asked(failure=_refusal(response.status, path, body))
            theirs = protocol.spoken(response.headers.get(protocol.HEADER))
            return Asked(msgspec.json.decode(body, type=dict[str, Any]), protocol_version=theirs)
    except TimeoutError:
        return Asked(failure=f"no answer within {_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
        return Asked(failure=str(error) or type(error).__name__)


def _refusal(status: int, path: str, body: bytes) -> str:
    """The sentence of a refusal, where it has one as ours do."""
    told = f"it answered {status} to {path.partition('?')[0]}"
    try:
        return f"{told}: {msgspec.json.decode(body, type=dict[str, Any])['error']}"
    except (msgspec.MsgspecError, KeyError):
        return told


async def _model(settings: Settings) -> tuple[CurrentModel | None, bool, str]:
    if not settings.predictor_address:
        return None, False, ""
    try:
        async with PredictionClient.to(settings, _TIMEOUT_S) as client:
            return await client.current_model(), await client.is_serving(), ""
    except PredictionError as error:
        return None, False, str(error)
