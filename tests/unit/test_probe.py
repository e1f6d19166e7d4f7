"""The probe's parts that need no network: budget, handshake, turns, summaries and metrics."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from scheduler.config import ConfigError, ProbeSettings
from scheduler.edge.probe import Probe
from scheduler.edge.probe_budget import ByteBudget
from scheduler.edge.probe_client import PairResult, Peer, summarised
from scheduler.edge.probe_metrics import ProbeCollector, ProbeState
from scheduler.edge.probe_peers import ListPeers, PeersUnknown, Rotation, from_dns, from_file
from scheduler.edge.probe_wire import (
    HELLO_BYTES,
    PING,
    WELCOME_BYTES,
    Channel,
    Frame,
    Hello,
    NotProven,
    read_hello,
    read_welcome,
    write_hello,
    write_welcome,
)

TOKEN, NONCE, OTHER_NONCE = b"secret", b"n" * 16, b"m" * 16
NOW_S = 1_700_000_000.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_minute_carries_more_than_the_budget(steps: list[tuple[float, int]]) -> None:
    budget, now_s, spent = ByteBudget(1000), 0.0, list[tuple[float, int]]()
    for wait_s, size in steps:
        now_s += wait_s
        if budget.spend(size, now_s):
            spent.append((now_s, size))
    for start_s, _ in spent:
        assert sum(size for at_s, size in spent if start_s <= at_s < start_s + 60) <= 1000


def told_by(source: ListPeers) -> list[Peer]:
    async def peers() -> list[Peer]:
        return list(await source())

    return asyncio.run(peers())


def listed(folder: Path, text: str) -> list[Peer]:
    path = folder / "peers"
    path.write_text(text, encoding="utf-8")
    return told_by(from_file(path, 8893))


def test_peers_are_read_from_a_file(tmp_path: Path) -> None:
    text = "\ufeffa 10.0.0.1\n# b 10.0.0.2\n\nc host-c:99  # far\nd [fd00::1]:99\ne fd00::2\nf h\u00f6st.\n"
    assert listed(tmp_path, text) == [
        Peer("a", "10.0.0.1", 8893),
        Peer("c", "host-c", 99),
        Peer("d", "fd00::1", 99),
        Peer("e", "fd00::2", 8893),
        Peer("f", "h\u00f6st.", 8893),
    ]


@pytest.mark.parametrize(
    "line",
    ["a b..c", f"a {'x' * 70}.y", "a 10.0.0.1:99999", "a 10.0.0.1:0", "a h:\u00b2", "a h:p", "a \0", "a"],
)
def test_a_peer_that_cannot_be_asked_is_told_and_does_not_end_the_probe(tmp_path: Path, line: str) -> None:
    """What the network library raises for these is no OSError: it ended all probes that read the file."""
    with pytest.raises(PeersUnknown, match=r"no host\[:port\]|a line must be"):
        listed(tmp_path, f"b 10.0.0.2\n{line}\n")


def test_a_service_that_dns_could_not_have_is_told() -> None:
    with pytest.raises(PeersUnknown, match=r"DNS does not know 'a\.\.b'"):
        told_by(from_dns("a..b", 8893))


def test_a_spent_budget_comes_back_after_a_minute() -> None:
    budget = ByteBudget(100)
    assert budget.spend(100, 0.0)
    assert not budget.spend(1, 59.9)
    assert budget.spend(100, 60.0)


def test_both_sides_prove_themselves_and_then_understand_each_other() -> None:
    hello = read_hello(TOKEN, write_hello(TOKEN, NONCE, "a", NOW_S), NOW_S + 1)
    assert hello == Hello(NONCE, "a")
    welcome = read_welcome(TOKEN, NONCE, write_welcome(TOKEN, hello, OTHER_NONCE, "b"))
    assert welcome == Hello(OTHER_NONCE, "b")
    client = Channel(TOKEN, NONCE, OTHER_NONCE, is_client=True)
    server = Channel(TOKEN, NONCE, OTHER_NONCE, is_client=False)
    assert server.read(client.write(Frame(PING, 7))) == Frame(PING, 7)
    assert client.read(server.write(Frame(PING, 7))) == Frame(PING, 7)


@pytest.mark.parametrize("position", [0, 5, 20, 40, HELLO_BYTES - 1])
def test_a_hello_with_one_bit_changed_is_not_proven(position: int) -> None:
    message = bytearray(write_hello(TOKEN, NONCE, "a", NOW_S))
    message[position] ^= 1
    with pytest.raises(NotProven):
        read_hello(TOKEN, bytes(message), NOW_S)


def test_another_token_proves_nothing() -> None:
    with pytest.raises(NotProven):
        read_hello(b"other", write_hello(TOKEN, NONCE, "a", NOW_S), NOW_S)
    with pytest.raises(NotProven):
        read_welcome(b"other", NONCE, write_welcome(TOKEN, Hello(NONCE, "a"), OTHER_NONCE, "b"))


def test_an_old_hello_is_refused() -> None:
    with pytest.raises(NotProven, match="clocks"):
        read_hello(TOKEN, write_hello(TOKEN, NONCE, "a", NOW_S), NOW_S + 301)


def test_a_replayed_hello_gets_less_than_it_sent_and_no_further() -> None:
    assert WELCOME_BYTES < HELLO_BYTES
    recorded = Channel(TOKEN, NONCE, OTHER_NONCE, is_client=True).write(Frame(PING, 1))
    with pytest.raises(NotProven):
        Channel(TOKEN, NONCE, b"x" * 16, is_client=False).read(recorded)


def test_an_answer_cannot_be_reflected_as_a_request() -> None:
    server = Channel(TOKEN, NONCE, OTHER_NONCE, is_client=False)
    with pytest.raises(NotProven):
        server.read(server.write(Frame(PING, 1)))


def rotation(names: str, per_round: int = 2, max_peers: int = 64, phase: float = 0.0) -> Rotation:
    made = Rotation("me", per_round, max_peers, phase)
    made.update([Peer(name, name, 1) for name in names])
    return made


def turn(of: Rotation) -> str:
    return "".join(peer.name for peer in of.take())


@given(
    st.sets(st.characters(codec="ascii", categories=["L"]), min_size=1), st.integers(1, 7), st.floats(0, 0.99)
)
@settings(max_examples=60, deadline=None)
def test_every_peer_has_its_turn_in_every_cycle(names: set[str], per_round: int, phase: float) -> None:
    made = rotation("".join(names), per_round, phase=phase)
    seen = {name for _ in range(made.rounds_per_cycle) for name in turn(made)}
    assert seen == names


def test_no_peer_is_measured_twice_in_a_round() -> None:
    assert sorted(turn(rotation("ab", per_round=5))) == ["a", "b"]


def test_turns_go_on_when_peers_come_and_go() -> None:
    made = rotation("abcdef")
    assert turn(made) == "ab"
    made.update([Peer(name, name, 1) for name in "bdefg"])
    assert [turn(made), turn(made), turn(made)] == ["de", "fg", "bd"]


def test_probes_begin_at_different_peers() -> None:
    assert {turn(rotation("abcd", 1, phase=phase)) for phase in (0.0, 0.3, 0.6, 0.9)} == set("abcd")


def test_of_too_many_peers_a_node_keeps_its_own_choice() -> None:
    names = [chr(ord("A") + i) for i in range(50)]
    chosen = {peer.name for peer in rotation("".join(names), max_peers=10).peers}
    assert len(chosen) == 10
    fewer = rotation("".join(name for name in names if name not in sorted(chosen)[:1]), max_peers=10)
    assert len(chosen & {peer.name for peer in fewer.peers}) == 9


def test_without_peers_a_round_is_empty() -> None:
    assert rotation("").take() == ()


def test_a_round_is_summarised() -> None:
    result = summarised([0.010, 0.020, 0.012, 0.014], attempts=5, measured_at_s=NOW_S)
    assert result.loss_ratio == pytest.approx(0.2)
    assert result.rtt_s == pytest.approx(0.014)
    assert result.rtt_p95_s == 0.020
    assert result.rtt_jitter_s == pytest.approx((0.010 + 0.008 + 0.002) / 3)


def test_nothing_that_came_back_is_loss_one_and_otherwise_unknown() -> None:
    result = summarised([], attempts=5, measured_at_s=NOW_S)
    assert result.loss_ratio == 1.0
    assert all(math.isnan(v) for v in (result.rtt_s, result.rtt_jitter_s, result.transfer_s))
    assert math.isnan(result.throughput_bytes_per_s)


def exposed(**results: PairResult) -> str:
    state = ProbeState("me", results, 30.0, 1, 2, 0, {("b", "not_proven"): 3}, {"stranger": 4}, 5, 6, 0)
    registry = CollectorRegistry()
    registry.register(ProbeCollector(lambda: state))
    return generate_latest(registry).decode()


def test_metrics_carry_source_and_target_and_leave_out_the_unknown() -> None:
    text = exposed(a=PairResult(NOW_S, 1.0))
    assert 'fairlane_probe_loss_ratio{source="me",target="a"} 1.0' in text
    assert 'fairlane_probe_round_timestamp_seconds{source="me",target="a"} 1.7e+09' in text
    assert "fairlane_probe_rtt_seconds{" not in text
    assert "fairlane_probe_transfer_seconds{" not in text
    assert "NaN" not in text


def test_metrics_tell_what_was_turned_away() -> None:
    text = exposed()
    assert 'fairlane_probe_skipped_total{reason="not_proven",target="b"} 3.0' in text
    assert 'fairlane_probe_server_refused_total{reason="stranger"} 4.0' in text
    assert 'fairlane_probe_cycle_seconds{source="me"} 30.0' in text


async def nobody() -> list[Peer]:
    return []


def test_a_probe_open_to_strangers_does_not_start() -> None:
    with pytest.raises(ConfigError, match="set FAIRLANE_TOKEN"):
        Probe(ProbeSettings(), "a", "", nobody)


@pytest.mark.parametrize("node", ["", "ä", "x" * 254])
def test_a_node_name_that_no_node_can_have_is_refused(node: str) -> None:
    with pytest.raises(ConfigError, match="name of the node"):
        Probe(ProbeSettings(), node, "secret", nobody)
