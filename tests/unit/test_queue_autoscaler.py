"""Where nodes come when pods are Pending: the first in line is released without room, one at a time."""

from __future__ import annotations

import json
from dataclasses import replace

from queue_keeper import Queue, arrive, gang, released, troubles

from scheduler.core.queue.actions import DeletePods, ReleaseGang, Trouble
from scheduler.core.queue.events import (
    GangArrived,
    GangEnded,
    GangFound,
    GangPod,
    GangStarted,
    Listed,
    NodeRemoved,
    NodeSet,
    PodEnded,
    PodStarted,
    QueueConfigured,
    ReleaseDone,
    ReleaseFailed,
    Tick,
    Unschedulable,
)
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_node, slots_settings

AFTER_S = 100.0


def scarce(slots: int = 1, **knobs: object) -> Queue:
    """Slots that a gang of user z holds for long."""
    queue = Queue(slots, release_head_after_s=AFTER_S, **knobs)
    queue.at(0, arrive("long", "z", width=slots, lasts_s=5000), GangStarted("long"))
    return queue


def test_the_first_in_line_is_released_without_room_after_the_time_and_charged() -> None:
    queue = scarce()
    queue.at(1, arrive("a", "a"), arrive("b", "b", lasts_s=20))
    assert released(queue.at(100, Tick())) == []
    (release,) = (one for one in queue.at(101, Tick()) if isinstance(one, ReleaseGang))
    assert (release.uid, dict(release.receipt.placement), release.receipt.charged_work) == ("a", {}, 10.0)
    assert "a" in queue.keeper.export()["charges"]
    assert "there is no room" in queue.keeper.explain("a").why  # type: ignore[union-attr]


def test_without_the_setting_nothing_is_released_before_it_fits() -> None:
    queue = Queue(1)
    queue.at(0, arrive("long", "z", lasts_s=5000), GangStarted("long"))
    queue.at(1, arrive("a", "a"))
    assert released(queue.at(4000, Tick())) == []


def test_the_next_one_follows_only_when_the_first_has_found_room() -> None:
    queue = scarce()
    queue.at(1, arrive("a", "a"), arrive("b", "b", lasts_s=20))
    queue.at(101, Tick())
    assert released(queue.at(400, Tick())) == []
    assert released(queue.at(401, NodeSet(slots_node(1, "new")))) == []
    queue.at(402, PodStarted("a", "a/0", "new"))
    assert released(queue.at(501, Tick())) == ["b"]


def test_a_gang_for_which_no_node_came_in_time_does_not_keep_others_from_being_tried() -> None:
    queue = scarce(start_timeout_s=300.0)
    queue.at(1, arrive("a", "a"), arrive("b", "b", lasts_s=20))
    queue.at(101, Tick())
    assert released(queue.at(300, Tick())) == []
    assert released(queue.at(402, Tick())) == []
    assert released(queue.at(502, Tick())) == ["b"]


def test_what_becomes_free_is_kept_for_the_gang_that_was_released_without_room() -> None:
    """A newcomer with a smaller tag, and all that would fit the room it needs, wait."""
    queue = Queue(2, release_head_after_s=AFTER_S)
    for uid, lasts_s in (("short", 150), ("long", 160)):
        queue.at(0, arrive(uid, "z", lasts_s=lasts_s), GangStarted(uid))
    queue.at(1, arrive("wide", "a", width=2, lasts_s=30))
    assert released(queue.at(101, Tick())) == ["wide"]
    assert released(queue.at(110, arrive("tiny", "b", lasts_s=1))) == []
    assert released(queue.at(150, GangEnded("short"), arrive("tail", "b", lasts_s=60))) == ["tiny"]
    queue.at(150, GangStarted("tiny"), GangEnded("tiny", 151.0))
    assert queue.reserved == "wide"
    assert released(queue.at(160, GangEnded("long"))) == []
    assert queue.reserved == "tail"
    queue.at(161, GangStarted("wide"))
    assert queue.phase("wide") is Phase.RUNNING
    assert released(queue.at(191, GangEnded("wide"))) == ["tail"]


def test_a_queue_without_any_node_releases_its_head_so_that_one_comes() -> None:
    queue = Queue(1, release_head_after_s=AFTER_S)
    queue.at(0, NodeRemoved("slots"), arrive("a", "a", width=3))
    assert released(queue.at(99, Tick())) == []
    assert released(queue.at(101, Tick())) == ["a"]


def test_what_fits_no_node_there_is_waits_for_larger_ones_and_holds_up_nobody() -> None:
    queue = Queue(1, release_head_after_s=AFTER_S)
    assert troubles(queue.at(0, arrive("wide", "a", width=3))) == []
    assert queue.phase("wide") is Phase.WAITING
    assert "does not fit the nodes there are now" in queue.keeper.explain("wide").why  # type: ignore[union-attr]
    assert released(queue.at(1, arrive("small", "b"))) == ["small"]
    assert released(queue.at(102, Tick())) == ["wide"]
    assert released(queue.at(103, GangStarted("small"), GangEnded("small"), arrive("next", "b"))) == ["next"]


