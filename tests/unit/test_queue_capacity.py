"""What fits where: requests, selectors, affinity, taints, pod counts, whole gangs on a copy."""

from __future__ import annotations

import pytest

from scheduler.core.queue.backfill import End, earliest_start
from scheduler.core.queue.capacity import Capacity, Trial
from scheduler.core.queue.events import GangPod, Node, Requirement, Shape
from scheduler.core.queue.matching import allowed
from scheduler.core.queue.resources import copies, dominant_share, fits, total
from scheduler.core.queue.taints import Taint, Toleration

GPU_NODE = Node(
    "gpu", {"cpu": 8.0, "gpu": 2.0, "pods": 3.0}, {"zone": "a", "rank": "7"}, (Taint("gpu", "yes"),)
)
CPU_NODE = Node("cpu", {"cpu": 4.0, "pods": 110.0}, {"zone": "b"})
GPU_TOLERATION = (Toleration("gpu", "Equal", "yes", "NoSchedule"),)


def shape(cpu: float = 1.0, gpu: float = 0.0, **more: object) -> Shape:
    requests = (("cpu", cpu), ("gpu", gpu)) if gpu else (("cpu", cpu),)
    return Shape(requests, **more)  # type: ignore[arg-type]


def capacity(*nodes: Node) -> Capacity:
    made = Capacity({})
    for node in nodes or (GPU_NODE, CPU_NODE):
        made.set_node(node)
    return made


def pods(*shapes: Shape) -> list[GangPod]:
    return [GangPod(f"p{number}", one) for number, one in enumerate(shapes)]


@pytest.mark.parametrize(
    ("term", "matches"),
    [
        (Requirement("zone", "In", ("a", "c")), True),
        (Requirement("zone", "In", ("b",)), False),
        (Requirement("zone", "NotIn", ("b",)), True),
        (Requirement("none", "NotIn", ("b",)), True),
        (Requirement("zone", "Exists"), True),
        (Requirement("none", "Exists"), False),
        (Requirement("none", "DoesNotExist"), True),
        (Requirement("rank", "Gt", ("6",)), True),
        (Requirement("rank", "Lt", ("6",)), False),
        (Requirement("zone", "Gt", ("6",)), False),
        (Requirement("rank", "Like", ("7",)), False),
        (Requirement("metadata.name", "In", ("gpu",)), True),
    ],
)
def test_required_affinity(term: Requirement, matches: bool) -> None:
    assert allowed(shape(affinity=((term,),), tolerations=GPU_TOLERATION), GPU_NODE) is matches


def test_one_of_several_terms_must_hold_as_a_whole() -> None:
    yes, no = Requirement("zone", "Exists"), Requirement("none", "Exists")
    assert allowed(shape(affinity=((no,), (yes,))), CPU_NODE)
    assert not allowed(shape(affinity=((yes, no),)), CPU_NODE)
    assert not allowed(shape(affinity=((),)), CPU_NODE)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration("gpu", "Equal", "yes"), True),
        (Toleration("gpu", "Equal", "no"), False),
        (Toleration("gpu", "Exists"), True),
        (Toleration("", "Exists"), True),
        (Toleration("gpu", "Exists", effect="NoExecute"), False),
    ],
)
def test_taints_keep_away_who_does_not_tolerate_them(toleration: Toleration, tolerated: bool) -> None:
    assert allowed(shape(tolerations=(toleration,)), GPU_NODE) is tolerated


def test_a_selector_names_the_node() -> None:
    assert capacity().place(pods(shape(selector=(("zone", "b"),)))) == {"p0": "cpu"}
    assert capacity().place(pods(shape(selector=(("zone", "x"),)))) is None


def test_gpus_are_counted() -> None:
    one = shape(gpu=1.0, tolerations=GPU_TOLERATION)
    assert capacity().place(pods(one, one)) == {"p0": "gpu", "p1": "gpu"}
    assert capacity().place(pods(one, one, one)) is None


def test_the_number_of_pods_is_a_limit() -> None:
    small = shape(0.1, tolerations=GPU_TOLERATION, selector=(("zone", "a"),))
    assert capacity().place(pods(*[small] * 3)) is not None
    assert capacity().place(pods(*[small] * 4)) is None


def test_pods_of_different_shapes_are_placed_on_a_copy() -> None:
    room = capacity(CPU_NODE)
    assert room.place(pods(shape(3.0), shape(1.0))) == {"p0": "cpu", "p1": "cpu"}
    assert room.place(pods(shape(3.0), shape(1.5))) is None
    assert room.room("cpu").free["cpu"] == 4.0


def test_full_nodes_are_filled_first() -> None:
    room = capacity(CPU_NODE, Node("b", {"cpu": 4.0}))
    room.put("x", "b", (("cpu", 3.0),))
    assert room.place(pods(shape(1.0))) == {"p0": "b"}
    assert room.place(pods(shape(1.0), shape(0.5))) == {"p0": "b", "p1": "cpu"}


