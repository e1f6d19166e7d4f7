"""What every cluster has one day: pods without requests, weights far apart, gates that stay closed."""

from __future__ import annotations

import json

import pytest
from queue_keeper import Queue, arrive, gang, released, settled, troubles

from scheduler.core.queue.actions import Trouble
from scheduler.core.queue.events import (
    Event,
    Gang,
    GangArrived,
    GangFound,
    GangPod,
    GangStarted,
    Listed,
    NodeSet,
    PodEnded,
    PodStarted,
    QueueConfigured,
    QueuePaused,
    QueueResumed,
    ReleaseDone,
    ReleaseHalfFailed,
    Shape,
    Tick,
    WeightSet,
)
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_node, slots_settings


def without_requests(uid: str, at_s: float = 0.0) -> GangArrived:
    return GangArrived(Gang(uid, "u", (GangPod(f"{uid}/0", Shape(())),), at_s))


def test_several_pods_without_requests_of_one_user_run_and_end() -> None:
    queue = Queue(1)
    assert released(queue.at(0, without_requests("a"), without_requests("b"))) == ["a", "b"]
    queue.at(1, PodStarted("a", "a/0", "slots"), PodStarted("b", "b/0", "slots"))
    ended = settled(queue.at(5, PodEnded("a", "a/0"), PodEnded("b", "b/0")))
    assert [(one.uid, one.actual_work) for one in ended] == [("a", 0.0), ("b", 0.0)]


def test_a_pod_without_requests_keeps_its_place_behind_a_more_important_one_of_its_user() -> None:
    queue = Queue(1)
    queue.at(0, QueuePaused(), without_requests("small"), arrive("urgent", priority=1, at_s=1.0))
    assert released(queue.at(2, QueueResumed())) == ["urgent", "small"]


@pytest.mark.timeout(20)
def test_a_gang_that_is_left_half_open_holds_up_nobody_when_it_does_not_start_either() -> None:
    queue = Queue(4, half_open_timeout_s=30, start_timeout_s=60)
    queue.at(0, arrive("a", width=2))
    queue.at(1, ReleaseHalfFailed("a", ("a/0",), "conflict"))
    assert troubles(queue.at(40, Tick())) == [Trouble.HALF_OPEN]
    assert troubles(queue.at(70, Tick())) == [Trouble.NOT_STARTED]
    assert released(queue.at(71, arrive("b"))) == ["b"]


def test_a_gang_that_never_starts_does_not_keep_its_room_for_ever() -> None:
    """It may wait for a volume that nobody will make, or carry a gate that nobody opens."""
    queue = Queue(2, start_timeout_s=60)
    parked = gang("a", "a", width=2)
    queue.at(0, GangArrived(parked), ReleaseDone("a", ("a/0", "a/1")))
    assert released(queue.at(1, arrive("b", "b", at_s=1.0))) == []
    actions = queue.at(61, Tick())
    assert troubles(actions) == [Trouble.NOT_STARTED]
    assert released(actions) == ["b"]
    queue.at(62, PodStarted("b", "b/0", "slots"))
    again = (GangFound(parked, {}, None, 0.0, 10.0), GangFound(gang("b", "b"), {"b/0": "slots"}, 62.0))
    queue.at(70, *again, Listed(frozenset("ab")))
    assert released(queue.at(71, arrive("c", "c", at_s=71.0))) == ["c"], "a list does not give it room again"
    revived = Gatekeeper.revive(slots_settings(2), json.loads(json.dumps(queue.keeper.export())))
    first = GangFound(parked, {}, None, 0.0, 10.0)
    revived.handle_all([NodeSet(slots_node(2)), first, Listed(frozenset("a"))], 700.0)
    both = arrive("d", "d", width=2, at_s=701.0)
    assert released(revived.handle(both, 701.0)) == ["d"], "nor does a restart"
    queue.at(80, PodStarted("a", "a/0", "slots"), PodStarted("a", "a/1", "slots"))
    assert queue.phase("a") is Phase.RUNNING
    assert released(queue.at(81, arrive("d", "d", at_s=81.0))) == []


def test_a_gang_that_runs_in_part_keeps_the_room_of_the_rest() -> None:
    queue = Queue(2, start_timeout_s=60)
    queue.at(0, arrive("a", "a", width=2, lasts_s=100.0), ReleaseDone("a", ("a/0", "a/1")))
    queue.at(1, PodStarted("a", "a/0", "slots"), arrive("b", "b", at_s=1.0))
    assert released(queue.at(61, Tick())) == []


def test_a_light_flow_counts_on_when_one_of_huge_weight_has_left() -> None:
    clock = FairClock()
    clock.arrive("light", 1.0, weight=1e-9)
    clock.arrive("heavy", 1.0, weight=1e9)
    clock.withdraw("heavy", 1.0)
    assert clock.active_weight == 1e-9
    clock.advance(1.0)
    assert clock.virtual_time == pytest.approx(1e9)


def test_weights_are_added_up_whenever_one_changes() -> None:
    """Sums are made anew now and then, also in the middle of a change."""
    queue = Queue(1)
    queue.at(0, arrive("a", "a"), arrive("b", "b"), arrive("c", "c"))
    for number in range(3000):
        queue.keeper.handle(WeightSet(("b",), 1.0 + number % 2), 1.0)
    queue.keeper.check_invariants()


def test_another_reference_right_after_a_restart_restates_what_was_not_seen_yet() -> None:
    queue = Queue(4)
    pair = gang("a", width=2)
    queue.at(0, GangArrived(pair), GangStarted("a"))
    queue.at(8, Tick())
    revived = Gatekeeper.revive(slots_settings(4), json.loads(json.dumps(queue.keeper.export())))
    revived.handle(QueueConfigured(slots_settings(8)), 10.0)
    found = GangFound(pair, dict.fromkeys(("a/0", "a/1"), "slots"), 0.0, 0.0, 5.0)
    seen: list[Event] = [NodeSet(slots_node(8)), found, Listed(frozenset({"a"}))]
    revived.handle_all(seen, 10.0)
    revived.check_invariants()
    ends = (PodEnded("a", "a/0"), PodEnded("a", "a/1"))
    (end,) = settled([action for event in ends for action in revived.handle(event, 20.0)])
    assert end.actual_work == pytest.approx(20.0 * 2 / 8)
