"""Waiting for an event, but not for ever."""

from __future__ import annotations

import asyncio


async def woken_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait until the event is set, so long at most; whether it is.

    Not by `asyncio.wait_for`: before Python 3.12 that swallows a cancellation which comes together with
    the event, and the task that was to end goes on for ever.
    """
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
