"""What the queue hears of pods: arrivals, openings, starts, ends, in whatever order the watch has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from workload_builders import T0, a_pod

from scheduler.core.queue.events import (
    Event,
    ForeignUsage,
    Gang,
    GangArrived,
    GangEnded,
    GangFound,
    GangWithdrawn,
    Listed,
    PodEnded,
    PodStarted,
    Unschedulable,
)
from scheduler.core.wire import Pod
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.rules import Rules


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(Rules())


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def arrival(events: list[Event]) -> Gang:
    (event,) = events
    assert isinstance(event, GangArrived)
    return event.gang


def test_a_lone_pod_waits_as_a_gang_of_one(assembly: Assembly) -> None:
    pod = a_pod(
        "p",
        annotations={"expected-duration": "90s", "job-class": "etl"},
        priority=7,
        requests={"cpu": "500m"},
    )
    gang = arrival(assembly.set_pod(pod, T0 + 0.3))
    assert (gang.uid, gang.flow, gang.priority, gang.job_class, gang.hint_s) == (
        "uid-p",
        "ann",
        7,
        "etl",
        90.0,
    )
    assert gang.pods[0].shape.requests == (("cpu", 0.5),)
    assert gang.arrived_s == T0 + 0.3
    assert (gang.size, gang.promised, gang.recreates) == (0, (), False)
    ref = assembly.pod_of("uid-p")
    assert ref is not None
    assert (ref.namespace, ref.name, ref.gate_index, ref.gated) == ("team", "p", 0, True)


def life(**more: Any) -> list[Pod]:
    """Gated, open, bound, ended."""
    return [
        a_pod("p", **more),
        a_pod("p", gated=False, **more),
        a_pod("p", gated=False, node="n1", bound=5.0, **more),
        a_pod("p", gated=False, node="n1", bound=5.0, phase="Succeeded", ended=9.0, **more),
    ]


def test_a_pod_is_told_at_each_step_of_its_life(assembly: Assembly) -> None:
    said = [assembly.set_pod(pod, T0 + 20.0) for pod in life()]
    assert [kinds(events) for events in said] == [
        ["GangArrived"],
        ["GangFound"],
        ["PodStarted"],
        ["PodEnded", "GangEnded"],
    ]
    assert said[2][0] == PodStarted("uid-p", "uid-p", "n1", T0 + 5.5)
    assert said[3][0] == PodEnded("uid-p", "uid-p", T0 + 9.5, lost=False, started_s=T0 + 5.5)
    assert assembly.remove_pod("uid-p", T0 + 30.0) == []
    assert assembly.pod_of("uid-p") is None


def test_the_same_word_twice_says_nothing(assembly: Assembly) -> None:
    for pod in life():
        assert assembly.set_pod(pod, T0 + 20.0)
        assert assembly.set_pod(pod, T0 + 21.0) == []


def test_a_late_word_says_nothing(assembly: Assembly) -> None:
    pods = life()
    assembly.set_pod(pods[0], T0)
    assembly.set_pod(pods[2], T0 + 20.0)
    assert assembly.set_pod(pods[0], T0 + 21.0) == []
    ref = assembly.pod_of("uid-p")
    assert ref is not None
    assert not ref.gated
    assembly.set_pod(pods[3], T0 + 22.0)
    assembly.remove_pod("uid-p", T0 + 23.0)
    assert assembly.set_pod(pods[2], T0 + 24.0) == []
    assert assembly.pod_of("uid-p") is None


def test_missed_words_are_made_up_for(assembly: Assembly) -> None:
    pods = life()
    assembly.set_pod(pods[0], T0)
    said = assembly.set_pod(pods[3], T0 + 20.0)
    assert kinds(said) == ["GangFound", "PodEnded", "GangEnded"]
    assert said[1] == PodEnded("uid-p", "uid-p", T0 + 9.5, lost=False, started_s=T0 + 5.5)


@pytest.mark.parametrize(
    ("phase", "reason"), [("Failed", None), ("Failed", "Evicted"), ("Failed", "NodeLost")]
)
def test_a_pod_that_did_not_end_well_is_lost(assembly: Assembly, phase: str, reason: str | None) -> None:
    pods = life()
    for pod in pods[:3]:
        assembly.set_pod(pod, T0)
    ended = a_pod("p", gated=False, node="n1", bound=5.0, phase=phase, ended=9.0, reason=reason)
    said = assembly.set_pod(ended, T0 + 20.0)
    assert kinds(said) == ["PodEnded", "GangWithdrawn"]
    assert isinstance(said[0], PodEnded)
    assert said[0].lost


def test_deleting_a_waiting_pod_withdraws_it(assembly: Assembly) -> None:
    assembly.set_pod(a_pod("p"), T0)
    said = assembly.remove_pod("uid-p", T0 + 4.0)
    assert said[-1] == GangWithdrawn("uid-p", T0 + 4.0)


def test_a_waiting_pod_that_is_being_deleted_is_gone_already(assembly: Assembly) -> None:
    """Its Job's finalizer may keep the object; nothing of it will ever run."""
    assembly.set_pod(a_pod("p"), T0)
    assert kinds(assembly.set_pod(a_pod("p", deleted=True), T0 + 4.0))[-1] == "GangWithdrawn"
    assert assembly.remove_pod("uid-p", T0 + 5.0) == []


