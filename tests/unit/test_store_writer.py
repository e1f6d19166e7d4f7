"""When outcomes are written: at once where few change, after a burst where many do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from placing_builders import an_outcome

from scheduler.core.outcomes import Outcome
from scheduler.edge import store_writer
from scheduler.edge.judgement import Judgement
from scheduler.edge.store_writer import BURST, StoreWriter

FLUSH_S, PAUSE_S, HOLD_S = 0.02, 0.1, 0.6


class Store:
    """Counts the outcomes of each write."""

    is_open = True

    def __init__(self) -> None:
        self.written: list[int] = []

    def write_outcomes(self, changed: Sequence[Outcome], _now_s: float) -> list[Any]:
        self.written.append(len(changed))
        return []

    def prune(self, *_limits: Any) -> int:
        return 0


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, seconds in (("FLUSH_S", FLUSH_S), ("PAUSE_S", PAUSE_S), ("HOLD_S", HOLD_S)):
        monkeypatch.setattr(store_writer, name, seconds)
    return Store()


@pytest.fixture
async def writer(store: Store) -> AsyncIterator[StoreWriter]:
    made = StoreWriter(store, Judgement(), lambda: 1.0, keep_rows=1, keep_days=1.0)  # type: ignore[arg-type]
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def changes(writer: StoreWriter, seconds: float) -> int:
    """Pods change all the time for so long, many within each flush; how many."""
    loop, count = asyncio.get_running_loop(), 0
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        writer.owe([an_outcome(f"u{count + number}") for number in range(2 * BURST)])
        count += 2 * BURST
        await asyncio.sleep(FLUSH_S / 4)
    return count


async def test_a_few_changes_are_written_at_once(writer: StoreWriter, store: Store) -> None:
    for number in range(10):
        writer.owe([an_outcome(f"u{number}")])
        await asyncio.sleep(2.5 * FLUSH_S)
    assert len(store.written) >= 5


async def test_a_burst_is_written_once_it_pauses(writer: StoreWriter, store: Store) -> None:
    count = await changes(writer, 0.4)
    assert store.written == []
    await asyncio.sleep(5 * PAUSE_S)
    assert sum(store.written) == count


async def test_a_burst_that_does_not_end_is_written_all_the_same(writer: StoreWriter, store: Store) -> None:
    await changes(writer, 2 * HOLD_S)
    assert sum(store.written) > 0


async def test_what_changes_again_in_a_burst_is_written_once(writer: StoreWriter, store: Store) -> None:
    for run_s in (None, 5.0):
        writer.owe([an_outcome(f"u{number}", run_s=run_s) for number in range(2 * BURST)])
        await asyncio.sleep(2 * FLUSH_S)
    await asyncio.sleep(5 * PAUSE_S)
    assert store.written == [2 * BURST]
