"""Real probe processes on loopback addresses: what they measure, and whom they serve."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from real_prometheus import eventually

from scheduler.config import ProbeSettings
from scheduler.edge.probe_client import Peer, ProbeClient, Refused
from scheduler.edge.probe_wire import HELLO_BYTES, WELCOME_BYTES, write_hello

pytestmark = pytest.mark.integration
TOKEN = "a shared secret"
FAST = {"timeout_s": 1.0, "sample_gap_s": 0.0, "peers_refresh_s": 0.5, "samples": 4, "transfer_bytes": 65536}


@dataclass
class Probes:
    """Probe processes with one list of peers; each listens on its own loopback address."""

    folder: Path
    peers: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    def start(self, node: str, host: str, token: str = TOKEN, **settings: object) -> None:
        config = self.folder / f"{node}.json"
        config.write_text(json.dumps({"probe": {**FAST, **settings}}))
        port_file = self.folder / f"{node}.ports"
        program = [str(Path(sys.executable).with_name("fairlane")), "probe", "--node", node]
        program += ["--peers-from", "file", "--peers", str(self._peers_file()), "--interval", "0.4"]
        program += ["--host", host, "--port", "0", "--metrics-port", "0", "--port-file", str(port_file)]
        environment = {**os.environ, "FAIRLANE_TOKEN": token, "FAIRLANE_CONFIG": str(config)}
        self.processes[node] = subprocess.Popen(program, env=environment)
        assert eventually(lambda: port_file.exists() and port_file.read_text().endswith("}"), every_s=0.05)
        ports = json.loads(port_file.read_text())
        self.metrics[node] = f"http://{host}:{ports['metrics_port']}/metrics"
        self.list(node, f"{host}:{ports['port']}")

    def list(self, node: str, address: str | None) -> None:
        self.peers = (
            {**self.peers, node: address} if address else {n: a for n, a in self.peers.items() if n != node}
        )
        self._peers_file()

    def kill(self, node: str) -> None:
        self.processes[node].kill()
        self.processes[node].wait()

    def value(self, node: str, metric: str, **labels: str) -> float | None:
        with urllib.request.urlopen(self.metrics[node], timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        wanted = labels.items()
        samples = [s for f in families for s in f.samples if s.name == f"fairlane_probe_{metric}"]
        return next((s.value for s in samples if wanted <= s.labels.items()), None)

    def _peers_file(self) -> Path:
        path = self.folder / "peers"
        path.write_text("# node address\n" + "".join(f"{n} {a}\n" for n, a in self.peers.items()))
        return path


@pytest.fixture
def probes(tmp_path: Path) -> Iterator[Probes]:
    made = Probes(tmp_path)
    yield made
    for process in made.processes.values():
        process.terminate()
    for process in made.processes.values():
        process.wait(10)


def test_it_lives_and_tells_how_it_is_beside_its_metrics(probes: Probes) -> None:
    for node, host in (("a", "127.0.0.2"), ("b", "127.0.0.3")):
        probes.start(node, host)
    base = probes.metrics["a"].removesuffix("/metrics")

    def told(path: str) -> bytes:
        with urllib.request.urlopen(base + path, timeout=5) as answer:
            return bytes(answer.read())

    assert told("/healthz") == b"ok\n"
    assert eventually(lambda: json.loads(told("/v1/status"))["measured"] == 1)
    assert told("/readyz") == b"ready\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        told("/else")


def address(probes: Probes, node: str) -> tuple[str, int]:
    host, port = probes.peers[node].rsplit(":", 1)
    return host, int(port)


def test_every_pair_is_measured_both_ways(probes: Probes) -> None:
    for i, node in enumerate("abc", start=2):
        probes.start(node, f"127.0.0.{i}")
    pairs = [(s, t) for s in "abc" for t in "abc" if s != t]
    assert eventually(lambda: all(probes.value(s, "throughput_bytes_per_second", target=t) for s, t in pairs))
    assert 0 < (probes.value("a", "rtt_seconds", source="a", target="b") or 0) < 0.5
    assert probes.value("a", "loss_ratio", target="b") == 0.0
    assert probes.value("a", "rtt_seconds", target="a") is None
    assert time.time() - (probes.value("c", "round_timestamp_seconds", target="a") or 0) < 20


def test_a_peer_that_is_down_has_loss_one_and_no_transfer_until_it_is_gone_from_the_list(
    probes: Probes,
) -> None:
    probes.start("a", "127.0.0.2")
    probes.start("b", "127.0.0.3")
    assert eventually(lambda: probes.value("a", "transfer_seconds", target="b") is not None)
    probes.kill("b")
    assert eventually(lambda: probes.value("a", "loss_ratio", target="b") == 1.0)
    assert probes.value("a", "transfer_seconds", target="b") is None
    assert probes.value("a", "rtt_seconds", target="b") is None
    probes.list("b", None)
    assert eventually(lambda: probes.value("a", "loss_ratio", target="b") is None)
    assert probes.value("a", "peers") == 0


def test_a_peer_with_another_token_is_unknown_and_counted_on_both_sides(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    probes.start("b", "127.0.0.3", token="another secret")
    assert eventually(lambda: bool(probes.value("a", "skipped_total", target="b", reason="closed_unproven")))
    assert probes.value("a", "loss_ratio", target="b") is None
    assert eventually(lambda: bool(probes.value("b", "server_refused_total", reason="stranger")))
    assert probes.value("b", "received_bytes_total") == 0


def test_a_stranger_gets_nothing_but_a_close(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    for said in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 400,
        write_hello(b"wrong", b"n" * 16, "z", time.time()),
    ):
        with socket.create_connection(address(probes, "a"), timeout=10) as stranger:
            stranger.sendall(said)
            if not said:
                stranger.shutdown(socket.SHUT_WR)
            assert received(stranger) == b""
    assert probes.value("a", "server_refused_total", reason="stranger") == 3


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


def test_a_replayed_hello_gets_one_welcome_and_then_a_close(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    recorded = write_hello(TOKEN.encode(), b"n" * 16, "b", time.time())
    with socket.create_connection(address(probes, "a"), timeout=10) as stranger:
        stranger.sendall(recorded)
        answer = stranger.recv(4096)
        assert len(answer) == WELCOME_BYTES < HELLO_BYTES
        stranger.sendall(b"S" + b"\0" * 24)
        assert received(stranger) == b""


def test_a_silent_stranger_is_closed(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    with socket.create_connection(address(probes, "a"), timeout=10) as stranger:
        assert received(stranger) == b""


def client(**settings: object) -> ProbeClient:
    values = {"transfer_bytes": 65536, "samples": 2, "sample_gap_s": 0.0, **settings}
    return ProbeClient(ProbeSettings.model_validate(values), "tester", TOKEN.encode())


def test_a_server_whose_budget_is_spent_refuses_and_counts(probes: Probes) -> None:
    probes.start("a", "127.0.0.2", budget_bytes_per_minute=100_000)
    peer = Peer("a", *address(probes, "a"))

    async def twice() -> list[str]:
        asking = client()
        return [(await asking.measure(peer))[1].transfer_missing for _ in range(2)]

    assert asyncio.run(twice()) == ["", "peer_budget"]
    assert probes.value("a", "server_refused_total", reason="budget") == 1
    assert probes.value("a", "received_bytes_total") == 65536


def test_a_transfer_larger_than_a_minute_may_carry_is_refused(probes: Probes) -> None:
    probes.start("a", "127.0.0.2", budget_bytes_per_minute=70_000)
    _, result = asyncio.run(client(transfer_bytes=80_000).measure(Peer("a", *address(probes, "a"))))
    assert result.transfer_missing == "peer_budget"
    assert probes.value("a", "server_refused_total", reason="oversized") == 1


def test_a_client_stays_within_its_own_budget(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    peer = Peer("a", *address(probes, "a"))

    async def thrice() -> None:
        asking = client(budget_bytes_per_minute=67_000)
        assert (await asking.measure(peer))[1].transfer_missing == ""
        assert (await asking.measure(peer))[1].transfer_missing == "own_budget"
        await asking.measure(peer)

    with pytest.raises(Refused, match="own_budget"):
        asyncio.run(thrice())


def test_an_exhausted_budget_makes_the_transfer_unknown_in_the_metrics(probes: Probes) -> None:
    probes.start("a", "127.0.0.2", budget_bytes_per_minute=75_000)
    probes.start("b", "127.0.0.3")
    assert eventually(lambda: bool(probes.value("a", "skipped_total", target="b", reason="own_budget")))
    assert probes.value("a", "transfer_seconds", target="b") is None


def test_connections_beyond_the_limit_are_closed_and_counted(probes: Probes) -> None:
    probes.start("a", "127.0.0.2", max_connections=1)
    with (
        socket.create_connection(address(probes, "a"), timeout=10),
        socket.create_connection(address(probes, "a"), timeout=10) as second,
    ):
        assert received(second) == b""
    assert probes.value("a", "server_refused_total", reason="full") == 1


def test_another_node_at_a_peers_address_is_not_taken_for_the_peer(probes: Probes) -> None:
    probes.start("a", "127.0.0.2")
    probes.start("b", "127.0.0.3")
    probes.list("c", probes.peers["b"])
    assert eventually(lambda: bool(probes.value("a", "skipped_total", target="c", reason="another_node")))
    assert probes.value("a", "rtt_seconds", target="c") is None


def test_a_probe_without_any_secret_says_what_to_set(tmp_path: Path) -> None:
    program = [str(Path(sys.executable).with_name("fairlane")), "probe", "--node", "a"]
    program += ["--peers-from", "file", "--peers", str(tmp_path / "peers")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAIRLANE_")}
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "set FAIRLANE_TOKEN" in ended.stderr
