"""The recorder's JSON API, in front of the experience store.

    POST /v1/decisions   a batch (MessagePack) from an extender; answered once it is stored
    GET  /v1/decisions   ?pod=namespace/name[&limit=n]: why a pod is where it is
    GET  /v1/history     ?class=...&user=...: completions summed up
    GET  /v1/examples    [?format=parquet|csv]: the table that `fairlane train --examples` reads
    GET  /v1/outcomes    [?format=parquet|csv]: every pod followed
    GET  /v1/status, /healthz, /readyz, /metrics
Everything under /v1 but the status needs the bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
import pandas as pd
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from model.placement import RunHistory
from scheduler.core.receipts import Receipt, receipt_of
from scheduler.core.records import Batch
from scheduler.core.wire import encode_json
from scheduler.edge.store import ExperienceStore, StoreError
from scheduler.edge.store_writer import StoreWriter

ASKED_AT_ONCE = 200
CANDIDATES_MAX = 10_000
BODY_TIMEOUT_S = 30.0
_BATCH = msgspec.msgpack.Decoder(Batch)

Handler = Callable[[Request], Awaitable[Response]]


class RecorderApi:
    """Handlers around one store; writes go through `writer`, reads have their own connections."""

    def __init__(
        self,
        store: ExperienceStore,
        writer: StoreWriter,
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        unready: Callable[[], str],
        *,
        token: str,
        max_body_bytes: int,
    ) -> None:
        self._store = store
        self._writer = writer
        self._status = status
        self._metrics = metrics
        self._unready = unready
        self._token = token
        self._max_body_bytes = max_body_bytes

    def app(self) -> Starlette:
        """The ASGI app."""
        guarded: list[tuple[str, Handler, str]] = [
            ("/v1/decisions", self.take_decisions, "POST"),
            ("/v1/decisions", self.tell_receipt, "GET"),
            ("/v1/history", self.tell_history, "GET"),
            ("/v1/examples", self.tell_examples, "GET"),
            ("/v1/outcomes", self.tell_outcomes, "GET"),
        ]
        by_path: dict[str, dict[str, Handler]] = {}
        for path, handler, method in guarded:
            by_path.setdefault(path, {})[method] = self._guarded(handler)
        routes = [Route(path, _by_method(ways), methods=list(ways)) for path, ways in by_path.items()]
        open_to_all = {
            "/v1/status": self.tell_status,
            "/healthz": self.tell_health,
            "/readyz": self.tell_readiness,
            "/metrics": self.tell_metrics,
        }
        routes += [Route(path, handler) for path, handler in open_to_all.items()]
        handlers = {HTTPException: _refused, StoreError: _unavailable}
        return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    async def take_decisions(self, request: Request) -> Response:
        """Store a batch; 503 while the store cannot, and the sender keeps it."""
        body = await self._body(request)
        try:
            batch = _BATCH.decode(body)
        except msgspec.DecodeError as error:
            raise HTTPException(400, f"the body is not a batch of decisions: {error}") from error
        return _json(await self._writer.write_batch(batch))

    async def tell_receipt(self, request: Request) -> Response:
        """The newest decision about a pod and what became of it."""
        namespace, slash, name = request.query_params.get("pod", "").partition("/")
        if not (namespace and slash and name):
            raise HTTPException(400, "say which pod: /v1/decisions?pod=namespace/name")
        limit = _whole(request, "limit", 20, CANDIDATES_MAX)
        return _json(await run_in_threadpool(self._receipt, namespace, name, limit))

    async def tell_history(self, request: Request) -> Response:
        """Completions per job class and user."""
        classes = request.query_params.getlist("class")
        users = request.query_params.getlist("user")
        if len(classes) + len(users) > ASKED_AT_ONCE:
            raise HTTPException(400, f"at most {ASKED_AT_ONCE} classes and users at once")
        by_class, by_user = await run_in_threadpool(self._store.histories, classes, users)
        return _json({"classes": _known(by_class), "users": _known(by_user)})

    async def tell_examples(self, request: Request) -> Response:
        """Completions with the features of the chosen node."""
        return await _table(request, self._store.examples)

    async def tell_outcomes(self, request: Request) -> Response:
        """Every pod followed."""
        return await _table(request, self._store.outcomes)

    async def tell_status(self, _request: Request) -> Response:
        """The recorder's state in plain values."""
        return _json(self._status())

    async def tell_health(self, _request: Request) -> Response:
        """Alive."""
        return Response("ok\n")

    async def tell_readiness(self, _request: Request) -> Response:
        """Ready to record; else why not."""
        why = self._unready()
        return Response((why or "ready") + "\n", 503 if why else 200)

    async def tell_metrics(self, _request: Request) -> Response:
        """Prometheus metrics."""
        return Response(self._metrics(), media_type="text/plain; version=0.0.4")

    def _receipt(self, namespace: str, name: str, limit: int) -> Receipt:
        placement = self._store.placement(namespace, name)
        if placement.outcome is None and placement.decision is None:
            raise HTTPException(404, f"nothing is recorded of pod {namespace}/{name}")
        return receipt_of(placement.outcome, placement.decision, placement.table, limit)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                raise HTTPException(401, "the bearer token is missing or wrong: set FAIRLANE_TOKEN")
            return await handler(request)

        return guarded

    async def _body(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await _read(request, self._max_body_bytes)
        except TimeoutError:
            raise HTTPException(408, f"the body was not complete after {BODY_TIMEOUT_S:g} s") from None
        except ClientDisconnect:
            raise HTTPException(400, "the body is not complete") from None


def _known(histories: Mapping[str, RunHistory]) -> dict[str, dict[str, float]]:
    """JSON has no NaN: what is not known of a history is left out."""
    return {
        name: {key: value for key, value in asdict(history).items() if not math.isnan(value)}
        for name, history in histories.items()
    }


def _by_method(ways: dict[str, Handler]) -> Handler:
    async def chosen(request: Request) -> Response:
        return await ways["GET" if request.method == "HEAD" else request.method](request)

    return chosen


async def _read(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes")
    return bytes(body)


def _whole(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise HTTPException(400, f"{name} must be a whole number, not {text[:50]!r}")
    return min(int(text), most)


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode_json(value), status, media_type="application/json")


async def _refused(_request: Request, error: HTTPException) -> Response:
    return _json({"error": error.detail}, error.status_code)


async def _unavailable(_request: Request, error: StoreError) -> Response:
    response = _json({"error": str(error)}, 503)
    response.headers["Retry-After"] = "2"
    return response


async def _table(request: Request, read: Callable[[], pd.DataFrame]) -> Response:
    wanted = request.query_params.get("format", "parquet")
    if wanted not in ("parquet", "csv"):
        raise HTTPException(400, f"format must be parquet or csv, not {wanted[:50]!r}")
    content = await run_in_threadpool(lambda: _encoded(read(), wanted))
    media_type = "application/vnd.apache.parquet" if wanted == "parquet" else "text/csv"
    return Response(content, media_type=media_type)


def _encoded(table: pd.DataFrame, wanted: str) -> bytes:
    if wanted == "csv":
        return table.to_csv(index=False).encode()
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
