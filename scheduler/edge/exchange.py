"""One HTTP exchange over ASGI, for an app without a framework: bounded reading, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scheduler.core.wire import encode_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
PLAIN = b"text/plain; charset=utf-8"
METRICS = b"text/plain; version=0.0.4; charset=utf-8"
DRAINED_BYTES = 64 * 2**20
"""Of a body that is too large so much is read and thrown away, so that the client hears our answer."""


class Refused(Exception):
    """The request is answered with this status and reason; `closing` ends the connection as well."""

    def __init__(self, status: int, why: str, *, allow: str = "", closing: bool = False) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.allow = allow
        self.closing = closing


class Disconnected(Exception):
    """The client went away before the request was complete."""


async def read_body(receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """The request's body.

    Raises:
        Refused: 413 when it is larger than `max_bytes`, 408 when it is not complete after `timeout_s`.
        Disconnected: the client went away.
    """
    try:
        async with asyncio.timeout(timeout_s):
            message = await receive()
            if not message.get("more_body") and len(message.get("body", b"")) <= max_bytes:
                _check_connected(message)
                return bytes(message["body"])
            return await _read_on(message, receive, max_bytes)
    except TimeoutError:
        raise Refused(408, f"the request was not complete after {timeout_s:g} s", closing=True) from None


async def _read_on(message: Message, receive: Receive, max_bytes: int) -> bytes:
    body, size = bytearray(), 0
    while True:
        _check_connected(message)
        piece = message.get("body", b"")
        size += len(piece)
        if size <= max_bytes:
            body += piece
        if size > max_bytes + DRAINED_BYTES or not message.get("more_body"):
            break
        message = await receive()
    if size > max_bytes:
        raise Refused(413, f"the request is larger than {max_bytes} bytes", closing=True)
    return bytes(body)


def _check_connected(message: Message) -> None:
    if message["type"] == "http.disconnect":
        raise Disconnected


async def respond(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, *headers: tuple[bytes, bytes]
) -> None:
    """Answer with a length, so that the connection can be used again."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with the reason as JSON."""
    headers = [(b"allow", refused.allow.encode())] if refused.allow else []
    headers += [(b"connection", b"close")] if refused.closing else []
    await respond(send, refused.status, encode_json({"error": refused.why}), JSON, *headers)


async def tell_process(
    scope: Scope,
    send: Send,
    status: Callable[[], Any],
    metrics: Callable[[], bytes],
    unready: Callable[[], str],
) -> None:
    """Answer what every process tells of itself: /healthz, /readyz, /metrics, /v1/status.

    Raises:
        Refused: another path, or another method than GET and HEAD.
    """
    path, method = scope["path"], scope["method"]
    if path not in ("/healthz", "/readyz", "/metrics", "/v1/status"):
        raise Refused(404, f"there is nothing at {path[:200]}")
    if method not in ("GET", "HEAD"):
        raise Refused(405, f"{path} is a GET", allow="GET, HEAD")
    match path:
        case "/healthz":
            await respond(send, 200, b"ok\n", PLAIN)
        case "/readyz":
            why = unready()
            await respond(send, 503 if why else 200, (why or "ready").encode() + b"\n", PLAIN)
        case "/metrics":
            await respond(send, 200, metrics(), METRICS)
        case _:
            await respond(send, 200, encode_json(status()))
