"""Clusters of IPv6, of IPv4, and of both: our processes are reached by whatever address a pod has."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import yaml
from chart_variants import objects_of
from one_process import serving
from real_prometheus import eventually

from model.address import place_of
from scheduler.config import Settings
from scheduler.edge.controller_process import own_address
from scheduler.edge.http_server import is_loopback, listen
from testbed.ports import Reservation

WITHIN_S = 60.0
EVERYWHERE = ("127.0.0.1", "::1")


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 2):
            return True
    except OSError:
        return False


def test_the_predictor_is_reached_by_both_families(tmp_path: Path) -> None:
    grpc_port, metrics_port = Reservation().take(2)
    own = {"metrics_port": metrics_port, "registry": str(tmp_path)}
    settings = {"token": "not guessed", "predictor": own}
    with serving("predictor", tmp_path, settings, "--port", str(grpc_port)):
        for address in EVERYWHERE:
            assert eventually(lambda at=address: answers(at, metrics_port), WITHIN_S), address
            with grpc.insecure_channel(place_of(address, grpc_port)) as one:
                grpc.channel_ready_future(one).result(WITHIN_S)


def test_probes_are_reached_by_both_families(tmp_path: Path) -> None:
    port, metrics_port = Reservation().take(2)
    (tmp_path / "peers").write_text("")
    file = tmp_path / "probe.yaml"
    own = {"port": port, "metrics_port": metrics_port}
    file.write_text(yaml.safe_dump({"token": "not guessed", "probe": own}))
    peers = ["--node", "a", "--peers-from", "file", "--peers", str(tmp_path / "peers")]
    words = ["scheduler.cli.main", "probe", "--config", str(file), *peers]
    process = subprocess.Popen([sys.executable, "-m", *words])
    try:
        for address in EVERYWHERE:
            for one in (port, metrics_port):
                assert eventually(lambda at=address, p=one: answers(at, p), WITHIN_S), (address, one)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("variant", ["defaults", "webhook", "placement at release"])
def test_nothing_of_the_chart_listens_on_ipv4_alone(variant: str) -> None:
    (told,) = (one for one in objects_of(variant) if one["metadata"]["name"] == "fairlane-settings")
    settings = Settings.model_validate(yaml.safe_load(told["data"]["fairlane.yaml"]))
    for address in EVERYWHERE:
        for host in (
            settings.recorder.host,
            settings.controller.host,
            settings.predictor.host,
            settings.predictor.metrics_host,
            settings.extender.metrics_host,
            settings.probe.host,
            settings.admission.host,
        ):
            with listen(host, 0) as listening:
                listening.listen()
                assert answers(address, listening.getsockname()[1]), (host, address)
    assert is_loopback(settings.extender.host)


def test_a_machine_without_ipv6_is_served_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    known = socket.socket

    def without(family: int = socket.AF_INET, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return known(family, *more)

    monkeypatch.setattr("scheduler.edge.http_server.socket.socket", without)
    with listen("::", 0) as listening:
        assert listening.family == socket.AF_INET
    with pytest.raises(OSError, match="not supported"):
        listen("::1", 0)


@pytest.mark.parametrize(
    ("known", "address"),
    [(["fd00::7"], "fd00::7"), (["10.0.0.7"], "10.0.0.7"), (["fd00::7", "10.0.0.7"], "10.0.0.7")],
)
def test_a_replica_names_an_address_that_its_pod_has(
    monkeypatch: pytest.MonkeyPatch, known: list[str], address: str
) -> None:
    def told(*_asked: object, **_more: object) -> list[tuple[object, ...]]:
        families = {False: socket.AF_INET, True: socket.AF_INET6}
        return [(families[":" in one], socket.SOCK_STREAM, 6, "", (one, 0)) for one in known]

    monkeypatch.setattr("scheduler.edge.controller_process.socket.getaddrinfo", told)
    assert own_address("::") == address
    assert own_address("127.0.0.1") == "127.0.0.1"


def test_addresses_are_written_as_urls_have_them() -> None:
    assert place_of("fd00::7", 8891) == "[fd00::7]:8891"
    assert place_of("10.0.0.7", 8891) == "10.0.0.7:8891"
