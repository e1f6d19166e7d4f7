"""After a restart every pod counts by its own start and end, and room that was promised is kept again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from queue_keeper import Queue, arrive, gang, released, settled

from scheduler.core.queue.events import (
    Event,
    Gang,
    GangArrived,
    GangEnded,
    GangFound,
    GangStarted,
    GangWithdrawn,
    Listed,
    NodeSet,
    PodEnded,
    PodStarted,
    Tick,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_node, slots_settings

PAIR = gang("a", "a", width=2)
"""On four slots a pod has a share of a quarter."""


def restarted(queue: Queue, now_s: float, *events: Event) -> tuple[Gatekeeper, list[float]]:
    """A gatekeeper revived from the queue's state, told a list at once; works of what it settled then."""
    revived = Gatekeeper.revive(slots_settings(4), json.loads(json.dumps(queue.keeper.export())))
    actions = revived.handle_all([NodeSet(slots_node(4)), *events, Listed(frozenset({"a"}))], now_s)
    return revived, [one.actual_work for one in settled(actions)]


def running(*nodes: str) -> GangFound:
    return GangFound(PAIR, dict.fromkeys(nodes, "slots"), 0.0, 0.0, 5.0)


def test_a_pod_whose_end_was_not_heard_before_the_checkpoint_is_counted_to_its_end() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", "a", width=2), GangStarted("a"))
    queue.at(30, Tick())
    ends = (PodEnded("a", "a/0", 10.0, started_s=0.0), PodEnded("a", "a/1", 40.0, started_s=0.0))
    revived, works = restarted(queue, 50.0, running(), *ends)
    assert works == [pytest.approx((10.0 + 40.0) / 4)]
    revived.check_invariants()


def test_a_pod_whose_start_was_not_heard_before_the_checkpoint_is_counted_from_its_start() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", "a", width=2), PodStarted("a", "a/0", "slots", 0.0))
    queue.at(30, Tick())
    revived, works = restarted(queue, 50.0, running("a/0", "a/1"))
    assert works == []
    assert [one.actual_work for one in settled(revived.handle(GangEnded("a", 60.0), 60.0))] == [
        pytest.approx(2 * 60.0 / 4)
    ]


def test_what_ended_before_the_checkpoint_is_counted_once_and_what_vanished_until_it_was_last_seen() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", "a", width=2), GangStarted("a"), arrive("b", "b", width=2), GangStarted("b"))
    queue.at(10, PodEnded("a", "a/0", 10.0), PodEnded("b", "b/0", 20.0))
    queue.at(30, Tick())
    still = GangFound(PAIR, {"a/1": "slots"}, 0.0, 0.0, 5.0)
    told_again = PodEnded("a", "a/0", 10.0, started_s=0.0)
    revived, works = restarted(queue, 50.0, still, told_again)
    assert works == [pytest.approx((10.0 + 30.0) / 4)]
    (end,) = settled(revived.handle(GangEnded("a", 60.0), 60.0))
    assert end.actual_work == pytest.approx((10.0 + 60.0) / 4)


def test_a_start_that_only_the_checkpoint_remembers_counts() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", "a", width=2), GangStarted("a"))
    queue.at(30, Tick())
    lost = (PodEnded("a", "a/0", 40.0, lost=True), PodEnded("a", "a/1", 40.0, lost=True))
    _, works = restarted(queue, 50.0, running(), *lost)
    assert works == [pytest.approx(2 * 40.0 / 4)]


def test_v_is_told_of_each_share_second_once() -> None:
    """As if there had been no restart: what was delivered up to the checkpoint is in V already."""
    queue = Queue(4)
    queue.at(0, arrive("a", "a", width=2, lasts_s=1000), GangStarted("a"))
    queue.at(30, Tick())
    revived, _ = restarted(queue, 50.0, running("a/0", "a/1"))
    queue.at(50, Tick())
    for keeper in (queue.keeper, revived):
        keeper.handle(GangEnded("a", 60.0), 60.0)
        keeper.handle(Tick(), 61.0)
    assert revived.dump().virtual_time == pytest.approx(queue.keeper.dump().virtual_time)
    assert revived.dump().virtual_time > 0.0


