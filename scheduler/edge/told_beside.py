"""What a process tells of itself, on a port of its own: for those whose main port is not for everybody.

The extender listens on loopback for its kube-scheduler, the predictor speaks
gRPC, and the probe to its peers; Prometheus, kubelets and people need /metrics,
/healthz, /readyz and /v1/status of them, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from scheduler.edge.exchange import Receive, Refused, Scope, Send, refuse, tell_process
from scheduler.edge.http_server import listen, new_server
from scheduler.edge.versioned import VersionedApp

CONNECTIONS_MAX = 32
"""Prometheus, kubelets and the odd person."""


class TellingApp:
    """The ASGI app: /healthz, /readyz, /metrics, /v1/status."""

    def __init__(
        self, status: Callable[[], Any], metrics: Callable[[], bytes], unready: Callable[[], str]
    ) -> None:
        self._told = (status, metrics, unready)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """One request, by the ASGI protocol."""
        if scope["type"] != "http":
            return
        try:
            await tell_process(scope, send, *self._told)
        except Refused as refused:
            await refuse(send, refused)


@asynccontextmanager
async def told_beside(
    host: str,
    port: int | None,
    status: Callable[[], Any],
    metrics: Callable[[], bytes],
    unready: Callable[[], str],
) -> AsyncIterator[int]:
    """Serve it meanwhile, unless `port` is None, and tell on which port; 0 takes a free one.

    Signals are left to the process's main server.

    Raises:
        OSError: the address cannot be listened on.
    """
    if port is None:
        yield 0
        return
    listening = listen(host, port)
    app = TellingApp(status, metrics, unready)
    server = new_server(VersionedApp(app, "process"), connections_max=CONNECTIONS_MAX, signals=False)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
