"""The benchmarks measure what is known beforehand: a delay that was put there."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from benchmarks import jobs, passthrough
from benchmarks.burst import burst, followed_pods
from benchmarks.figures import histogram
from benchmarks.latency import replay
from benchmarks.passthrough import Recording, recorded
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
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)
        threading.Thread(target=server, args=(listening, *arguments), daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    for listening in sockets:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def usual(durations_s: list[float]) -> float:
    """The lower quartile: a busy machine delays many calls, and hastens none."""
    return sorted(durations_s)[len(durations_s) // 4]


def test_the_client_measures_the_delay_that_is_there(serving: Serve) -> None:
    port = serving(serve, DELAY_S)
    durations_s = replay(f"http://127.0.0.1:{port}", [REQUEST], CALLS)
    assert len(durations_s) == CALLS
    assert min(durations_s) >= DELAY_S
    assert usual(durations_s) < 1.5 * DELAY_S


def test_the_pass_through_measures_the_same_delay_and_keeps_the_bytes(serving: Serve) -> None:
    port = serving(passthrough.serve, serving(serve, DELAY_S), Recording())
    url = f"http://127.0.0.1:{port}"
    outside_s = replay(url, [REQUEST], CALLS)
    taken = recorded(url)
    assert taken.requests == [REQUEST] * CALLS
    assert min(taken.durations_s) >= DELAY_S
    assert usual(taken.durations_s) <= usual(outside_s) < 1.5 * DELAY_S
    assert recorded(url).durations_s == []


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
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reader = Connection.to(*listening.getsockname())
        theirs, _address = listening.accept()
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
