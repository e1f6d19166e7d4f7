"""Tables of events and the actions that they must produce."""

from __future__ import annotations

import math

import pytest
from queue_keeper import Queue, arrive, gang, released, settled, troubles

from scheduler.core.queue.actions import DeletePods, ReleaseGang, Report, Trouble
from scheduler.core.queue.events import (
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
    NodeRemoved,
    NodeSet,
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
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import SLOT, slots_node, slots_settings

ONE = Shape(((SLOT, 1.0),))


def test_a_gang_that_fits_is_released_with_its_receipt() -> None:
    (action,) = Queue(4).at(1.0, arrive("a", width=2))
    assert isinstance(action, ReleaseGang)
    assert (action.pods, action.completing) == (("a/0", "a/1"), False)
    receipt = action.receipt
    assert (receipt.charged_work, receipt.share, receipt.position) == (pytest.approx(5.0), 0.5, 1)
    assert receipt.placement == {"a/0": "slots", "a/1": "slots"}


def test_a_gang_waits_until_all_of_it_fits() -> None:
    queue = Queue(3, backfill=False)
    assert released(queue.at(0, arrive("a", width=2), arrive("b", width=2))) == ["a"]
    assert released(queue.at(5, GangStarted("a"))) == []
    assert released(queue.at(10, GangEnded("a"))) == ["b"]


def test_a_gang_may_start_ahead_only_if_it_ends_before_the_head_can_start() -> None:
    queue = Queue(3, weights={("w",): 0.1})
    queue.at(0, arrive("a", width=2, lasts_s=10), GangStarted("a"), arrive("head", "v", width=3))
    assert released(queue.at(1, arrive("long", "w", lasts_s=90))) == []
    (action,) = queue.at(1, arrive("short", "w", lasts_s=8))
    assert isinstance(action, ReleaseGang)
    assert (action.uid, action.receipt.backfilled) == ("short", True)


def test_a_gang_may_start_ahead_if_it_leaves_alone_what_the_head_needs() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", width=2, lasts_s=10), GangStarted("a"), arrive("head", "v", width=3))
    assert released(queue.at(1, arrive("long", "w", lasts_s=90))) == ["long"]
    assert released(queue.at(2, arrive("one too many", "x", lasts_s=90))) == []


def test_a_newcomer_with_a_smaller_tag_takes_the_reservation() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", width=1, lasts_s=10), GangStarted("a"), arrive("big", "v", width=2, lasts_s=90))
    queue.at(1, arrive("quick", "w", width=2, lasts_s=1))
    reserved = queue.keeper.dump().reserved
    assert reserved is not None
    assert reserved[0] == "quick"


def test_work_is_settled_by_what_was_used() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", lasts_s=10))
    queue.at(3, GangStarted("a"))
    (done,) = settled(queue.at(7, GangEnded("a")))
    assert (done.charged_work, done.actual_work) == (pytest.approx(5.0), pytest.approx(2.0))
    assert (done.released_s, done.started_s, done.finished_s) == (0, 3, 7)


def test_a_gang_that_outlives_its_estimate_pays_while_it_runs() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", lasts_s=10), GangStarted("a"))
    queue.at(100, Tick())
    (flow,) = queue.keeper.dump().flows
    assert queue.keeper.export()["charges"]["a"]["charged_work"] == pytest.approx(50.0)
    assert flow.received == pytest.approx(50.0)


def test_it_pays_again_after_a_second_and_after_a_tenth_of_what_it_ran() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a", lasts_s=1), GangStarted("a"))
    paid = [0.0]
    for tenths in range(1, 500):
        queue.at(tenths / 10, Tick())
        charged = queue.keeper.export()["charges"]["a"]["charged_work"]
        if charged != paid[-1]:
            paid.append(charged)
    assert paid[1:6] == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0], abs=0.15)
    assert paid[-1] - paid[-2] == pytest.approx(4.4, abs=0.3)


def test_pods_of_a_gang_are_counted_one_by_one() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", width=2))
    queue.at(1, PodStarted("a", "a/0", "slots"))
    queue.at(3, PodStarted("a", "a/1", "slots"), PodEnded("a", "a/0"))
    (done,) = settled(queue.at(6, PodEnded("a", "a/1")))
    assert done.actual_work == pytest.approx(0.5 * (2 + 3))


def test_starts_and_ends_learnt_late_count_when_they_happened() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"))
    queue.at(9, GangStarted("a", at_s=2.0))
    (done,) = settled(queue.at(20, GangEnded("a", at_s=8.0)))
    assert done.actual_work == pytest.approx(6.0)


