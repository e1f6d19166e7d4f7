"""The webhook's HTTP face: AdmissionReview in, AdmissionReview out.

POST /mutate, /validate             objects that ask for the queue by themselves, and guards
POST /mutate/enabled, /validate/enabled   objects of namespaces that are in the queue as a whole
GET  /healthz /readyz /metrics /v1/status
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from scheduler.admission_settings import AdmissionSettings, KindSettings
from scheduler.core.admission.kinds import BUILT_IN, KNOWN, Kind, Place
from scheduler.core.admission.review import BadReview, answer, judge, request_of
from scheduler.core.admission.rules import ENABLED_LABEL, Rules
from scheduler.core.admission.webhooks import MUTATE, VALIDATE, WHOLE_NAMESPACE
from scheduler.core.wire import encode_json
from scheduler.edge.exchange import (
    Disconnected,
    Receive,
    Refused,
    Scope,
    Send,
    read_body,
    refuse,
    respond,
    tell_process,
)
from scheduler.edge.kube import Changed, KubeClient, KubeError, Listed

NAMESPACES_PATH = "/api/v1/namespaces"
NOT_FOUND = 404
_PATHS = {
    path + whole: (path == VALIDATE, bool(whole))
    for path in (MUTATE, VALIDATE)
    for whole in ("", WHOLE_NAMESPACE)
}
"""Path -> whether everything is prepared, whether the whole namespace is in the queue."""

Labels = Mapping[str, str]


def rules_of(settings: AdmissionSettings) -> Rules:
    """The rules that an administrator's settings make."""
    kinds = BUILT_IN + tuple(_kind(one) for one in settings.kinds)
    controllers = (name for kind in kinds for name in kind.controllers)
    return Rules(
        scheduler_name=settings.scheduler_name,
        controller=settings.controller_user,
        trusted=frozenset((*controllers, *settings.trusted_controllers)),
        submitters=frozenset(settings.submitters),
        excluded_namespaces=tuple(sorted({*settings.excluded_namespaces, settings.namespace})),
        kinds=kinds,
    )


def _kind(named: str | KindSettings) -> Kind:
    if isinstance(named, str):
        return KNOWN[named]
    places = tuple(Place(path) for path in named.templates)
    return Kind(named.resource, named.group, named.versions, places, named.controllers)


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] | None = None


class _Namespace(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


class Namespaces:
    """Labels of namespaces, followed by a watch."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._labels: dict[str, Labels] = {}
        self.listed = False

    async def run(self) -> None:
        """Follow them, until cancelled."""
        async for event in self._kube.mirror(NAMESPACES_PATH, _Namespace):
            match event:
                case Listed(items):
                    self._labels = {one.metadata.name: one.metadata.labels or {} for one in items}
                    self.listed = True
                case Changed("DELETED", gone):
                    self._labels.pop(gone.metadata.name, None)
                case Changed(_, one):
                    self._labels[one.metadata.name] = one.metadata.labels or {}

    async def labels(self, name: str) -> Labels:
        """Those of the namespace; one that the watch has not told yet is asked for.

        Raises:
            KubeError: the API server does not answer.
        """
        known = self._labels.get(name)
        if known is not None or not name:
            return known or {}
        try:
            found = msgspec.json.decode(await self._kube.get(f"{NAMESPACES_PATH}/{name}"), type=_Namespace)
        except KubeError as error:
            if error.status == NOT_FOUND:
                return {}
            raise
        return found.metadata.labels or {}


class AdmissionApp:
    """Routes and answers requests; counts what it did.

    `verdicts` counts reviews by what became of them: untouched, changed, refused;
    `refusals` by sentence, and `failed` requests that got no verdict by status.
    """

    def __init__(
        self,
        rules: Rules,
        namespaces: Namespaces,
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        unready: Callable[[], str],
        *,
        max_body_bytes: int,
        read_timeout_s: float,
    ) -> None:
        self._rules = rules
        self._namespaces = namespaces
        self._status = status
        self._metrics = metrics
        self._unready = unready
        self._max_body_bytes = max_body_bytes
        self._read_timeout_s = read_timeout_s
        self.verdicts: Counter[str] = Counter()
        self.failed: Counter[int] = Counter()
        self.last_failure = ""
        self.last_refusal = ""
        self.busy_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the ASGI protocol."""
        if scope["type"] != "http":
            return
        try:
            if scope["path"] in _PATHS:
                await self._review(scope, receive, send)
            else:
                await tell_process(scope, send, self._status, self._metrics, self._unready)
        except Refused as refused:
            self.failed[refused.status] += 1
            self.last_failure = f"{refused.status} for {scope['method']} {scope['path']}: {refused.why}"
            await refuse(send, refused)
        except Disconnected:
            self.failed[499] += 1
        except Exception as error:  # the server logs it and answers 500
            self.failed[500] += 1
            self.last_failure = f"500 for {scope['method']} {scope['path']}: {type(error).__name__}: {error}"
            raise

    async def _review(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise Refused(405, "a review is a POST", allow="POST")
        body = await read_body(receive, self._max_body_bytes, self._read_timeout_s)
        begun_s = time.perf_counter()
        try:
            request = request_of(msgspec.json.decode(body))
            prepared, whole = _PATHS[scope["path"]]
            labels = await self._labels(request.get("namespace") or "", whole)
            verdict = judge(request, labels, self._rules, prepared=prepared)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadReview) as error:
            raise Refused(400, str(error)) from error
        except KubeError as error:
            raise Refused(503, f"the labels of the namespace cannot be read: {error}") from error
        self.verdicts["refused" if verdict.refusal else "changed" if verdict.patch else "untouched"] += 1
        self.last_refusal = verdict.refusal or self.last_refusal
        self.busy_s += time.perf_counter() - begun_s
        await respond(send, 200, encode_json(answer(request, verdict)))

    async def _labels(self, namespace: str, whole: bool) -> Labels:
        labels = await self._namespaces.labels(namespace)
        return {**labels, ENABLED_LABEL: "true"} if whole else labels
