"""HTTP as bytes on a socket, for requests that no client library would send."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer; `parts` is in how many pieces it arrived."""

    status: int
    headers: dict[str, str]
    body: bytes
    parts: int

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, pause_s: float) -> None:
        """Send byte by byte until all is sent or the other side gives up."""
        for byte in data:
            try:
                self.socket.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(pause_s)

    def reply(self) -> Reply:
        """The next answer."""
        data, parts = b"", 0
        while b"\r\n\r\n" not in data:
            data, parts = data + self._more(), parts + 1
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers["content-length"]):
            body, parts = body + self._more(), parts + 1
        return Reply(int(first.split()[1]), headers, body, parts)

    def is_closed(self) -> bool:
        """True once the other side has ended the connection."""
        try:
            return self.socket.recv(1) == b""
        except OSError:
            return True

    def _more(self) -> bytes:
        piece = self.socket.recv(65536)
        assert piece, "the connection was closed in the middle of an answer"
        return piece


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A connection to a port of this machine."""
    opened = Wire(port)
    try:
        yield opened
    finally:
        opened.socket.close()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole request."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"host": "x", "content-length": str(len(body)), **given}
    lines = [f"{name}: {value}\r\n" for name, value in sent.items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
    """One request on a connection of its own."""
    with wire(port) as connection:
        connection.send(request(method, path, body, **headers))
        return connection.reply()
