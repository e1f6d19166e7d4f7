"""The answering side of the probe: echoes pings and swallows transfers of proven peers, within limits."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import Mapping

from scheduler.config import ProbeSettings
from scheduler.edge.http_server import listen
from scheduler.edge.probe_budget import ByteBudget
from scheduler.edge.probe_wire import (
    DONE,
    FRAME_BYTES,
    HELLO_BYTES,
    NO,
    PING,
    SEND,
    YES,
    Channel,
    Frame,
    NotProven,
    read_hello,
    write_welcome,
)

PROOF_TIMEOUT_S = 2.0
"""A connection that has not proven itself by then is closed."""
IDLE_TIMEOUT_S = 30.0
"""A proven connection without a request for so long is closed."""
_CHUNK_BYTES = 1 << 16


class ProbeServer:
    """Serves proven peers on one port; a stranger gets nothing but a close.

    `refused` counts what was turned away: `stranger` (no valid proof),
    `full` (too many connections), `budget` (bytes of this minute are spent),
    `oversized` (one transfer larger than ours may be).
    """

    def __init__(
        self, settings: ProbeSettings, node: str, token: bytes, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._node = node
        self._token = token
        self._tls = tls
        self._budget = ByteBudget(settings.budget_bytes_per_minute)
        self._open = 0
        self._refused: Counter[str] = Counter(stranger=0, full=0, budget=0, oversized=0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.received_bytes = 0

    @property
    def refused(self) -> Mapping[str, int]:
        """Counts by reason."""
        return self._refused

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen; raises OSError where the address is taken."""
        handshake_s = PROOF_TIMEOUT_S if self._tls else None
        self._server = await asyncio.start_server(
            self._serve,
            sock=listen(self._settings.host, self._settings.port),
            ssl=self._tls,
            ssl_handshake_timeout=handshake_s,
            limit=_CHUNK_BYTES,
        )

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= self._settings.max_connections:
            self._refused["full"] += 1
            writer.close()  # not abort: to the peer a reset would look like a lost attempt
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open += 1
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer is gone or too slow, or we are closing: either way the connection ends
        finally:
            self._open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            channel = await self._proven(reader, writer)
            while True:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    message = await reader.readexactly(FRAME_BYTES)
                if not await self._answer(channel.read(message), channel, reader, writer):
                    return
        except NotProven:
            self._refused["stranger"] += 1

    async def _proven(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Channel:
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S):
                message = await reader.readexactly(HELLO_BYTES)
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            raise NotProven("no complete hello came") from error
        hello = read_hello(self._token, message, time.time())
        nonce = os.urandom(16)
        writer.write(write_welcome(self._token, hello, nonce, self._node))
        return Channel(self._token, hello.nonce, nonce, is_client=False)

    async def _answer(
        self, request: Frame, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether to go on with this connection."""
        if request.kind == PING:
            kind = PING if self._allows(FRAME_BYTES) else NO
            writer.write(channel.write(Frame(kind, request.number)))
        elif request.kind == SEND:
            await self._receive(request, channel, reader, writer)
        else:
            return False
        await writer.drain()
        return True

    async def _receive(
        self, request: Frame, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.size > self._settings.budget_bytes_per_minute:
            self._refused["oversized"] += 1
            writer.write(channel.write(Frame(NO, request.number)))
            return
        if not self._allows(request.size):
            writer.write(channel.write(Frame(NO, request.number)))
            return
        writer.write(channel.write(Frame(YES, request.number, request.size)))
        async with asyncio.timeout(self._settings.transfer_timeout_s):
            await self._swallow(reader, request.size)
        writer.write(channel.write(Frame(DONE, request.number, request.size)))

    async def _swallow(self, reader: asyncio.StreamReader, size: int) -> None:
        while size > 0:
            chunk = await reader.read(min(size, _CHUNK_BYTES))
            if not chunk:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(chunk)
            self.received_bytes += len(chunk)

    def _allows(self, size: int) -> bool:
        allowed = self._budget.spend(size, time.monotonic())
        self._refused["budget"] += not allowed
        return allowed