def test_an_end_that_comes_before_its_start_is_counted() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"))
    (done,) = settled(queue.at(20, PodEnded("a", "a/0", at_s=8.0, started_s=3.0)))
    assert done.actual_work == pytest.approx(5.0)


@pytest.mark.parametrize("again", [arrive("a"), GangStarted("a"), GangEnded("a"), ReleaseDone("a", ("a/0",))])
def test_an_event_that_comes_twice_changes_nothing(again: Event) -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"), ReleaseDone("a", ("a/0",)), GangStarted("a"))
    queue.at(5, GangEnded("a"))
    before = queue.keeper.export()
    assert queue.at(5, again) == []
    assert queue.keeper.export() == before


def test_events_about_unknown_gangs_are_let_pass() -> None:
    queue = Queue(1)
    events = [
        GangEnded("x"),
        GangStarted("x"),
        PodEnded("x", "p"),
        GangWithdrawn("x"),
        Unschedulable("x", "?"),
    ]
    assert queue.at(1, *events, ReleaseFailed("x", "?"), ReleaseHalfFailed("x", (), "?")) == []


def test_an_incomplete_gang_is_not_released_and_reported_after_its_timeout() -> None:
    queue = Queue(4, incomplete_timeout_s=50)
    assert queue.at(0, arrive("a", width=2, size=3)) == []
    (report,) = queue.at(60, Tick())
    assert isinstance(report, Report)
    assert report.sentence.startswith("2 of its 3 pods came within 50 s")
    assert queue.at(90, Tick()) == []
    assert released(queue.at(100, GangChanged(gang("a", width=3, size=3)))) == ["a"]


def test_a_gang_that_never_fits_is_reported_and_tried_again_when_the_queue_grows() -> None:
    queue = Queue(2)
    assert troubles(queue.at(0, arrive("a", width=3))) == [Trouble.INFEASIBLE]
    assert queue.phase("a") is Phase.INFEASIBLE
    assert released(queue.at(1, NodeSet(slots_node(1, "more")))) == ["a"]


def test_a_gang_that_no_longer_fits_lets_others_pass() -> None:
    queue = Queue(2)
    queue.at(0, NodeSet(slots_node(2, "more")), arrive("a", width=1), GangStarted("a"))
    queue.at(1, arrive("wide", width=4, lasts_s=1), arrive("b", width=2, lasts_s=100))
    assert queue.phase("b") is Phase.WAITING
    assert released(queue.at(2, NodeRemoved("more"), GangEnded("a"))) == ["b"]
    assert queue.phase("wide") is Phase.INFEASIBLE


def test_foreign_pods_take_room() -> None:
    queue = Queue(2)
    queue.at(0, ForeignUsage("slots", {SLOT: 1.0}))
    assert troubles(queue.at(1, arrive("a", width=2))) == [Trouble.INFEASIBLE]
    assert released(queue.at(2, ForeignUsage("slots", {}))) == ["a"]


def test_a_failed_release_is_taken_back_and_tried_again() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"))
    actions = queue.at(1, ReleaseFailed("a", "conflict"))
    assert (released(actions), troubles(actions)) == (["a"], [Trouble.RELEASE_FAILED])
    assert released(queue.at(2, ReleaseFailed("a", "conflict"))) == []
    assert released(queue.at(4, Tick())) == ["a"]
    assert list(queue.keeper.export()["charges"]) == ["a"]


def test_a_half_released_gang_is_completed_before_anything_else() -> None:
    queue = Queue(4)
    queue.at(0, arrive("a", width=3))
    first, second = queue.at(1, ReleaseHalfFailed("a", ("a/0",), "conflict"), arrive("b"))
    assert isinstance(first, ReleaseGang)
    assert isinstance(second, ReleaseGang)
    assert (first.uid, first.pods, first.completing) == ("a", ("a/1", "a/2"), True)
    assert second.uid == "b"


@pytest.mark.parametrize("recreates", [True, False])
def test_a_gang_that_stays_half_open_is_given_up(recreates: bool) -> None:
    queue = Queue(2, half_open_timeout_s=30)
    queue.at(0, arrive("a", width=2, recreates=recreates))
    queue.at(1, ReleaseHalfFailed("a", ("a/0",), "conflict"))
    actions = queue.at(40, Tick())
    assert troubles(actions) == [Trouble.HALF_OPEN]
    assert any(isinstance(action, DeletePods) for action in actions) is recreates
    assert [one.actual_work for one in settled(actions)] == [0.0] * recreates


