"""The model server over TLS: who is trusted, and certificates that change while it serves."""

from __future__ import annotations

import datetime
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scheduler.config import ConfigError, Settings
from scheduler.edge.certificates import Certificates, Lives, renewed
from scheduler.edge.predictions import PredictionClient, PredictionError

NAMES = ("localhost", "127.0.0.1")
DAY = Lives(ca_s=86_400.0, certificate_s=3600.0, settle_s=60.0)
TOKEN = "shared by our own"
PATIENCE_S = 150.0

pytestmark = pytest.mark.timeout(400)


class Secret:
    """A mounted Secret: what a kubelet replaces while the processes run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key, self.ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def hold(self, now: Certificates) -> None:
        self.put(self.ca, now.bundle)
        self.put(self.key, now.serving.key)
        self.put(self.certificate, now.serving.certificate)

    def put(self, path: Path, text: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(text)
        new.replace(path)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextmanager
def serving(folder: Path, secret: Secret) -> Iterator[str]:
    """A predictor process with a registry without models; its address."""
    port_file = folder / "port"
    tls = {"certificate_file": str(secret.certificate), "key_file": str(secret.key)}
    given = {"token": TOKEN, "predictor": {"registry": str(folder / "models"), **tls}}
    (folder / "fairlane.yaml").write_text(yaml.safe_dump(given))
    options = ["--config", str(folder / "fairlane.yaml"), "--host", "127.0.0.1", "--port", "0"]
    command = [
        sys.executable,
        "-m",
        "scheduler.cli.main",
        "predictor",
        *options,
        "--port-file",
        str(port_file),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline_s, "the predictor does not listen"
            time.sleep(0.05)
        yield f"127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


async def trusts(address: str, ca: Path | None) -> bool:
    """Whether a new client is answered; the reason why not must be TLS."""
    async with PredictionClient(address, 20.0, TOKEN, ca) as client:
        try:
            return not await client.is_serving()  # it answers; no model was published
        except PredictionError as error:
            if error.code != "UNAVAILABLE":
                raise
            return False


async def test_only_who_trusts_its_ca_is_answered_and_changes_are_taken_while_it_serves(
    tmp_path: Path,
) -> None:
    secret, other = Secret(tmp_path), tmp_path / "other.crt"
    first = renewed(None, NAMES, now(), DAY)
    secret.hold(first)
    other.write_bytes(renewed(None, NAMES, now(), DAY).bundle)
    with serving(tmp_path, secret) as address:
        async with PredictionClient(address, 20.0, TOKEN, secret.ca) as old:
            assert not await old.is_serving()
            assert not await trusts(address, None)
            assert not await trusts(address, other)
            second = renewed(None, NAMES, now(), DAY)
            secret.put(
                secret.certificate, second.serving.certificate
            )  # half a change: the key is the old one
            assert await trusts(address, secret.ca)
            secret.put(secret.ca, second.bundle + first.bundle)
            secret.hold(replace(second, bundle=second.bundle + first.bundle))
            assert await trusts(address, secret.ca)
            other.write_bytes(first.bundle)
            assert not await trusts(address, other)  # the new certificate is served, the old one no more
            secret.put(secret.ca, second.bundle)
            assert not await old.is_serving()
    assert "the new certificate is not used" in (tmp_path / "log").read_text()


async def test_a_ca_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    async with PredictionClient("127.0.0.1:1", 1.0, ca_file=tmp_path / "none.crt") as client:
        with pytest.raises(PredictionError, match=r"its CA: .*none\.crt"):
            await client.current_model()


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fairlane.yaml"
    file.write_text("predictor: {certificate_file: /tmp/tls.crt}")
    with pytest.raises(ConfigError, match="certificate_file and key_file go together"):
        Settings.load(file, {})


async def test_while_a_ca_file_is_empty_nothing_is_said_in_plain_text(
    tmp_path: Path,
) -> None:
    empty = tmp_path / "ca.crt"
    empty.touch()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        async with PredictionClient(address, 1.0, TOKEN, empty) as client:
            with pytest.raises(PredictionError, match=r"its CA: .*ca\.crt is empty"):
                await client.current_model()
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
