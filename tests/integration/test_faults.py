"""Every part may fail in the middle of a burst: all pods are bound, the fault is counted and told, and heals.

Real processes on twelve simulated nodes: both kube-schedulers, Prometheus,
extender, predictor, recorder. While a fault lasts, 200 pods are submitted.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from placing import BURST, BY_MODEL, Placing, publish, registry, store_file

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.layout import Options
from testbed.progress import Progress

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

SETTINGS = {
    "epoch_s": 3.0,
    "controller_url": "",  # it does not run here, and doctor must not miss it
    "extender": {"max_epoch_age_s": 20.0},  # so that the tests see what happens to old telemetry
    "predictor": {"reload_s": 1.0},
}


@pytest.fixture(scope="module")
def twelve_nodes(trained: Path) -> Iterator[Cluster]:
    """A testbed with all processes, and a model."""
    options = Options(nodes=12, sites=3, without=("controller",), settings=SETTINGS)
    with Cluster(options, progress=Progress()) as cluster:
        publish(trained, registry(cluster))
        yield cluster


@pytest_asyncio.fixture
async def placing(twelve_nodes: Cluster) -> AsyncIterator[Placing]:
    """Pods are placed by the model when a test begins, and again when it ends."""
    async with KubeClient.connect(str(twelve_nodes.kubeconfig)) as kube:
        placing = Placing(twelve_nodes, kube)
        await placing.until(lambda: placing.answers(BY_MODEL) > 0, within_s=60.0, submitting=True)
        yield placing
        await placing.recovers()
        await kube.delete("/api/v1/namespaces/default/pods", {"gracePeriodSeconds": "0"})


async def test_a_killed_predictor(placing: Placing) -> None:
    predictor = placing.cluster.process("predictor")
    names = await placing.burst(predictor.kill)
    await placing.until(lambda: placing.answers("stale_table", "predictor_unavailable") > 0, submitting=True)
    assert placing.metric("extender", "fairlane_extender_predictor_failures_total") > 0
    assert (await placing.doctor()).names("No model answers: predictor 127.0.0.1")
    predictor.start()
    await placing.until(lambda: placing.decided(names) == BURST)


async def test_a_killed_prometheus(placing: Placing) -> None:
    prometheus = placing.cluster.process("prometheus")
    names = await placing.burst(prometheus.kill)
    await placing.until(lambda: placing.answers("stale_telemetry") > 0, submitting=True)
    assert placing.metric("extender", "fairlane_extender_telemetry_failures_total") > 0
    assert (await placing.doctor()).names(f"Prometheus at {placing.cluster.prometheus_url}")
    prometheus.start()
    await placing.until(lambda: placing.decided(names) == BURST)


async def test_a_prometheus_that_answers_rubbish(placing: Placing) -> None:
    prometheus = placing.cluster.process("prometheus")
    with _rubbish(placing.cluster.layout.ports["prometheus"]) as begin:

        def swap() -> None:
            prometheus.kill()
            begin()

        names = await placing.burst(swap)
        await placing.until(lambda: placing.answers("stale_telemetry", "no_telemetry") > 0, submitting=True)
        assert placing.metric("extender", "fairlane_extender_telemetry_failures_total") > 0
        assert (await placing.doctor()).names(f"Prometheus at {placing.cluster.prometheus_url}")
    prometheus.start()
    await placing.until(lambda: placing.decided(names) == BURST)


async def test_a_locked_store(placing: Placing) -> None:
    with closing(sqlite3.connect(store_file(placing.cluster), check_same_thread=False)) as store:
        names = await placing.burst(lambda: store.execute("BEGIN EXCLUSIVE"))
        await placing.until(lambda: placing.metric("recorder", "fairlane_recorder_store_failures_total") > 0)
        assert placing.decided(names) < BURST
        assert (await placing.doctor()).names("The experience store cannot be written: ")
        store.rollback()
    await placing.until(lambda: placing.decided(names) == placing.bound(names) == BURST)


async def test_a_truncated_model(placing: Placing) -> None:
    (file,) = registry(placing.cluster).glob("versions/*/central.txt")
    whole, predictor = file.read_bytes(), placing.cluster.process("predictor")

    def truncate() -> None:
        file.write_bytes(whole[: len(whole) // 2])
        predictor.kill()  # a model in memory would go on answering
        predictor.start()

    names = await placing.burst(truncate)
    await placing.until(lambda: placing.answers("stale_table", "predictor_unavailable") > 0, submitting=True)
    assert (await placing.doctor()).names("the file is truncated or was changed")
    file.write_bytes(whole)
    await placing.until(lambda: placing.decided(names) == BURST)


async def test_a_killed_extender(placing: Placing) -> None:
    extender = placing.cluster.process("extender")
    names = await placing.burst(extender.kill)
    assert (await placing.doctor()).names(f"The extender at {placing.cluster.extender_url} cannot be asked")
    extender.start()
    await placing.until(lambda: placing.bound(names) == BURST)
    assert placing.decided(names) < BURST / 2
    await placing.until(lambda: placing.undecided() > BURST / 2)


@contextmanager
def _rubbish(port: int) -> Iterator[Callable[[], None]]:
    """Begins, when called, to answer every request on the port with one rubbish after the other."""
    answers = itertools.cycle(RUBBISH)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(next(answers))

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ExitStack() as stack:

        def begin() -> None:
            server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()

        yield begin


RUBBISH = (
    b"<html><body>It works!</body></html>",
    b'{"status": "success"}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": "nothing"}}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": 7, "value": null}]}}',
    b"\x00\xff\xfe" * 100,
    b"",
)
