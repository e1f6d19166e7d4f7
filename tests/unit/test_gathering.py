"""A watch is read as events come, except in a burst; time is that of the test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest

from scheduler.edge import gathering

LINE = b'{"type": "MODIFIED"}\n'
READ_S = 0.0005
"""What one reading takes."""


class Watch:
    """Events that come at given times; `late_s`: how late each was read, `reads`: in how many readings."""

    connection = None

    def __init__(self, at_s: Sequence[float]) -> None:
        self._at_s = sorted(at_s)
        self.now_s = 0.0
        self.late_s: list[float] = []
        self.reads = 0

    @property
    def content(self) -> Watch:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        while len(self.late_s) < len(self._at_s):
            self.now_s = max(self.now_s, self._at_s[len(self.late_s)]) + READ_S
            come = [at_s for at_s in self._at_s[len(self.late_s) :] if at_s <= self.now_s]
            self.late_s += [self.now_s - at_s for at_s in come]
            self.reads += 1
            yield LINE * len(come)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def read(at_s: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> Watch:
    """All of a watch, read as the product reads it."""
    watch = Watch(at_s)
    with monkeypatch.context() as patched:
        patched.setattr(gathering.asyncio, "sleep", watch.sleep)
        patched.setattr(gathering.time, "monotonic", lambda: watch.now_s)
        assert asyncio.run(_whole(watch)) == LINE * len(at_s)
    return watch


async def _whole(watch: Watch) -> bytes:
    return b"".join([piece async for piece in gathering.gathered(cast(Any, watch))])


def coming_and_going(pods_per_s: float, seconds: float, dice: random.Random) -> Iterator[float]:
    """Seven events of each pod: made, opened, bound, running, ended, let go, deleted."""
    at_s = 0.0
    while (at_s := at_s + dice.expovariate(pods_per_s)) < seconds:
        yield from (at_s, at_s + 1.0, at_s + 1.01, at_s + 1.02, at_s + 5.0, at_s + 5.02, at_s + 9.0)


def test_where_some_pods_come_and_go_each_second_every_end_is_heard_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conditions = [number / 20.0 for number in range(1200)]  # as many a second as may be written
    watch = read([*coming_and_going(5.0, 60.0, random.Random(1)), *conditions], monkeypatch)
    assert max(watch.late_s) < 0.005


def test_a_burst_is_read_twenty_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = read([number / 2000.0 for number in range(10_000)], monkeypatch)
    assert watch.reads < gathering.EVENTS_AT_ONCE + 5.0 * 20
    assert max(watch.late_s) < gathering.GATHERED_S + 0.005


def test_events_that_come_together_are_a_burst_although_they_are_read_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = [round(number // 20 / 40.0, 3) for number in range(4000)]  # 20 events, 40 times a second
    watch = read(together, monkeypatch)
    assert watch.reads < 5.0 * 20 + 5


def test_soon_after_a_burst_events_are_heard_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    burst = [number / 2000.0 for number in range(10_000)]
    later = [5.5 + number / 20.0 for number in range(100)]
    watch = read([*burst, *later], monkeypatch)
    assert max(watch.late_s[10_000:]) < 0.005
