"""What an administrator decides beside weights: run times, nodes, which ends are believed, inner order."""

from __future__ import annotations

import json

from queue_keeper import Queue, arrive, gang, released, settled, troubles

from scheduler.core.queue.actions import Action, DeletePods, Trouble
from scheduler.core.queue.events import (
    Estimate,
    GangArrived,
    GangEnded,
    GangFound,
    GangStarted,
    Listed,
    Node,
    NodeSet,
    PodEnded,
    PodStarted,
    QueueConfigured,
    Shape,
    Tick,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import SLOT, slots_gang, slots_node, slots_settings
from scheduler.core.queue.taints import Taint, Toleration


def deleted(actions: list[Action]) -> list[tuple[str, ...]]:
    return [action.pods for action in actions if isinstance(action, DeletePods)]


def test_a_gang_that_runs_longer_than_it_may_is_deleted_and_its_user_told() -> None:
    queue = Queue(2, run_time_s=60.0)
    queue.at(0, arrive("a", width=2, lasts_s=1000))
    queue.at(5, GangStarted("a"))
    assert deleted(queue.at(64, Tick())) == []
    found = queue.at(65, Tick())
    assert deleted(found) == [("a/0", "a/1")]
    assert troubles(found) == [Trouble.RAN_TOO_LONG]
    assert "has run for 60 s" in next(one.reason for one in found if isinstance(one, DeletePods))


def test_it_pays_and_keeps_its_room_until_its_pods_are_really_gone() -> None:
    queue = Queue(1, run_time_s=60.0)
    queue.at(0, arrive("a", lasts_s=1000), GangStarted("a"))
    queue.at(1, arrive("b", "b"))
    assert released(queue.at(60, Tick())) == []
    found = queue.at(85, PodEnded("a", "a/0", 85.0, lost=True))
    assert [one.actual_work for one in settled(found)] == [85.0]
    assert released(found) == ["b"]


def test_what_is_still_there_is_deleted_again_but_told_once() -> None:
    queue = Queue(2, run_time_s=60.0)
    queue.at(0, arrive("a", width=2), GangStarted("a"))
    queue.at(60, Tick())
    queue.at(61, PodEnded("a", "a/0", 61.0, lost=True))
    assert queue.at(89, Tick()) == []
    found = queue.at(90, Tick())
    assert (deleted(found), troubles(found)) == ([("a/1",)], [])


def test_of_a_gang_of_which_only_promised_pods_are_left_nothing_is_deleted() -> None:
    queue = Queue(2, run_time_s=60.0)
    queue.at(0, arrive("a", promised=(Shape(((SLOT, 1.0),)),)), PodStarted("a", "a/0", "slots"))
    queue.at(5, PodEnded("a", "a/0", 5.0))
    assert [action for action in queue.at(60, Tick()) if isinstance(action, DeletePods)] == []


def test_a_limit_holds_for_what_runs_already_and_waiting_does_not_count() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a", lasts_s=1000), GangStarted("a"))
    queue.at(0, arrive("b", "b"))
    assert deleted(queue.at(100, QueueConfigured(slots_settings(1, run_time_s=60.0)))) == [("a/0",)]
    queue.at(101, PodEnded("a", "a/0", 101.0, lost=True), GangStarted("b"))
    assert deleted(queue.at(160, Tick())) == []
    assert deleted(queue.at(161, Tick())) == [("b/0",)]


def test_run_time_goes_on_over_a_restart() -> None:
    settings = slots_settings(1, run_time_s=60.0)
    queue = Queue(1, run_time_s=60.0)
    queue.at(0, arrive("a", lasts_s=1000), GangStarted("a"))
    revived = Gatekeeper.revive(settings, json.loads(json.dumps(queue.keeper.export())))
    found = GangFound(gang("a", lasts_s=1000), {"a/0": "slots"}, 0.0, 0.0, 1000.0)
    for event in (NodeSet(slots_node(1)), found, Listed(frozenset({"a"}))):
        assert deleted(revived.handle(event, 59.0)) == []
    assert deleted(revived.handle(Tick(), 60.0)) == [("a/0",)]


def test_a_reservation_counts_on_the_limit_of_run_times() -> None:
    queue = Queue(1, run_time_s=60.0)
    queue.at(0, arrive("a", lasts_s=1000), GangStarted("a"))
    queue.at(1, arrive("b", "b"))
    assert queue.keeper.dump().reserved == ("b", 60.0)
    queue.at(2, QueueConfigured(slots_settings(1)))
    assert queue.keeper.dump().reserved == ("b", 1000.0)


def test_a_node_whose_taint_the_queue_does_not_tolerate_is_not_its_own() -> None:
    queue = Queue(1, node_tolerations=(Toleration("pool", "Equal", "batch"),))
    tolerant = slots_gang("a", "u", 0.0, Estimate.exactly(10.0), 3)
    everything = (Toleration(operator="Exists"),)
    pods = tuple(
        type(pod)(pod.uid, type(pod.shape)(pod.shape.requests, tolerations=everything))
        for pod in tolerant.pods
    )
    queue.at(0, NodeSet(Node("other", {SLOT: 9.0}, taints=(Taint("gpu", "yes"),))))
    found = queue.at(0, GangArrived(type(tolerant)("a", "u", pods, 0.0, tolerant.estimate)))
    assert troubles(found) == [Trouble.INFEASIBLE]
    mine = Node(
        "mine", {SLOT: 9.0}, taints=(Taint("pool", "batch"), Taint("soft", effect="PreferNoSchedule"))
    )
    assert released(queue.at(1, NodeSet(mine))) == ["a"]


def test_tolerations_of_the_queue_can_change_while_it_is_in_use() -> None:
    queue = Queue(1)
    queue.at(0, NodeSet(Node("slots", {SLOT: 1.0}, taints=(Taint("gpu", effect="PreferNoSchedule"),))))
    queue.at(1, QueueConfigured(slots_settings(1, node_tolerations=())))
    assert released(queue.at(1, arrive("a"))) == ["a"]
    queue.at(2, NodeSet(Node("slots", {SLOT: 1.0}, taints=(Taint("gpu"),))), GangEnded("a"))
    assert queue.keeper.dump().usable < 1e-6
    queue.at(3, QueueConfigured(slots_settings(1, node_tolerations=(Toleration("gpu", "Exists"),))))
    assert queue.keeper.dump().usable == 1.0


def test_a_reservation_relies_on_the_end_of_the_quantile_that_is_configured() -> None:
    ends = {}
    for quantile in (0.5, 0.9):
        queue = Queue(1, backfill_quantile=quantile)
        queue.at(0, GangArrived(slots_gang("a", "u", 0.0, Estimate(5.0, 10.0, 40.0))), GangStarted("a"))
        queue.at(0, arrive("b", "v"))
        ends[quantile] = queue.keeper.dump().reserved
    assert ends == {0.5: ("b", 10.0), 0.9: ("b", 40.0)}


def test_who_may_go_ahead_is_judged_by_the_same_quantile_and_at_once_when_it_changes() -> None:
    queue = Queue(2)
    queue.at(0, arrive("long", "z", lasts_s=20), GangStarted("long"))
    queue.at(0, arrive("wide", "a", width=2, lasts_s=1))
    likely = GangArrived(slots_gang("likely", "b", 0.0, Estimate(5.0, 15.0, 45.0)))
    assert released(queue.at(0, likely)) == []
    assert released(queue.at(0, QueueConfigured(slots_settings(2, backfill_quantile=0.5)))) == ["likely"]


def test_inside_a_user_jobs_go_by_the_fair_clock_or_by_arrival() -> None:
    """By the clock short jobs first; by arrival the old long one; priority is above both."""
    orders = {}
    for by_arrival in (False, True):
        queue = Queue(1, by_arrival_inside_user=by_arrival, backfill=False)
        queue.at(0, arrive("now", lasts_s=1), GangStarted("now"))
        queue.at(0, arrive("long", lasts_s=50, at_s=0.0))
        queue.at(0.5, arrive("short", lasts_s=2, at_s=0.5), arrive("urgent", lasts_s=9, at_s=0.5, priority=1))
        orders[by_arrival] = drained(queue, "now")
    assert orders == {False: ["urgent", "short", "long"], True: ["urgent", "long", "short"]}


def test_order_by_arrival_changes_nothing_between_users() -> None:
    queue = Queue(1, by_arrival_inside_user=True, backfill=False)
    queue.at(0, arrive("now", "z", lasts_s=1), GangStarted("now"))
    queue.at(0, *[arrive(f"a{number}", "a", lasts_s=10) for number in range(3)])
    queue.at(0.5, *[arrive(f"b{number}", "b", lasts_s=10, at_s=0.5) for number in range(3)])
    assert drained(queue, "now") == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_the_order_inside_users_can_change_while_jobs_wait_and_holds_after_a_restart() -> None:
    queue = Queue(1, backfill=False)
    queue.at(0, arrive("now", lasts_s=1), GangStarted("now"))
    long, short = gang("long", lasts_s=50), gang("short", lasts_s=2, at_s=0.5)
    queue.at(0.5, GangArrived(long), GangArrived(short))
    by_arrival = slots_settings(1, by_arrival_inside_user=True, backfill=False)
    queue.at(0.6, QueueConfigured(by_arrival))
    assert [one.uid for one in queue.keeper.gangs()][:2] == ["long", "short"]
    revived = Gatekeeper.revive(by_arrival, json.loads(json.dumps(queue.keeper.export())))
    events = [
        NodeSet(slots_node(1)),
        GangArrived(short),
        GangArrived(long),
        Listed(frozenset({"long", "short"})),
    ]
    assert released(revived.handle_all(events, 1.0)) == ["long"]


def drained(queue: Queue, first: str) -> list[str]:
    """The order in which gangs are released, each ending 10 s after the one before."""
    order, now_s, running = [], 1.0, first
    while uids := released(queue.at(now_s, GangEnded(running, started_s=now_s - 1.0))):
        (running,) = uids
        order.append(running)
        queue.at(now_s, GangStarted(running))
        now_s += 10.0
    return order
