"""HTTP between our own processes: answers tell our protocol version, callers too far from it are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from model import protocol
from scheduler.edge.exchange import Message, Receive, Refused, Scope, Send, refuse

CONFLICT = 409
TOLD_TO_ALL = ("/healthz", "/readyz", "/metrics", "/v1/status")
"""So that whoever looks for what is wrong finds it, of whatever version he is."""

App = Callable[[Scope, Receive, Send], Awaitable[None]]


def told_by(scope: Scope) -> str | None:
    """The version that a request names; None without one."""
    wanted = protocol.HEADER.encode()
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


class VersionedApp:
    """The ASGI `app` of a `part`, for callers that understand it."""

    def __init__(self, app: App, part: str) -> None:
        self._app, self._part = app, part
        name, value = protocol.own()
        self._own = (name.encode(), value.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), self._own]}
            await send(message)

        why = "" if scope["path"] in TOLD_TO_ALL else protocol.refusal(self._part, told_by(scope))
        if why:
            await refuse(telling, Refused(CONFLICT, why))
        else:
            await self._app(scope, receive, telling)
