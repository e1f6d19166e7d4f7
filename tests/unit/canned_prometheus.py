"""A tiny HTTP server that answers like Prometheus, from a table: PromQL -> series.

Only the protocol is imitated, so that the poller's own HTTP client, limits and
parsing are what is tested.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

Value = float | str | Callable[[float], float | str | None]


class CannedPrometheus:
    """Serves `series[promql]` = [(labels, value or function of time)] on a free port."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[dict[str, str], Value]]] = {}
        self.raw: dict[str, bytes] = {}
        """Bodies sent as they are, by PromQL; "*" for every query."""
        self.status: dict[str, int] = {}
        self.delay_s: dict[str, float] = {}
        self.drip = ""
        """The "head" or the "body" of every answer comes a byte at a time."""
        self.requests: list[Any] = []
        self.now: Callable[[], float] = time.time
        self.connections: list[socket.socket] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> CannedPrometheus:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:  # a dead server answers no kept-alive connection either
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def of(self, table: dict[str, Any], promql: str) -> Any:
        return table.get(promql, table.get("*"))

    def answer(self, path: str, query: dict[str, list[str]]) -> bytes:
        promql = query["query"][0]
        if (raw := self.of(self.raw, promql)) is not None:
            return raw
        if path.endswith("/query"):
            result: Any = [self.now(), str(self.now())]
        else:
            start, end, step = (float(query[name][0]) for name in ("start", "end", "step"))
            times = [start + i * step for i in range(int((end - start) / step) + 1)]
            result = [_series(labels, value, times) for labels, value in self.series.get(promql, [])]
        told = {"status": "success", "data": {"resultType": "", "result": result}}
        return json.dumps(told, separators=(",", ":")).encode()  # without spaces, as Prometheus writes


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what some tests are about; no word about it."""


def _series(labels: dict[str, str], value: Value, times: list[float]) -> dict[str, Any]:
    at = value if callable(value) else lambda _: value
    points = [[t, str(v)] for t in times if (v := at(t)) is not None]
    return {"metric": labels, "values": points}


def _handler(canned: CannedPrometheus) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            canned.connections.append(self.connection)

        def do_GET(self) -> None:
            url = urlparse(self.path)
            query = parse_qs(url.query)
            canned.requests.append((query, dict(self.headers)))
            promql = query["query"][0]
            time.sleep(canned.of(canned.delay_s, promql) or 0.0)
            body = canned.answer(url.path, query)
            first = f"{self.protocol_version} {canned.of(canned.status, promql) or 200} Told"
            head = f"{first}\r\nContent-Length: {len(body)}\r\nX-Long: {'x' * 100}\r\n\r\n"
            self._write(head.encode(), canned.drip == "head")
            self._write(body, canned.drip == "body")

        def _write(self, text: bytes, by_drops: bool) -> None:
            for part in [text[i : i + 1] for i in range(len(text))] if by_drops else [text]:
                self.wfile.write(part)
                time.sleep(0.05 if by_drops else 0.0)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
