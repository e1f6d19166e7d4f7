"""A real Prometheus behind TLS and a password: who has both reads it; who has not is told what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_prometheus import RealPrometheus, binary, eventually

from scheduler.config import Settings
from scheduler.edge.diagnosis_telemetry import _advice_for
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller
from testbed.credentials import write_credentials

pytestmark = pytest.mark.skipif(binary("prometheus") is None, reason="needs the program `prometheus`")
USER, PASSWORD = "reader", "a password"
HASHED = "$2b$04$abcdefghijklmnopqrstuuQCzP7jzWZS/E3GL4oF3LWbHm3pfKHH."
"""The password, as Prometheus wants it (bcrypt)."""


class Guarded:
    """A Prometheus at `url`, and the files that a reader of it needs."""

    def __init__(self, folder: Path) -> None:
        write_credentials(folder, "https://127.0.0.1")
        other = folder / "other"
        other.mkdir()
        write_credentials(other, "https://127.0.0.1")
        web = folder / "web.yml"
        tls = {"cert_file": str(folder / "apiserver.crt"), "key_file": str(folder / "apiserver.key")}
        web.write_text(yaml.safe_dump({"tls_server_config": tls, "basic_auth_users": {USER: HASHED}}))
        self.prometheus = RealPrometheus(folder, {}, flags=[f"--web.config.file={web}"])
        self.url = self.prometheus.url.replace("http:", "https:")
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.trusted, self.untrusted = folder / "ca.crt", other / "ca.crt"

    def failure(self, **access: Any) -> str:
        """Why a poll with that access fails; empty where it does not."""
        values = {"prometheus": {"url": self.url, **access}, "sources": ["node_exporter"]}
        poller = TelemetryPoller(Settings.model_validate(values), lambda: [NodeIdentity("n0")])
        poller.poll()
        return poller.stats.failure

    def named(self) -> dict[str, str]:
        return {"username": USER, "password_file": str(self.password_file)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """It answers whoever knows the password."""
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    made.prometheus.start(wait=False)
    try:
        assert eventually(lambda: not made.failure(ca_file=str(made.trusted), **made.named()))
        yield made
    finally:
        made.prometheus.close()


def test_who_trusts_its_authority_and_knows_the_password_reads_it(guarded: Guarded) -> None:
    assert guarded.failure(ca_file=str(guarded.trusted), **guarded.named()) == ""
    assert guarded.failure(skip_tls_verify=True, **guarded.named()) == ""


def test_a_wrong_password_is_refused_and_told(guarded: Guarded, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("another password")
    failure = guarded.failure(ca_file=str(guarded.trusted), username=USER, password_file=str(wrong))
    assert "401" in failure
    assert "password_file" in _advice_for(failure)


def test_no_password_is_refused_and_told(guarded: Guarded) -> None:
    failure = guarded.failure(ca_file=str(guarded.trusted))
    assert "401" in failure
    assert "bearer_token_file" in _advice_for(failure)


@pytest.mark.parametrize("authority", ["another", "the system's"])
def test_an_authority_that_is_not_trusted_is_told_and_no_password_sent(
    guarded: Guarded, authority: str
) -> None:
    trusted = {"ca_file": str(guarded.untrusted)} if authority == "another" else {}
    failure = guarded.failure(**trusted, **guarded.named())
    assert "certificate" in failure.lower()
    assert "prometheus.ca_file" in _advice_for(failure)
