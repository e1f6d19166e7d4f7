"""When waiting gangs are expected to start: photographs go to a process of its own, outlooks come back.

The process runs futures of the photograph (`scheduler.core.queue.expected`)
at the lowest priority and at no more than a set share of one core; here a
photograph takes milliseconds, and never more than one part in a hundred of
the time. Where nothing but time has passed the process rests ten times as long
as it worked. Releases wait for none of it. A process that dies is started
again; meanwhile the last outlook stays, until it is too old to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import pickle
import struct
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scheduler.core.queue.arrivals import RecentArrivals
from scheduler.core.queue.events import Event, GangArrived, GangChanged
from scheduler.core.queue.expected import ExpectedStart, Outlook
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.photograph import Photograph
from scheduler.core.queue.receipts import GangReceipt

LENGTH = struct.Struct("!Q")
"""Before each message between the two processes: its bytes."""
PHOTOGRAPHING_PART = 0.01
"""Of the controller's time at most is spent on photographs."""
UNCHANGED_REST = 10.0
"""Times that an outlook took must pass before one of an unchanged queue is asked for."""
UNCHANGED_REST_S_MAX = 600.0
TOLD_FOR_S = 1800.0
"""An older outlook is not told any more."""
RESTART_S = (1.0, 60.0)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """The last photograph that was sent; monotonic times, infinite before there is an answer."""

    likeness: tuple[object, ...] = ()
    photo_s: float = math.nan
    sent_s: float = -math.inf
    again_s: float = -math.inf

    def sent(self, photo: Photograph, likeness: tuple[object, ...], now_s: float) -> None:
        """It goes to the process; until its outlook is there no other of an unchanged queue does."""
        self.likeness, self.photo_s, self.sent_s, self.again_s = likeness, photo.now_s, now_s, math.inf

    def answered(self, outlook: Outlook, now_s: float) -> None:
        """An outlook came, of this photograph or of an earlier one."""
        if outlook.at_s == self.photo_s:
            rest_s = UNCHANGED_REST * (now_s - self.sent_s)
            self.again_s = now_s + min(rest_s, UNCHANGED_REST_S_MAX)