@pytest.mark.parametrize("failed", [ReleaseHalfFailed("a", (), "again"), ReleaseFailed("a", "again")])
def test_a_gate_that_could_not_be_opened_in_a_second_attempt_is_tried_again(failed: Event) -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", width=2))
    assert released(queue.at(1, ReleaseHalfFailed("a", ("a/0",), "conflict"))) == ["a"]
    queue.at(1, failed)
    assert released(queue.at(10, Tick())) == ["a"]


def test_an_attempt_without_an_answer_is_waited_for_before_a_half_open_gang_is_given_up() -> None:
    """It may have opened all gates, and the gang may run."""
    queue = Queue(2, half_open_timeout_s=30)
    queue.at(0, arrive("a", width=2, recreates=True))
    queue.at(1, ReleaseHalfFailed("a", ("a/0",), "conflict"))
    queue.at(2, ReleaseHalfFailed("a", (), "conflict"))
    assert released(queue.at(25, Tick())) == ["a"]
    assert troubles(queue.at(40, Tick())) == []
    assert troubles(queue.at(54, Tick())) == []
    assert troubles(queue.at(56, Tick())) == [Trouble.HALF_OPEN]


def test_a_gang_that_does_not_start_is_reported() -> None:
    queue = Queue(1, start_timeout_s=60)
    queue.at(0, arrive("a"), ReleaseDone("a", ("a/0",)))
    assert troubles(queue.at(61, Tick())) == [Trouble.NOT_STARTED]


def test_gangs_like_one_that_kube_scheduler_cannot_place_wait() -> None:
    queue = Queue(3)
    queue.at(0, arrive("a", job_class="volume"))
    assert troubles(queue.at(1, Unschedulable("a", "no volume"))) == [Trouble.UNSCHEDULABLE]
    assert released(queue.at(2, arrive("b", job_class="volume"), arrive("c", job_class="other"))) == ["c"]
    receipt = queue.keeper.explain("b")
    assert receipt is not None
    assert "no volume" in receipt.why
    assert released(queue.at(3, GangStarted("a"))) == ["b"]


def test_promised_pods_have_room_kept_and_are_released_when_they_come() -> None:
    queue = Queue(3)
    driver = gang("app", promised=(ONE, ONE))
    (action,) = queue.at(0, GangArrived(driver))
    assert isinstance(action, ReleaseGang)
    assert action.pods == ("app/0",)
    assert released(queue.at(1, GangStarted("app"), arrive("b", "v"))) == []
    grown = Gang("app", "u", (*driver.pods, GangPod("e1", ONE)), 0.0, promised=(ONE,))
    (executor,) = queue.at(2, GangChanged(grown))
    assert isinstance(executor, ReleaseGang)
    assert (executor.pods, executor.completing) == (("e1",), True)


def test_a_promised_pod_of_another_shape_gives_up_the_room_kept_for_it() -> None:
    """Else the room would be kept twice, until the timeout."""
    queue = Queue(3)
    driver = gang("app", promised=(ONE,))
    queue.at(0, GangArrived(driver), GangStarted("app"), arrive("b", "v", width=2))
    large = Shape(((SLOT, 2.0),))
    grown = Gang("app", "u", (*driver.pods, GangPod("e1", large)), 0.0)
    (executor,) = queue.at(1, GangChanged(grown))
    assert isinstance(executor, ReleaseGang)
    assert (executor.uid, executor.pods) == ("app", ("e1",))


def test_a_promised_pod_comes_to_a_node_that_others_have_crowded_meanwhile() -> None:
    queue = Queue(2)
    driver = gang("app", promised=(ONE,))
    queue.at(0, GangArrived(driver), GangStarted("app"))
    queue.at(1, ForeignUsage(slots_node(2).name, {SLOT: 1.0}))
    (executor,) = queue.at(2, GangChanged(Gang("app", "u", (*driver.pods, GangPod("e1", ONE)), 0.0)))
    assert isinstance(executor, ReleaseGang)


def test_room_for_promised_pods_is_given_up_after_a_timeout() -> None:
    queue = Queue(2, promise_timeout_s=50)
    queue.at(0, arrive("app", promised=(ONE,)), GangStarted("app"))
    queue.at(1, arrive("b", "v"))
    actions = queue.at(60, Tick())
    assert (troubles(actions), released(actions)) == ([Trouble.PROMISE_BROKEN], ["b"])