def test_deleting_a_running_pod_ends_it_as_lost(assembly: Assembly) -> None:
    for pod in life()[:3]:
        assembly.set_pod(pod, T0 + 8.0)
    said = assembly.remove_pod("uid-p", T0 + 10.0)
    assert said[0] == PodEnded("uid-p", "uid-p", T0 + 10.0, lost=True, started_s=T0 + 5.5)


def test_a_pod_that_slipped_past_the_queue_is_charged(assembly: Assembly) -> None:
    (found,) = assembly.set_pod(a_pod("p", gated=False, node="n1", bound=1.0), T0 + 9.0)
    assert isinstance(found, GangFound)
    assert (found.nodes, found.started_s, found.gated) == ({"uid-p": "n1"}, T0 + 1.5, frozenset())
    assert math.isnan(found.charged_work)


def test_a_receipt_says_what_was_charged(assembly: Assembly) -> None:
    receipt = '{"gang": "uid-p", "flow": "ann", "released_s": 12.5, "charged_work": 3.25, "node": "n1"}'
    (found,) = assembly.set_pod(a_pod("p", gated=False, annotations={"receipt": receipt}), T0)
    assert isinstance(found, GangFound)
    assert (found.released_s, found.charged_work) == (12.5, 3.25)
    (found,) = assembly.set_pod(a_pod("q", gated=False, annotations={"receipt": "{]"}), T0)
    assert isinstance(found, GangFound)
    assert math.isnan(found.released_s)


def test_an_unstamped_pod_is_charged_to_its_namespace_and_that_is_said(assembly: Assembly) -> None:
    assert arrival(assembly.set_pod(a_pod("p", user=""), T0)).flow == "namespace:team"
    (remark,) = assembly.take_remarks()
    assert "fairlane.dev/user" in remark.sentence
    assembly.set_pod(a_pod("q", user=""), T0)
    assert assembly.take_remarks() == []


def test_a_label_is_no_stamp(assembly: Assembly) -> None:
    assert (
        arrival(assembly.set_pod(a_pod("p", user="", labels={"fairlane.dev/user": "eve"}), T0)).flow != "eve"
    )


def test_other_pods_take_room_while_they_are_bound(assembly: Assembly) -> None:
    def other(**more: Any) -> Pod:
        return a_pod("x", gated=False, schedulerName="default-scheduler", **more)

    assert assembly.set_pod(other(), T0) == []
    bound = assembly.set_pod(other(node="n1", requests={"cpu": "2", "nvidia.com/gpu": "1"}), T0)
    assert bound == [ForeignUsage("n1", {"cpu": 2.0, "nvidia.com/gpu": 1.0, "pods": 1.0})]
    assert assembly.set_pod(other(node="n1", phase="Succeeded"), T0) == [ForeignUsage("n1", {})]
    assert assembly.remove_pod("uid-x", T0) == []
    assert assembly.pod_of("uid-x") is None


def test_a_label_takes_nobody_out_of_the_queue() -> None:
    """Anybody may write it, also on a pod that runs; only the annotation is guarded."""
    for labels in ({}, {"fairlane.dev/queue-name": "nowhere"}):
        pod = a_pod("x", gated=False, node="n1", bound=1, labels=labels)
        assert [type(event) for event in Assembly(Rules()).set_pod(pod, T0 + 2)] == [GangFound]


def test_pods_of_other_queues_and_of_daemon_sets_are_foreign(assembly: Assembly) -> None:
    elsewhere = a_pod("x", gated=False, node="n1", annotations={"queue-name": "gpu"})
    daemon = a_pod("y", gated=False, node="n1", owner=("DaemonSet", "d", "u"))
    assert kinds(assembly.set_pod(elsewhere, T0)) == ["ForeignUsage"]
    gated = a_pod("z", owner=("DaemonSet", "d", "u"))
    assert kinds(assembly.set_pod(gated, T0)) == ["GangArrived"], "nobody else would ever open its gate"
    assert kinds(assembly.set_pod(daemon, T0)) == ["ForeignUsage"]


def test_a_pod_may_join_the_queue_and_keep_its_scheduler(assembly: Assembly) -> None:
    """By its gate, and once that is open by the receipt."""
    gated = a_pod("p", schedulerName="default-scheduler")
    assert kinds(assembly.set_pod(gated, T0)) == ["GangArrived"]
    fresh = Assembly(Rules())
    open_now = a_pod("p", gated=False, schedulerName="default-scheduler", annotations={"receipt": "{}"})
    assert kinds(fresh.set_pod(open_now, T0)) == ["GangFound"]


def test_the_scheduler_finding_no_node_is_told_once(assembly: Assembly) -> None:
    assembly.set_pod(a_pod("p", gated=False), T0)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = a_pod("p", gated=False, conditions=[condition])
    assert assembly.set_pod(pod, T0 + 1.0) == [Unschedulable("uid-p", "0/3 nodes")]
    assert assembly.set_pod(pod, T0 + 2.0) == []