class ExpectedStarts:
    """Keeps the newest outlook while `run` runs; `share` of a core at most, 0 for none at all.

    `verdicts`: gangs released inside p10 to p90 of when they were first told, `early` or `late`.
    `failure` says why there is no process; empty while there is one.
    """

    def __init__(
        self,
        keeper: Callable[[], Gatekeeper | None],
        since_s: float,
        *,
        gangs: int,
        every_s: float,
        share: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keeper, self._clock = keeper, clock
        self._gangs, self._every_s, self._share = gangs, every_s, share
        self._arrivals = RecentArrivals(since_s)
        self._outlook: Outlook | None = None
        self._asked = _Asked()
        self.failure = "" if share > 0 else "switched off: expected_core_share is 0"
        self.outlooks = 0
        self.restarts = 0
        self.photographing_s = 0.0
        self.verdicts: Counter[str] = Counter()
        self._first: dict[str, ExpectedStart] = {}

    def follow(self, events: Iterable[Event]) -> None:
        """What the gatekeeper has just been told: complete gangs among it arrived."""
        keeper = self._keeper()
        if keeper is None:
            return
        for event in events:
            if isinstance(event, GangArrived | GangChanged) and keeper.demand(event.gang.uid) is not None:
                estimate = keeper.estimate(event.gang.uid)
                if estimate is not None:
                    self._arrivals.note(event.gang, estimate)

    def released(self, uid: str, now_s: float) -> None:
        """A gang is released: was that when it was first told?"""
        first = self._first.pop(uid, None)
        if first is not None:
            self.verdicts[first.verdict(now_s)] += 1

    def of(self, gang: GangReceipt) -> ExpectedStart | None:
        """When this gang is expected to start; None when it does not wait, or nothing is known yet."""
        if gang.phase not in (Phase.WAITING, Phase.TURNED_AWAY):
            return None
        outlook = self.outlook
        found = outlook.of(gang.uid) if outlook is not None else None
        if found is not None:
            return found
        if gang.expected_start_s == gang.expected_start_s:  # not NaN: it has a reservation
            return ExpectedStart.reserved(gang.expected_start_s)
        if outlook is None or not outlook.left_out or 0 < gang.position <= len(outlook.starts):
            return None  # it came since
        return outlook.beyond()

    @property
    def outlook(self) -> Outlook | None:
        """The newest, unless it is too old."""
        known = self._outlook
        return known if known is not None and known.at_s > self._clock() - TOLD_FOR_S else None

    def status(self) -> dict[str, Any]:
        """How it goes, in plain values; times unix seconds."""
        outlook = self.outlook
        return {
            "failure": self.failure,
            "at_s": outlook.at_s if outlook is not None else None,
            "futures": outlook.futures if outlook is not None else 0,
            "outlooks": self.outlooks,
            "restarts": self.restarts,
            "photographing_s": self.photographing_s,
            "verdicts": dict(self.verdicts),
        }

    async def run(self) -> None:
        """Start the process, send it photographs and take its outlooks, until cancelled."""
        pause_s = RESTART_S[0]
        while self._share > 0:
            begun_s = self._clock()
            await self._with_process()
            self.restarts += 1
            pause_s = (
                RESTART_S[0] if self._clock() - begun_s > RESTART_S[1] else min(2 * pause_s, RESTART_S[1])
            )
            log.warning("expected starts: %s; it is started again in %.0f s", self.failure, pause_s)
            await asyncio.sleep(pause_s)

    async def _with_process(self) -> None:
        """One process from its start to its end."""
        command = (sys.executable, "-m", "scheduler.edge.expected_starts_process", str(self._share))
        try:
            # in a session of its own its niceness counts beside other processes too
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, start_new_session=True
            )
        except OSError as error:
            self.failure = f"its process cannot be started: {error}"
            return
        self.failure = ""
        sending = asyncio.create_task(self._send(process))
        try:
            await self._receive(process)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
            await _stop(process)
        self.failure = f"its process ended with {process.returncode}"

    async def _receive(self, process: Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                answer = await process.stdout.readexactly(size)
            except asyncio.IncompleteReadError:
                return
            self._take(pickle.loads(answer))

    def _take(self, outlook: Outlook) -> None:
        self._outlook = outlook
        self.outlooks += 1
        self._asked.answered(outlook, time.monotonic())
        # what is not in it any more was released or withdrawn, or is too far back to be judged
        self._first = {uid: self._first.get(uid, start) for uid, start in outlook.starts.items()}

    async def _send(self, process: Process) -> None:
        assert process.stdin is not None
        self._asked = _Asked()
        while True:
            begun_s = time.perf_counter()
            message = self._photograph()
            took_s = time.perf_counter() - begun_s
            self.photographing_s += took_s
            if message:
                process.stdin.write(LENGTH.pack(len(message)) + message)
                await process.stdin.drain()
            await asyncio.sleep(max(self._every_s, took_s / PHOTOGRAPHING_PART))

    def _photograph(self) -> bytes:
        """The queue and its recent past, for the process; empty while nothing (else) can be said."""
        keeper = self._keeper()
        if keeper is None:
            return b""
        photo, past = keeper.photograph(self._gangs), self._arrivals.past(self._clock())
        if not photo.waiting or photo.state["paused"]:
            self._outlook, self._asked = None, _Asked()
            return b""
        likeness, now_s = photo.likeness(), time.monotonic()
        if likeness == self._asked.likeness and now_s < self._asked.again_s:
            return b""
        self._asked.sent(photo, likeness, now_s)
        return pickle.dumps((photo, past if past.tells else None))


async def _stop(process: Process) -> None:
    """It has nothing that could be lost."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
