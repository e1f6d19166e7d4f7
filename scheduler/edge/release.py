"""Opens the gates of gangs: one JSON patch per pod that also writes the receipt, many at once.

A patch tests the pod's uid and the gate that it removes, so that it can never
open another pod's gate, nor take away another controller's. What it was made
from may be stale: when the API server refuses it, the pod is read again and
the patch made anew, or the pod turns out to be open already, or gone.

Where the placement is written at release, the same patch adds the planned
nodes to the pod's node affinity: only while a gate is closed may that change.
The best of them is nominated before (`status.nominatedNodeName`, as KEP-5278
describes it for others than kube-scheduler): kube-scheduler then tries this
node first and alone, keeps its room for the pod until then, and looks at all
nodes only if the pod does not fit there.
A hint that the API server does not take costs the hint, never the release.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from scheduler.core.affinity import Affinity, Binds, advised
from scheduler.core.plans import PodPlan
from scheduler.core.queue.actions import DeletePods, ReleaseGang, ReleaseReceipt
from scheduler.core.queue.events import Event, ReleaseDone, ReleaseFailed, ReleaseHalfFailed
from scheduler.core.receipts import why_not
from scheduler.core.workloads.rules import GATE, RECEIPT
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from scheduler.edge.lease import answered_within

TRIES = 5
"""Of one pod; about 4 s in all, so that a short fault of the API server costs nothing."""
PAUSE_S = 0.1
"""Before the second try; it doubles, with jitter."""
_ANNOTATIONS, _AFFINITY = "/metadata/annotations", "/spec/affinity"
Patch = list[dict[str, Any]]
ReceiptText = Callable[[str, PodPlan | None], str]
UNCHECKED = {"fieldValidation": "Ignore"}
"""No search for unknown fields in what we patch: the API server otherwise reads every pod strictly."""
_STALE = (404, 409, 422)
_PASSING = (401, 403, 408, 429)
"""Refusals of an API server that has just started and knows nobody's rights yet, or has too much to do."""

log = logging.getLogger(__name__)


class NotLeading(Exception):
    """Another replica may lead: nothing more is changed by this one."""


class PodRef(Protocol):
    """What a patch needs to know of a pod."""

    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def gate_index(self) -> int: ...


class _Meta(msgspec.Struct, frozen=True):
    uid: str = ""
    resourceVersion: str = ""
    annotations: dict[str, str] | None = None
    deletionTimestamp: str | None = None


class _Gate(msgspec.Struct, frozen=True):
    name: str = ""


class _Spec(msgspec.Struct, frozen=True):
    schedulingGates: list[_Gate] | None = None
    affinity: dict[str, Any] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


_POD = msgspec.json.Decoder(_Pod)


@dataclass(frozen=True, slots=True)
class _Writing:
    """What is written at one pod's release: the receipt, what becomes of its affinity, the nominated node."""

    receipt: str
    affinity: Callable[[Affinity | None], Affinity] | None = None
    nominated: str = ""