def test_a_list_says_everything_again_and_ends_what_is_gone(assembly: Assembly) -> None:
    for name in "abc":
        assembly.set_pod(a_pod(name), T0)
    assembly.set_pod(a_pod("b", gated=False, node="n1", bound=1.0), T0 + 2.0)
    said = assembly.set_pods([a_pod("a"), a_pod("b", gated=False, node="n1", bound=1.0)], T0 + 5.0)
    assert sorted(kinds(said)) == ["GangArrived", "GangFound", "GangWithdrawn", "Listed", "PodEnded"]
    assert said[-1] == Listed(frozenset({"uid-a", "uid-b"}))


def test_a_list_says_again_what_others_take(assembly: Assembly) -> None:
    """The queue may have been made anew, or a node been forgotten and found again."""
    other = a_pod("x", gated=False, node="n1", schedulerName="default-scheduler")
    assert kinds(assembly.set_pod(other, T0)) == ["ForeignUsage"]
    assert assembly.set_pods([other], T0 + 1) == [
        ForeignUsage("n1", {"cpu": 1.0, "pods": 1.0}),
        Listed(frozenset()),
    ]
    assert assembly.set_pods([], T0 + 2) == [ForeignUsage("n1", {}), Listed(frozenset())]


def test_what_a_list_misses_ended_when_something_was_last_heard(assembly: Assembly) -> None:
    """Nobody knows when it went while nobody listened; its user does not pay for that time."""
    for pod in life()[:3]:
        assembly.set_pod(pod, T0 + 8.0)
    said = assembly.set_pods([], T0 + 500.0)
    assert said[0] == PodEnded("uid-p", "uid-p", T0 + 8.0, lost=True, started_s=T0 + 5.5)


def test_a_pod_missing_from_an_old_list_comes_back(assembly: Assembly) -> None:
    """A list served from a cache may be older than the watch that follows it."""
    pod = a_pod("a")
    assembly.set_pod(pod, T0)
    assembly.set_pods([], T0 + 1.0)
    assert kinds(assembly.set_pod(pod, T0 + 2.0)) == ["GangArrived"]


def test_what_ended_before_the_queue_began_is_old_news() -> None:
    ended = a_pod("p", gated=False, node="n1", bound=1.0, phase="Succeeded", ended=9.0)
    said = Assembly(Rules()).set_pods([ended], T0 + 50.0)
    assert kinds(said) == ["GangEnded", "Listed"]
    assert isinstance(said[0], GangEnded)
    assert (said[0].at_s, said[0].started_s) == (T0 + 9.5, T0 + 1.5)
    since = Assembly(Rules(), since_s=T0 + 5.0).set_pods([ended], T0 + 50.0)
    assert kinds(since) == ["GangFound", "PodEnded", "GangEnded", "Listed"]


def test_a_closed_pod_may_be_edited(assembly: Assembly) -> None:
    assembly.set_pod(a_pod("p"), T0)
    gang = arrival(assembly.set_pod(a_pod("p", nodeSelector={"disk": "ssd"}), T0))
    assert gang.pods[0].shape.selector == (("disk", "ssd"),)


def test_absurd_words_are_complained_of_and_harm_nothing(assembly: Assembly) -> None:
    absurd = {"gang-size": "-3", "expected-duration": "soon", "gang": "g"}
    gang = arrival(assembly.set_pod(a_pod("p", annotations=absurd, requests={"cpu": "lots"}), T0))
    assert (gang.uid, gang.size, math.isnan(gang.hint_s)) == ("uid-p", 0, True)
    said = " ".join(remark.sentence for remark in assembly.take_remarks())
    assert "gang-size" in said
    assert "expected-duration" in said
    assert "lots" in said


def test_a_pod_without_uid_is_left_out_and_that_is_said(assembly: Assembly) -> None:
    assert assembly.set_pod(a_pod("p", uid=""), T0) == []
    assert len(assembly.take_remarks()) == 1


def test_where_namespaces_share_pods_are_charged_to_theirs_whatever_their_stamp_says() -> None:
    assembly = Assembly(Rules(by_namespace=True))
    stamped, claimed = (a_pod(name, user=user) for name, user in (("p", "ann"), ("q", "")))
    assert [arrival(assembly.set_pod(pod, T0)).flow for pod in (stamped, claimed)] == ["team", "team"]
    elsewhere = a_pod("r", namespace="other", annotations={"gang": "g", "gang-size": "1"})
    assert arrival(assembly.set_pod(elsewhere, T0)).flow == "other"
    assert assembly.take_remarks() == []


def test_where_namespaces_share_two_users_of_one_gang_name_still_are_two_gangs() -> None:
    """Else one of them could hold up the other, or take his seats."""
    assembly = Assembly(Rules(by_namespace=True))
    of_gang = {"gang": "g", "gang-size": "2"}
    first, second = (
        arrival(assembly.set_pod(a_pod(f"p-{user}", user=user, annotations=of_gang), T0))
        for user in ("ann", "bob")
    )
    assert first.uid != second.uid
    assert (first.flow, second.flow) == ("team", "team")
