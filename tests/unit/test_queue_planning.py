"""Room that is kept where pods were advised to go, and what is told to those who advise."""

from __future__ import annotations

import msgspec
import pytest

from scheduler.core.affinity import PREFERRED, REQUIRED, advised
from scheduler.core.plans import BadPlanRequest, PlanPod, PlanRequest, PlanShape, PodPlan, RoomLeft
from scheduler.core.queue.actions import ReleaseGang
from scheduler.core.queue.events import (
    Gang,
    GangArrived,
    GangPod,
    Node,
    NodeSet,
    Planned,
    PodStarted,
    Requirement,
    Shape,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.edge.hints import sentence

ONE = Shape((("cpu", 1.0),))


def keeper_of(**cores: float) -> Gatekeeper:
    keeper = Gatekeeper(QueueSettings({"cpu": sum(cores.values())}))
    for name, amount in cores.items():
        keeper.handle(NodeSet(Node(name, {"cpu": amount, "pods": 10.0}, {"name": name})), 0.0)
    return keeper


def release(keeper: Gatekeeper, uid: str, *shapes: Shape) -> ReleaseGang | None:
    pods = tuple(GangPod(f"{uid}.{number}", shape) for number, shape in enumerate(shapes))
    actions = keeper.handle(GangArrived(Gang(uid, "ana", pods, 0.0)), 0.0)
    return next((action for action in actions if isinstance(action, ReleaseGang)), None)


def asked_for(keeper: Gatekeeper, *uids: str) -> PlanRequest:
    found = [receipt for uid in uids if (receipt := keeper.explain(uid)) is not None]
    return keeper.room_of({receipt.uid: receipt.pods for receipt in found})


def room(keeper: Gatekeeper, *uids: str) -> dict[str, float]:
    asked = asked_for(keeper, *uids)
    return {name: free["cpu"] for name, free in zip(asked.nodes, asked.free, strict=True)}


def test_who_plans_is_told_the_room_as_if_the_gang_were_nowhere() -> None:
    keeper = keeper_of(a=2.0, b=4.0)
    release(keeper, "other", ONE)
    release(keeper, "mine", ONE, ONE)
    assert room(keeper, "mine") == {"a": 1.0, "b": 4.0}
    assert room(keeper, "mine", "other") == {"a": 2.0, "b": 4.0}


def test_only_the_pods_that_are_being_released_are_planned() -> None:
    keeper = keeper_of(a=2.0, b=4.0)
    release(keeper, "mine", ONE, ONE)
    asked = keeper.room_of({"mine": ("mine.1", "unknown"), "nobody": ("x",)})
    assert [pod.uid for pod in asked.pods] == ["mine.1"]
    assert dict(zip(asked.nodes, (free["cpu"] for free in asked.free), strict=True)) == {"a": 1.0, "b": 4.0}


def test_nodes_that_the_shape_is_not_allowed_on_are_not_told() -> None:
    keeper = keeper_of(a=2.0, b=2.0)
    picky = Shape((("cpu", 1.0),), affinity=((Requirement("name", "In", ("b",)),),))
    release(keeper, "mine", picky, ONE)
    asked = asked_for(keeper, "mine")
    allowed = [[asked.nodes[at] for at in shape.allowed] for shape in asked.shapes]
    assert allowed == [["b"], ["a", "b"]]


def test_room_moves_with_the_plan_so_that_others_use_what_it_left() -> None:
    keeper = keeper_of(a=2.0, b=2.0)
    action = release(keeper, "mine", ONE, ONE)
    assert action is not None
    assert set(action.receipt.placement.values()) == {"a"}
    keeper.handle(Planned("mine", {"mine.0": "b", "mine.1": "b"}), 1.0)
    found = release(keeper, "next", Shape((("cpu", 2.0),)))
    assert found is not None
    assert found.receipt.placement == {"next.0": "a"}
    keeper.check_invariants()


def test_a_plan_that_does_not_fit_any_more_leaves_the_room_where_it_was() -> None:
    keeper = keeper_of(a=2.0, b=2.0)
    release(keeper, "mine", ONE, ONE)
    release(keeper, "quick", ONE)
    assert room(keeper, "quick") == {"b": 2.0}
    keeper.handle(Planned("mine", {"mine.0": "b", "mine.1": "b"}), 1.0)
    assert room(keeper, "quick") == {"b": 2.0}
    keeper.check_invariants()


def test_a_plan_for_a_pod_that_has_its_node_already_moves_nothing() -> None:
    keeper = keeper_of(a=2.0, b=2.0)
    release(keeper, "mine", ONE)
    keeper.handle(PodStarted("mine", "mine.0", "a"), 1.0)
    keeper.handle(Planned("mine", {"mine.0": "b"}), 1.0)
    keeper.handle(Planned("nobody", {"x": "b"}), 1.0)
    assert asked_for(keeper, "mine").pods == []
    found = release(keeper, "next", Shape((("cpu", 2.0),)))
    assert found is not None
    assert found.receipt.placement == {"next.0": "b"}


def request(**changed: object) -> PlanRequest:
    whole = PlanRequest(
        ["a", "b"],
        [{"cpu": 2.0, "pods": 2.0}, {"cpu": 1.0, "pods": 9.0}],
        [PlanShape((("cpu", 1.0),), [0, 1]), PlanShape((("cpu", 2.0),), [0, 1])],
        [PlanPod("x", 0)],
    )
    return msgspec.structs.replace(whole, **changed)


def test_each_pod_takes_its_room_from_those_after_it() -> None:
    left = RoomLeft(request())
    assert (left.candidates(0), left.candidates(1)) == (("a", "b"), ("a",))
    assert left.candidates(0) is left.candidates(0)
    left.take(0, "a")
    assert (left.candidates(0), left.candidates(1)) == (("a", "b"), ())
    left.take(0, "a")
    assert left.candidates(0) == ("b",)


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes": ["a", "a"]},
        {"free": [{}]},
        {"shapes": [PlanShape((), [2])]},
        {"shapes": [PlanShape((), [-1])]},
        {"pods": [PlanPod("x", 2)]},
    ],
)
def test_a_request_that_contradicts_itself_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadPlanRequest):
        RoomLeft(request(**changed))


def test_a_required_affinity_of_the_pods_own_is_not_widened() -> None:
    own = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": []}]}}}
    plan = PodPlan("x", [("a", 10), ("b", 9), ("c", 0)], ours=False)
    affinity = advised(plan, binds="others")(own)["nodeAffinity"]
    assert affinity[REQUIRED] == own["nodeAffinity"][REQUIRED]
    assert [term["weight"] for term in affinity[PREFERRED]] == [100, 90]


def test_what_was_planned_is_said_in_a_sentence() -> None:
    some = [PodPlan("1", [("a", 10)]), PodPlan("2", [("a", 10)]), PodPlan("3", reason="stale_telemetry")]
    assert sentence(some) == (
        "planned on a (2 pods); no hint was written for 1 of its 3 pods, "
        "because the telemetry was too old to be believed"
    )
    assert sentence([PodPlan("1")]) == "no hint was written, because nothing was known"
