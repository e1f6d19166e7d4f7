"""Which pods start together: sizes that pods claim, that change, that contradict each other; increments."""

from __future__ import annotations

import pytest
from workload_builders import T0, a_pod, a_workload

from scheduler.core.queue.events import (
    Event,
    Gang,
    GangArrived,
    GangChanged,
    GangFound,
    GangWithdrawn,
    Listed,
    PodEnded,
    PodStarted,
)
from scheduler.core.wire import Pod
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.membership import ObjectRef
from scheduler.core.workloads.rules import Rules


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(Rules())


def arrivals(events: list[Event]) -> list[Gang]:
    return [event.gang for event in events if isinstance(event, GangArrived)]


def member(name: str, size: str | None = "3", gang: str = "g", **more: object) -> Pod:
    given = {"gang": gang} | ({"gang-size": size} if size is not None else {})
    return a_pod(name, annotations=given, **more)  # type: ignore[arg-type]


def uids(gang: Gang) -> list[str]:
    return [pod.uid for pod in gang.pods]


def test_annotated_pods_are_one_gang_of_the_size_they_claim(assembly: Assembly) -> None:
    said = [arrivals(assembly.set_pod(member(name), T0))[0] for name in "abc"]
    assert {gang.uid for gang in said} == {"team/g//ann"}
    assert [(len(gang.pods), gang.size) for gang in said] == [(1, 3), (2, 3), (3, 3)]
    view = assembly.gang_of("uid-b")
    assert view is not None
    assert (view.name, view.size, view.why, len(view.pods)) == ("g", 3, "its pods claim 3", 3)
    assert view == assembly.gang("team/g//ann")


def test_a_gang_whose_size_nobody_gives_is_released_pod_by_pod(assembly: Assembly) -> None:
    (gang,) = arrivals(assembly.set_pod(member("a", size=None), T0))
    assert (gang.uid, gang.job) == ("uid-a", "team/g//ann")


def test_a_size_without_a_gang_is_said_to_be_useless(assembly: Assembly) -> None:
    (gang,) = arrivals(assembly.set_pod(a_pod("a", annotations={"gang-size": "4"}), T0))
    assert (gang.uid, gang.size) == ("uid-a", 0)
    assert "fairlane.dev/gang" in assembly.take_remarks()[0].sentence


def test_pods_of_another_user_are_another_gang(assembly: Assembly) -> None:
    assembly.set_pod(member("a", "2"), T0)
    (gang,) = arrivals(assembly.set_pod(member("b", "2", user="bob"), T0))
    assert (gang.uid, gang.flow, uids(gang)) == ("team/g//bob", "bob", ["uid-b"])


def test_the_largest_claim_counts_and_the_contradiction_is_told(assembly: Assembly) -> None:
    assembly.set_pod(member("a", "2"), T0)
    (gang,) = arrivals(assembly.set_pod(member("b", "4"), T0))
    assert gang.size == 4
    (remark,) = assembly.take_remarks()
    assert "2, 4" in remark.sentence


def test_pods_beyond_the_size_wait_by_themselves(assembly: Assembly) -> None:
    for name in "ab":
        assembly.set_pod(member(name, "2"), T0)
    (extra,) = arrivals(assembly.set_pod(member("c", "2"), T0))
    assert (extra.uid, extra.job, extra.flow) == ("uid-c", "team/g//ann", "ann")


def test_a_size_that_grows_before_the_release_takes_in_those_beside(assembly: Assembly) -> None:
    for name in "abc":
        assembly.set_pod(member(name, "2"), T0)
    said = assembly.set_pod(member("a", "3"), T0)
    assert said[0] == PodEnded("uid-c", "uid-c", None) or isinstance(said[0], GangWithdrawn)
    assert said[0].uid == "uid-c"
    assert sorted(uids(arrivals(said)[0])) == ["uid-a", "uid-b", "uid-c"]


def test_a_waiting_gang_that_loses_a_pod_is_incomplete_again(assembly: Assembly) -> None:
    for name in "abc":
        assembly.set_pod(member(name), T0)
    said = assembly.remove_pod("uid-b", T0 + 1.0)
    assert said[0] == PodEnded("uid-b", "uid-b", T0 + 1.0, lost=True) or said[0].uid == "team/g//ann"
    (gang,) = arrivals(said)
    assert (uids(gang), gang.size) == (["uid-a", "uid-c"], 3)


