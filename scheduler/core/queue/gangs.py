"""What the queue knows of each gang: complete or not, waiting, released, running, and what it has used.

    incomplete --all pods there--> waiting --released--> opening --first pod bound--> running --> (settled)
        waiting <-> infeasible (would not fit the empty queue)      opening --release failed--> waiting
        turned away (its flow has as many waiting as it may) --one of them left--> waiting

A released gang holds room for every pod from its release on, and work is
counted from binding to end by the share that its bound pods hold together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.core.queue.actions import Trouble
from scheduler.core.queue.events import Estimate, Gang, GangPod, Shape
from scheduler.core.queue.levels import Place
from scheduler.core.queue.resources import Amounts, dominant_share, total


class Phase(StrEnum):
    """Where a gang is on its way."""

    INCOMPLETE = "incomplete"
    INFEASIBLE = "infeasible"
    TURNED_AWAY = "turned away"
    WAITING = "waiting"
    OPENING = "opening"
    RUNNING = "running"


@dataclass(slots=True)
class GangRecord:
    """One gang. Times in seconds, works in share-seconds.

    `requests` are those of all its pods when it was released; `asked` are the
    pods whose gates we asked to open (last at `asked_s`), `open` those known to be open, `started`
    and `ended` as reported; `counted_s`: until when `used_work` is counted;
    `ended_work`: the part of it that is final.
    """

    gang: Gang
    place: Place
    form: int
    share: float
    estimate: Estimate
    seen_s: float
    phase: Phase = Phase.INCOMPLETE
    position: int = 0
    since_s: float = 0.0
    asked: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    pods: dict[str, GangPod] = field(default_factory=dict)
    running: int = 0
    started: dict[str, float] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    stand_ins: list[GangPod] = field(default_factory=list)
    requests: Mapping[str, float] = field(default_factory=dict)
    charged_work: float = 0.0
    released_s: float = math.nan
    started_s: float | None = None
    held: dict[str, float] = field(default_factory=dict)
    held_share: float = 0.0
    used_work: float = 0.0
    counted_s: float = 0.0
    ended_work: float = 0.0
    tag: float = math.nan
    backfilled: bool = False
    half_open_since_s: float | None = None
    asked_s: float = -math.inf
    retry_s: float = -math.inf
    stop_again_s: float = -math.inf
    failures: int = 0
    reported: set[Trouble] = field(default_factory=set)

    @property
    def waits(self) -> bool:
        """True while it has a place in the order."""
        return self.phase is Phase.WAITING

    @property
    def released(self) -> bool:
        """True from the release on."""
        return self.phase in (Phase.OPENING, Phase.RUNNING)

    def wanted(self) -> list[GangPod]:
        """All pods that need room: those that live, and stand-ins for those still promised."""
        return [pod for pod in self.gang.pods if pod.uid not in self.ended] + self.stand_ins

    def missing(self) -> list[GangPod]:
        """Pods of a released gang whose gates we did not ask to open, or could not."""
        return [pod for pod in self.gang.pods if pod.uid not in self.asked and pod.uid not in self.ended]

    def half_open_until_s(self, timeout_s: float) -> float:
        """When it will have been half open for too long; infinite if it is not half open.

        A request without an answer may have opened all gates: its answer, or the
        word that the pods run, is waited for as long again.
        """
        if self.half_open_since_s is None:
            return math.inf
        until_s = self.half_open_since_s + timeout_s
        unanswered = (self.asked & self.pods.keys()) - self.open - self.started.keys() - self.ended
        return max(until_s, min(self.asked_s, until_s) + timeout_s) if unanswered else until_s

    def all_ended(self) -> bool:
        """True when every pod has ended and none is to come."""
        return not self.stand_ins and len(self.ended) >= len(self.pods)

    def all_started(self) -> bool:
        """True when every pod was bound (some may have ended since)."""
        return not self.stand_ins and len(self.started.keys() | self.ended) >= len(self.pods)

    def used_until(self, now_s: float) -> float:
        """Work used until now."""
        return self.used_work + self.held_share * max(0.0, now_s - self.counted_s)

    def count_until(self, now_s: float) -> None:
        """Count the work of the share held until now."""
        if now_s > self.counted_s:
            self.used_work += self.held_share * (now_s - self.counted_s)
            self.counted_s = now_s

    def bind(self, pod: GangPod, at_s: float, reference: Amounts) -> float:
        """A pod runs from `at_s` on; returns the change of the share held."""
        self.started[pod.uid] = at_s
        self.running += 1
        return self._hold(pod.shape, 1.0, reference)

    def unbind(self, pod: GangPod, reference: Amounts) -> float:
        """A running pod ended; returns the change of the share held."""
        self.ended.add(pod.uid)
        self.running -= 1
        return self._hold(pod.shape, -1.0, reference)

    def _hold(self, shape: Shape, sign: float, reference: Amounts) -> float:
        before = self.held_share
        for resource, amount in total([shape.requests]).items():
            self.held[resource] = self.held.get(resource, 0.0) + sign * amount
        if not self.running:
            self.held.clear()
        self.held_share = dominant_share(self.held, reference)
        return self.held_share - before


def promised_pods(gang: Gang) -> list[GangPod]:
    """Stand-ins for the pods that will come."""
    return [GangPod(f"{gang.uid}#{number}", shape) for number, shape in enumerate(gang.promised)]


def share_of(gang: Gang, reference: Amounts) -> float:
    """Dominant share of all pods of the gang, promised ones included."""
    return dominant_share(requests_of(gang), reference)


def requests_of(gang: Gang) -> dict[str, float]:
    """What all pods of the gang request together, promised ones included, by resource."""
    return total(_shapes(gang))


def complete(gang: Gang) -> bool:
    """True when as many pods are there or promised as the gang has, and at least one is there."""
    return bool(gang.pods) and len(gang.pods) + len(gang.promised) >= gang.size


def _shapes(gang: Gang) -> Iterable[tuple[tuple[str, float], ...]]:
    yield from (pod.shape.requests for pod in gang.pods)
    yield from (shape.requests for shape in gang.promised)
