"""CPU time of the fair queue's core per event, on full nodes with many gangs waiting.

The core is driven directly: no API server, no process beside it. Gangs of four
kinds end, start and arrive; every gang that ends is replaced by one of a random
user, so the numbers waiting and running stay as they are.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.figures import Latency, latency
from benchmarks.plain_walk import plain_walk
from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.events import (
    Estimate,
    Event,
    Gang,
    GangArrived,
    GangEnded,
    GangPod,
    GangStarted,
    Node,
    NodeSet,
    QueuePaused,
    QueueResumed,
    Shape,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.overtaking import let_others_ahead
from scheduler.core.queue.releasing import Overtake
from scheduler.core.queue.settings import QueueSettings

TARGET_MS = 1.0
WALKS: Mapping[str, Overtake] = {"fairlane": let_others_ahead, "plain walk": plain_walk}
CPU, MEMORY_GIB, PODS = 32.0, 128.0, 110.0
STARTS_AFTER_S = 0.5
WARM_UP = 0.3
"""As many ends, in parts of those measured, come before: the first find nodes as they were filled at once."""
Say = Callable[[str], None]


class Kind(NamedTuple):
    """A gang: pods, cores and GiB of each, median seconds."""

    pods: int
    cpu: float
    memory_gib: float
    median_s: float


KINDS = (Kind(1, 4, 8, 120), Kind(4, 2, 4, 60), Kind(8, 4, 16, 600), Kind(1, 1, 2, 20))
SHAPES = tuple(Shape((("cpu", float(k.cpu)), ("memory", float(k.memory_gib)))) for k in KINDS)


@dataclass(frozen=True, slots=True)
class Size:
    """How much waits, of how many users, on how many nodes."""

    users: int
    waiting: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time of one walk at one size, by kind of event; `released`: what it decided, in order."""

    walk: str
    size: Size
    events: Mapping[str, Latency]
    mean_ms: float
    released: tuple[str, ...]
    backfilled: int


@dataclass(frozen=True, slots=True)
class QueueCost:
    """All that was measured."""

    spent: tuple[Spent, ...]
    ends: int

    def of(self, walk: str) -> list[Spent]:
        """One walk's, by size."""
        return [one for one in self.spent if one.walk == walk]

    def to_json(self) -> dict[str, Any]:
        """Plain values; of what was decided only the numbers."""
        rows = []
        for one in self.spent:
            row = asdict(one)
            rows.append({**row, "released": len(one.released)})
        return {"ends": self.ends, "depth": _settings(1).depth, "target_ms": TARGET_MS, "sizes": rows}


@dataclass
class Driver:
    """A gatekeeper on full nodes, and what happens to it."""

    size: Size
    overtake: Overtake
    seed: int = 0
    released: list[str] = field(default_factory=list)
    backfilled: int = 0
    spent_s: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.keeper = Gatekeeper(_settings(self.size.nodes), overtake=self.overtake)
        self.now_s, self.number, self.waiting = 0.0, 0, 0
        self.lasts_s: dict[str, float] = {}
        self._heap: list[tuple[float, int, Event]] = []
        self._fill()

    def play(self, ends: int) -> None:
        """Until so many gangs ended; each is replaced, and what is released starts."""
        while ends:
            self.now_s, _, event = heapq.heappop(self._heap)
            self.tell(event)
            if isinstance(event, GangEnded):
                self.tell(self.arrival())
                ends -= 1

    def tell(self, event: Event) -> None:
        """Measured; what is released starts and ends by itself."""
        began_s = time.process_time()
        actions = self.keeper.handle(event, self.now_s)
        self.spent_s.setdefault(type(event).__name__, []).append(time.process_time() - began_s)
        self.waiting += isinstance(event, GangArrived)
        for action in actions:
            self._follow(action)

    def arrival(self) -> Event:
        """A gang of a random kind and user; its estimate is wrong by a log-normal factor."""
        self.number += 1
        uid, dice = f"g{self.number:07d}", self.dice
        at = dice.randrange(len(KINDS))
        told_s = KINDS[at].median_s * dice.lognormvariate(0.0, 0.7)
        self.lasts_s[uid] = told_s * dice.lognormvariate(0.0, 0.4)
        pods = tuple(GangPod(f"{uid}/{pod}", SHAPES[at]) for pod in range(KINDS[at].pods))
        estimate = Estimate(0.6 * told_s, told_s, 1.8 * told_s)
        return GangArrived(Gang(uid, f"user-{dice.randrange(self.size.users)}", pods, self.now_s, estimate))

    def _fill(self) -> None:
        for number in range(self.size.nodes):
            allocatable = {"cpu": CPU, "memory": MEMORY_GIB, "pods": PODS}
            self.tell(NodeSet(Node(f"node-{number:05d}", allocatable)))
        self.tell(QueuePaused())
        for _ in range(self.size.waiting):
            self.tell(self.arrival())
        self.tell(QueueResumed())
        while self.waiting < self.size.waiting:
            self.tell(self.arrival())

    def _follow(self, action: Action) -> None:
        if isinstance(action, ReleaseGang):
            self.waiting -= 1
            self.released.append(action.uid)
            self.backfilled += action.receipt.backfilled
            starts_s = self.now_s + STARTS_AFTER_S
            self._push(starts_s, GangStarted(action.uid))
            self._push(starts_s + self.lasts_s.pop(action.uid), GangEnded(action.uid))

    def _push(self, at_s: float, event: Event) -> None:
        self.number += 1
        heapq.heappush(self._heap, (at_s, self.number, event))


class DifferenceError(Exception):
    """The two walks decided differently: that is a defect."""


def measure(
    users: Sequence[int], waiting: int, nodes: int, ends: int, say: Say, *, alone: bool = False
) -> QueueCost:
    """Each walk at each size, told the same; `alone`: only the product's.

    Raises:
        DifferenceError: they did not release the same gangs in the same order.
    """
    spent: list[Spent] = []
    walks = dict(itertools.islice(WALKS.items(), 1)) if alone else WALKS
    for count in users:
        size = Size(count, waiting, nodes)
        for walk, overtake in walks.items():
            spent.append(_spent(walk, size, overtake, ends))
            say(f"{count:,} users, {walk}: {spent[-1].mean_ms:.2f} ms of CPU an event")
        if len({one.released for one in spent[-len(walks) :]}) > 1:
            raise DifferenceError(f"the walks released different gangs with {count:,} users")
    return QueueCost(tuple(spent), ends)


def _spent(walk: str, size: Size, overtake: Overtake, ends: int) -> Spent:
    driver = Driver(size, overtake)
    driver.play(int(WARM_UP * ends))
    driver.spent_s.clear()
    driver.play(ends)
    every = [one_s for kind_s in driver.spent_s.values() for one_s in kind_s]
    by_kind = {kind: latency(kind_s) for kind, kind_s in driver.spent_s.items()}
    return Spent(walk, size, by_kind, 1000.0 * fmean(every), tuple(driver.released), driver.backfilled)


def _settings(nodes: int) -> QueueSettings:
    return QueueSettings({"cpu": CPU * nodes, "memory": MEMORY_GIB * nodes}, invariants_every=0)
