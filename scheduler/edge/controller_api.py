"""The controller's JSON API: what people see of the queue, and what administrators do by hand.

    GET  /v1/queue                 [?user=U&limit=n]: flows with their shares, gangs with their places
    GET  /v1/gangs/UID             one gang's receipt: where it is, why it waits
    GET  /v1/gangs?name=NS/NAME    the same of a gang by its name, or by that of one of its pods
    GET  /v1/shares                what each user held over the last hour
    GET  /v1/placement             how well the run times of placed pods were predicted, from the recorder
    GET  /v1/usage                 [?since=unix seconds&user=U]: what each user asked for and received
    POST /v1/pause, /v1/resume     no gang is released; releases go on
    POST /v1/weights               {"user": U, "weight": 2.0}; null: the declared weight again
    POST /v1/gangs/UID/promote     before all others; it is charged like any other
    GET  /v1/status, /healthz, /readyz, /metrics
Everything under /v1 but the status needs the bearer token: it is about all users. (A user
reads of his own in the conditions and annotations of his pods, which Kubernetes guards.) What
changes something is in the checkpoint when it is answered, and leaves a Kubernetes event. A
replica that does not lead passes requests about the queue on to the one that does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model import protocol
from scheduler.edge.controller import Refused, Term
from scheduler.edge.http_server import plain_address
from scheduler.edge.json_api import Handler, body_of, guarded, json_answer, of_process, refused, whole_number
from scheduler.edge.queue_view import gang_view, queue_view, usage_view
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from scheduler.edge.release import NotLeading
from scheduler.edge.share_history import ShareHistory

BODY_BYTES_MAX = 64 * 1024
GANGS_MAX = 10_000
PASSED_ON = "x-fairlane-passed-on"
"""On a request that came from another replica: it is not passed on once more."""


class _Weight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    weight: float | None


class ControllerApi:
    """Handlers around the term of leading, if there is one; `leader_url` is the leading replica's."""

    def __init__(
        self,
        term: Callable[[], Term | None],
        leader_url: Callable[[], str],
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        unready: Callable[[], str],
        shares: ShareHistory,
        recorder: RecorderClient | None,
        more: Sequence[Route] = (),
        *,
        token: str,
    ) -> None:
        self._term, self._leader_url = term, leader_url
        self._shares, self._recorder, self._more = shares, recorder, more
        self._status, self._metrics, self._unready = status, metrics, unready
        self._token = token

    def app(self) -> Starlette:
        """The ASGI app."""
        reading: dict[str, Handler] = {
            "/v1/queue": self.tell_queue,
            "/v1/gangs": self.tell_gang_of_pod,
            "/v1/gangs/{uid:path}": self.tell_gang,
            "/v1/usage": self.tell_usage,
            "/v1/shares": self.tell_shares,
        }
        acting: dict[str, Handler] = {
            "/v1/pause": self.pause,
            "/v1/resume": self.resume,
            "/v1/weights": self.set_weight,
            "/v1/gangs/{uid:path}/promote": self.promote,
        }
        routes = [
            Route(path, guarded(self._by_leader(handler), self._token), methods=[method])
            for method, handlers in (("POST", acting), ("GET", reading))
            for path, handler in handlers.items()
        ]
        # the page too: a browser that has shown it knows the password for what it asks
        others = [Route("/v1/placement", self.tell_placement), *self._more]
        routes += [Route(one.path, guarded(one.endpoint, self._token)) for one in others]
        routes += of_process(self._status, self._metrics, self._unready)
        return Starlette(routes=routes, exception_handlers={HTTPException: refused})  # type: ignore[dict-item]

    async def tell_queue(self, request: Request) -> Response:
        """The queue."""
        limit = whole_number(request, "limit", 1000, GANGS_MAX)
        return json_answer(queue_view(self._leading(), request.query_params.get("user"), limit))

    async def tell_gang(self, request: Request) -> Response:
        """One gang."""
        return self._gang(self._leading(), request.path_params["uid"])

    async def tell_gang_of_pod(self, request: Request) -> Response:
        """One gang, by name."""
        term = self._leading()
        namespace, slash, name = request.query_params.get("name", "").partition("/")
        if not (namespace and slash and name):
            raise HTTPException(400, "say which gang: /v1/gangs?name=namespace/name")
        found = term.feeds.assembly.gang_named(namespace, name)
        if found is None:
            raise HTTPException(404, f"no gang or pod {namespace}/{name} waits or runs in this queue")
        if found.held:
            raise HTTPException(404, f"gang {namespace}/{name} is not in the queue yet: {found.why}")
        return self._gang(term, found.uid)

    async def tell_usage(self, request: Request) -> Response:
        """What each user asked for and received."""
        since = request.query_params.get("since", "0")
        try:
            since_s = float(since)
        except ValueError:
            since_s = math.nan
        if not math.isfinite(since_s):
            raise HTTPException(400, f"since must be a time in unix seconds, not {since[:50]!r}")
        return json_answer(usage_view(self._leading(), since_s, request.query_params.get("user")))

    async def tell_shares(self, _request: Request) -> Response:
        """Shares held over time."""
        self._leading()
        return json_answer(self._shares.view())

    async def tell_placement(self, _request: Request) -> Response:
        """Predicted against real run times, by model."""
        if self._recorder is None:
            return json_answer({"models": {}, "failure": "No recorder is configured."})
        try:
            status = await self._recorder.status()
        except RecorderError as error:
            return json_answer({"models": {}, "failure": str(error)})
        return json_answer({"models": status.get("predictions") or {}, "failure": ""})

    def _gang(self, term: Term, uid: str) -> Response:
        assert term.keeper is not None
        receipt = term.keeper.explain(uid)
        if receipt is None:
            raise HTTPException(404, f"no gang {uid!r} waits or runs")
        return json_answer(gang_view(term, receipt))

    async def pause(self, request: Request) -> Response:
        """Hold all releases."""
        return await self._act(request, lambda term: term.pause(True), "releases were paused")

    async def resume(self, request: Request) -> Response:
        """Let releases go on."""
        return await self._act(request, lambda term: term.pause(False), "releases were resumed")

    async def set_weight(self, request: Request) -> Response:
        """Give a user another weight."""
        try:
            wanted = msgspec.json.decode(await body_of(request, BODY_BYTES_MAX), type=_Weight)
        except msgspec.DecodeError as error:
            raise HTTPException(400, f'send {{"user": "...", "weight": 2.0}}: {error}') from error
        weight = wanted.weight
        if not wanted.user or (weight is not None and not 0 < weight < math.inf):
            raise HTTPException(400, "a weight must be above 0, and have a user")
        told = "as declared" if weight is None else f"{weight:g}"
        return await self._act(
            request,
            lambda term: term.set_weight(wanted.user, weight),
            f"the weight of {wanted.user} was set to {told}",
        )

    async def promote(self, request: Request) -> Response:
        """Put a gang before all others."""
        uid = request.path_params["uid"]
        return await self._act(
            request, lambda term: term.promote(uid), f"gang {uid} was put before all others"
        )

    def _leading(self) -> Term:
        term = self._term()
        if term is None or term.keeper is None:
            raise HTTPException(503, "the queue is being rebuilt, ask again in a moment")
        return term

    async def _act(self, request: Request, act: Callable[[Term], None], told: str) -> Response:
        """Answered when the checkpoint has it, so that no crash undoes what was said to be done."""
        term = self._leading()
        try:
            act(term)
            unkept = await term.keep()
        except Refused as error:
            raise HTTPException(409, str(error)) from error
        except NotLeading as error:
            raise HTTPException(503, f"{error}: another replica leads, ask again in some seconds") from error
        client = plain_address(request.client.host) if request.client else "unknown"
        term.audit(f"{told} (from {request.headers.get('x-forwarded-for', client)})")
        warning = {"warning": f"in force, but a crash would undo it: {unkept}"} if unkept else {}
        return json_answer({"done": told, **warning})

    def _by_leader(self, handler: Handler) -> Handler:
        async def answered(request: Request) -> Response:
            if self._term() is not None:
                return await handler(request)
            url = self._leader_url()
            if not url or request.headers.get(PASSED_ON):
                raise HTTPException(503, "no replica leads at the moment, ask again in some seconds")
            return await _passed_on(request, url)

        return answered


async def _passed_on(request: Request, url: str) -> Response:
    """The leader's answer to this request."""
    kept = {
        name: request.headers[name]
        for name in ("authorization", "content-type", protocol.HEADER)
        if name in request.headers
    }
    client = plain_address(request.client.host) if request.client else "unknown"
    headers = {**kept, PASSED_ON: "1", "x-forwarded-for": client}
    body = await body_of(request, BODY_BYTES_MAX)
    target = f"{url.rstrip('/')}{request.url.path}"
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(
                request.method, target, params=dict(request.query_params), data=body or None
            ) as answer,
        ):
            return Response(await answer.read(), answer.status, media_type=answer.content_type)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise HTTPException(503, f"the leading replica at {url} cannot be reached: {error}") from error