def test_what_is_dropped_is_free_again() -> None:
    room = capacity(CPU_NODE)
    room.put("x", "cpu", (("cpu", 4.0),))
    assert not room.fits_one(shape())
    room.drop("x")
    assert room.room_for(shape()) == 4


@pytest.mark.parametrize("change", [{"ready": False}, {"schedulable": False}])
def test_a_node_that_takes_no_pods_has_no_room(change: dict[str, bool]) -> None:
    room = capacity(CPU_NODE)
    room.set_node(Node("cpu", CPU_NODE.allocatable, CPU_NODE.labels, **change))  # type: ignore[arg-type]
    assert room.place(pods(shape())) is None
    assert room.usable == 0


def test_a_node_of_another_queue_has_no_room() -> None:
    room = Capacity({"pool": "ours"})
    room.set_node(CPU_NODE)
    assert room.place(pods(shape())) is None
    room.set_node(Node("mine", {"cpu": 1.0}, {"pool": "ours"}))
    assert room.place(pods(shape())) == {"p0": "mine"}


def test_pods_on_a_vanished_node_count_again_when_it_comes_back() -> None:
    room = capacity(CPU_NODE)
    room.put("x", "cpu", (("cpu", 3.0),))
    room.remove_node("cpu")
    assert room.place(pods(shape())) is None
    room.set_node(CPU_NODE)
    assert room.room_for(shape()) == 1


def test_more_shapes_and_changes_than_are_remembered_are_counted_right() -> None:
    room = capacity(CPU_NODE)
    shapes = [shape(1.0 + number / 1000) for number in range(600)]
    assert {room.room_for(one) for one in shapes} == {2, 3, 4}
    for number in range(3000):
        room.put(f"x{number}", "cpu", (("cpu", 4.0),))
        room.drop(f"x{number}")
    room.put("last", "cpu", (("cpu", 2.0),))
    assert all(room.room_for(one) == (2 if one.requests[0][1] == 1.0 else 1) for one in shapes)


def test_the_earliest_start_waits_for_as_many_ends_as_needed() -> None:
    room = capacity(CPU_NODE)
    for name, cpu in (("x", 1.0), ("y", 2.0), ("z", 1.0)):
        room.put(name, "cpu", (("cpu", cpu),))
    ends = [End(5.0, ["x"]), End(8.0, ["y"]), End(9.0, ["z"])]
    found = earliest_start(room, pods(shape(1.0), shape(2.0)), ends, 0.0)
    assert found is not None
    assert found[0] == 8.0
    assert found[1].peek("cpu")["cpu"] == pytest.approx(0.0)
    assert earliest_start(room, pods(shape(5.0)), ends, 0.0) is None


def test_a_trial_that_fails_leaves_no_trace() -> None:
    room = capacity(CPU_NODE)
    trial = Trial(room)
    assert trial.place(pods(shape(2.0), shape(2.5))) is None
    assert trial.place(pods(shape(2.0), shape(2.0))) is not None


def test_the_dominant_share_is_the_largest() -> None:
    reference = {"cpu": 10.0, "gpu": 4.0}
    assert dominant_share(total([(("cpu", 1.0), ("gpu", 1.0)), (("cpu", 2.0),)]), reference) == pytest.approx(
        0.3
    )
    assert dominant_share({"memory": 5.0}, reference) == 0.0


def test_a_resource_that_is_not_there_has_no_room() -> None:
    assert copies({"cpu": 4.0}, (("gpu", 1.0),)) == 0
    assert not fits({"cpu": 4.0}, (("gpu", 1.0),))
    assert copies({"cpu": 0.3}, (("cpu", 0.1),)) == 3


def test_a_pod_that_takes_another_ones_planned_place_leaves_it_its_own() -> None:
    one = shape(cpu=1.0)
    room = capacity(Node("a", {"cpu": 2.0}), Node("b", {"cpu": 2.0}))
    for name, node in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        room.plan(GangPod(name, one), node)
    room.put("b1", "a", one.requests)  # kube-scheduler put it where a1 or a2 was expected
    assert room.room_for(one) == 0
    assert sorted(room.node_of(name) for name in ("a1", "a2", "b1", "b2")) == ["a", "a", "b", "b"]
    assert not room.room("a").crowded
    room.put("a1", "a", one.requests)
    room.put("a2", "b", one.requests)
    assert room.room_for(one) == 0


def test_what_was_found_somewhere_is_not_planned_elsewhere() -> None:
    one = shape(cpu=1.0)
    room = capacity(Node("a", {"cpu": 1.0}), Node("b", {"cpu": 1.0}))
    room.put("here", "a", one.requests)
    room.plan(GangPod("planned", one), "b")
    room.put("planned", "a", one.requests)
    assert (room.node_of("here"), room.node_of("planned")) == ("a", "a")
    assert room.room("a").crowded
    assert room.room_for(one) == 1
