"""What the image has is enough for the stores that the chart offers: PostgreSQL, and models on S3.

Processes run on the packages that the image has, no others: a folder of links in place of the image, which
takes minutes to build. `make image` starts the same processes in the image itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image_site import image_site
from moto.server import ThreadedMotoServer
from placing_builders import a_batch, a_decision
from raw_http import ask
from real_postgres import binaries, postgres
from recorded_runs import model_of_two_classes

from model.registry import Registry, RegistryError
from testbed.kind.images import ROOT
from testbed.kind.inspection import START_S_MAX
from testbed.kind.starts import KUBECONFIG, STARTS, measured
from testbed.ports import Reservation

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 60.0
BUCKET = "models"


@pytest.fixture(scope="module")
def fairlane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command, on the image's packages: -S leaves out those of this environment."""
    folder = tmp_path_factory.mktemp("image")
    site = image_site(folder)
    command = folder / "fairlane"
    guarded = "if __name__ == '__main__':\n    main()\n"
    command.write_text(f"#!{sys.executable} -S\nfrom scheduler.cli.main import main\n{guarded}")
    command.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{site}")
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # the image has its modules compiled
        yield str(command)


@contextmanager
def running(fairlane: str, folder: Path, *words: str) -> Iterator[int]:
    """A process of ours that listens; its port."""
    (folder / "kubeconfig").write_text(KUBECONFIG)
    own = {"KUBECONFIG": str(folder / "kubeconfig"), "FAIRLANE_TOKEN": "token"}
    port_file = folder / f"port-{uuid.uuid4().hex}"
    command = [fairlane, *words, "--host", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    process = subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            assert time.monotonic() < deadline_s, "no open port"
            time.sleep(0.05)
        yield int(port_file.read_text())
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server (package postgresql)")
def test_the_recorder_of_the_image_keeps_decisions_in_postgresql(fairlane: str, tmp_path: Path) -> None:
    decision = a_decision(uuid.uuid4().hex)
    batch, pod = msgspec.msgpack.encode(a_batch(decision)), f"{decision.namespace}/{decision.name}"
    with postgres() as url:
        for _ in range(2):  # the second finds what the first has written
            with running(fairlane, tmp_path, "recorder", "--store", url) as port:
                sent = ask(port, "POST", "/v1/decisions", batch, authorization="Bearer token")
                assert sent.json() == {"stored": 1, "missing_tables": []}
                told = ask(port, "GET", f"/v1/decisions?pod={pod}", authorization="Bearer token")
                assert told.status == 200, told.body


class ObjectStore:
    """A server that speaks S3; what it holds outlives `stop`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    ports = Reservation()
    port = ports.take(1)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ObjectStore(port)
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
        server.stop()
    ports.close()


def serves(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return bool(asked.status == health_pb2.HealthCheckResponse.SERVING)


def eventually_serves(port: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not serves(port):
        assert time.monotonic() < deadline_s, "the published model is not taken"
        time.sleep(0.2)


def test_models_are_published_to_s3_and_the_predictor_of_the_image_takes_them(
    fairlane: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    registry = Registry(f"s3://{BUCKET}/{uuid.uuid4().hex}", keep=2)
    command = ("predictor", "--registry", registry.url, "--poll-s", "0.3")
    with running(fairlane, tmp_path, *command) as port:
        assert not serves(port)
        published = [registry.publish(model_of_two_classes()).info.version for _ in range(3)]
        eventually_serves(port)
        object_store.stop()
        time.sleep(1.0)
        assert serves(port)
        with running(fairlane, tmp_path, *command) as late:  # begun while the store is away
            assert not serves(late)
            object_store.start()
            eventually_serves(late)
    assert registry.versions() == published[-2:]
    assert registry.load().info.version == published[-1]


@pytest.mark.usefixtures("object_store")
@pytest.mark.parametrize(
    ("lacking", "told"),
    [("bucket", "bucket does not exist"), ("credentials", "Unable to locate credentials")],
)
def test_an_object_store_that_refuses_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, lacking: str, told: str
) -> None:
    if lacking == "credentials":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # it would go on with the old ones
    registry = Registry("s3://no-such/models" if lacking == "bucket" else f"s3://{BUCKET}/{uuid.uuid4().hex}")
    with pytest.raises(RegistryError, match=told):
        registry.publish(model_of_two_classes())


@pytest.mark.alone  # what else runs makes a second of CPU do less
@pytest.mark.parametrize("name", STARTS)
def test_each_process_starts_within_two_seconds_of_cpu(fairlane: str, name: str) -> None:
    """Until its port is open; the best of some."""
    tries: list[float] = []
    while len(tries) < 4 and min(tries, default=START_S_MAX) >= START_S_MAX:
        tries.append(measured(fairlane, STARTS[name])[0])
    assert min(tries) < START_S_MAX, tries
