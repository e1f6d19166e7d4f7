"""The model server as a process: answers, refusals, damage, and a model that changes under load."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from recorded_runs import JOB_CLASS, feature_rows, model_of_two_classes, small_model

from model.features import NAMES, SCHEMA_VERSION
from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorStub
from model.published import PublishedModel
from model.registry import Registry
from model.schema import POSITION
from scheduler.edge.predictions import PredictionClient, PredictionError
from testbed.ports import Reservation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
PATIENCE_S = 150.0


class Running:
    """A predictor process on a registry of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(str(folder / "models"), keep=50)
        self.process: subprocess.Popen[bytes] | None = None
        self._ports = Reservation()  # it comes back on the same port, and nobody else takes it meanwhile
        self._port = self._ports.take(1)[0]

    def start(self) -> str:
        """Start it, wait until it listens, and return its address."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        options = ["--registry", self.registry.url, "--host", "127.0.0.1", "--port", str(self._port)]
        options += ["--port-file", str(port_file)]
        command = [sys.executable, "-m", "scheduler.cli.main", "predictor", *options, "--poll-s", "0.1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, "the predictor does not listen"
            time.sleep(0.05)
        assert port_file.read_text().strip() == str(self._port)
        return f"127.0.0.1:{self._port}"

    def end(self, number: int) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it if it runs, and give up its port."""
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)
        self._ports.close()

    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    server = Running(folder)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def model() -> PublishedModel:
    return model_of_two_classes()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, model: PublishedModel) -> Iterator[str]:
    """A predictor with one published model, shared by the tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("predictor")) as server:
        server.registry.publish(model)
        yield server.start()


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened


def names(count: int) -> list[str]:
    return [f"node-{i}" for i in range(count)]


async def answered(client: PredictionClient, version: str | None = None) -> None:
    """Wait until the server answers, with that version if one is given."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if version in (None, (await client.current_model()).version):
                return
        except PredictionError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"no answer from model {version}")


async def told(client: PredictionClient, problem: str) -> None:
    """Wait until the server tells of such a problem."""
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(problem, (await client.current_model()).problem):
        assert time.monotonic() < deadline, f"no word of {problem}"
        await asyncio.sleep(0.05)


async def test_it_answers_what_the_model_says(address: str, model: PublishedModel) -> None:
    features = feature_rows(5)
    async with PredictionClient(address, 10) as client:
        told = await client.predict(names(5), features, JOB_CLASS, contributions=True)
        about = await client.current_model()
    expected = model.predict_quantiles(features, JOB_CLASS)
    assert np.stack([told.p10_s, told.p50_s, told.p90_s], axis=1) == pytest.approx(expected)
    assert told.contributions is not None
    assert told.contributions.sum(axis=1) == pytest.approx(np.log(expected[:, 1]))
    assert told.model_version == about.version
    assert (about.schema_version, about.examples, about.trained_at_s) == (SCHEMA_VERSION, 200, 2e9)


async def test_the_class_of_the_job_counts(address: str) -> None:
    features = feature_rows(3)
    features[:, POSITION["input_s"]] = features[:, POSITION["transfer_median_s"]] = 20.0
    async with PredictionClient(address, 10) as client:
        far, near = [await client.predict(names(3), features, name) for name in (JOB_CLASS, "near")]
    assert (far.p50_s > 5.0 * near.p50_s).all()


async def test_a_caller_with_the_next_feature_table_is_answered_by_the_names_of_its_columns(
    channel: grpc.aio.Channel, model: PublishedModel
) -> None:
    features = feature_rows(3)
    theirs = np.concatenate([np.full((3, 1), 7.0), features[:, :0:-1]], axis=1)  # it lacks our first column
    request = pb.PredictRequest(
        schema_version=SCHEMA_VERSION + 1,
        nodes=names(3),
        features=theirs.astype("<f8").tobytes(),
        contributions=True,
        job_class=JOB_CLASS,
        feature_names=["brand_new", *NAMES[:0:-1]],
    )
    told = await PredictorStub(channel).Predict(request, timeout=10)
    features[:, 0] = np.nan
    expected = model.predict_quantiles(features, JOB_CLASS)
    assert np.stack([told.p10_s, told.p50_s, told.p90_s], axis=1) == pytest.approx(expected)
    parts = np.frombuffer(told.contributions, dtype="<f8").reshape(3, -1)
    assert parts.shape == (3, len(NAMES) + 1)
    assert parts.sum(axis=1) == pytest.approx(np.log(expected[:, 1]))
    request.schema_version = SCHEMA_VERSION + 2
    with pytest.raises(grpc.aio.AioRpcError, match="run both from the same release"):
        await PredictorStub(channel).Predict(request, timeout=10)