def test_of_several_that_fit_no_node_there_is_one_is_tried_at_a_time() -> None:
    queue = Queue(1, release_head_after_s=AFTER_S, start_timeout_s=300.0)
    queue.at(0, arrive("wide", "a", width=3), arrive("wider", "b", width=4))
    assert released(queue.at(102, Tick())) == ["wide"]
    assert released(queue.at(300, Tick())) == []
    assert released(queue.at(403, Tick())) == ["wider"]


def test_when_the_setting_goes_what_fits_nowhere_is_said_to_be_infeasible() -> None:
    queue = Queue(1, release_head_after_s=AFTER_S)
    queue.at(0, arrive("wide", "a", width=3))
    queue.at(2, QueueConfigured(slots_settings(1)))
    assert queue.phase("wide") is Phase.INFEASIBLE
    queue.at(3, QueueConfigured(slots_settings(1, release_head_after_s=AFTER_S)))
    assert queue.phase("wide") is Phase.WAITING


def test_that_it_is_unschedulable_is_expected_and_holds_back_none_of_its_kind() -> None:
    queue = Queue(1, release_head_after_s=AFTER_S)
    queue.at(0, arrive("wide", "a", width=3, job_class="c"))
    queue.at(101, Tick())
    assert queue.at(102, Unschedulable("wide", "Insufficient slot")) == []
    assert released(queue.at(103, arrive("small", "a", job_class="c"))) == ["small"]


def test_a_release_without_room_that_failed_is_taken_back_and_its_time_begins_anew() -> None:
    queue = scarce()
    queue.at(1, arrive("a", "a"))
    queue.at(101, Tick())
    queue.at(102, ReleaseFailed("a", "conflict"))
    assert queue.phase("a") is Phase.WAITING
    assert released(queue.at(201, Tick())) == []
    assert released(queue.at(202, Tick())) == ["a"]


def test_executors_that_come_late_are_released_without_room_like_their_driver() -> None:
    """Else the autoscaler would add a node for the driver, and none for executors that it cannot see."""
    queue = scarce()
    app = gang("app", "a")
    executor = app.pods[0].shape
    queue.at(1, GangArrived(replace(app, promised=(executor, executor), size=3)))
    assert released(queue.at(101, Tick())) == ["app"]
    came = (GangPod("app/e0", executor), GangPod("app/e1", executor))
    grown = replace(app, pods=(*app.pods, *came))
    (release,) = (one for one in queue.at(102, GangArrived(grown)) if isinstance(one, ReleaseGang))
    assert (release.pods, release.completing) == (("app/e0", "app/e1"), True)


def test_how_long_it_has_had_no_room_survives_a_restart() -> None:
    queue = scarce()
    waiting, long = gang("a", "a"), gang("long", "z", lasts_s=5000)
    queue.at(1, GangArrived(waiting))
    state = json.loads(json.dumps(queue.keeper.export()))
    revived = Gatekeeper.revive(slots_settings(1, release_head_after_s=AFTER_S), state)
    found = GangFound(long, {"long/0": "slots"}, 0.0, 0.0, 5000.0)
    for event in (NodeSet(slots_node(1)), found, GangArrived(waiting), Listed(frozenset({"a", "long"}))):
        assert released(revived.handle(event, 60.0)) == []
    assert released(revived.handle(Tick(), 100.0)) == []
    assert released(revived.handle(Tick(), 101.0)) == ["a"]


def test_a_gang_released_without_room_comes_first_after_a_restart_too() -> None:
    queue = scarce()
    pending, later = gang("a", "a"), gang("b", "b", lasts_s=1)
    queue.at(1, GangArrived(pending))
    queue.at(101, Tick(), GangArrived(later))
    state = json.loads(json.dumps(queue.keeper.export()))
    revived = Gatekeeper.revive(slots_settings(1, release_head_after_s=AFTER_S), state)
    found = GangFound(gang("long", "z"), {"long/0": "slots"}, 0.0, 0.0, 5000.0)
    opened = GangFound(pending, {}, None, 101.0, 10.0)
    for event in (NodeSet(slots_node(1)), found, opened, GangArrived(later)):
        assert released(revived.handle(event, 102.0)) == []
    revived.handle(Listed(frozenset({"a", "b", "long"})), 102.0)
    assert released(revived.handle(PodEnded("long", "long/0", 103.0), 103.0)) == []
    revived.handle(PodStarted("a", "a/0", "slots", 104.0), 104.0)
    assert released(revived.handle(GangEnded("a", 114.0), 114.0)) == ["b"]
    assert not [one for one in queue.actions if isinstance(one, DeletePods)]


def test_a_node_that_comes_after_the_time_to_start_is_still_its_whose_pods_are_pending() -> None:
    queue = scarce(start_timeout_s=60)
    queue.at(1, arrive("a", "a"), arrive("b", "b"))
    assert released(queue.at(101, Tick())) == ["a"]
    queue.at(102, ReleaseDone("a", ("a/0",)), Tick())
    assert Trouble.NOT_STARTED in troubles(queue.at(162, Tick()))
    assert released(queue.at(170, NodeSet(slots_node(1, "new")))) == []
    queue.at(171, PodStarted("a", "a/0", "new"))
    assert queue.phase("a") is Phase.RUNNING