def test_a_replacement_of_a_lost_pod_belongs_to_its_gang() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", width=2), GangStarted("a"), arrive("b", "v"))
    queue.at(1, PodEnded("a", "a/1", lost=True))
    assert queue.phase("b") is Phase.OPENING
    anew = Gang("a", "u", (GangPod("a/0", ONE), GangPod("a/1~2", ONE)), 0.0)
    assert released(queue.at(2, GangChanged(anew))) == []
    (action,) = [one for one in queue.at(3, GangEnded("b")) if isinstance(one, ReleaseGang)]
    assert (action.uid, action.pods) == ("a", ("a/1~2",))


def test_a_gang_with_other_pods_under_its_old_uid_is_a_new_life() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"), GangStarted("a"))
    queue.at(1, GangEnded("a"))
    anew = Gang("a", "u", (GangPod("a/0~2", ONE),), 0.0)
    assert released(queue.at(2, GangArrived(anew))) == ["a"]


def test_nothing_is_released_while_the_queue_is_paused() -> None:
    queue = Queue(1)
    queue.at(0, QueuePaused())
    assert queue.at(1, arrive("a")) == []
    receipt = queue.keeper.explain("a")
    assert receipt is not None
    assert receipt.why == "the queue is paused"
    assert released(queue.at(2, QueueResumed())) == ["a"]


def test_a_gang_promoted_by_hand_goes_first() -> None:
    queue = Queue(1, backfill=False)
    queue.at(0, arrive("a"), GangStarted("a"), arrive("b", lasts_s=1), arrive("c", lasts_s=99))
    queue.at(1, Promoted("c"))
    assert released(queue.at(2, GangEnded("a"))) == ["c"]
    assert troubles(queue.at(3, Promoted("a"))) == [Trouble.REFUSED]


def test_a_promotion_is_kept_over_a_restart_while_its_gang_waits() -> None:
    queue = Queue(1, backfill=False)
    queue.at(0, arrive("a"), GangStarted("a"), *[arrive(name, lasts_s=99) for name in ("b", "c", "gone")])
    queue.at(1, Promoted("gone"), Promoted("c"))
    queue.keeper = Gatekeeper.revive(slots_settings(1, backfill=False), queue.keeper.export())
    queue.at(2, NodeSet(slots_node(1)), GangFound(gang("a"), {"a/0": "slots"}, 0.0, 0.0, 5.0), arrive("b"))
    queue.at(2, arrive("c"), Listed(frozenset({"a", "b", "c"})))
    assert queue.keeper.export()["promoted"] == ["c"]
    assert released(queue.at(3, GangEnded("a"))) == ["c"]


def test_nobody_holds_more_than_the_limit_while_others_wait() -> None:
    queue = Queue(4, max_share_while_others_wait=0.5)
    queue.at(0, *[arrive(f"a{k}", "greedy", lasts_s=1) for k in range(3)])
    queue.at(0, arrive("v0", "v", lasts_s=50), arrive("v1", "v", lasts_s=50), arrive("a9", "greedy"))
    queue.at(1, GangEnded("a0", started_s=0.0))
    assert queue.phase("v1") is Phase.OPENING


def test_a_higher_priority_goes_first_inside_its_user_only() -> None:
    queue = Queue(1, backfill=False)
    queue.at(0, arrive("a"), GangStarted("a"))
    queue.at(
        1, arrive("low", lasts_s=1), arrive("high", lasts_s=5, priority=3), arrive("other", "v", lasts_s=2)
    )
    order = []
    for now_s, uid in ((2, "a"), (3, "other"), (4, "high"), (5, "low")):
        order += released(queue.at(now_s, GangEnded(uid, started_s=now_s - 1.0)))
    assert order == ["other", "high", "low"]


def test_a_weight_out_of_range_is_refused_with_a_sentence() -> None:
    (report,) = Queue().at(1, WeightSet(("u",), 0.0))
    assert isinstance(report, Report)
    assert report.sentence == "weight 0.0 of u is not above 0; the old one stays"


def test_a_clock_that_steps_back_stands_still_meanwhile() -> None:
    queue = Queue(1)
    queue.at(100, arrive("a"), GangStarted("a"))
    assert troubles(queue.at(40, Tick())) == [Trouble.CLOCK_BACK]
    (done,) = settled(queue.at(110, GangEnded("a")))
    assert done.actual_work == pytest.approx(10.0)


def test_a_list_tells_what_is_gone() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"), GangStarted("a"), arrive("b"))
    queue.at(5, Tick())
    (done,) = settled(queue.at(9, Listed(frozenset())))
    assert (done.uid, done.vanished, done.actual_work) == ("a", True, pytest.approx(5.0))
    assert queue.phase("b") is None