async def test_no_nodes_are_no_error(address: str) -> None:
    async with PredictionClient(address, 10) as client:
        assert len((await client.predict([], np.zeros((0, len(NAMES))), JOB_CLASS)).p50_s) == 0


async def test_five_thousand_nodes_fit_in_one_call(address: str) -> None:
    features = np.repeat(feature_rows(1), 5000, axis=0)
    async with PredictionClient(address, 30) as client:
        told = await client.predict(names(5000), features, JOB_CLASS, contributions=True)
    assert len(told.p50_s) == 5000


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (pb.PredictRequest(schema_version=99), "FAILED_PRECONDITION", "feature schema 99"),
        (
            pb.PredictRequest(schema_version=SCHEMA_VERSION, nodes=["a"], features=b"123"),
            "INVALID_ARGUMENT",
            "features have 3 bytes",
        ),
        (
            pb.PredictRequest(schema_version=SCHEMA_VERSION, nodes=["a"] * 20_001),
            "INVALID_ARGUMENT",
            "at most 20000",
        ),
        (
            pb.PredictRequest(
                schema_version=SCHEMA_VERSION, nodes=["a"], features=np.full(len(NAMES), np.inf).tobytes()
            ),
            "INVALID_ARGUMENT",
            "infinite",
        ),
    ],
)
async def test_a_wrong_request_is_refused_with_the_reason(
    channel: grpc.aio.Channel, request_: pb.PredictRequest, code: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await PredictorStub(channel).Predict(request_, timeout=10)
    assert refused.value.code().name == code
    assert said in str(refused.value.details())


async def test_bytes_that_are_no_message_harm_nothing(channel: grpc.aio.Channel, address: str) -> None:
    raw = channel.unary_unary("/fairlane.predictor.v1.Predictor/Predict")
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(b"\xff\xff\xff rubbish", timeout=10)
    async with PredictionClient(address, 10) as client:
        assert len((await client.predict(["a"], feature_rows(1), JOB_CLASS)).p50_s) == 1


async def test_a_message_too_large_is_refused_with_the_limit(address: str) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        request = pb.PredictRequest(schema_version=SCHEMA_VERSION, features=bytes(65 * 1024 * 1024))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await PredictorStub(channel).Predict(request, timeout=30)
    assert refused.value.code().name == "RESOURCE_EXHAUSTED"


async def test_a_deadline_is_kept(address: str) -> None:
    features = np.repeat(feature_rows(1), 5000, axis=0)
    async with PredictionClient(address, 0.002) as client:
        with pytest.raises(PredictionError) as late:
            await client.predict(names(5000), features, JOB_CLASS, contributions=True)
    assert late.value.code == "DEADLINE_EXCEEDED"


async def test_features_of_the_wrong_shape_are_not_even_sent() -> None:
    async with PredictionClient("127.0.0.1:1", 1) as client:
        with pytest.raises(PredictionError, match="shape"):
            await client.predict(["a"], np.zeros((1, 2)), JOB_CLASS)


async def test_nobody_listening_is_one_clear_error() -> None:
    async with PredictionClient("127.0.0.1:1", 1) as client:
        with pytest.raises(PredictionError, match=r"predictor 127\.0\.0\.1:1"):
            await client.predict(["a"], feature_rows(1), JOB_CLASS)


async def test_the_services_can_be_discovered(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [reply] = [one async for one in stub.ServerReflectionInfo(iter([asked]), timeout=10)]
    found = {service.name for service in reply.list_services_response.service}
    assert {"fairlane.predictor.v1.Predictor", "grpc.health.v1.Health"} <= found


async def health(address: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(
            health_pb2.HealthCheckRequest(service="fairlane.predictor.v1.Predictor"), timeout=10
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


async def test_without_a_model_it_is_not_serving_until_one_is_published(
    tmp_path: Path, model: PublishedModel
) -> None:
    with running(tmp_path) as server:
        address = server.start()
        assert await health(address) == "NOT_SERVING"
        async with PredictionClient(address, 10) as client:
            with pytest.raises(PredictionError, match="no model was published yet"):
                await client.predict(["a"], feature_rows(1), JOB_CLASS)
            server.registry.publish(model)
            await answered(client)
        assert await health(address) == "SERVING"


async def test_the_environments_proxies_are_not_asked_for_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with running(tmp_path) as server:
        async with PredictionClient(server.start(), 10) as client:
            assert not await client.is_serving()  # it answers; a proxy that is not there would be told


async def test_a_newer_model_takes_over_without_a_failed_call(tmp_path: Path) -> None:
    models = [small_model(seed) for seed in range(2)]
    with running(tmp_path) as server:
        server.registry.publish(models[0])
        address = server.start()
        features = np.repeat(feature_rows(1), 20, axis=0)
        seen: set[str] = set()
        done = asyncio.Event()

        async def ask(client: PredictionClient) -> int:
            calls = 0
            while not done.is_set():
                told = await client.predict(names(20), features, JOB_CLASS)
                seen.add(told.model_version)
                calls += 1
            return calls

        async with PredictionClient(address, 20) as client:
            asking = [asyncio.create_task(ask(client)) for _ in range(4)]
            for turn in range(6):
                version = (await asyncio.to_thread(server.registry.publish, models[turn % 2])).info.version
                await answered(client, version)
            done.set()
            calls = sum(await asyncio.gather(*asking))
    assert len(seen) >= 6
    assert calls > 50


async def test_a_damaged_newest_model_changes_nothing_and_is_told(
    tmp_path: Path, model: PublishedModel
) -> None:
    with running(tmp_path) as server:
        good = server.registry.publish(model).info.version
        address = server.start()
        async with PredictionClient(address, 10) as client:
            await answered(client, good)
            broken = server.registry.publish(model).info.version
            path = tmp_path / "models" / "versions" / broken / "state.json"
            path.write_bytes(path.read_bytes()[:100])
            server.end(signal.SIGKILL)  # a fresh start meets the damage for certain
            server.start()
            await answered(client, good)
            about = await client.current_model()
    assert "truncated or was changed" in server.log()
    assert "truncated or was changed" in about.problem


async def test_a_registry_that_went_away_changes_nothing_and_is_told(
    tmp_path: Path, model: PublishedModel
) -> None:
    """A volume that is mounted no more looks like one where nothing was published yet."""
    with running(tmp_path) as server:
        good = server.registry.publish(model).info.version
        async with PredictionClient(server.start(), 10) as client:
            await answered(client, good)
            (tmp_path / "models").rename(tmp_path / "elsewhere")
            await told(client, r"has no model any more")
            await answered(client, good)
            (tmp_path / "elsewhere").rename(tmp_path / "models")
            await told(client, r"^$")


async def test_a_damaged_pointer_does_not_keep_a_fresh_predictor_from_a_sound_version(
    tmp_path: Path, model: PublishedModel
) -> None:
    with running(tmp_path) as server:
        good = server.registry.publish(model).info.version
        (tmp_path / "models" / "latest").write_text('{"version": 3}')
        async with PredictionClient(server.start(), 10) as client:
            await answered(client, good)
            about = await client.current_model()
    assert "the file latest is damaged" in about.problem


async def test_a_client_finds_a_predictor_that_came_back(tmp_path: Path, model: PublishedModel) -> None:
    with running(tmp_path) as server:
        server.registry.publish(model)
        address = server.start()
        async with PredictionClient(address, 5) as client:
            await answered(client)
            server.end(signal.SIGKILL)
            with pytest.raises(PredictionError):
                await client.predict(["a"], feature_rows(1), JOB_CLASS)
            server.start()
            await answered(client)


def test_it_ends_when_told_to(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.start()
        assert server.end(signal.SIGTERM) == 0


def test_a_port_that_is_taken_is_told(address: str, tmp_path: Path) -> None:
    port = address.rsplit(":", 1)[1]
    command = [
        sys.executable,
        "-m",
        "scheduler.cli.main",
        "predictor",
        "--registry",
        str(tmp_path),
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1
    assert "can't listen on" in ended.stderr