def run_all(assembly: Assembly, names: str, size: str) -> None:
    for name in names:
        assembly.set_pod(member(name, size), T0)
    for name in names:
        assembly.set_pod(member(name, size, gated=False), T0 + 1.0)
    for name in names:
        assembly.set_pod(member(name, size, gated=False, node="n1", bound=2.0), T0 + 2.5)


def test_gates_that_open_one_by_one_are_told_when_all_are_open(assembly: Assembly) -> None:
    for name in "ab":
        assembly.set_pod(member(name, "2"), T0)
    assert assembly.set_pod(member("a", "2", gated=False), T0 + 1.0) == []
    (found,) = assembly.set_pod(member("b", "2", gated=False), T0 + 1.1)
    assert isinstance(found, GangFound)
    assert (len(found.gang.pods), found.gated) == (2, frozenset())


def test_a_gang_that_stays_half_open_is_told_of(assembly: Assembly) -> None:
    for name in "ab":
        assembly.set_pod(member(name, "2"), T0)
    assembly.set_pod(member("a", "2", gated=False), T0 + 1.0)
    said = assembly.set_pod(member("a", "2", gated=False, node="n1", bound=20.0), T0 + 20.0)
    assert isinstance(said[0], GangFound)
    assert (said[0].gated, said[0].nodes) == (frozenset({"uid-b"}), {"uid-a": "n1"})


def test_a_replacement_belongs_to_the_running_gang(assembly: Assembly) -> None:
    run_all(assembly, "ab", "2")
    ended = assembly.set_pod(member("a", "2", gated=False, node="n1", bound=2.0, phase="Failed"), T0 + 5.0)
    assert ended == [PodEnded("team/g//ann", "uid-a", T0 + 5.0, lost=True, started_s=T0 + 2.5)]
    (changed,) = assembly.set_pod(member("c", "2"), T0 + 6.0)
    assert isinstance(changed, GangChanged)
    assert uids(changed.gang) == ["uid-b", "uid-c"]
    (extra,) = arrivals(assembly.set_pod(member("d", "2"), T0 + 6.0))
    assert extra.uid == "uid-d", "the gang is as large as it may be: more pods wait their turn"


def test_a_replacement_may_come_while_the_lost_pod_is_still_ending(assembly: Assembly) -> None:
    run_all(assembly, "ab", "2")
    assembly.set_pod(member("a", "2", gated=False, node="n1", bound=2.0, deleted=True), T0 + 5.0)
    (changed,) = assembly.set_pod(member("c", "2"), T0 + 6.0)
    assert isinstance(changed, GangChanged)
    assert uids(changed.gang) == ["uid-a", "uid-b", "uid-c"]


def test_a_closed_replacement_may_be_deleted(assembly: Assembly) -> None:
    run_all(assembly, "ab", "2")
    assembly.remove_pod("uid-a", T0 + 5.0)
    assembly.set_pod(member("c", "2"), T0 + 6.0)
    said = assembly.remove_pod("uid-c", T0 + 7.0)
    assert said == [PodEnded("team/g//ann", "uid-c", T0 + 7.0, lost=True)]


def test_a_gang_that_failed_as_a_whole_waits_anew(assembly: Assembly) -> None:
    run_all(assembly, "ab", "2")
    for name in "ab":
        said = assembly.remove_pod(f"uid-{name}", T0 + 5.0)
    assert isinstance(said[-1], GangWithdrawn)
    gangs = [arrivals(assembly.set_pod(member(name, "2", created=6.0), T0 + 7.0))[0] for name in "cd"]
    assert [(uids(gang), gang.size) for gang in gangs] == [(["uid-c"], 2), (["uid-c", "uid-d"], 2)]
    assert gangs[0].arrived_s == pytest.approx(T0 + 6.5, abs=1.0)


