"""HTTP/1.1 messages on a kept-alive connection, as bytes: nothing between the clock and the socket."""

from __future__ import annotations

import re
import socket
from types import TracebackType
from typing import Self

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_CHUNK_BYTES = 1 << 18
_HEAD_END = b"\r\n\r\n"


class WireError(Exception):
    """The other side sent what is not a message with a Content-Length, or ended in the middle of one."""


def message(head: bytes, body: bytes) -> bytes:
    """Start line and headers with the body's length, and the body."""
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Connection:
    """One connection; reads whole messages."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._kept = b""

    @classmethod
    def to(cls, host: str, port: int, timeout_s: float = 30.0) -> Self:
        """Connect to a server."""
        return cls(socket.create_connection((host, port), timeout=timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, whole: bytes) -> None:
        """Send a message in one call."""
        self._socket.sendall(whole)

    def read(self) -> bytes:
        """The next whole message, head included; empty when the other side closed before one began.

        Raises:
            WireError: it is not a message of known length.
        """
        while _HEAD_END not in self._kept:
            if not self._more():
                if self._kept:
                    raise WireError("the connection ended inside a head")
                return b""
        end = self._kept.index(_HEAD_END) + len(_HEAD_END)
        found = _LENGTH.search(self._kept, 0, end)
        if found is None:
            raise WireError("a message without Content-Length")
        end += int(found[1])
        while len(self._kept) < end:
            if not self._more():
                raise WireError("the connection ended inside a body")
        whole, self._kept = self._kept[:end], self._kept[end:]
        return whole

    def _more(self) -> bool:
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except ConnectionError:
            return False
        self._kept += chunk
        return bool(chunk)
