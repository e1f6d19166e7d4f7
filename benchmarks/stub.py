"""An extender with a known answer: waits a fixed time, then keeps all nodes, or names some in turn.

    python -m benchmarks.stub --port 8888 --delay-ms 5
    python -m benchmarks.stub --port 8888 --nodes node-0,node-1,node-2,node-3,node-4

Asked to filter. The floor of the scheduling rate (no delay), without an opinion and
with one, and the known answer that the benchmarks themselves are tested with. Blocking
sockets, one thread per connection: nothing in it can take longer than it is told to.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Annotated

import typer

from benchmarks.wire import Connection, message
from scheduler.core.wire import encode_filtered
from testbed.cluster import Cluster
from testbed.readiness import listens

START_S_MAX = 30.0
_NAMES = b'"NodeNames":'
"""Last in kube-scheduler's requests."""


@contextmanager
def stub(cluster: Cluster, name: str, delay_ms: float = 0.0, nodes: Sequence[str] = ()) -> Iterator[str]:
    """A stub under the testbed's supervision, which names `nodes` in turn; yields its base URL."""
    port = cluster.control.ports(1)[0]
    flags = (f"--port={port}", f"--delay-ms={delay_ms}", f"--nodes={','.join(nodes)}")
    process = cluster.run(name, sys.executable, "-m", "benchmarks.stub", *flags)
    try:
        wait_listening(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def wait_listening(port: int) -> None:
    """Wait until something listens on the port.

    Raises:
        TimeoutError: nothing does.
    """
    deadline_s = time.monotonic() + START_S_MAX
    while not listens(port):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"nothing listens on port {port} after {START_S_MAX:.0f} s")
        time.sleep(0.05)


def serve(listening: socket.socket, delay_s: float, nodes: Sequence[str] = ()) -> None:
    """Answer every request of every connection after `delay_s`, until the socket is closed."""
    answers = cycle([encode_filtered([node]) for node in nodes] or [b""])
    while True:
        try:
            accepted, _address = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer_all, args=(accepted, delay_s, answers), daemon=True).start()


def _answer_all(accepted: socket.socket, delay_s: float, answers: Iterator[bytes]) -> None:
    with Connection(accepted) as client:
        while request := client.read():
            if delay_s:
                time.sleep(delay_s)
            answer = next(answers) or b"{" + request[request.rindex(_NAMES) :]
            client.send(message(b"HTTP/1.1 200 OK\r\nContent-Type: application/json", answer))


def main(
    port: Annotated[int, typer.Option()],
    delay_ms: Annotated[float, typer.Option()] = 0.0,
    nodes: Annotated[str, typer.Option()] = "",
) -> None:
    """Serve until killed."""
    names = [name for name in nodes.split(",") if name]
    serve(socket.create_server(("127.0.0.1", port)), delay_ms / 1000.0, names)


if __name__ == "__main__":
    typer.run(main)
