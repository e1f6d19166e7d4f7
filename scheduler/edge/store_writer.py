"""The one way into the store: a thread that writes, retries and remembers what it still owes.

Outcomes are owed until they are stored: a newer state of a pod replaces the
older one, so the buffer is bounded by the number of pods. While many change they
wait, for the processor is needed to place pods, and several states of one pod
become one write. Batches of decisions
are written while their sender waits, who keeps them when that fails. A database
that is away at the start is opened by the first write that reaches it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from scheduler.core.outcomes import Outcome
from scheduler.core.records import Batch, BatchReply
from scheduler.edge.judgement import Judgement
from scheduler.edge.store import ExperienceStore, Judged, StoreError
from scheduler.edge.waking import woken_within

OUTCOMES_OWED = 100_000
"""Pods whose newest state is not stored; beyond it the oldest are given up and counted."""
AT_ONCE = 500
FLUSH_S = 0.5
BURST, PAUSE_S = 32, 0.25
"""So many outcomes within one flush are a burst, until nothing changes for that long."""
HOLD_S = 10.0
"""In a burst outcomes wait at most this long; what a crash takes of them is when they were seen."""
RETRY_S = 0.5
RETRY_S_MAX = 15.0
PRUNE_S = 3600.0
SILENT_S = 15.0
"""What takes longer is told: the database, or the disk, may hang."""

Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class WriterStats:
    """Counts since start."""

    decisions: int = 0
    outcomes: int = 0
    failures: int = 0
    """Writes that failed; each is tried again."""
    dropped: int = 0
    """Outcomes given up because too many were owed."""
    pruned: int = 0
    failure: str = ""
    """Why the last write failed; empty when it did not."""
    ended: Counter[str] = field(default_factory=Counter)
    """Pods by end state."""


def silence(begun_s: float | None) -> str:
    """That what was begun then (monotonic s) is not answered; empty if not for long, or for nothing begun."""
    silent_s = 0.0 if begun_s is None else time.monotonic() - begun_s
    return f"the experience store has not answered for {silent_s:.0f} s" if silent_s > SILENT_S else ""


class StoreWriter:
    """Writes to `store` from one thread; `judgement` hears of every prediction that could be judged."""

    def __init__(
        self,
        store: ExperienceStore,
        judgement: Judgement,
        clock: Callable[[], float],
        *,
        keep_rows: int,
        keep_days: float,
    ) -> None:
        self._store = store
        self._judgement = judgement
        self._clock = clock
        self._keep_rows = keep_rows
        self._keep_days = keep_days
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._owed: OrderedDict[str, Outcome] = OrderedDict()
        self._changed_s = -math.inf
        self._wake = asyncio.Event()
        self._pause_s = RETRY_S
        self._begun_s: float | None = None
        self.stats = WriterStats()

    @property
    def owed(self) -> int:
        """Outcomes not stored yet."""
        return len(self._owed)

    @property
    def failure(self) -> str:
        """Why nothing can be written now; empty when it can."""
        opening = "" if self._store.is_open else "the experience store is being opened"
        return silence(self._begun_s) or self.stats.failure or opening

    def owes(self, pod_uid: str) -> bool:
        """Whether something newer than the store has is known of a pod."""
        return pod_uid in self._owed

    def owe(self, outcomes: Sequence[Outcome]) -> None:
        """Store these in the background."""
        for outcome in outcomes:
            self._owed[outcome.pod_uid] = outcome
            self.stats.ended[outcome.end_state or ""] += outcome.end_state is not None
        while len(self._owed) > OUTCOMES_OWED:
            self._owed.popitem(last=False)
            self.stats.dropped += 1
        if outcomes:
            self._changed_s = time.monotonic()
            self._wake.set()

    async def write_batch(self, batch: Batch) -> BatchReply:
        """Store a batch now.

        Raises:
            StoreError: it is not stored; the sender has to keep it.
        """
        reply, judged = await self._call(lambda: self._store.write_batch(batch))
        self.stats.decisions += reply.stored
        self._judge(judged)
        return reply

    async def run(self) -> None:
        """Store what is owed, and prune every hour, until cancelled; then try once more."""
        prune_at_s = time.monotonic()  # at once, which also opens a store that was away
        try:
            while True:
                await self._wait()
                while self._owed:
                    if not await self._flush():
                        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
                        self._pause_s = min(RETRY_S_MAX, 2 * self._pause_s)
                if time.monotonic() >= prune_at_s and await self._prune():
                    prune_at_s = time.monotonic() + PRUNE_S
        finally:
            while self._owed and await self._flush():
                pass
            self._thread.shutdown(wait=True)

    async def _wait(self) -> None:
        self._wake.clear()
        if await woken_within(self._wake, 4 * FLUSH_S):
            await asyncio.sleep(FLUSH_S)  # what comes together is written together
            if len(self._owed) >= BURST:
                await self._hold()

    async def _hold(self) -> None:
        """Wait for the burst to end, as far as time allows."""
        until_s = time.monotonic() + HOLD_S
        while (now_s := time.monotonic()) < until_s:
            if now_s - self._changed_s >= PAUSE_S:
                return
            await asyncio.sleep(PAUSE_S)

    async def _flush(self) -> bool:
        some: Sequence[Outcome] = list(self._owed.values())[:AT_ONCE]
        if not some:
            return True
        try:
            judged = await self._call(lambda: self._store.write_outcomes(some, self._clock()))
        except StoreError:
            return False
        for outcome in some:
            if self._owed.get(outcome.pod_uid) is outcome:
                del self._owed[outcome.pod_uid]
        self.stats.outcomes += len(some)
        self._pause_s = RETRY_S
        self._judge(judged)
        return True

    async def _prune(self) -> bool:
        try:
            gone = await self._call(
                lambda: self._store.prune(self._clock(), self._keep_rows, self._keep_days)
            )
        except StoreError:
            return False
        self.stats.pruned += gone
        return True

    async def _call(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the writing thread; a failure is told and counted before it is raised."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work)
        except StoreError as error:
            if not self.stats.failure:
                log.warning("the experience store: %s", error)
            self.stats.failure = str(error)
            self.stats.failures += 1
            raise
        if self.stats.failure:
            log.info("the experience store can be written again")
        self.stats.failure = ""
        return result

    def _timed(self, work: Callable[[], Result]) -> Result:
        self._begun_s = time.monotonic()
        try:
            if not self._store.is_open:
                self._store.open()
            return work()
        finally:
            self._begun_s = None

    def _judge(self, judged: Sequence[Judged]) -> None:
        for one in judged:
            self._judgement.add(one)
