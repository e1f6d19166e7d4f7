"""What became of pods, from what the API server reports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from placing_builders import pod_of

from scheduler.core.outcomes import EndState, OutcomeTracker, instant_s, parse_time_s

T = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def at(seconds: int) -> str:
    return f"2023-11-14T22:13:{20 + seconds:02d}Z"


def bound(seconds: int = 1) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(seconds)}]}


def running(seconds: int = 3) -> dict[str, Any]:
    return {
        **bound(),
        "phase": "Running",
        "containerStatuses": [_container({"running": {"startedAt": at(seconds)}})],
    }


def ended(phase: str = "Succeeded", restarts: int = 0, **more: Any) -> dict[str, Any]:
    state = {"terminated": {"startedAt": at(3), "finishedAt": at(13)}}
    return {**bound(), "phase": phase, "containerStatuses": [_container(state, restarts)], **more}


def _container(state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
    return {"name": "main", "restartCount": restarts, "state": state}


def test_a_pod_is_followed_from_creation_to_its_end() -> None:
    tracker = OutcomeTracker()
    [waiting] = tracker.observe(pod_of(creationTimestamp=at(0)), T)
    assert (waiting.node, waiting.created_at_s) == (None, T)
    [placed] = tracker.observe(pod_of(bound(), "a"), T + 1.4)
    assert (placed.node, placed.bound_at_s) == ("a", T + 1.4)
    [started] = tracker.observe(pod_of(running(), "a"), T + 3.2)
    assert started.startup_s == pytest.approx(1.8)
    [done] = tracker.observe(pod_of(ended(), "a"), T + 13.7)
    assert (done.end_state, done.run_s) == (EndState.SUCCEEDED, pytest.approx(10.5))


def test_bindings_by_our_scheduler_are_counted_where_they_were_seen() -> None:
    tracker = OutcomeTracker()
    tracker.observe_all([pod_of(running(), "a", uid="bound-before")], T)
    assert tracker.bindings == 0
    for uid, scheduler in (("ours", "fairlane"), ("another's", "default-scheduler")):
        for node, status in ((None, {}), ("a", bound()), ("a", running())):
            pod = pod_of(status, node, uid=uid, annotations={"fairlane.dev/job-class": "etl"})
            pod = msgspec.structs.replace(
                pod, spec=msgspec.structs.replace(pod.spec, schedulerName=scheduler)
            )
            assert tracker.observe(pod, T)
    assert tracker.bindings == 1


def test_an_unchanged_pod_is_not_told_again() -> None:
    tracker = OutcomeTracker()
    assert tracker.observe(pod_of(running(), "a"), T + 3.2)
    assert tracker.observe(pod_of(running(), "a"), T + 9.0) == []


def test_what_was_only_found_later_counts_as_the_middle_of_its_second() -> None:
    [found] = OutcomeTracker().observe_all([pod_of(ended(), "a")], T + 500)
    assert (found.bound_at_s, found.started_at_s, found.ended_at_s) == (T + 1.5, T + 3.5, T + 13.5)


@pytest.mark.parametrize(
    ("reported_s", "seen_s", "instant"),
    [
        (T, T + 0.3, T + 0.3),
        (T, T + 1.2, T + 0.999),
        (T, T + 9.0, T + 0.5),
        (T, T - 3.0, T + 0.5),
        (T + 0.25, T + 9.0, T + 0.25),
        (None, T, None),
    ],
)
def test_whole_seconds_are_narrowed_down_by_when_they_were_seen(
    reported_s: float | None, seen_s: float, instant: float | None
) -> None:
    assert instant_s(reported_s, seen_s) == instant


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (ended("Failed"), EndState.FAILED),
        (ended("Failed", reason="Evicted"), EndState.EVICTED),
        (ended("Succeeded", restarts=2), EndState.RESTARTED),
        (
            ended("Failed", conditions=[{"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}]),
            EndState.PREEMPTED,
        ),
        (
            ended("Failed", conditions=[{"type": "DisruptionTarget", "reason": "DeletionByTaintManager"}]),
            EndState.EVICTED,
        ),
    ],
)
def test_only_a_first_try_that_ended_well_is_a_completion(status: dict[str, Any], state: EndState) -> None:
    [outcome] = OutcomeTracker().observe(pod_of(status, "a"), T + 13.5)
    assert outcome.end_state == state


def test_a_pod_deleted_while_it_runs_is_no_completion() -> None:
    tracker = OutcomeTracker()
    tracker.observe(pod_of(running(), "a"), T + 3.5)
    [gone] = tracker.deleted(pod_of(running(), "a"), T + 5.0)
    assert (gone.end_state, gone.ended_at_s) == (EndState.DELETED, T + 5.0)


def test_a_pod_deleted_after_its_end_keeps_its_end() -> None:
    tracker = OutcomeTracker()
    tracker.observe(pod_of(ended(), "a"), T + 13.5)
    assert tracker.deleted(pod_of(ended(), "a"), T + 20.0) == []


def test_the_end_that_comes_with_the_deletion_counts() -> None:
    tracker = OutcomeTracker()
    tracker.observe(pod_of(running(), "a"), T + 3.5)
    [done] = tracker.deleted(pod_of(ended(), "a"), T + 13.5)
    assert done.end_state == EndState.SUCCEEDED


def test_a_pod_that_is_gone_after_a_pause_has_vanished() -> None:
    tracker = OutcomeTracker()
    [before] = tracker.observe(pod_of(running(), "a"), T + 3.5)
    restarted = OutcomeTracker()
    restarted.expect([before])
    [gone] = restarted.observe_all([], T + 60)
    assert (gone.end_state, gone.ended_at_s, gone.run_s) == (EndState.VANISHED, None, None)


def test_what_a_late_store_has_unfinished_is_followed_or_has_vanished() -> None:
    [gone] = OutcomeTracker().observe(pod_of(running(), "a", "gone"), T + 3.5)
    [there] = OutcomeTracker().observe(pod_of(running(), "a", "there"), T + 3.5)
    restarted = OutcomeTracker()
    restarted.observe_all([pod_of(running(), "a", "there")], T + 60)  # before the store could be read
    [lost] = restarted.recall([gone, there])
    assert (lost.pod_uid, lost.end_state) == ("gone", EndState.VANISHED)
    assert len(restarted) == 1


def test_times_seen_live_survive_a_restart() -> None:
    [before] = OutcomeTracker().observe(pod_of(running(), "a"), T + 3.2)
    restarted = OutcomeTracker()
    restarted.expect([before])
    [done] = restarted.observe_all([pod_of(ended(), "a")], T + 60)
    assert done.started_at_s == T + 3.2


def test_strangers_are_not_followed_but_marked_jobs_of_other_schedulers_are() -> None:
    tracker = OutcomeTracker()
    stranger = pod_of(uid="s")
    other = {"fairlane.dev/job-class": "etl"}
    assert tracker.observe(_with_scheduler(stranger, "default-scheduler"), T) == []
    marked = _with_scheduler(pod_of(uid="m", annotations=other), "default-scheduler")
    assert [one.pod_uid for one in tracker.observe(marked, T)] == ["m"]


def _with_scheduler(pod: Any, name: str) -> Any:
    import msgspec

    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, schedulerName=name))


@pytest.mark.parametrize("text", [None, "", "yesterday", "2023-11-14T22:13:20"])
def test_what_is_no_time_is_unknown(text: str | None) -> None:
    assert parse_time_s(text) is None