def test_an_end_before_the_checkpoint_that_was_heard_of_after_the_restart_is_counted_as_it_was() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"), GangStarted("a"))
    queue.at(60, Tick())
    state = queue.keeper.export()
    queue.keeper = Gatekeeper.revive(slots_settings(1), state)
    (one,) = settled(queue.at(70, NodeSet(slots_node(1)), GangEnded("a", at_s=50.0, started_s=0.0)))
    assert one.actual_work == pytest.approx(50.0)


def test_a_gang_found_open_is_charged_what_its_receipt_says() -> None:
    queue = Queue(2)
    queue.at(10, GangFound(gang("a"), {"a/0": "slots"}, started_s=4.0, released_s=3.0, charged_work=2.5))
    (done,) = settled(queue.at(12, GangEnded("a")))
    assert (done.released_s, done.charged_work, done.actual_work) == (
        3.0,
        pytest.approx(3.0),
        pytest.approx(4.0),
    )


def test_a_gang_that_slipped_past_admission_is_charged_all_the_same() -> None:
    queue = Queue(2)
    queue.at(0, GangFound(gang("a"), {"a/0": "slots"}))
    assert queue.keeper.export()["charges"]["a"]["charged_work"] == pytest.approx(5.0)


def test_another_reference_rescales_charges_and_keeps_the_books_right() -> None:
    queue = Queue(2)
    queue.at(0, arrive("a", "u"), GangStarted("a"), arrive("b", "v", width=2), arrive("c", "w"))
    queue.at(4, QueueConfigured(slots_settings(4)))
    (done,) = settled(queue.at(8, GangEnded("a")))
    assert (done.share, done.actual_work) == (0.25, pytest.approx(2.0))


def test_grouping_cannot_be_changed_in_use() -> None:
    actions = Queue(2).at(1, QueueConfigured(slots_settings(2, grouped=True)))
    assert troubles(actions) == [Trouble.REFUSED]


def test_a_configured_weight_holds_for_flows_that_wait() -> None:
    queue = Queue(1, backfill=False)
    queue.at(0, arrive("a"), GangStarted("a"), arrive("b", "v"), arrive("c", "w"))
    queue.at(1, QueueConfigured(slots_settings(1, backfill=False, weights={("w",): 5.0})))
    assert released(queue.at(2, GangEnded("a"))) == ["c"]


def test_groups_share_before_their_users_do() -> None:
    queue = Queue(1, backfill=False, grouped=True)
    queue.at(0, arrive("now", "z", group="g0"), GangStarted("now"))
    for user in ("u1", "u2", "u3"):
        queue.at(0, arrive(f"many {user}", user, group="g1", lasts_s=10))
    queue.at(0, arrive("alone", "u4", group="g2", lasts_s=15), GangEnded("now"))
    queue.at(10, GangEnded("many u1", started_s=0.0))
    assert queue.phase("alone") is Phase.OPENING


def test_a_gang_found_released_changes_who_is_next_in_its_group() -> None:
    queue = Queue(1, backfill=False, grouped=True)
    queue.at(0, arrive("now", "z", group="g0"), GangStarted("now"))
    queue.at(0, arrive("a", "a", group="x", lasts_s=8), arrive("b", "b", group="x", lasts_s=6))
    assert queue.keeper.gangs()[0].uid == "b"
    queue.at(1, GangFound(gang("more", "b", group="x"), {"more/0": "slots"}, 0.5, 0.5, 3.0))
    assert queue.keeper.gangs()[0].uid == "a"


def test_a_dump_tells_shares_and_entitlements() -> None:
    queue = Queue(4, weights={("v",): 3.0})
    queue.at(0, arrive("a", "u", width=2), GangStarted("a"), arrive("b", "v", width=4))
    view = queue.keeper.dump()
    assert [(flow.path, flow.held, flow.entitled) for flow in view.flows] == [
        (("u",), 0.5, 0.25),
        (("v",), 0.0, 0.75),
    ]
    assert (view.waiting, view.running, view.reserved) == (1, 1, ("b", 10.0))


def test_a_receipt_says_in_a_sentence_why_a_gang_waits() -> None:
    queue = Queue(1)
    queue.at(0, arrive("a"), GangStarted("a"), arrive("b", "v"), arrive("c", "w", lasts_s=50))
    first, second = queue.keeper.explain("b"), queue.keeper.explain("c")
    assert first is not None
    assert second is not None
    assert first.why.startswith("it is next and has a reservation: room is expected in 10 s")
    assert second.why.startswith("1 gang goes before it")
    assert (first.position, second.position, first.expected_start_s) == (1, 2, 10.0)
    assert math.isnan(second.expected_start_s)
