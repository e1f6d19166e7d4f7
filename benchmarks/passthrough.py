"""A recording pass-through between kube-scheduler and the extender: what kube-scheduler waits for.

    python -m benchmarks.passthrough --port 8887 --upstream 8888

kube-scheduler has no metric of its extender calls, so they are timed one hop
in front of the extender: from the first byte of a request to the last byte of
its answer handed to the kernel. That is what kube-scheduler's HTTP client
waits for, plus the cost of this hop, minus the first leg on loopback. On busy
processors the hop would wait for its turn like any process, and record that as
the extender's: so it runs in real time where it may. GET /recorded hands over
what was recorded and starts anew.
"""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import typer

from benchmarks.turns import run_in_real_time
from benchmarks.wire import Connection, message

KEPT_REQUESTS = 256


class Recorded(msgspec.Struct):
    """Durations in s of all calls, and the newest requests, whole as they came; who recorded them how."""

    durations_s: list[float]
    requests: list[bytes]
    real_time: bool


@dataclass
class Recording:
    """What passed since the last time it was asked for."""

    durations_s: list[float] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    real_time: bool = False
    """Whether the recording process never waits for a processor."""

    def add(self, request: bytes, duration_s: float) -> None:
        """One call."""
        self.durations_s.append(duration_s)
        self.requests.append(request)
        if len(self.requests) > 2 * KEPT_REQUESTS:
            del self.requests[:KEPT_REQUESTS]

    def take(self) -> bytes:
        """All of it, as an HTTP answer."""
        taken = Recorded(self.durations_s, self.requests[-KEPT_REQUESTS:], self.real_time)
        self.durations_s, self.requests = [], []
        return message(b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack", msgspec.msgpack.encode(taken))


def recorded(url: str) -> Recorded:
    """Take what the pass-through at `url` recorded since the last time."""
    with urllib.request.urlopen(f"{url}/recorded", timeout=30) as answer:
        return msgspec.msgpack.decode(answer.read(), type=Recorded)


def serve(listening: socket.socket, upstream: int, recording: Recording) -> None:
    """Pass on every connection, until the socket is closed."""
    while True:
        try:
            accepted, _address = listening.accept()
        except OSError:
            return
        threading.Thread(target=_pass_on, args=(accepted, upstream, recording), daemon=True).start()


def _pass_on(accepted: socket.socket, upstream: int, recording: Recording) -> None:
    with Connection(accepted) as client, Connection.to("127.0.0.1", upstream) as server:
        while client.wait():
            begun_s = time.perf_counter()
            request = client.read(lengthless=True)
            if request.startswith(b"GET /recorded "):
                client.send(recording.take())
                continue
            server.send(request)
            client.send(server.read())
            recording.add(request, time.perf_counter() - begun_s)


def main(port: Annotated[int, typer.Option()], upstream: Annotated[int, typer.Option()]) -> None:
    """Pass on and record until killed."""
    serve(socket.create_server(("127.0.0.1", port)), upstream, Recording(real_time=run_in_real_time()))


if __name__ == "__main__":
    typer.run(main)
