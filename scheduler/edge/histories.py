"""Past run times of job classes and users, fetched from the recorder in the background.

A history that cannot be fetched is the last one known, else none; placing
never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from model.placement import NO_HISTORY, Job, RunHistory
from scheduler.edge.recorder_client import RecorderClient, RecorderError

PER_REQUEST = 20
"""Classes asked for at once: their names have to fit into one URL."""
RETRY_S = 10.0
"""After a failure nobody waits for a history until then."""
KEPT = 10_000
"""Histories kept in memory; beyond it all are forgotten and fetched again as needed."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    classes: dict[str, RunHistory] = field(default_factory=dict)
    users: dict[str, RunHistory] = field(default_factory=dict)


class Histories:
    """What is known of the past of job classes and users; with `recorder` None nothing ever is.

    `failure` says why the last fetch failed; empty when it did not.
    """

    def __init__(self, recorder: RecorderClient | None, clock: Callable[[], float]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._known = _Known()
        self._ask_again_at_s = 0.0
        self.failure = ""

    def inform(self, job: Job) -> Job:
        """`job` with the histories known now."""
        return replace(
            job,
            class_history=self._known.classes.get(job.job_class, NO_HISTORY),
            user_history=self._known.users.get(job.user, NO_HISTORY),
        )

    def knows(self, job: Job) -> bool:
        """True when there is nothing to fetch before `inform` answers its best."""
        known = job.job_class in self._known.classes and job.user in self._known.users
        pause_s = self._ask_again_at_s - self._clock()  # longer than it can be where the clock was ahead
        return known or self._recorder is None or 0.0 < pause_s <= RETRY_S

    async def refresh(self, jobs: Iterable[Job]) -> None:
        """Fetch the histories of these jobs again; never raises."""
        pairs = list(dict.fromkeys((job.job_class, job.user) for job in jobs))
        if len(self._known.classes) + len(self._known.users) > KEPT:
            self._known = _Known()
        for start in range(0, len(pairs), PER_REQUEST):
            if not await self._fetch(pairs[start : start + PER_REQUEST]):
                break

    async def _fetch(self, pairs: list[tuple[str, str]]) -> bool:
        if self._recorder is None:
            return False
        classes, users = ({pair[which] for pair in pairs} for which in (0, 1))
        try:
            answer = await self._recorder.histories(sorted(classes), sorted(users))
        except RecorderError as error:
            if not self.failure:
                log.warning("no histories of job classes: %s", error)
            self.failure = str(error)
            self._ask_again_at_s = self._clock() + RETRY_S
            return False
        self._known.classes.update(answer.classes)
        self._known.users.update(answer.users)
        self.failure = ""
        return True
