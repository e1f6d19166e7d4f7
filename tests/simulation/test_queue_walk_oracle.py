"""The walk that remembers decides as the plain one does that tries everybody, whatever happens."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_walk import plain_walk
from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.events import (
    Estimate,
    Event,
    ForeignUsage,
    Gang,
    GangArrived,
    GangEnded,
    GangPod,
    GangStarted,
    GangWithdrawn,
    Node,
    NodeRemoved,
    NodeSet,
    Promoted,
    QueueConfigured,
    ReleaseFailed,
    Shape,
    Tick,
    Unschedulable,
    WeightSet,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings

SMALL, LARGE = Shape((("cpu", 1.0),)), Shape((("cpu", 3.0),))
GPU, THERE = Shape((("cpu", 1.0), ("gpu", 1.0))), Shape((("cpu", 2.0),), selector=(("zone", "b"),))
KINDS = [(SMALL,), (SMALL,) * 4, (LARGE, LARGE), (GPU,), (SMALL, LARGE, LARGE), (THERE, THERE), (LARGE, GPU)]
NODES = [
    Node("a1", {"cpu": 8.0, "pods": 9.0}, {"zone": "a"}),
    Node("b1", {"cpu": 4.0, "gpu": 2.0}, {"zone": "b"}),
    Node("b2", {"cpu": 6.0}, {"zone": "b"}),
]
LASTS_S = [0.5, 2.0, 10.0, 60.0]


class Twins:
    """Two gatekeepers that are told the same; `remembering` decides what happens next."""

    def __init__(self, seed: int, **knobs: Any) -> None:
        self.dice = random.Random(seed)
        self.settings = QueueSettings(reference={"cpu": 18.0, "gpu": 2.0}, invariants_every=7, **knobs)
        self.remembering = Gatekeeper(self.settings)
        self.plain = Gatekeeper(replace(self.settings, invariants_every=0), overtake=plain_walk)
        self.now_s, self.number, self.ahead = 0.0, 0, 0
        self.waiting: dict[str, Gang] = {}
        self.running: list[str] = []
        for node in NODES:
            self.tell(NodeSet(node))

    def tell(self, event: Event) -> None:
        """Both must answer alike."""
        actions = self.remembering.handle(event, self.now_s)
        assert self.plain.handle(event, self.now_s) == actions, (self.now_s, event)
        for action in actions:
            self.follow(action)

    def follow(self, action: Action) -> None:
        if isinstance(action, ReleaseGang):
            self.waiting.pop(action.uid, None)
            self.running.append(action.uid)
            self.ahead += action.receipt.backfilled

    def step(self) -> None:
        self.now_s += self.dice.choice([0.0, 0.1, 1.0, 5.0])
        what = self.dice.random()
        if what < 0.45:
            self.arrive()
        elif what < 0.85 and self.running:
            self.end(self.running.pop(self.dice.randrange(len(self.running))))
        elif what < 0.9 and self.waiting:
            uid = self.dice.choice(list(self.waiting))
            self.tell(self.dice.choice([GangWithdrawn(uid), Promoted(uid), self.changed(uid)]))
            if isinstance(self.remembering.explain(uid), type(None)):
                self.waiting.pop(uid, None)
        else:
            self.tell(self.rare())

    def arrive(self) -> None:
        self.number += 1
        uid, dice = f"g{self.number}", self.dice
        middle_s = dice.choice(LASTS_S)
        estimate = Estimate(middle_s / 2, middle_s, middle_s * dice.choice([1.0, 2.0]))
        pods = tuple(GangPod(f"{uid}/{at}", shape) for at, shape in enumerate(dice.choice(KINDS)))
        job, flow = dice.choice(["", "j1", "j2"]), dice.choice("uvwx")
        job = f"{flow}{job}" if job else ""
        gang = Gang(uid, flow, pods, self.now_s, estimate, job=job, priority=0, group=dice.choice("pq"))
        self.waiting[uid] = gang
        self.tell(GangArrived(gang))

    def changed(self, uid: str) -> Event:
        pods = tuple(GangPod(f"{uid}/{at}", shape) for at, shape in enumerate(self.dice.choice(KINDS)))
        return GangArrived(replace(self.waiting[uid], pods=pods))

    def end(self, uid: str) -> None:
        if self.dice.random() < 0.1:
            self.tell(ReleaseFailed(uid, "conflict"))
            return
        self.tell(GangStarted(uid, at_s=self.now_s - self.dice.choice([0.0, 3.0])))
        self.tell(GangEnded(uid))

    def rare(self) -> Event:
        node = self.dice.choice(NODES)
        choices: list[Event] = [
            Tick(),
            NodeRemoved(node.name),
            NodeSet(node),
            ForeignUsage(node.name, {"cpu": self.dice.choice([0.0, 1.0, 2.0])}),
            WeightSet((self.dice.choice("uv"),), self.dice.choice([0.5, 3.0])),
            QueueConfigured(self.settings),
        ]
        if self.running:
            choices.append(Unschedulable(self.dice.choice(self.running), "volume"))
        return self.dice.choice(choices)


KNOBS: list[dict[str, Any]] = [
    {},
    {"depth": 5},
    {"lag_limit_share_s": 2.0},
    {"grouped": True},
    {"grouped": True, "lag_limit_share_s": 1.0},
    {"shortest_first": True},
    {"max_waiting_per_flow": 2},
    {"max_share_while_others_wait": 0.4},
    {"by_arrival_inside_user": True},
    {"release_head_after_s": 10.0, "backfill_quantile": 0.5, "run_time_s": 40.0},
]


def played(seed: int, knobs: dict[str, Any], steps: int = 120) -> Twins:
    twins = Twins(seed, **knobs)
    for _ in range(steps):
        twins.step()
    return twins


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=12)
def test_the_walk_decides_as_the_plain_one(seed: int, knobs: dict[str, Any]) -> None:
    played(seed, knobs)


@pytest.mark.long
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
@pytest.mark.timeout(1800)
def test_the_walk_decides_as_the_plain_one_in_many_more_cases(knobs: dict[str, Any]) -> None:
    for seed in range(300):
        played(seed, knobs)


def test_gangs_do_go_ahead_in_these_cases() -> None:
    assert sum(played(seed, {}).ahead for seed in range(5)) > 20