def test_each_start_has_its_own_time(assembly: Assembly) -> None:
    one = member("a", "2", gated=False, node="n1", bound=2.0)
    other = member("b", "2", gated=False, node="n2", bound=7.0)
    said = assembly.set_pods([one, other], T0 + 60.0)
    found = [event for event in said if isinstance(event, GangFound)]
    assert [(event.started_s, event.nodes) for event in found] == [
        (T0 + 2.5, {"uid-a": "n1"}),
        (T0 + 7.5, {"uid-b": "n2"}),
    ]
    assert said[-1] == Listed(frozenset({"team/g//ann"}))


def test_released_pods_stay_what_they_were_released_as(assembly: Assembly) -> None:
    """After a restart: the increment `c` is older than `b`, but was not released as part of the gang."""

    def released(name: str, gang: str, created: float) -> Pod:
        receipt = f'{{"gang": "{gang}", "released_s": 1.0, "charged_work": 2.0}}'
        given = {"gang": "g", "gang-size": "2", "receipt": receipt}
        return a_pod(name, gated=False, annotations=given, created=created)

    pods = [released("a", "team/g//ann", 1), released("c", "uid-c", 2), released("b", "team/g//ann", 3)]
    said = assembly.set_pods(pods, T0 + 60.0)
    found = {event.gang.uid: uids(event.gang) for event in said if isinstance(event, GangFound)}
    assert found == {"team/g//ann": ["uid-a", "uid-b"], "uid-c": ["uid-c"]}


def test_a_receipt_cannot_smuggle_a_pod_into_another_gang(assembly: Assembly) -> None:
    run_all(assembly, "ab", "2")
    forged = '{"gang": "team/g//ann", "released_s": 1.0, "charged_work": 0.0}'
    said = assembly.set_pod(a_pod("e", user="eve", gated=False, annotations={"receipt": forged}), T0)
    assert [event.gang.uid for event in said if isinstance(event, GangFound)] == ["uid-e"]


def test_relabelled_closed_pods_change_their_gang(assembly: Assembly) -> None:
    for name in "ab":
        assembly.set_pod(member(name, "2"), T0)
    said = assembly.set_pod(member("b", "2", gang="h"), T0)
    assert {gang.uid: uids(gang) for gang in arrivals(said)} == {
        "team/g//ann": ["uid-a"],
        "team/h//ann": ["uid-b"],
    }


def test_starts_are_told_pod_by_pod(assembly: Assembly) -> None:
    run_all(assembly, "a", "2")
    said = assembly.set_pod(member("b", "2", gated=False, node="n2", bound=9.0), T0 + 20.0)
    assert PodStarted("team/g//ann", "uid-b", "n2", T0 + 9.5) in said


def test_pods_are_held_back_until_the_size_is_known(assembly: Assembly) -> None:
    ref = ObjectRef("batch", "Job", "team", "train")
    index = {"batch.kubernetes.io/job-completion-index": "0", "batch.kubernetes.io/job-name": "train"}
    pod = a_pod("train-0", labels=index, owner=("Job", "train", "uid-train"))
    assert assembly.set_pod(pod, T0) == []
    assert assembly.needs == {ref}
    view = assembly.gang_of("uid-train-0")
    assert view is not None
    assert view.held
    assert "Job team/train" in view.why
    (gang,) = arrivals(
        assembly.set_owner(a_workload("Job", "train", {"parallelism": 2, "completions": 2}), T0)
    )
    assert (gang.uid, gang.size) == ("team/train/uid-train/ann", 2)
    assert assembly.needs == frozenset()


def test_without_the_object_the_pods_start_each_by_itself_and_that_is_said(assembly: Assembly) -> None:
    labels = {"scheduling.x-k8s.io/pod-group": "pg"}
    assembly.set_pod(a_pod("a", labels=labels), T0)
    (ref,) = assembly.needs
    (gang,) = arrivals(assembly.remove_owner(ref, T0))
    assert (gang.uid, gang.size) == ("uid-a", 0)
    (remark,) = assembly.take_remarks()
    assert "PodGroup team/pg cannot be read" in remark.sentence


def test_nothing_is_kept_of_pods_that_are_gone(assembly: Assembly) -> None:
    run_all(assembly, "abc", "2")
    for name in "abc":
        assembly.remove_pod(f"uid-{name}", T0 + 9.0)
    assert assembly.sizes() == {"pods": 0, "families": 0, "foreign": 0, "held": 0}
