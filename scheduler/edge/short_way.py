"""A short way through the HTTP server for the requests that kube-scheduler's loop waits for.

uvicorn makes a scope, a cycle, a task and half a dozen messages of every
request, which costs as much as the answer itself. A POST to one of their paths whose
head is plain (a length, nothing that needs negotiation) is answered here from
its bytes; everything else goes the usual way, and so does whatever follows.
"""

from __future__ import annotations

import re
from asyncio.events import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from scheduler.edge.http_server import HEAD_BYTES_MAX, BoundedProtocol

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,9})(?=\r\n)")
_NEGOTIATED = re.compile(
    rb"\r\n(?:connection|transfer-encoding|expect|upgrade|content-length: .*\r\ncontent-length)", re.S
)
_STATUS = {200: b"200 OK", 400: b"400 Bad Request"}


class Reply(msgspec.Struct, frozen=True):
    """Status, JSON body, and what is left to do once it is sent."""

    status: int
    body: bytes
    afterwards: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class ShortWay:
    """The paths that are answered at once by `answer`; bodies are bounded in size and time.

    `refused` hears of a request that was not completed: its path, the status, and why.
    """

    paths: tuple[str, ...]
    answer: Callable[[str, bytes], Reply]
    refused: Callable[[str, int, str], None]
    max_body_bytes: int
    read_timeout_s: float


class ShortWayProtocol(BoundedProtocol):
    """As `BoundedProtocol`, with a short way for some paths."""

    def __init__(self, way: ShortWay, **given: Any) -> None:
        super().__init__(**given)
        self._way = way
        self._paths = {f"POST {path} HTTP/1.1".encode("ascii"): path for path in way.paths}
        self._path = ""
        self._held: list[bytes] = []
        self._lacking = 0
        self._body_timer: TimerHandle | None = None
        self._answered_s = 0.0

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request, or of several."""
        while data:
            data = self._consume(data)

    def _consume(self, data: bytes) -> bytes:
        """Take what belongs to one request; the bytes beyond it."""
        if self._held:
            self._held.append(data)
            self._lacking -= len(data)
        elif not (self._is_idle() and self._take(data)):
            super().data_received(data)
            return b""
        if self._lacking <= 0:
            return self._complete()
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self._way.read_timeout_s, self._late)
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._held:
            self._way.refused(self._path, 499, "the client went away")
        self._drop()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """The client may have been idle for too long: one look costs less than a timer for each answer."""
        left_s = self._answered_s + self.timeout_keep_alive - self.loop.time()
        if self._held or left_s > 0:
            again_s = self.timeout_keep_alive if self._held else left_s
            self.timeout_keep_alive_task = self.loop.call_later(again_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _is_idle(self) -> bool:
        """No request is under way, not even a piece of a head."""
        return self._head_timer is None and self._awaits_head() and not self.pipeline and not self._is_ended()

    def _take(self, data: bytes) -> bool:
        """Hold a request for one of the paths whose head is complete and plain."""
        path = self._paths.get(data[: data.find(b"\r\n")])
        if path is None:
            return False
        end = data.find(b"\r\n\r\n") + 4
        head = data[:end].lower()
        length = _LENGTH.search(head)
        if not 4 <= end <= HEAD_BYTES_MAX or length is None or _NEGOTIATED.search(head) or self._is_full():
            return False
        size = int(length[1])
        if size > self._way.max_body_bytes:
            return False
        self._path = path
        self._held = [data[end:]]
        self._lacking = size - len(data) + end
        return True

    def _is_full(self) -> bool:
        return self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency

    def _complete(self) -> bytes:
        """Answer what is held; the bytes beyond it."""
        whole = b"".join(self._held)
        size = len(whole) + self._lacking
        self._drop()
        self._send(self._way.answer(self._path, whole[:size]))
        return b"" if self.transport.is_closing() else whole[size:]

    def _send(self, reply: Reply) -> None:
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (_STATUS[reply.status], len(reply.body)))
        self.transport.write(reply.body)
        self.server_state.total_requests += 1
        self._answered_s = self.loop.time()
        if reply.afterwards is not None:
            # the answer is written at the end of this turn of the loop; what is left must not delay that
            self.loop.call_soon(reply.afterwards)

    def _late(self) -> None:
        why = f"the request was not complete after {self._way.read_timeout_s:g} s"
        self._way.refused(self._path, 408, why)
        self._drop()
        self._end(b"408 Request Timeout", why)

    def _drop(self) -> None:
        self._held = []
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
