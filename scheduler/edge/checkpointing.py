"""When a term writes its checkpoint: now and then when there is news, after an act by hand, at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from scheduler.edge.checkpoints import CheckpointError, Checkpoints, Superseded
from scheduler.edge.controller_state import DAMAGE, ControllerState
from scheduler.edge.controller_stats import ControllerStats
from scheduler.edge.kube import KubeError
from scheduler.edge.release import NotLeading

BYTES_PER_S = 100_000.0
"""Written on average at most; a large checkpoint is written less often."""
LAST_WORD_S = 2.0
"""For the checkpoint at the end of a term."""

log = logging.getLogger(__name__)


class Checkpointing:
    """Reads the checkpoint once and keeps it. `unready` says why the state must not be written, empty when
    it may: what runs would be counted up to now, although it may have ended unheard of. `state` is what to
    write, asked only then.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        state: Callable[[], dict[str, Any]],
        unready: Callable[[], str],
        holds: Callable[[], bool],
        stats: ControllerStats,
        every_s: float,
    ) -> None:
        self._checkpoints, self._state, self._unready = checkpoints, state, unready
        self._holds, self._stats, self._every_s = holds, stats, every_s
        self._one_at_a_time = asyncio.Lock()

    async def read(self, now_s: float) -> tuple[ControllerState, str]:
        """The state to begin with, and why the one that was written could not be used; empty if it could.

        Raises:
            KubeError: the API server does not answer.
        """
        try:
            read = await self._checkpoints.read()
            return (ControllerState(at_s=now_s) if read is None else ControllerState.of(read)), ""
        except (CheckpointError, *DAMAGE) as error:
            told = f"the checkpoint cannot be used: {error!r}; charges come from the pods' receipts"
            self.complain(told)
            return ControllerState(at_s=now_s), told

    def complain(self, sentence: str) -> None:
        """Count and log what went wrong with a checkpoint."""
        self._stats.checkpoint_failures += 1
        log.error("%s", sentence)

    async def run(self) -> None:
        """Write while there is news, until cancelled.

        Raises:
            NotLeading: another replica leads or may lead.
        """
        while True:
            await asyncio.sleep(max(self._every_s, self._checkpoints.size_bytes / BYTES_PER_S))
            if not self._unready() and self._stats.is_news():
                await self.write()

    async def write(self) -> str:
        """Write now. Returns why it was not written, empty when it was.

        Raises:
            NotLeading: another replica leads or may lead.
        """
        async with self._one_at_a_time:
            if not self._holds():
                raise NotLeading("the lease ran out")
            if unready := self._unready():
                return unready
            try:
                await self._checkpoints.write(self._state())
            except Superseded as error:
                raise NotLeading(str(error)) from error
            except (CheckpointError, KubeError) as error:
                self.complain(f"the checkpoint was not written: {error}")
                return str(error)
            self._stats.checkpoints += 1
            self._stats.checkpoint_bytes = self._checkpoints.size_bytes
            return ""

    async def last_word(self) -> None:
        """Write at the end of a term, in the time there is."""
        with suppress(TimeoutError, NotLeading):
            async with asyncio.timeout(LAST_WORD_S):
                await self.write()
