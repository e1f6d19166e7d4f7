"""Who the peers are: from DNS, a file or the API server; and whose turn it is."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scheduler.edge.probe_client import Peer

if TYPE_CHECKING:
    from scheduler.edge.kube import KubeClient

ListPeers = Callable[[], Awaitable[Sequence[Peer]]]


class PeersUnknown(Exception):
    """The list of peers could not be read; the message says why."""


def from_dns(service: str, port: int) -> ListPeers:
    """Peers are the addresses of a headless Service; they tell their node's name themselves."""

    async def peers() -> Sequence[Peer]:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.getaddrinfo(service, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a name that DNS could not have
            raise PeersUnknown(f"DNS does not know {service!r}: {error}") from error
        hosts = sorted({str(answer[4][0]) for answer in answers})
        return [Peer("", host, port) for host in hosts]

    return peers


def from_file(path: Path, port: int) -> ListPeers:
    """Peers are the lines `node host[:port]` of a file; # begins a comment."""

    async def peers() -> Sequence[Peer]:
        try:
            text = path.read_text(encoding="utf-8-sig")  # noqa: ASYNC240 - a few lines, once a minute
        except (OSError, UnicodeDecodeError) as error:
            raise PeersUnknown(f"cannot read {path}: {error}") from error
        lines = [line.split("#", 1)[0].split() for line in text.splitlines()]
        return [_of_words(words, path, port) for words in lines if words]

    return peers


def _of_words(words: Sequence[str], path: Path, port: int) -> Peer:
    if len(words) != 2:
        raise PeersUnknown(f"{path}: a line must be `node host[:port]`, not {' '.join(words)!r}")
    node, address = words
    host, colon, own_port = address.rpartition(":")
    if colon and own_port.isdecimal() and (":" not in host or host.startswith("[")):
        address, port = host, int(own_port)
    peer = Peer(node, address.strip("[]"), port)
    if not _can_be_asked(peer):
        raise PeersUnknown(f"{path}: {words[1]!r} of {node} is no host[:port]")
    return peer


def _can_be_asked(peer: Peer) -> bool:
    """False for a host or port of which no connection could even be tried."""
    try:
        if ":" in peer.host:
            ip_address(peer.host)
        else:
            peer.host.encode("idna")
    except ValueError:  # UnicodeError is one
        return False
    return bool(peer.host) and "\0" not in peer.host and 0 < peer.port < 2**16


class _Meta(msgspec.Struct):
    deletionTimestamp: str | None = None


class _Spec(msgspec.Struct):
    nodeName: str = ""


class _Status(msgspec.Struct):
    podIP: str = ""
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec
    status: _Status


class _Pods(msgspec.Struct):
    items: list[_Pod]


def from_kube(kube: KubeClient, namespace: str, selector: str, port: int) -> ListPeers:
    """Peers are the running pods that `selector` finds in `namespace`."""

    from scheduler.edge.kube import KubeError  # large, and most probes never need it

    async def peers() -> Sequence[Peer]:
        try:
            body = await kube.get(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector})
        except KubeError as error:
            raise PeersUnknown(f"the API server does not list the probes: {error}") from error
        pods = msgspec.json.decode(body, type=_Pods).items
        return [
            Peer(pod.spec.nodeName, pod.status.podIP, port)
            for pod in pods
            if pod.status.podIP and pod.status.phase == "Running" and not pod.metadata.deletionTimestamp
        ]

    return peers


class Rotation:
    """Deals out the peers in turn, `per_round` at a time, so that every one is measured in time.

    Of more than `max_peers` peers a node takes a fixed choice of its own, by
    a hash of both names: different nodes choose differently, and the choice
    hardly changes when peers come and go.
    """

    def __init__(self, node: str, per_round: int, max_peers: int, phase: float) -> None:
        self._node = node
        self._per_round = per_round
        self._max_peers = max_peers
        self._phase = phase
        self._next = ""
        self.peers: tuple[Peer, ...] = ()

    @property
    def rounds_per_cycle(self) -> int:
        """Rounds until the same peer is measured again."""
        return max(1, -(-len(self.peers) // self._per_round))

    def update(self, peers: Sequence[Peer]) -> None:
        """Take over a new list; the turn goes on where it was."""
        others = {(peer.name or peer.host): peer for peer in peers}
        chosen = sorted(others, key=self._rank)[: self._max_peers]
        if chosen and not self.peers:
            self._next = sorted(chosen)[int(self._phase * len(chosen)) % len(chosen)]
        self.peers = tuple(others[key] for key in sorted(chosen))

    def take(self) -> tuple[Peer, ...]:
        """The peers of the next round."""
        keys = [peer.name or peer.host for peer in self.peers]
        start = next((i for i, key in enumerate(keys) if key >= self._next), 0)
        turn = (self.peers[start:] + self.peers[:start])[: self._per_round]
        if keys:
            self._next = keys[(start + len(turn)) % len(keys)]
        return turn

    def _rank(self, key: str) -> bytes:
        return hashlib.sha256(f"{self._node}|{key}".encode()).digest()
