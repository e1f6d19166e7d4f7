"""A small cluster that misbehaves: API server, kube-scheduler, nodes and a controller around a gatekeeper.

Everything random comes from one seed. Events on the watch are lost, doubled
and late; patches fail, half fail, and the controller dies before or after
them; nodes vanish; estimates are absurd; the clock steps back. Lists repair
what the watch lost, as in the real controller.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from scheduler.core.plans import RoomLeft
from scheduler.core.queue.actions import Action, DeletePods, ReleaseGang, ReleaseReceipt, Settled
from scheduler.core.queue.events import (
    Estimate,
    Event,
    Gang,
    GangArrived,
    GangFound,
    GangPod,
    GangWithdrawn,
    Listed,
    Node,
    NodeRemoved,
    NodeSet,
    Planned,
    PodEnded,
    PodStarted,
    ReleaseDone,
    ReleaseFailed,
    ReleaseHalfFailed,
    Shape,
    Tick,
    WeightSet,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings

NODES = {"n1": 4.0, "n2": 4.0, "n3": 2.0}
CHECKPOINT_S, LIST_S, TICK_S = 5.0, 20.0, 10.0
QUIET_S = 900.0
ABSURD = [math.nan, math.inf, -1.0, 1e-9, 1e-3, 1e6]


@dataclass
class RealPod:
    """One pod as the API server has it."""

    shape: Shape
    gated: bool = True
    node: str = ""
    started_s: float = math.nan
    ended_s: float = math.nan

    @property
    def runs(self) -> bool:
        return bool(self.node) and math.isnan(self.ended_s)


@dataclass
class RealGang:
    """One gang as the API server has it."""

    gang: Gang
    duration_s: float
    pods: dict[str, RealPod]
    receipt: ReleaseReceipt | None = None
    gone: bool = False
    times_run: int = 0

    @property
    def over(self) -> bool:
        return self.gone or all(not math.isnan(pod.ended_s) for pod in self.pods.values())


@dataclass
class World:
    """The cluster; `faulty_until_s`: afterwards everything works, so that all must end well."""

    seed: int
    faulty_until_s: float = 60.0
    gangs: dict[str, RealGang] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)
    restarts: int = 0
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.settings = QueueSettings(
            reference={"cpu": sum(NODES.values())},
            half_open_timeout_s=20.0,
            start_timeout_s=40.0,
            backfill=self.dice.random() < 0.7,
            shortest_first=self.dice.random() < 0.2,
            lag_limit_share_s=self.dice.choice([1.0, 600.0]),
            grouped=self.dice.random() < 0.3,
            max_waiting_per_flow=self.dice.choice([2, 100_000]),
            by_arrival_inside_user=self.dice.random() < 0.3,
            release_head_after_s=self.dice.choice([math.inf, 5.0, 15.0]),
        )
        self.keeper = Gatekeeper(self.settings)
        self.checkpoint = self._saved()
        self.nodes = dict(NODES)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        for every_s, work in (
            (CHECKPOINT_S, self._save),
            (LIST_S, self._list),
            (TICK_S, self._tick),
            (1.0, self._bind),
        ):
            self._repeat(every_s, work)

    def play(self) -> None:
        """Let everything happen."""
        self._list()
        for index in range(self.dice.randint(4, 14)):
            self._at(self.dice.uniform(0, self.faulty_until_s * 0.8), lambda index=index: self._create(index))
        for _ in range(3):
            self._at(self.dice.uniform(5, self.faulty_until_s), self._misfortune)
        while self._heap and self.now_s < self.faulty_until_s + QUIET_S and not self._done():
            self.now_s, _, do = heapq.heappop(self._heap)
            do()
        self._list()
        self._list()

    def _done(self) -> bool:
        return self.now_s > self.faulty_until_s + 2 * LIST_S and all(one.over for one in self.gangs.values())

    @property
    def faulty(self) -> bool:
        return self.now_s < self.faulty_until_s

    def _unlucky(self, chance: float) -> bool:
        return self.faulty and self.dice.random() < chance

    def _at(self, at_s: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_s, self._number, do))

    def _repeat(self, every_s: float, work: Callable[[], None]) -> None:
        def again() -> None:
            work()
            self._at(self.now_s + every_s, again)

        self._at(every_s, again)

    def _watch(self, event: Event) -> None:
        """An event on the watch: lost, late, doubled, out of order."""
        for _ in range(2 if self._unlucky(0.15) else 1):
            if not self._unlucky(0.15):
                late_s = self.dice.choice([0.0, 0.0, 0.5, 4.0, 15.0]) if self.faulty else 0.0
                self._at(self.now_s + late_s, lambda: self._handle(event))

    def _handle(self, *events: Event) -> None:
        back_s = 3.0 if self._unlucky(0.02) else 0.0
        keeper = self.keeper
        for action in keeper.handle_all(events, self.now_s - back_s):
            if self.keeper is keeper:
                self._act(action)

    def _act(self, action: Action) -> None:
        if isinstance(action, ReleaseGang):
            self._release(action)
        elif isinstance(action, DeletePods):
            self._delete(action)
        elif isinstance(action, Settled):
            self.settled.append(action)

    def _release(self, action: ReleaseGang) -> None:
        real = self.gangs[action.uid]
        if self._unlucky(0.05):
            return self._restart()
        if real.gone:
            self._at(self.now_s, lambda: self._handle(ReleaseFailed(action.uid, "not found")))
            self._at(self.now_s, lambda: self._handle(GangWithdrawn(action.uid)))
            return None
        if self._unlucky(0.3):
            self._plan_elsewhere(action)
        wanted = [uid for uid in action.pods if uid in real.pods]
        count = self.dice.randint(0, len(wanted)) if self._unlucky(0.25) else len(wanted)
        for uid in wanted[:count]:
            real.pods[uid].gated = False
            real.receipt = real.receipt or action.receipt
        if self._unlucky(0.05):
            return self._restart()
        answer: Event = ReleaseDone(action.uid, tuple(wanted))
        if count < len(wanted):
            answer = ReleaseHalfFailed(action.uid, tuple(wanted[:count]), "conflict")
        if not self._unlucky(0.1):
            self._at(self.now_s + 0.01, lambda: self._handle(answer))
        return None

    def _plan_elsewhere(self, action: ReleaseGang) -> None:
        """Somebody advises any nodes that have room, at once or when it may be gone."""
        asked = self.keeper.room_of({action.uid: action.pods})
        room, nodes = RoomLeft(asked), {}
        for pod in asked.pods:
            if candidates := room.candidates(pod.shape):
                nodes[pod.uid] = self.dice.choice(candidates)
                room.take(pod.shape, nodes[pod.uid])
        late_s = self.dice.choice([0.0, 0.0, 0.5, 30.0])
        self._at(self.now_s + late_s, lambda: self._handle(Planned(action.uid, nodes)))

    def _delete(self, action: DeletePods) -> None:
        """The owner makes deleted pods again, with closed gates."""
        real = self.gangs[action.uid]
        for uid in [uid for uid in action.pods if uid in real.pods]:
            self._number += 1
            real.pods[f"{uid.split('~')[0]}~{self._number}"] = RealPod(real.pods.pop(uid).shape)
        real.receipt = None
        real.gang = replace(real.gang, pods=tuple(GangPod(uid, pod.shape) for uid, pod in real.pods.items()))
        self._watch(GangArrived(real.gang))

    def _restart(self) -> None:
        self.restarts += 1
        self.keeper = Gatekeeper.revive(self.settings, json.loads(self.checkpoint))
        self._at(self.now_s, self._list)

    def _saved(self) -> str:
        return json.dumps(self.keeper.export(), allow_nan=True)

    def _save(self) -> None:
        self.checkpoint = self._saved()

    def _tick(self) -> None:
        self._handle(Tick())

    def _list(self) -> None:
        """A full list: nothing of it is lost, and nothing is decided before all of it is known."""
        events: list[Event] = [NodeSet(Node(name, {"cpu": cpu})) for name, cpu in self.nodes.items()]
        events += [NodeRemoved(name) for name in NODES if name not in self.nodes]
        present = [uid for uid, real in self.gangs.items() if not real.gone]
        for uid in present:
            events += self._seen(self.gangs[uid])
        self._handle(*events, Listed(frozenset(present)))

    def _seen(self, real: RealGang) -> list[Event]:
        gang, gated = real.gang, frozenset(uid for uid, pod in real.pods.items() if pod.gated)
        if len(gated) == len(real.pods):
            return [GangArrived(gang)]
        starts = [pod.started_s for pod in real.pods.values() if not math.isnan(pod.started_s)]
        nodes = {uid: pod.node for uid, pod in real.pods.items() if pod.runs}
        receipt = real.receipt
        charged, released_s = (receipt.charged_work, receipt.released_s) if receipt else (math.nan, math.nan)
        events: list[Event] = [GangFound(gang, nodes, min(starts, default=None), released_s, charged, gated)]
        for uid, pod in real.pods.items():
            if not math.isnan(pod.ended_s):
                events.append(PodEnded(gang.uid, uid, pod.ended_s, started_s=pod.started_s))
        return events

    def _create(self, index: int) -> None:
        dice = self.dice
        shape = Shape((("cpu", dice.choice([0.5, 1.0, 2.0])),))
        pods = tuple(GangPod(f"g{index}.{k}", shape) for k in range(dice.choice([1, 1, 2, 4])))
        duration_s = dice.choice([1.0, 5.0, 20.0])
        told_s = dice.choice(ABSURD) if dice.random() < 0.3 else duration_s
        gang = Gang(
            f"g{index}",
            dice.choice("ab"),
            pods,
            self.now_s,
            Estimate.exactly(told_s),
            group=dice.choice("xy"),
            priority=dice.choice([0, 0, 1]),
            recreates=dice.random() < 0.5,
        )
        self.gangs[gang.uid] = RealGang(gang, duration_s, {pod.uid: RealPod(shape) for pod in pods})
        self._watch(GangArrived(gang))

    def _misfortune(self) -> None:
        what = self.dice.randrange(5)
        if what == 0:
            self._lose_node(self.dice.choice(list(NODES)))
        elif what == 1:
            self._restart()
        elif what == 2:
            self._watch(WeightSet((self.dice.choice("abxy"),), self.dice.choice([0.5, 3.0])))
        elif what == 3:
            self._vanish_unwatched()
        elif waiting := [
            real for real in self.gangs.values() if all(pod.gated for pod in real.pods.values())
        ]:
            real = self.dice.choice(waiting)
            real.gone = True
            self._watch(GangWithdrawn(real.gang.uid))

    def _vanish_unwatched(self) -> None:
        """A running gang ends and its pods are cleared away while the controller is down."""
        for real in self.gangs.values():
            if real.times_run and not real.over:
                real.gone = True
                for pod in real.pods.values():
                    pod.ended_s = self.now_s
                self._restart()
                return

    def _lose_node(self, name: str) -> None:
        self.nodes.pop(name, None)
        self._watch(NodeRemoved(name))
        for real in self.gangs.values():
            if any(pod.runs and pod.node == name for pod in real.pods.values()):
                self._end(real)
        self._at(self.now_s + 20.0, lambda: self.nodes.update({name: NODES[name]}))

    def _bind(self) -> None:
        """kube-scheduler: open pods go where they were meant to, or anywhere; a whole gang then runs."""
        for real in [one for one in self.gangs.values() if not one.over]:
            for uid, pod in real.pods.items():
                if not pod.gated and not pod.node:
                    self._bind_one(real, uid, pod)
            if all(pod.runs for pod in real.pods.values()) and not real.times_run:
                real.times_run += 1
                self._at(self.now_s + real.duration_s, lambda real=real: self._end(real))

    def _bind_one(self, real: RealGang, uid: str, pod: RealPod) -> None:
        planned = real.receipt.placement.get(uid, "") if real.receipt else ""
        need = pod.shape.requests[0][1]
        for name in [planned, *self.nodes]:
            if name in self.nodes and self.nodes[name] - self._used(name) >= need - 1e-9:
                pod.node, pod.started_s = name, self.now_s
                self._watch(PodStarted(real.gang.uid, uid, name, self.now_s))
                return

    def _used(self, name: str) -> float:
        pods = [
            pod for real in self.gangs.values() for pod in real.pods.values() if pod.runs and pod.node == name
        ]
        return sum(pod.shape.requests[0][1] for pod in pods)

    def _end(self, real: RealGang) -> None:
        for uid, pod in real.pods.items():
            if pod.runs:
                pod.ended_s = self.now_s
                self._watch(PodEnded(real.gang.uid, uid, self.now_s, started_s=pod.started_s))
        if not real.over:
            real.gone = True
            self._watch(GangWithdrawn(real.gang.uid))
