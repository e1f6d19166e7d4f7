"""A clock that was ahead, as after the start of many machines, is no reason to wait until its time comes."""

from __future__ import annotations

import asyncio
from itertools import chain, repeat
from typing import Any

import pytest

from model.placement import Job
from scheduler.edge import store_writer
from scheduler.edge.histories import Histories
from scheduler.edge.judgement import Judgement
from scheduler.edge.recorder_client import RecorderError
from scheduler.edge.store_writer import StoreWriter

NOW_S, YEARS_AHEAD_S = 1.8e9, 2.1e9


class Store:
    """It tells when it was pruned by the right time."""

    is_open = True

    def __init__(self) -> None:
        self.loop, self.pruned_now = asyncio.get_running_loop(), asyncio.Event()

    def prune(self, now_s: float, *_limits: Any) -> int:
        if now_s == NOW_S:
            self.loop.call_soon_threadsafe(self.pruned_now.set)
        return 0


async def test_retention_goes_on_after_the_clock_was_ahead_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_writer, "PRUNE_S", 0.01)
    monkeypatch.setattr(store_writer, "FLUSH_S", 0.005)
    told = chain(repeat(YEARS_AHEAD_S, 3), repeat(NOW_S))
    store = Store()
    writer = StoreWriter(store, Judgement(), lambda: next(told), keep_rows=1, keep_days=1.0)  # type: ignore[arg-type]
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        await store.pruned_now.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Away:
    """A recorder that counts who asks, and does not answer."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    async def histories(self, *_what: Any) -> None:
        self.asked += 1
        raise self.error


async def test_histories_are_asked_for_again_after_the_clock_was_ahead() -> None:
    now = [NOW_S + 7200.0]
    recorder, job = Away(RecorderError(0, "it starts")), Job("etl")
    histories = Histories(recorder, lambda: now[0])  # type: ignore[arg-type]
    await histories.refresh([job])
    assert histories.knows(job)  # nothing better is to be had just now
    now[0] = NOW_S
    assert not histories.knows(job)
