"""The probe daemon: every node measures its network to its peers, a few at a time.

RTT is a round trip over TCP on the probe's own port, loss the share of round
trips that fail or take too long, and the transfer a few hundred kilobytes
sent to the peer. A round measures `peers_per_round` peers one after another
(two transfers at once would measure each other), in turn, beginning at a
random moment and a random peer, so that not all nodes ask the same one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scheduler.config import ConfigError, ProbeSettings
from scheduler.edge.probe_client import PairResult, Peer, ProbeClient, Refused
from scheduler.edge.probe_metrics import ProbeState
from scheduler.edge.probe_peers import ListPeers, PeersUnknown, Rotation
from scheduler.edge.probe_server import ProbeServer
from scheduler.edge.probe_tls import ProbeTls
from scheduler.edge.probe_wire import NAME_BYTES

log = logging.getLogger(__name__)


class Probe:
    """One node's probe: `run` serves and measures until cancelled; `state` is for the metrics.

    Raises `ConfigError` where neither a token nor mutual TLS keeps strangers out.
    """

    def __init__(self, settings: ProbeSettings, node: str, token: str, list_peers: ListPeers) -> None:
        if not token and settings.ca_file is None:
            raise ConfigError(
                "a probe without a token would let strangers use it: set FAIRLANE_TOKEN to the same secret"
                " on every node, or probe.ca_file, certificate_file and key_file for mutual TLS"
            )
        if not node.isascii() or not 0 < len(node) <= NAME_BYTES:
            raise ConfigError(
                f"the name of the node must be 1 to {NAME_BYTES} plain characters, not {node!r}"
            )
        self._settings = settings
        self._node = node
        self._list_peers = list_peers
        self._tls = ProbeTls(settings)
        self._server = ProbeServer(settings, node, token.encode(), self._tls.server)
        self._client = ProbeClient(settings, node, token.encode(), self._tls.client)
        self._rotation = Rotation(node, settings.peers_per_round, settings.max_peers, random.random())
        self._names: dict[str, str] = {}
        self._results: dict[str, PairResult] = {}
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._rounds = self._overruns = self._refresh_failures = 0
        self._unlisted = "they were not listed yet"

    @property
    def port(self) -> int:
        """The port that peers connect to, once started."""
        return self._server.port

    def state(self) -> ProbeState:
        """What is known now; safe to call from another thread."""
        return ProbeState(
            node=self._node,
            results=dict(self._results),
            cycle_s=self._rotation.rounds_per_cycle * self._settings.interval_s,
            peers=len(self._rotation.peers),
            rounds=self._rounds,
            overruns=self._overruns,
            skipped=dict(self._skipped),
            refused=dict(self._server.refused),
            sent_bytes=self._client.sent_bytes,
            received_bytes=self._server.received_bytes,
            refresh_failures=self._refresh_failures,
        )

    def unready(self) -> str:
        """Why nothing can be measured; empty when it can. One that is alone has no peers, and is ready."""
        return f"the peers are not known: {self._unlisted}" if self._unlisted else ""

    def status(self) -> dict[str, Any]:
        """The state in plain values."""
        state = self.state()
        skipped = [
            {"target": to, "reason": reason, "rounds": count} for (to, reason), count in state.skipped.items()
        ]
        return {
            "ready": not self.unready(),
            "unready": self.unready(),
            "node": state.node,
            "peers": state.peers,
            "measured": len(state.results),
            "skipped": skipped,
            "refused": dict(state.refused),
            "rounds": state.rounds,
            "overruns": state.overruns,
            "cycle_s": state.cycle_s,
            "peer_refresh_failures": state.refresh_failures,
        }

    async def start(self) -> None:
        """Listen for peers; raises OSError where the address is taken."""
        await self._server.start()

    async def run(self) -> None:
        """Measure until cancelled, then close the port."""
        refreshing = asyncio.create_task(self._refresh_for_ever())
        try:
            await asyncio.sleep(random.random() * self._settings.interval_s)
            await self._measure_for_ever()
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
            await self._server.close()

    async def _measure_for_ever(self) -> None:
        due_s = time.monotonic()
        while True:
            await self.round()
            due_s += self._settings.interval_s
            now_s = time.monotonic()
            if now_s > due_s:
                self._overruns += 1
                due_s = now_s
            await asyncio.sleep(due_s - now_s)

    async def round(self) -> None:
        """Measure the peers whose turn it is, with certificates as they are now."""
        self._tls.renew()
        self._client.tls = self._tls.client
        for peer in self._rotation.take():
            await self._measure(peer)
        self._rounds += 1

    async def _measure(self, peer: Peer) -> None:
        try:
            told, result = await self._client.measure(peer)
        except Refused as refusal:
            self._leave_out(self._target(peer), refusal.reason)
            return
        if peer.name and told != peer.name:
            self._leave_out(peer.name, "another_node")
            return
        self._names[peer.host] = told or self._target(peer)
        if told == self._node:
            self._rotate(self._rotation.peers)  # DNS lists ourselves too
            return
        self._results[self._target(peer)] = result
        if result.transfer_missing:
            self._count(self._target(peer), result.transfer_missing)

    def _leave_out(self, target: str, reason: str) -> None:
        """What was true before is unknown now."""
        self._results.pop(target, None)
        self._count(target, reason)

    def _count(self, target: str, reason: str) -> None:
        if not self._skipped[(target, reason)]:
            log.warning("%s is not measured: %s", target, _REASONS.get(reason, reason))
        self._skipped[(target, reason)] += 1

    def _target(self, peer: Peer) -> str:
        return peer.name or self._names.get(peer.host, peer.host)

    async def _refresh_for_ever(self) -> None:
        while True:
            await self.refresh()
            known = bool(self._rotation.peers)
            await asyncio.sleep(self._settings.peers_refresh_s if known else self._settings.interval_s)

    async def refresh(self) -> None:
        """Read the list of peers again; the old one stays where that fails."""
        try:
            peers = await self._list_peers()
        except PeersUnknown as error:
            self._refresh_failures += 1
            self._unlisted = self._unlisted and str(error)
            log.warning("the peers stay as they were: %s", error)
            return
        self._unlisted = ""
        if len(peers) - 1 > self._settings.max_peers:
            log.info("of %d peers %d are measured (probe.max_peers)", len(peers), self._settings.max_peers)
        self._rotate(peers)

    def _rotate(self, peers: Sequence[Peer]) -> None:
        """Take over the peers but ourselves; forget those that vanished, lest they seem never to change."""
        self._rotation.update([peer for peer in peers if self._target(peer) != self._node])
        present = {self._target(peer) for peer in self._rotation.peers}
        for gone in self._results.keys() - present:
            del self._results[gone]
        for key in [key for key in self._skipped if key[0] not in present]:
            del self._skipped[key]


_REASONS = {
    "own_budget": "our bytes of this minute are spent (probe.budget_bytes_per_minute)",
    "peer_budget": "the peer's bytes of this minute are spent (probe.budget_bytes_per_minute)",
    "closed_unproven": "it closed the connection: another token, clocks that differ, or too many connections",
    "tls": "its certificate is not signed by our authority, or ours not by its",
    "not_proven": "it does not hold our token",
    "another_node": "another node answers at its address",
    "transfer_lost": "the transfer did not end (probe.transfer_timeout_s)",
}
