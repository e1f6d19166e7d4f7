"""A TCP link that can fail as links do: cut off at once, or silent without a word."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class CuttableLink:
    """Passes bytes between its own port and `port` on this machine. Use `async with`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open = True
        self.connections = 0

    async def __aenter__(self) -> CuttableLink:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; further ones are reset too, until `mend`."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Undo `cut` for new connections, and `silence` for all."""
        self._open = True
        self._flowing.set()

    def silence(self) -> None:
        """Keep the connections and lose what is sent, as when the far machine is gone."""
        self._flowing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if not self._open:
                raise ConnectionResetError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except ConnectionError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                lost |= not self._flowing.is_set()
                if not lost:  # a connection that lost bytes never gets well again
                    writer.write(data)
                    await writer.drain()
        if not lost:
            writer.close()
