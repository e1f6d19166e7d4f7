"""The position in the queue: written by the controller, read by the extender; and who waits."""

from __future__ import annotations

import math

import pytest
from msgspec import structs
from placing_builders import a_pod

from scheduler.core.jobs import Descriptions
from scheduler.core.queue.events import Estimate
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.receipts import GangReceipt
from scheduler.core.turns import QUEUED, turn_of
from scheduler.core.waiting_pods import NEAR_TURNS, WaitingPods
from scheduler.core.wire import Condition, Meta, Pod, PodSpec, PodStatus, SchedulingGate
from scheduler.edge.announcements import condition_of


def told(position: int, phase: Phase = Phase.WAITING) -> PodStatus:
    """The status of a pod as the controller writes it."""
    estimate = Estimate.exactly(1.0)
    gang = GangReceipt(
        "g",
        ("u",),
        phase,
        position,
        0.0,
        0.1,
        1.0,
        estimate,
        math.nan,
        0.5,
        0.0,
        "9 gangs go before it",
        ("p",),
    )
    says = condition_of(gang)
    queued = Condition(QUEUED, says.status, says.reason, says.message)
    return PodStatus(conditions=[Condition("PodScheduled", "False"), queued])


@pytest.mark.parametrize("position", [1, 31, 2000])
def test_the_position_that_the_controller_writes_is_the_turn_that_the_extender_reads(position: int) -> None:
    assert turn_of(told(position)) == position


@pytest.mark.parametrize(
    "status",
    [PodStatus(), told(0), told(4, Phase.RUNNING), PodStatus(conditions=[Condition(QUEUED, "True")])],
)
def test_without_a_position_there_is_no_turn(status: PodStatus) -> None:
    assert turn_of(status) == 0


def test_a_pod_has_a_turn_until_its_gate_opens() -> None:
    descriptions, meta = Descriptions(), Meta(name="p", namespace="team", uid="p")
    gated = PodSpec(schedulingGates=[SchedulingGate("fairlane.dev/queue")])
    turns = [
        descriptions.of(pod).pod.turn
        for pod in (
            Pod(meta, gated),
            Pod(meta, gated, told(7)),
            Pod(meta, gated, told(3)),
            Pod(meta, PodSpec(), told(3)),
        )
    ]
    assert turns == [0, 7, 3, 0]


def test_of_the_gated_pods_the_next_come_first_and_then_those_that_came_first() -> None:
    waiting = WaitingPods()
    for uid, turn in (("a", 0), ("b", 9), ("c", NEAR_TURNS + 1), ("d", 2), ("e", 0)):
        waiting.put(a_pod(uid, gated=True, turn=turn))
    waiting.put(a_pod("f"))
    assert [pod.uid for pod in waiting.gated(4)] == ["d", "b", "a", "b"]
    assert [pod.uid for pod in waiting.open()] == ["f"]
    waiting.put(a_pod("d"))
    waiting.remove("b")
    assert [pod.uid for pod in waiting.gated(9)] == ["a", "c", "e"]
    assert [pod.uid for pod in waiting.open()] == ["f", "d"]


def test_a_gangs_waiting_pods_are_known_though_it_is_renamed() -> None:
    waiting = WaitingPods()
    pods = [a_pod(uid, gang="team/g") for uid in "ab"]
    for pod in pods:
        waiting.put(pod)
    waiting.put(structs.replace(pods[0], gang="team/h"))
    assert [[pod.uid for pod in waiting.of_gang(gang)] for gang in ("team/g", "team/h")] == [["b"], ["a"]]
    waiting.remove("b")
    assert list(waiting.of_gang("team/g")) == []
