"""How soon a watch is read again: at once, unless so much happens that each reading costs too much."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

GATHERED_S = 0.05
"""In a burst a watch is read so seldom: each waking costs more than the event that it brings."""
MUCH_BYTES = 256 * 1024
EVENTS_AT_ONCE, EVENTS_PER_S = 50.0, 100.0
"""Events of a watch before they count as a burst, and how many a second never do: where a few pods come and
go each second, what they tell is heard at once, since the room of each that ends is waited for."""


class Allowance:
    """How many events may still come before they are a burst."""

    def __init__(self, now_s: float) -> None:
        self._left, self._seen_s = EVENTS_AT_ONCE, now_s

    def spend(self, events: int, now_s: float) -> bool:
        """So many events were just read; True in a burst, when it is better to wait for more of them."""
        earned = (now_s - self._seen_s) * EVENTS_PER_S
        self._left = max(0.0, min(EVENTS_AT_ONCE, self._left + earned) - events)
        self._seen_s = now_s
        return self._left <= 0.0


async def gathered(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Pieces of a watch as they come; in a burst, what comes within `GATHERED_S` at once."""
    allowance = Allowance(time.monotonic())
    async for chunk in answer.content.iter_any():
        yield chunk
        if allowance.spend(max(1, chunk.count(b"\n")), time.monotonic()):
            with _left_alone(answer):
                await asyncio.sleep(GATHERED_S)


@contextmanager
def _left_alone(answer: aiohttp.ClientResponse) -> Iterator[None]:
    """The kernel wakes nobody for what comes meanwhile, unless it is much or the end.

    Pausing the transport would not do: below TLS it goes on reading.
    """
    transport = answer.connection.transport if answer.connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or transport is None or transport.is_closing():
        yield
        return
    with socket.socket(
        fileno=os.dup(found.fileno())
    ) as same:  # its own name for it: it may be closed meanwhile
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, MUCH_BYTES)
        try:
            yield
        finally:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
