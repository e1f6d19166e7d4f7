"""What our JSON APIs have in common: bearer tokens, bounded bodies, numbers, refusals as JSON."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.core.wire import encode_json

BODY_TIMEOUT_S = 30.0

Handler = Callable[[Request], Awaitable[Response]]


def of_process(
    status: Callable[[], Any], metrics: Callable[[], bytes], unready: Callable[[], str]
) -> list[Route]:
    """What every process tells of itself, to everybody: /v1/status, /healthz, /readyz, /metrics."""

    async def tell_status(_request: Request) -> Response:
        return json_answer(status())

    async def tell_health(_request: Request) -> Response:
        return Response("ok\n")

    async def tell_readiness(_request: Request) -> Response:
        why = unready()
        return Response((why or "ready") + "\n", 503 if why else 200)

    async def tell_metrics(_request: Request) -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4")

    own = {
        "/v1/status": tell_status,
        "/healthz": tell_health,
        "/readyz": tell_readiness,
        "/metrics": tell_metrics,
    }
    return [Route(path, handler) for path, handler in own.items()]


def guarded(handler: Handler, token: str) -> Handler:
    """`handler` for those who know the token; for everybody where there is none.

    What only reads also takes it as the password of any user: browsers ask for
    one and keep it, and so they could be made to send it by the page of
    somebody else, which can do no harm where nothing is changed.
    """

    async def checked(request: Request) -> Response:
        given = _secret(request.headers.get("authorization", ""), request.method in ("GET", "HEAD"))
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            why = "the bearer token is missing or wrong: set FAIRLANE_TOKEN"
            raise HTTPException(401, why, {"WWW-Authenticate": 'Basic realm="Fairlane"'})
        return await handler(request)

    return checked


def _secret(authorization: str, reads: bool) -> str:
    """The token in a header; empty if there is none."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given
    if scheme.lower() != "basic" or not reads:
        return ""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def by_method(ways: dict[str, Handler]) -> Handler:
    """One handler for a path with several methods."""

    async def chosen(request: Request) -> Response:
        return await ways["GET" if request.method == "HEAD" else request.method](request)

    return chosen


async def body_of(request: Request, max_bytes: int) -> bytes:
    """The body; 413 when it is too large, 408 when it is too slow."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(request, max_bytes)
    except TimeoutError:
        raise HTTPException(408, f"the body was not complete after {BODY_TIMEOUT_S:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body is not complete") from None


def whole_number(request: Request, name: str, default: int, most: int) -> int:
    """A query parameter that is a whole number, `most` at most."""
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise HTTPException(400, f"{name} must be a whole number, not {text[:50]!r}")
    return min(int(text), most)


def json_answer(value: Any, status: int = 200) -> Response:
    """A plain value as JSON."""
    return Response(encode_json(value), status, media_type="application/json")


async def refused(_request: Request, error: HTTPException) -> Response:
    """A refusal with its reason."""
    answer = json_answer({"error": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _read(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes")
    return bytes(body)
