"""What the pods' owners see in Kubernetes: the condition `fairlane.dev/Queued`, and events.

A condition is written when what it says has changed noticeably: another rank
(the further back, the coarser), another reason, another expected start. All
writes share one budget per second, those who are next come first; so a queue
of thousands costs the API server no more than a short one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import uuid
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scheduler.core.queue.expected import ExpectedStart
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.receipts import GangReceipt
from scheduler.core.turns import QUEUED, position_words
from scheduler.core.workloads.remarks import Remark
from scheduler.edge.kube import STRATEGIC_PATCH, KubeClient, KubeError
from scheduler.edge.release import PodRef

COMPONENT = "fairlane-controller"
RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
START_STEP_S = 30.0
START_PART = 0.25
"""Expected starts that differ by less than this, or by less of the time until then, are the same."""
EVENTS_WAITING_MAX = 1000
TELLABLE = 2000
"""Gangs, the next first, whose pods carry a condition."""
_QUANTILES = ("p10_s", "p50_s", "p90_s")
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_REASONS = {
    Phase.WAITING: "Waiting",
    Phase.INCOMPLETE: "Incomplete",
    Phase.INFEASIBLE: "Infeasible",
    Phase.TURNED_AWAY: "TooManyWait",
    Phase.OPENING: "Released",
    Phase.RUNNING: "Released",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class About:
    """The object that an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str = ""
    api_version: str = "v1"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a pod is told; of equal `likeness` are those that differ in nothing but numbers."""

    status: str
    reason: str
    message: str
    likeness: tuple[object, ...]
    start: ExpectedStart | None = None


class Announcements:
    """Writes conditions and events, at most `per_s` of them in a second; what fails is counted and left."""

    def __init__(
        self,
        kube: KubeClient,
        holds: Callable[[], bool],
        where: Callable[[str], PodRef | None],
        gangs: Callable[[], Sequence[GangReceipt]],
        expected: Callable[[GangReceipt], ExpectedStart | None],
        *,
        every_s: float,
        per_s: float,
    ) -> None:
        self._kube, self._holds, self._where = kube, holds, where
        self._gangs, self._expected = gangs, expected
        self._every_s, self._pause_s = every_s, 1.0 / per_s
        self._told: dict[str, Condition] = {}
        self._events: deque[tuple[About, str, str, str]] = deque(maxlen=EVENTS_WAITING_MAX)
        self.stats: Counter[str] = Counter()

    def event(self, about: About, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell of something that happened; the oldest is dropped when too many wait."""
        self.stats["dropped"] += len(self._events) == EVENTS_WAITING_MAX
        self._events.append((about, reason, message, "Warning" if warning else "Normal"))

    def of_pod(self, uid: str, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell of something that happened to a pod; nothing is told of one that is not known (any more)."""
        pod = self._where(uid)
        if pod is not None:
            self.event(About("Pod", pod.namespace, pod.name, uid), reason, message, warning=warning)

    def remark(self, remark: Remark) -> None:
        """Tell of what was not understood of a pod or, without a pod's name, of a namespace's pods."""
        kind = "Pod" if remark.name else "Namespace"
        about = About(kind, remark.namespace, remark.name or remark.namespace, remark.uid)
        self.event(about, "NotUnderstood", remark.sentence, warning=True)

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            due = self._due()
            budget = max(1, int(self._every_s / self._pause_s))
            for uid, condition in due[:budget]:
                await self._write_events(1)
                await self._write(self._set_condition(uid, condition), "conditions")
                await asyncio.sleep(self._pause_s)
            await self._write_events(budget - min(budget, len(due)))
            await asyncio.sleep(self._every_s if not due else 0)

    def _due(self) -> list[tuple[str, Condition]]:
        """Pods whose condition says something else now, those that are next first."""
        present: set[str] = set()
        now_s = time.time()
        due: list[tuple[str, Condition]] = []
        for gang in self._gangs():
            condition = condition_of(gang, self._expected(gang))
            present.update(gang.pods)
            for uid in gang.pods:
                known = self._told.get(uid)
                if condition.status == "True" if known is None else differs(known, condition, now_s):
                    due.append((uid, condition))
        self._told = {uid: told for uid, told in self._told.items() if uid in present}
        return due

    async def _write_events(self, most: int) -> None:
        while self._events and most > 0:
            most -= 1
            about, reason, message, kind = self._events.popleft()
            path = f"/api/v1/namespaces/{about.namespace or 'default'}/events"
            await self._write(self._kube.post(path, _event(about, reason, message, kind)), "events")
            await asyncio.sleep(self._pause_s)

    async def _set_condition(self, uid: str, condition: Condition) -> None:
        self._told[uid] = condition
        pod = self._where(uid)
        if pod is None:
            return
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
        told = {
            "type": QUEUED,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": _rfc3339(datetime.now(UTC)),
        }
        body = {"metadata": {"uid": uid}, "status": {"conditions": [told]}}
        await self._kube.patch(path, body, STRATEGIC_PATCH)

    async def _write(self, writing: Any, kind: str) -> None:
        if not self._holds():
            writing.close()
            return
        try:
            await writing
            self.stats[kind] += 1
        except KubeError as error:
            if error.status not in (404, 409):  # the pod is gone meanwhile, or is another one
                self.stats["failed"] += 1
                log.warning("one of the %s could not be written: %s", kind, error)


def condition_of(gang: GangReceipt, start: ExpectedStart | None = None) -> Condition:
    """What the pods of this gang are told."""
    status = "False" if gang.phase in (Phase.OPENING, Phase.RUNNING) else "True"
    reason = "Reserved" if math.isfinite(gang.expected_start_s) else _REASONS[gang.phase]
    if status == "False":
        return Condition(status, reason, "its gates are open", (status, reason))
    rank = bisect_left(RANKS, gang.position) if gang.position else -1
    message = f"{position_words(gang.position)}{gang.why}"
    if start is not None:
        message += f"; {_starts(start)}"
    return Condition(status, reason, message, (status, reason, rank, _NUMBERS.sub("#", gang.why)), start)


def differs(told: Condition, now: Condition, now_s: float) -> bool:
    """True when the condition says something noticeably else than what was told."""
    if told.likeness != now.likeness:
        return True
    if told.start is None or now.start is None:
        return told.start is not now.start
    if told.start.source is not now.start.source:
        return True
    return any(_moved(getattr(told.start, name), getattr(now.start, name), now_s) for name in _QUANTILES)


def _moved(before_s: float, after_s: float, now_s: float) -> bool:
    if not (math.isfinite(before_s) and math.isfinite(after_s)):
        return math.isfinite(before_s) != math.isfinite(after_s)
    return abs(after_s - before_s) > max(START_STEP_S, START_PART * (after_s - now_s))


def _starts(start: ExpectedStart) -> str:
    if not start.known:
        later = f" than {_instant(start.later_than_s)}" if math.isfinite(start.later_than_s) else ""
        return f"expected start: later{later} (by {start.futures} {start.source})"
    if not start.futures:
        return f"expected start {_instant(start.p50_s)} (by {start.source})"
    latest = (
        _instant(math.ceil(start.p90_s))
        if math.isfinite(start.p90_s)
        else f"much after {_instant(start.p50_s)}"
    )
    between = f"between {_instant(start.p10_s)} and {latest} with a probability of 80 %"
    return f"expected start {_instant(start.p50_s)}, {between} (by {start.futures} {start.source})"


def _instant(at_s: float) -> str:
    return _rfc3339(datetime.fromtimestamp(at_s, UTC))


def _event(about: About, reason: str, message: str, kind: str) -> dict[str, Any]:
    now = _rfc3339(datetime.now(UTC))
    involved = {"kind": about.kind, "name": about.name, "apiVersion": about.api_version}
    involved |= {"namespace": about.namespace} if about.namespace else {}
    involved |= {"uid": about.uid} if about.uid else {}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name}.{uuid.uuid4().hex[:16]}"},
        "involvedObject": involved,
        "reason": reason,
        "message": message[:1024],
        "type": kind,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
