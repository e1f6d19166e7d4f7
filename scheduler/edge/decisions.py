"""Decisions on their way to the recorder: a bounded buffer, sent in batches in the background.

Nothing waits for it. While the recorder is away the newest decisions are
kept; beyond the limit the oldest are dropped and counted. A batch is taken
out of the buffer once it is stored, so a lost answer leads to a repeated
batch, which the recorder stores once.

In a burst of calls, writing decisions down, sending and storing take processor
time from scheduler and API server on a machine that they share; so it is put
off until calls pause.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from scheduler.core.records import Batch, Decision, DecisionRecord, RowBuilder, with_rows
from scheduler.core.table_records import table_record
from scheduler.core.types import ScoreTable
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from scheduler.edge.waking import woken_within

TABLES_PER_BATCH = 2
"""A table for 5,000 nodes is about a megabyte; to send eight at once keeps the event loop for 5 ms."""
TABLES_REMEMBERED = 1024
"""Tables known to be stored; a forgotten one is sent again, which does no harm."""
RETRY_S = 1.0
RETRY_S_MAX = 30.0
LAST_FLUSH_S = 2.0

PAUSE_S = 0.1
"""Calls that follow each other faster than this are a burst."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LogStats:
    """Counts since start."""

    sent: int = 0
    dropped: int = 0
    """Lost because the buffer was full."""
    unwritten: int = 0
    """Lost by a fault of ours, which the log tells."""
    refused: int = 0
    """Lost because the recorder said they are not acceptable."""
    failure: str = ""
    """Why the last batch was not stored; empty when it was."""


class DecisionLog:
    """At most `limit` decisions in waiting; `recorder` None throws all away.

    A batch is sent when `batch` decisions wait or one has waited `flush_s`;
    in a burst when calls pause, the buffer is half full, or `hold_s` later.
    """

    def __init__(
        self,
        recorder: RecorderClient | None,
        limit: int,
        batch: int,
        flush_s: float,
        hold_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._limit = limit
        self._batch = batch
        self._flush_s = flush_s
        self._hold_s = hold_s
        self._clock = clock
        self._last_added_s = -math.inf
        self._waiting: deque[Decision] = deque()
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._pause_s = RETRY_S
        self.stats = LogStats()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, decision: Decision) -> None:
        """Keep a decision until it is stored."""
        if self._recorder is None:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.stats.dropped += 1
        self._waiting.append(decision)
        self._last_added_s = self._clock()
        if len(self._waiting) >= self._batch:
            self._wake.set()

    async def run(self) -> None:
        """Send batches until cancelled; what is left then gets one last try."""
        try:
            while True:
                await self._wait()
                await self._hold()
                while self._waiting:
                    if not await self.flush():
                        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
                        self._pause_s = min(RETRY_S_MAX, 2 * self._pause_s)
        finally:
            await self._last_flush()

    async def flush(self) -> bool:
        """Send one batch; whether the recorder took it (or nothing was there to send)."""
        if self._recorder is None or not self._waiting:
            return True
        some, tables = self._next_batch()
        records = [record async for record in _written(some)]
        # one after the other: compressing takes a whole core, and calls are to find another
        packed = [await asyncio.to_thread(table_record, one) for one in tables.values()]
        try:
            missing = (await self._recorder.send(Batch(packed, records))).missing_tables
        except RecorderError as error:
            self._failed(error, len(some))
            return error.permanent
        lost = len(some) - len(records)
        self.stats.unwritten += lost
        self.stats.sent += self._forget(some) - lost
        self._remember(tables, missing)
        self.stats.failure, self._pause_s = "", RETRY_S
        return True

    async def _wait(self) -> None:
        self._wake.clear()
        await woken_within(self._wake, self._flush_s)

    async def _hold(self) -> None:
        """Wait for the burst to end, as far as time and buffer allow."""
        until_s = self._clock() + self._hold_s
        while 2 * len(self._waiting) < self._limit and self._clock() < until_s:
            if self._clock() - self._last_added_s >= PAUSE_S:
                return
            await asyncio.sleep(PAUSE_S)

    def _next_batch(self) -> tuple[list[Decision], dict[str, ScoreTable]]:
        some: list[Decision] = []
        tables: dict[str, ScoreTable] = {}
        for decision in itertools.islice(self._waiting, self._batch):
            table = decision.table
            if table is not None and table.table_id not in self._stored:
                tables[table.table_id] = table
            if len(tables) > TABLES_PER_BATCH:
                tables.popitem()
                break
            some.append(decision)
        return some, tables

    def _forget(self, some: list[Decision]) -> int:
        """Take sent decisions out of the buffer; some may have been dropped meanwhile."""
        sent = {decision.moment.decision_id for decision in some}
        count = 0
        while self._waiting and self._waiting[0].moment.decision_id in sent:
            self._waiting.popleft()
            count += 1
        return count

    def _remember(self, tables: dict[str, ScoreTable], missing: list[str]) -> None:
        self._stored.update(dict.fromkeys(tables))
        for table_id in missing:  # the store was emptied, or restored from a backup
            self._stored.pop(table_id, None)
        while len(self._stored) > TABLES_REMEMBERED:
            self._stored.popitem(last=False)

    def _failed(self, error: RecorderError, count: int) -> None:
        if not self.stats.failure:
            log.warning("decisions are not recorded: %s", error)
        self.stats.failure = str(error)
        if error.permanent:
            for _ in range(count):
                self._waiting.popleft()
            self.stats.refused += count

    async def _last_flush(self) -> None:
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                while self._waiting and await self.flush():
                    pass
        except TimeoutError:
            log.warning("%d decisions were not recorded before the end", len(self._waiting))


async def _written(some: list[Decision]) -> AsyncIterator[DecisionRecord]:
    """Their records, but for those that cannot be written, which the log tells.

    One at each turn of the loop: a call waits for one at most. With a thread it would have to take turns.
    """
    for decision in some:
        await asyncio.sleep(0)
        if (record := _record_of(decision)) is not None:
            exact = None if decision.judged is None else decision.judged.exact
            yield record if exact is None else await asyncio.to_thread(_with_exact_rows, record, exact)


def _record_of(decision: Decision) -> DecisionRecord | None:
    try:
        return decision.record()
    except Exception:
        log.exception("decision %s could not be written down", decision.moment.decision_id)
        return None


def _with_exact_rows(record: DecisionRecord, exact: RowBuilder) -> DecisionRecord:
    try:
        return with_rows(record, *exact())
    except Exception:
        log.exception("the feature rows of decision %s could not be built", record.decision_id)
        return record
