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

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model.placement import RunHistory
from scheduler.core.receipts import Receipt, receipt_of
from scheduler.core.records import Batch
from scheduler.edge.json_api import (
    Handler,
    body_of,
    by_method,
    guarded,
    json_answer,
    of_process,
    refused,
    whole_number,
)
from scheduler.edge.store import ExperienceStore, StoreError
from scheduler.edge.store_writer import StoreWriter

if TYPE_CHECKING:
    import pandas as pd

ASKED_AT_ONCE = 200
CANDIDATES_MAX = 10_000
_BATCH = msgspec.msgpack.Decoder(Batch)


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
        with_token: list[tuple[str, Handler, str]] = [
            ("/v1/decisions", self.take_decisions, "POST"),
            ("/v1/decisions", self.tell_receipt, "GET"),
            ("/v1/history", self.tell_history, "GET"),
            ("/v1/examples", self.tell_examples, "GET"),
            ("/v1/outcomes", self.tell_outcomes, "GET"),
        ]
        by_path: dict[str, dict[str, Handler]] = {}
        for path, handler, method in with_token:
            by_path.setdefault(path, {})[method] = guarded(handler, self._token)
        routes = [Route(path, by_method(ways), methods=list(ways)) for path, ways in by_path.items()]
        routes += of_process(self._status, self._metrics, self._unready)
        handlers = {HTTPException: refused, StoreError: _unavailable}
        return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    async def take_decisions(self, request: Request) -> Response:
        """Store a batch; 503 while the store cannot, and the sender keeps it."""
        body = await body_of(request, self._max_body_bytes)
        try:
            batch = _BATCH.decode(body)
        except msgspec.DecodeError as error:
            raise HTTPException(400, f"the body is not a batch of decisions: {error}") from error
        return json_answer(await self._writer.write_batch(batch))

    async def tell_receipt(self, request: Request) -> Response:
        """The newest decision about a pod and what became of it."""
        namespace, slash, name = request.query_params.get("pod", "").partition("/")
        if not (namespace and slash and name):
            raise HTTPException(400, "say which pod: /v1/decisions?pod=namespace/name")
        limit = whole_number(request, "limit", 20, CANDIDATES_MAX)
        return json_answer(await run_in_threadpool(self._receipt, namespace, name, limit))

    async def tell_history(self, request: Request) -> Response:
        """Completions per job class and user."""
        classes = request.query_params.getlist("class")
        users = request.query_params.getlist("user")
        if len(classes) + len(users) > ASKED_AT_ONCE:
            raise HTTPException(400, f"at most {ASKED_AT_ONCE} classes and users at once")
        by_class, by_user = await run_in_threadpool(self._store.histories, classes, users)
        return json_answer({"classes": _known(by_class), "users": _known(by_user)})

    async def tell_examples(self, request: Request) -> Response:
        """Completions with the features of the chosen node."""
        return await _table(request, self._store.examples)

    async def tell_outcomes(self, request: Request) -> Response:
        """Every pod followed."""
        return await _table(request, self._store.outcomes)

    def _receipt(self, namespace: str, name: str, limit: int) -> Receipt:
        placement = self._store.placement(namespace, name)
        if placement.outcome is None and placement.decision is None:
            raise HTTPException(404, f"nothing is recorded of pod {namespace}/{name}")
        return receipt_of(placement.outcome, placement.decision, placement.table, limit)


def _known(histories: Mapping[str, RunHistory]) -> dict[str, dict[str, float]]:
    """JSON has no NaN: what is not known of a history is left out."""
    return {
        name: {key: value for key, value in asdict(history).items() if not math.isnan(value)}
        for name, history in histories.items()
    }


async def _unavailable(_request: Request, error: StoreError) -> Response:
    response = json_answer({"error": str(error)}, 503)
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
