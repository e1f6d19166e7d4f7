"""How long a gang will take, asked before the queue hears of it. The one place where predictions come in.

So far the recorder is asked how long runs of the job class took; where it knows
nothing (or is not there) the gang arrives without an estimate, and the core
falls back to its own past runs, the user's hint, the user and the queue. A
predictor of gangs belongs into `of`. An estimate only orders gangs: shares are
settled by what is measured, so that nothing waits for an answer here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from model.placement import RunHistory
from scheduler.core.queue.events import Estimate, Event, Gang, GangArrived, GangChanged, GangFound
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from scheduler.edge.waking import woken_within

REFRESH_S = 30.0
AGAIN_AT_ONCE = 200
"""Classes asked for again every `REFRESH_S`, in turn: what that costs doesn't grow with their number."""
AT_ONCE = 50
CLASSES_KEPT = 10_000
RUNS_LEAST = 3
"""Fewer runs say too little about the spread; the core knows what to make of them."""
_TENTH = 1.2816
"""Standard deviations from the median to the p10 and p90 of a normal distribution."""

log = logging.getLogger(__name__)


class Estimates:
    """Past run times by job class; with `recorder` None nothing is known of any."""

    def __init__(self, recorder: RecorderClient | None) -> None:
        self._recorder = recorder
        self._known: dict[str, RunHistory | None] = {}
        self._wanted: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.failure = ""

    def inform(self, events: Sequence[Event]) -> list[Event]:
        """The events, gangs in them with what is known now."""
        return [self._informed(event) for event in events]

    def of(self, gang: Gang) -> Estimate | None:
        """What is known of this gang's duration, and of which source; None for nothing."""
        if gang.job_class not in self._known:
            self._want(gang.job_class)
        history = self._known.get(gang.job_class)
        if history is None or history.count < RUNS_LEAST or not math.isfinite(history.mean_log_s):
            return None
        spread = history.std_log_s if math.isfinite(history.std_log_s) else 0.0
        low, middle, high = (
            math.exp(history.mean_log_s + times * spread) for times in (-_TENTH, 0.0, _TENTH)
        )
        return Estimate(low, middle, high, "class history")

    async def run(self) -> None:
        """Ask for classes that came up, and again for those in use now and then, until cancelled."""
        while self._recorder is not None:
            if not await woken_within(self._wake, REFRESH_S):
                self._want_again()
            self._wake.clear()
            await self._fetch(self._recorder)

    async def _fetch(self, recorder: RecorderClient) -> None:
        names, self._wanted = list(self._wanted), {}
        for start in range(0, len(names), AT_ONCE):
            asked = names[start : start + AT_ONCE]
            try:
                answer = await recorder.histories(asked, [])
            except RecorderError as error:
                if not self.failure:
                    log.warning("no past run times of job classes: %s", error)
                self.failure = str(error)
                return
            self.failure = ""
            for name in asked:  # to the end: the others' turn comes first
                self._known.pop(name, None)
                self._known[name] = answer.classes.get(name)

    def _want_again(self) -> None:
        """Those that were asked for longest ago."""
        self._wanted = dict.fromkeys(islice(self._known, AGAIN_AT_ONCE))

    def _want(self, job_class: str) -> None:
        if job_class and self._recorder is not None:
            if len(self._known) >= CLASSES_KEPT:
                self._known.clear()
            self._wanted[job_class] = None
            self._wake.set()

    def _informed(self, event: Event) -> Event:
        if isinstance(event, GangArrived | GangChanged | GangFound) and event.gang.estimate is None:
            estimate = self.of(event.gang)
            if estimate is not None:
                return replace(event, gang=replace(event.gang, estimate=estimate))
        return event
