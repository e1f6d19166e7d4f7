"""The asking side of the probe: round trips, loss and the time of one small transfer to a peer."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from scheduler.config import ProbeSettings
from scheduler.edge.probe_budget import ByteBudget
from scheduler.edge.probe_wire import (
    DONE,
    FRAME_BYTES,
    HELLO_BYTES,
    NO,
    NONCE_BYTES,
    PING,
    SEND,
    WELCOME_BYTES,
    YES,
    Channel,
    Frame,
    NotProven,
    read_welcome,
    write_hello,
)

_LOST = (OSError, TimeoutError, asyncio.IncompleteReadError)


class Refused(Exception):
    """The peer is there but does not serve us; `reason` is a label for the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a probe listens; `name` is its node, empty until it has told."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PairResult:
    """One round's measurements to one peer; NaN is unknown."""

    measured_at_s: float
    loss_ratio: float
    rtt_s: float = math.nan
    rtt_p95_s: float = math.nan
    rtt_jitter_s: float = math.nan
    transfer_s: float = math.nan
    transfer_bytes: int = 0
    transfer_missing: str = ""
    """Why there is no transfer though one was due; a label for the counter."""

    @property
    def throughput_bytes_per_s(self) -> float:
        """Payload over transfer time; NaN where there was no transfer."""
        return self.transfer_bytes / self.transfer_s if self.transfer_s > 0 else math.nan


def summarised(rtts_s: Sequence[float], attempts: int, measured_at_s: float) -> PairResult:
    """Mean, 95th percentile (nearest rank) and jitter of the round trips that came back.

    Jitter is the mean difference of two successive round trips (as in RFC 3550, without its smoothing).
    """
    loss = 1 - len(rtts_s) / attempts
    if not rtts_s:
        return PairResult(measured_at_s, loss)
    mean = sum(rtts_s) / len(rtts_s)
    p95 = sorted(rtts_s)[math.ceil(0.95 * len(rtts_s)) - 1]
    steps = [abs(b - a) for a, b in pairwise(rtts_s)]
    return PairResult(measured_at_s, loss, mean, p95, sum(steps) / len(steps) if steps else math.nan)


class ProbeClient:
    """Measures peers, one at a time, within the probe's own byte budget."""

    def __init__(
        self, settings: ProbeSettings, node: str, token: bytes, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._node = node
        self._token = token
        self.tls = tls
        self._budget = ByteBudget(settings.budget_bytes_per_minute)
        self._payload = os.urandom(settings.transfer_bytes)  # what a link compresses would look fast
        self.sent_bytes = 0

    async def measure(self, peer: Peer) -> tuple[str, PairResult]:
        """The peer's node name ("" if it never answered) and what was measured.

        Raises:
            Refused: the peer did not accept us, or one of both budgets is spent.
        """
        needed = self._settings.samples * (FRAME_BYTES + HELLO_BYTES)
        if not self._budget.spend(needed, time.monotonic()):
            raise Refused("own_budget")
        link: _Link | None = None
        name, rtts_s = peer.name, list[float]()
        try:
            for number in range(self._settings.samples):
                try:
                    link = link or await self._connect(peer)
                    name = link.name
                    rtts_s.append(await link.ping(number, self._settings.timeout_s))
                except ssl.SSLError:
                    raise  # it is an OSError, but no loss: the peer is there
                except _LOST:
                    _close(link)
                    link = None
                await asyncio.sleep(self._settings.sample_gap_s)
            result = summarised(rtts_s, self._settings.samples, time.time())
            return name, await self._with_transfer(link, result)
        except NotProven as error:
            raise Refused("not_proven") from error
        except ssl.SSLError as error:
            raise Refused("tls") from error
        finally:
            _close(link)

    async def _with_transfer(self, link: _Link | None, result: PairResult) -> PairResult:
        """With the time of a transfer; one that was refused or did not end is unknown, not zero."""
        size = self._settings.transfer_bytes
        if link is None or size == 0:
            return result
        if not self._budget.spend(size, time.monotonic()):
            return replace(result, transfer_missing="own_budget")
        try:
            transfer_s = await link.send(self._payload, self._settings.transfer_timeout_s)
        except Refused as refusal:
            return replace(result, transfer_missing=refusal.reason)
        except _LOST:
            return replace(result, transfer_missing="transfer_lost")
        self.sent_bytes += size
        return replace(result, transfer_s=transfer_s, transfer_bytes=size)

    async def _connect(self, peer: Peer) -> _Link:
        async with asyncio.timeout(self._settings.timeout_s):
            reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=self.tls)
            nonce = os.urandom(NONCE_BYTES)
            try:
                writer.write(write_hello(self._token, nonce, self._node, time.time()))
                message = await reader.readexactly(WELCOME_BYTES)
                welcome = read_welcome(self._token, nonce, message)
            except asyncio.IncompleteReadError as error:
                writer.transport.abort()
                raise Refused("closed_unproven") from error
            except BaseException:
                writer.transport.abort()
                raise
        channel = Channel(self._token, nonce, welcome.nonce, is_client=True)
        return _Link(reader, writer, channel, welcome.name)


class _Link:
    """A proven connection to a peer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: Channel, name: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._channel = channel
        self.name = name

    async def ping(self, number: int, timeout_s: float) -> float:
        """Seconds from writing a frame to having read its echo."""
        async with asyncio.timeout(timeout_s):
            begun_s = time.perf_counter()
            self._writer.write(self._channel.write(Frame(PING, number)))
            answer = await self._read()
            ended_s = time.perf_counter()
        if answer.kind == NO:
            raise Refused("peer_budget")
        if answer != Frame(PING, number):
            raise NotProven("the peer answered something else")
        return ended_s - begun_s

    async def send(self, payload: bytes, timeout_s: float) -> float:
        """Seconds from the first byte of `payload` sent to the peer's word that the last one arrived.

        One round trip is part of it, asking for permission and connecting are not.
        """
        async with asyncio.timeout(timeout_s):
            self._writer.write(self._channel.write(Frame(SEND, 0, len(payload))))
            if (await self._read()).kind != YES:
                raise Refused("peer_budget")
            begun_s = time.perf_counter()
            self._writer.write(payload)
            await self._writer.drain()
            if (await self._read()).kind != DONE:
                raise Refused("transfer_broken")
            return time.perf_counter() - begun_s

    def close(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()

    async def _read(self) -> Frame:
        return self._channel.read(await self._reader.readexactly(FRAME_BYTES))


def _close(link: _Link | None) -> None:
    if link is not None:
        link.close()
