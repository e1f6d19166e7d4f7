"""Whatever is said of whatever gang, in whatever order: nothing raises, and every invariant holds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from scheduler.core.queue.actions import ReleaseGang
from scheduler.core.queue.events import (
    Estimate,
    Event,
    ForeignUsage,
    Gang,
    GangArrived,
    GangChanged,
    GangEnded,
    GangFound,
    GangPod,
    GangStarted,
    GangWithdrawn,
    Listed,
    Node,
    NodeRemoved,
    NodeSet,
    Planned,
    PodEnded,
    PodStarted,
    Promoted,
    QueueConfigured,
    QueuePaused,
    QueueResumed,
    ReleaseDone,
    ReleaseFailed,
    ReleaseHalfFailed,
    Shape,
    Tick,
    Unschedulable,
    WeightSet,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.taints import Taint

STEPS = 120
GPU = "nvidia.com/gpu"
AMOUNTS = {"cpu": (0.0, 0.001, 0.5, 1.0, 7.0), GPU: (0.0, 0.0, 0.5, 8.0), "memory": (0.0, 1e9)}
SECONDS = (math.nan, math.inf, -1.0, 0.0, 1e-9, 1e-3, 5.0, 60.0, 1e5)
WEIGHTS = (1e-6, 0.5, 3.0, 1e6, 0.0, -1.0, math.nan, math.inf)
OFFERS = ({}, {"cpu": 0.0}, {"cpu": 4.0, "pods": 3.0}, {"cpu": 8.0, GPU: 8.0, "memory": 1e12})
NODES = ("n1", "n2", "n3")


class Teller:
    """Says anything about eight gangs of two users on three nodes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now_s = 1000.0
        self.grouped = self.dice.random() < 0.3

    def settings(self) -> QueueSettings:
        pick = self.dice.choice
        return QueueSettings(
            reference=pick([{"cpu": 10.0}, {"cpu": 10.0, GPU: 4.0}, {"cpu": 5.0, "memory": 1e12}]),
            weights=pick([{}, {("a",): 2.0}, {("a",): 1e-6, ("b",): 1e6}]),
            grouped=self.grouped,
            by_arrival_inside_user=pick([True, False]),
            node_selector=pick([{}, {}, {"pool": "a"}]),
            node_tolerations=pick([None, None, ()]),
            backfill=pick([True, False]),
            backfill_quantile=pick([0.5, 0.9]),
            shortest_first=pick([True, False, False]),
            lag_limit_share_s=pick([0.1, 600.0]),
            depth=pick([1, 200]),
            max_waiting_per_flow=pick([1, 2, 1000]),
            max_share_while_others_wait=pick([math.inf, 0.3]),
            run_time_s=pick([math.inf, 30.0]),
            release_head_after_s=pick([math.inf, 1.0, 20.0]),
            half_open_timeout_s=20.0,
            start_timeout_s=40.0,
            promise_timeout_s=pick([5.0, 600.0]),
        )

    def event(self) -> Event:
        kinds: list[tuple[int, Callable[[str], Event]]] = [
            (9, lambda uid: self.dice.choice([GangArrived, GangArrived, GangChanged])(self.gang(uid))),
            (3, self.found),
            (8, self.about_gates),
            (6, self.about_pods),
            (4, self.about_nodes),
            (3, self.by_hand),
            (2, self.about_all),
        ]
        (tell,) = self.dice.choices([tell for _, tell in kinds], [weight for weight, _ in kinds])
        return tell(f"g{self.dice.randrange(8)}")

    def gang(self, uid: str) -> Gang:
        pick, pods = self.dice.choice, self.dice.choice([0, 1, 1, 1, 2, 5])
        return Gang(
            uid,
            pick("ab"),
            tuple(GangPod(f"{uid}.{number}", self.shape()) for number in range(pods)),
            pick([self.now_s, self.now_s - 5, self.now_s + 100, 0.0]),
            pick([None, Estimate.exactly(pick(SECONDS)), Estimate(*(pick(SECONDS) for _ in range(3)))]),
            job=pick(["", "", "j"]),
            group=pick("xy"),
            priority=pick([0, 0, 1, -5]),
            size=pick([0, 0, 0, 1, 3, 99]),
            promised=tuple(self.shape() for _ in range(pick([0, 0, 0, 2]))),
            job_class=pick(["", "c"]),
            hint_s=pick(SECONDS),
            recreates=pick([True, False]),
        )

    def shape(self) -> Shape:
        requests = tuple((name, self.dice.choice(amounts)) for name, amounts in AMOUNTS.items())
        return Shape(requests, selector=self.dice.choice([(), (), (("pool", "a"),)]))

    def found(self, uid: str) -> Event:
        gang, pick = self.gang(uid), self.dice.choice
        nodes = {pod.uid: pick(NODES) for pod in gang.pods if pick([True, False])}
        closed = frozenset(pod.uid for pod in gang.pods if self.dice.random() < 0.3)
        charged = pick([math.nan, 5.0, -1.0, math.inf, 0.0])
        return GangFound(gang, nodes, self.at_s(), pick([math.nan, self.now_s, 9e9]), charged, closed)

    def about_gates(self, uid: str) -> Event:
        some = tuple(f"{uid}.{number}" for number in range(self.dice.randrange(5)))
        plan = dict.fromkeys(some, self.dice.choice([*NODES, "unknown"]))
        return self.dice.choice(
            [
                ReleaseDone(uid, some),
                ReleaseFailed(uid, "no"),
                ReleaseHalfFailed(uid, some, "no"),
                Unschedulable(uid, "full"),
                Planned(uid, plan),
            ]
        )

    def about_pods(self, uid: str) -> Event:
        pod, at_s = f"{uid}.{self.dice.randrange(5)}", self.at_s()
        return self.dice.choice(
            [
                PodStarted(uid, pod, self.dice.choice([*NODES, "unknown", ""]), at_s),
                PodEnded(uid, pod, at_s, self.dice.random() < 0.4, self.at_s()),
                GangStarted(uid, at_s),
                GangEnded(uid, at_s, self.at_s()),
                GangWithdrawn(uid, at_s),
            ]
        )

    def about_nodes(self, uid: str) -> Event:
        del uid
        pick, name = self.dice.choice, self.dice.choice(NODES)
        taints = pick([(), (), (Taint("k", "v", "NoSchedule"),)])
        node = Node(name, pick(OFFERS), pick([{}, {"pool": "a"}]), taints, pick([True, True, False]))
        usage = {"cpu": pick([0.0, 1.0, 100.0]), "pods": 1.0}
        return pick([NodeSet(node), NodeSet(node), NodeRemoved(name), ForeignUsage(name, usage)])

    def by_hand(self, uid: str) -> Event:
        path = self.dice.choice([("a",), ("b",), ("x",), ("x", "a")])
        changes = [WeightSet(path, self.dice.choice(WEIGHTS)), QueueConfigured(self.settings())]
        return self.dice.choice([*changes, QueuePaused(), QueueResumed(), Promoted(uid)])

    def about_all(self, uid: str) -> Event:
        others = (f"g{number}" for number in range(8) if self.dice.random() < 0.7)
        return self.dice.choice([Listed(frozenset([uid, *others])), Tick()])

    def at_s(self) -> float | None:
        return self.dice.choice([None, self.now_s, self.now_s - 3, self.now_s - 100, self.now_s + 50])


def restarted(keeper: Gatekeeper) -> Gatekeeper:
    """From its checkpoint; what was configured since it was made stays in force."""
    return Gatekeeper.revive(keeper._book.settings, json.loads(json.dumps(keeper.export())))


@pytest.mark.parametrize("seed", range(40))
def test_any_event_at_any_time(seed: int) -> None:
    teller = Teller(seed)
    dice, keeper = teller.dice, Gatekeeper(teller.settings())
    for _ in range(STEPS):
        teller.now_s += dice.choice([0.0, 0.0, 0.1, 1.0, 5.0, -2.0, 30.0, 600.0])
        for action in keeper.handle(teller.event(), teller.now_s):
            if isinstance(action, ReleaseGang) and dice.random() < 0.7:
                keeper.handle(ReleaseDone(action.uid, action.pods), teller.now_s)
        if dice.random() < 0.02:
            keeper = restarted(keeper)
        if dice.random() < 0.05:
            keeper.dump()
            keeper.gangs()
            Gatekeeper.developed(keeper.photograph(5)).handle(Tick(), teller.now_s + 10.0)