def test_an_earlier_life_under_the_same_uid_is_not_counted_again() -> None:
    queue = Queue(4)
    first = gang("a", "a")
    second_pod = type(first.pods[0])("a/again", first.pods[0].shape)
    second = type(first)("a", "a", (second_pod,), 20.0, first.estimate)
    queue.at(0, arrive("a", "a"), GangStarted("a"), GangEnded("a", 0.0))
    queue.at(20, GangFound(second, {"a/again": "slots"}, 20.0, 20.0, 5.0))
    both = type(first)("a", "a", (*first.pods, second_pod), 0.0, first.estimate)
    ends = (PodEnded("a", "a/0", 15.0, started_s=0.0), PodEnded("a", "a/again", 30.0, started_s=20.0))
    _, works = restarted(queue, 40.0, GangFound(both, {}, None, 0.0, 5.0), *ends)
    assert works == [pytest.approx(10.0 / 4)]


def test_room_for_promised_pods_and_for_pods_without_a_node_is_kept_again_after_a_restart() -> None:
    """The driver has one slot of four, two are promised; the pod of b is open and has no node yet."""
    queue = Queue(4)
    driver, other = gang("a", "a", lasts_s=1000), gang("b", "b", lasts_s=1000)
    executor = driver.pods[0].shape
    driver = replace(driver, promised=(executor, executor), size=3)
    queue.at(0, GangArrived(driver), GangStarted("a"), GangArrived(other))
    state = json.loads(json.dumps(queue.keeper.export()))
    revived = Gatekeeper.revive(slots_settings(4), state)
    found = (
        GangFound(driver, {"a/0": "slots"}, 0.0, 0.0, 750.0),
        GangFound(other, {}, None, 0.0, 250.0),
    )
    newcomer = arrive("c", "c", lasts_s=1)
    assert released(revived.handle_all([NodeSet(slots_node(4)), *found, newcomer], 10.0)) == []
    assert released(revived.handle(GangEnded("b", 20.0), 20.0)) == ["c"]


def alone(queue: Queue, at_s: float) -> Gang:
    """A pod of b waits by itself and goes; before its gate is seen to be open it is of the gang a."""
    single = gang("b", "a")
    single = replace(single, pods=(replace(single.pods[0], uid="b"),))  # as pods that wait by themselves are
    queue.at(at_s, GangArrived(single), GangWithdrawn("b"))
    assert released(queue.actions)[-1:] == ["b"]
    return single


def test_a_pod_counts_once_when_a_restart_tells_of_it_under_the_gang_it_was_released_as() -> None:
    """Its receipt names b, but its label was edited while b was being released, and it ran as a part of a."""
    queue = Queue(4)
    single = alone(queue, 0.0)
    both = replace(PAIR, pods=(*PAIR.pods, *single.pods))
    queue.at(1, GangArrived(both), GangStarted("a"))
    queue.at(30, GangEnded("a", 30.0))
    assert settled(queue.actions)[-1].actual_work == pytest.approx(3 * 29.0 / 4)
    told_again = (GangFound(single, {}, None, 0.0, 5.0), PodEnded("b", "b", 30.0, started_s=1.0))
    revived, works = restarted(queue, 50.0, *told_again, GangEnded("b", 30.0, 1.0))
    assert works == []
    revived.check_invariants()


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_pod_that_changes_its_gang_across_a_restart_counts_in_one_of_them(first: str) -> None:
    queue = Queue(4)
    single = alone(queue, 0.0)
    queue.at(1, GangArrived(replace(PAIR, pods=(*PAIR.pods, *single.pods))), GangStarted("a"))
    queue.at(30, Tick())
    found = {
        "a": GangFound(PAIR, {"a/0": "slots", "a/1": "slots"}, 1.0, 1.0, 5.0),
        "b": GangFound(single, {"b": "slots"}, 1.0, 0.0, 5.0),
    }
    state = json.loads(json.dumps(queue.keeper.export()))
    revived = Gatekeeper.revive(slots_settings(4), state)
    order = [found.pop(first), *found.values()]
    events = [NodeSet(slots_node(4)), *order, Listed(frozenset("ab"))]
    actions = revived.handle_all(events, 50.0) + revived.handle_all(
        [GangEnded("a", 61.0), GangEnded("b", 61.0)], 61.0
    )
    assert sum(one.actual_work for one in settled(actions)) == pytest.approx(3 * 60.0 / 4)
    revived.check_invariants()
