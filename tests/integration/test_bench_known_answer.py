"""The benchmarks measure what is known beforehand: a delay that was put there."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from benchmarks import jobs
from benchmarks.burst import burst, followed_pods
from benchmarks.figures import histogram
from benchmarks.latency import replay
from benchmarks.listening import Conversations, Heard, listening
from benchmarks.rate import ALGORITHM
from benchmarks.readings import NEIGHBOURS, PAIRS, SPREAD, source_settings
from benchmarks.schedulers import Arm, running
from benchmarks.stub import serve, stub, wait_listening
from benchmarks.wire import Connection, WireError, message
from model.snapshot import TelemetrySnapshot
from scheduler.config import Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller
from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.layout import Options
from testbed.nodes import data_node_names, worker_names

DELAY_S = 0.02
REQUEST = message(b"POST /scheduler/filter HTTP/1.1\r\nHost: stub", b'{"Pod":{},"NodeNames":[]}')
CALLS = 40
SLOW_MS, PODS = 40.0, 40

Serve = Callable[..., int]


@pytest.fixture
def serving() -> Iterator[Serve]:
    """Runs a blocking server of the benchmarks in a thread; answers its port."""
    sockets: list[socket.socket] = []

    def start(server: Callable[..., None], *arguments: object) -> int:
        accepting = socket.create_server(("127.0.0.1", 0))
        sockets.append(accepting)
        threading.Thread(target=server, args=(accepting, *arguments), daemon=True).start()
        return int(accepting.getsockname()[1])

    yield start
    for each in sockets:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


def usual(durations_s: list[float]) -> float:
    """The lower quartile: a busy machine delays many calls, and hastens none."""
    return sorted(durations_s)[len(durations_s) // 4]


def test_the_client_measures_the_delay_that_is_there(serving: Serve) -> None:
    port = serving(serve, DELAY_S)
    durations_s = replay(f"http://127.0.0.1:{port}", [REQUEST], CALLS)
    assert len(durations_s) == CALLS
    assert min(durations_s) >= DELAY_S
    assert usual(durations_s) < 1.5 * DELAY_S


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may listen to others' packets")
def test_who_listens_on_loopback_hears_the_same_delay_and_the_same_bytes(serving: Serve) -> None:
    port, other = serving(serve, DELAY_S), serving(serve, DELAY_S)
    large = message(
        REQUEST.split(b"\r\nContent")[0], b'{"Pod":{},"NodeNames":[%s]}' % (b'"n",' * 50_000 + b'"n"')
    )
    asked = [REQUEST, large] * (CALLS // 2)
    with listening(port) as heard:
        outside_s = replay(f"http://127.0.0.1:{port}", asked, CALLS)
        replay(f"http://127.0.0.1:{other}", [REQUEST], 3)
    assert heard.requests == asked
    assert min(heard.durations_s) >= DELAY_S
    assert usual(heard.durations_s) <= usual(outside_s) < 1.5 * DELAY_S


def test_a_packet_that_was_not_heard_is_an_error_and_one_heard_twice_counts_once() -> None:
    heard = Heard()
    said = Conversations(80, heard)
    question, answer = packet(5000, 80, 1, b"POST /a"), packet(80, 5000, 1, b"200")
    for at_s, one in ((1.0, question), (1.5, question), (2.0, answer)):
        said.take(one, at_s)
    said.take(packet(5000, 80, 8, b"GET /"), 3.0)
    said.take(packet(80, 5000, 4, b"200"), 4.0)
    assert (heard.durations_s, heard.requests) == ([1.0], [b"POST /a"])
    with pytest.raises(TestbedError, match="not every packet"):
        said.take(packet(5000, 80, 99, b"POST /b"), 5.0)


def packet(source: int, destination: int, number: int, said: bytes) -> bytes:
    """An IPv4 packet of a TCP connection."""
    tcp = struct.pack("!HHIIBBHHH", source, destination, number, 0, 5 << 4, 16, 0, 0, 0) + said
    return struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, 0, 0) + tcp


@pytest.mark.parametrize("turn", [["a", "b", "c"], []], ids=["names", "keeps all"])
def test_the_stub_names_each_node_in_turn_or_keeps_all(serving: Serve, turn: list[str]) -> None:
    asked = ["c", "b", "a"]
    request = message(REQUEST.split(b"\r\nContent")[0], msgspec.json.encode({"Pod": {}, "NodeNames": asked}))
    with Connection.to("127.0.0.1", serving(serve, 0.0, turn)) as server:
        answers = []
        for _ in range(4):
            server.send(request)
            answers.append(msgspec.json.decode(server.read().partition(b"\r\n\r\n")[2])["NodeNames"])
    assert answers == ([["a"], ["b"], ["c"], ["a"]] if turn else 4 * [asked])


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the bare socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as accepting:
        reader = Connection.to(*accepting.getsockname())
        theirs, _address = accepting.accept()
    with reader, theirs:
        yield reader, theirs


def test_a_message_in_pieces_is_one_message(pair: tuple[Connection, socket.socket]) -> None:
    reader, theirs = pair
    for piece in (REQUEST[:10], REQUEST[10:60], REQUEST[60:] + REQUEST[:5], REQUEST[5:]):
        theirs.send(piece)
    assert reader.read() == REQUEST
    assert reader.read() == REQUEST


def test_a_message_of_unknown_length_is_an_error(pair: tuple[Connection, socket.socket]) -> None:
    reader, theirs = pair
    theirs.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    with pytest.raises(WireError, match="Content-Length"):
        reader.read()


async def test_an_extender_of_known_delay_slows_kube_scheduler_to_the_known_rate(cluster: Cluster) -> None:
    async with followed_pods(str(cluster.kubeconfig)) as created:
        with stub(cluster, "slow-extender", SLOW_MS) as url:
            arm = Arm("slow", "known delay", extender_url=url, scheduler_name="bench-slow")
            async with running(arm, cluster, timeout_s=5.0) as scheduler:
                made = jobs.pods(PODS, "known", arm.scheduler_name, jobs.kinds(cluster.data_node_names))
                bound = await burst(scheduler, created, made, _at_once)
                chosen = histogram(await scheduler.metrics(), ALGORITHM)
        await created.clear()
    assert chosen.count >= PODS
    assert SLOW_MS <= chosen.mean_ms < 2 * SLOW_MS
    assert 500.0 / SLOW_MS < bound.rate <= 1000.0 / SLOW_MS


async def _at_once() -> None:
    return


def test_the_product_reads_every_generated_reading_of_every_node(cluster: Cluster) -> None:
    options, port = Options(nodes=8, sites=2), cluster.control.ports(1)[0]
    names = [*worker_names(options), *data_node_names(options)]
    flags = (f"--nodes={options.nodes}", f"--sites={options.sites}", f"--port={port}")
    process = cluster.run("generated", sys.executable, "-m", "benchmarks.telemetry_source", *flags)
    try:
        snapshot = _polled(port, names)
    finally:
        process.stop()
    for reading in SPREAD:
        if reading in PAIRS:
            assert len(snapshot.pair_readings[reading].value) == 8 * (2 + NEIGHBOURS)
        else:
            assert np.isfinite(snapshot.node_readings[reading]).all()


def _polled(port: int, names: list[str]) -> TelemetrySnapshot:
    wait_listening(port)
    source = {"prometheus": {"url": f"http://127.0.0.1:{port}"}, "sources": [source_settings()]}
    settings = Settings.model_validate(source)
    poller = TelemetryPoller(settings, lambda: [NodeIdentity(name) for name in names])
    try:
        assert poller.poll(), poller.stats.failure
        return poller.snapshot
    finally:
        poller.stop()