@dataclass(slots=True)
class ReleaseStats:
    """Counts since the start: `failed` by why a pod's gate could not be opened."""

    patched: int = 0
    found_open: int = 0
    retried: int = 0
    hints_refused: int = 0
    nominations_refused: int = 0
    deleted: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class Releases:
    """Carries out releases; `holds` is asked before each change.

    `where` finds a pod by uid. `tell` is called with what came of each gang.
    `plan` says where pods should go, as far as that is written; `binds` for whom
    that is more than a preference; `nominates` whether the best node is nominated.
    No request lasts longer than `request_s`.
    """

    def __init__(
        self,
        kube: KubeClient,
        holds: Callable[[], bool],
        where: Callable[[str], PodRef | None],
        tell: Callable[[Event], None],
        *,
        parallel: int,
        request_s: float,
        plan: Callable[[ReleaseGang], Awaitable[Mapping[str, PodPlan]]] | None = None,
        binds: Binds = "nobody",
        nominates: bool = True,
    ) -> None:
        self._kube, self._holds, self._where, self._tell = kube, holds, where, tell
        self._request_s = request_s
        self._plan, self._binds, self._nominates = plan, binds, nominates
        self._turns = asyncio.Semaphore(parallel)
        self.stats = ReleaseStats()

    async def release(self, action: ReleaseGang) -> None:
        """Open the gates of the gang and tell what came of it.

        Raises:
            NotLeading: before a change that this replica may not make any more.
        """
        plans = await self._plan(action) if self._plan is not None else {}
        receipt = receipt_text(action.uid, action.flow, action.receipt)
        failures = await asyncio.gather(
            *(self._open(uid, self._writing(uid, action, plans.get(uid), receipt)) for uid in action.pods)
        )
        opened = tuple(uid for uid, failure in zip(action.pods, failures, strict=True) if not failure)
        reason = next((failure for failure in failures if failure), "")
        if not reason:
            self._tell(ReleaseDone(action.uid, opened))
        elif opened:
            self._tell(ReleaseHalfFailed(action.uid, opened, reason))
        else:
            self._tell(ReleaseFailed(action.uid, reason))

    async def delete(self, action: DeletePods) -> None:
        """Delete pods that cannot start; each only if it is still the one that was meant.

        Raises:
            NotLeading: as `release`.
        """
        await asyncio.gather(*(self._delete(uid) for uid in action.pods))

    def _writing(self, uid: str, action: ReleaseGang, plan: PodPlan | None, text: ReceiptText) -> _Writing:
        kept = action.receipt.placement.get(uid, "")
        if plan is None or not plan.nodes:
            return _Writing(text(kept, plan))
        best = plan.nodes[0][0]
        return _Writing(text(best, plan), advised(plan, self._binds), best if self._nominates else "")

    async def _open(self, uid: str, writing: _Writing) -> str:
        """Open one pod's gate; why it could not be opened, empty when it is open."""
        pod = self._where(uid)
        if pod is None:
            return self._failed("gone", "a pod is gone")
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        if writing.nominated:
            await self._nominate(path, uid, writing.nominated)
        failure = await self._open_at(path, uid, _likely_patch(uid, max(0, pod.gate_index), writing), writing)
        if failure and writing.nominated:
            await self._nominate(path, uid, "")  # the room is not kept for a pod that stays behind its gate
        return failure

    async def _open_at(self, path: str, uid: str, patch: Patch, writing: _Writing) -> str:
        for attempt in range(TRIES):
            if attempt:
                self.stats.retried += 1
            try:
                await self._patch(path, patch)
            except KubeError as error:
                refused = error
            else:
                self.stats.patched += 1
                return ""
            if refused.status in _STALE:
                if attempt and writing.affinity is not None:
                    self.stats.hints_refused += 1
                    log.warning("the hint of pod %s is left out: %s", path, refused)
                    writing = _Writing(writing.receipt)
                found = await self._look(path, uid, writing)
                if isinstance(found, str):
                    return found if not found else self._failed("gone", found)
                patch = found or patch
            elif 400 <= refused.status < 500 and refused.status not in _PASSING:
                return self._failed(refused.reason or str(refused.status), str(refused))
            if attempt or refused.status not in _STALE:
                await asyncio.sleep(PAUSE_S * 2**attempt * random.uniform(0.5, 1.0))
        return self._failed("retries", f"{refused} (after {TRIES} tries)")

    async def _look(self, path: str, uid: str, writing: _Writing) -> Patch | str | None:
        """A patch for the pod as it is now; empty text when it is open, else why it never will be.

        None when the pod could not be read.
        """
        try:
            pod = _POD.decode(await answered_within(self._request_s, self._kube.get(path)))
        except KubeError as error:
            return "a pod is gone" if error.status == 404 else None
        if pod.metadata.uid != uid or pod.metadata.deletionTimestamp:
            return "a pod is gone"
        gates = [gate.name for gate in pod.spec.schedulingGates or ()]
        if GATE not in gates:
            self.stats.found_open += 1
            return ""
        return _exact_patch(pod, gates.index(GATE), writing)

    async def _nominate(self, path: str, uid: str, node: str) -> None:
        """Name the node that kube-scheduler is to try first; an empty one takes the name back."""
        place = "/status/nominatedNodeName"
        change = {"op": "add", "path": place, "value": node} if node else {"op": "remove", "path": place}
        try:
            await self._patch(f"{path}/status", [_is_pod(uid), change])
        except KubeError as error:
            self.stats.nominations_refused += 1
            log.warning("node %s is not nominated for pod %s: %s", node or "none", path, error)

    async def _patch(self, path: str, patch: Patch) -> None:
        async with self._turns:
            if not self._holds():
                raise NotLeading
            await answered_within(self._request_s, self._kube.patch(path, patch, JSON_PATCH, UNCHECKED))

    async def _delete(self, uid: str) -> None:
        pod = self._where(uid)
        if pod is None:
            return
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        async with self._turns:
            if not self._holds():
                raise NotLeading
            try:
                await answered_within(
                    self._request_s, self._kube.delete(path, body={"preconditions": {"uid": uid}})
                )
                self.stats.deleted += 1
            except KubeError as error:
                if error.status not in (404, 409):  # 409: the name belongs to another pod now
                    self._failed("delete", str(error))
                    log.warning("pod %s/%s could not be deleted: %s", pod.namespace, pod.name, error)

    def _failed(self, kind: str, why: str) -> str:
        self.stats.failed[kind] += 1
        return why


