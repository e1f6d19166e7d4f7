"""A task that waits for an event ends when it is cancelled, whatever comes at the same moment."""

from __future__ import annotations

import asyncio

from scheduler.edge.waking import woken_within


async def test_a_cancellation_that_comes_with_the_event_is_not_lost() -> None:
    event = asyncio.Event()

    async def for_ever() -> None:
        while True:
            await woken_within(event, 60.0)
            event.clear()

    waiting = asyncio.create_task(for_ever())
    await asyncio.sleep(0.0)
    event.set()
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=1.0)
    assert waiting.cancelled()


async def test_it_tells_whether_the_event_came() -> None:
    event = asyncio.Event()
    assert not await woken_within(event, 0.001)
    event.set()
    assert await woken_within(event, 0.001)