def release_sentence(action: ReleaseGang, planned: str) -> str:
    """What is told about a release; `planned` says where its pods were sent, if anything."""
    receipt = action.receipt
    how = " ahead of its turn, since it delays nobody" if receipt.backfilled else ""
    how = how if receipt.placement else " as Pending, since there is no room: nodes may come for it"
    charged = f"{receipt.charged_work:.4g} share-seconds charged (estimate by {receipt.estimate.source})"
    return f"released{how}; {charged}" + (f"; {planned}" if planned else "")


def receipt_text(uid: str, flow: str, receipt: ReleaseReceipt) -> ReceiptText:
    """The receipt as its annotation's JSON, by the node expected for the pod and its plan, if it has one."""
    estimate = receipt.estimate
    told = {
        "gang": uid,
        "flow": flow,
        "released_s": round(receipt.released_s, 3),
        "charged_work": receipt.charged_work,
        "share": receipt.share,
        "tag": receipt.tag,
        "position": receipt.position,
        "estimate": {
            "p10_s": estimate.p10_s,
            "p50_s": estimate.p50_s,
            "p90_s": estimate.p90_s,
            "source": estimate.source,
        },
        "backfilled": receipt.backfilled,
    }

    def text(node: str, plan: PodPlan | None) -> str:
        hint: dict[str, Any] = {}
        if plan is not None:
            hint = {"hint": plan.nodes} if plan.nodes else {"no_hint": why_not(plan.reason)}
        return msgspec.json.encode({**told, "node": node, **hint}).decode()

    return text


def _likely_patch(uid: str, index: int, writing: _Writing) -> Patch:
    """For a pod as it was last seen, with annotations and without affinity, as nearly every pod is."""
    return [_is_pod(uid), *_opening(index), *_affinity(None, writing), _noting(writing.receipt)]


def _exact_patch(pod: _Pod, index: int, writing: _Writing) -> Patch:
    """For the pod as it was read; one without annotations must not have got any meanwhile."""
    opening = [_is_pod(pod.metadata.uid), *_opening(index), *_affinity(pod.spec.affinity, writing)]
    if pod.metadata.annotations:
        return [*opening, _noting(writing.receipt)]
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.metadata.resourceVersion},
        *opening,
        {"op": "add", "path": _ANNOTATIONS, "value": {RECEIPT: writing.receipt}},
    ]


def _affinity(now: Affinity | None, writing: _Writing) -> Patch:
    """The hint added to the affinity there is; the patch is refused if that is another one by then."""
    if writing.affinity is None:
        return []
    return [
        {"op": "test", "path": _AFFINITY, "value": now},
        {"op": "add", "path": _AFFINITY, "value": writing.affinity(now)},
    ]


def _is_pod(uid: str) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/uid", "value": uid}


def _noting(receipt: str) -> dict[str, Any]:
    return {"op": "add", "path": f"{_ANNOTATIONS}/{RECEIPT.replace('/', '~1')}", "value": receipt}


def _opening(index: int) -> Patch:
    gate = f"/spec/schedulingGates/{index}"
    return [{"op": "test", "path": f"{gate}/name", "value": GATE}, {"op": "remove", "path": gate}]
