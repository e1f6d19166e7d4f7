"""The controller's pure parts: the FairQueue object, what pods are told, checkpoints, estimates, status."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from model.placement import RunHistory
from scheduler.config import ControllerSettings
from scheduler.core.queue.events import Estimate, Gang, GangArrived, GangPod, NodeSet, Shape
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.receipts import GangReceipt
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings
from scheduler.core.queue.taints import Toleration
from scheduler.edge.announcements import condition_of
from scheduler.edge.controller_state import ENDED_KEPT_S, ControllerState
from scheduler.edge.estimates import AGAIN_AT_ONCE, Estimates
from scheduler.edge.fair_queue import base_settings, configured
from scheduler.edge.lease import Timing
from scheduler.edge.queue_status import status_of
from scheduler.edge.recorder_client import HistoryAnswer, RecorderError

BASE = base_settings(ControllerSettings(weights={"alice": 2.0}), {"cpu": 4.0})
RECEIPT = GangReceipt(
    "uid",
    ("alice",),
    Phase.WAITING,
    4,
    1.0,
    0.25,
    2.5,
    Estimate.exactly(10.0),
    math.nan,
    0.5,
    1.0,
    "3 gangs go before it",
    ("pod",),
)


def _gang(uid: str, user: str, duration_s: float) -> Gang:
    return slots_gang(uid, user, 0.0, Estimate.exactly(duration_s))


@pytest.mark.parametrize("phase", Phase)
def test_a_gang_in_any_phase_has_a_condition_that_kubernetes_takes(phase: Phase) -> None:
    told = condition_of(replace(RECEIPT, phase=phase))
    assert re.fullmatch("[A-Z][A-Za-z]+", told.reason)
    assert told.status == ("False" if phase in (Phase.OPENING, Phase.RUNNING) else "True")


def test_without_an_object_the_settings_hold() -> None:
    found = configured({}, BASE)
    assert (found.settings, found.paused, found.complaints) == (BASE, False, ())
    assert BASE.weights == {("alice",): 2.0}
    assert BASE.invariants_every == 0


def test_what_the_object_says_is_laid_over_the_settings() -> None:
    spec = {
        "nodes": {
            "selector": {"pool": "batch"},
            "tolerations": [{"key": "gpu", "effect": "NoSchedule"}, {"operator": "Exists"}],
        },
        "defaultWeight": 0.5,
        "weights": [{"user": "bob", "weight": 4}],
        "backfill": {"enabled": False, "quantile": 0.5},
        "limits": {"waitingGangsPerUser": 7, "sharePerUserWhileOthersWait": 0.5, "runTime": "2h"},
        "timeouts": {"incomplete": "5m", "halfOpen": "30s", "start": "1h30m", "promise": "90s"},
        "autoscaler": {"releaseHeadAfter": "2m"},
        "paused": True,
        "flowKey": "Namespace",
        "orderInsideUser": "PriorityThenArrival",
    }
    found = configured(spec, BASE)
    assert found.complaints == ()
    assert found.paused
    assert found.by_namespace
    assert found.settings == replace(
        BASE,
        node_selector={"pool": "batch"},
        node_tolerations=(Toleration("gpu", effect="NoSchedule"), Toleration(operator="Exists")),
        by_arrival_inside_user=True,
        backfill_quantile=0.5,
        run_time_s=7200.0,
        release_head_after_s=120.0,
        default_weight=0.5,
        weights={("alice",): 2.0, ("bob",): 4.0},
        backfill=False,
        max_waiting_per_flow=7,
        max_share_while_others_wait=0.5,
        incomplete_timeout_s=300.0,
        half_open_timeout_s=30.0,
        start_timeout_s=5400.0,
        promise_timeout_s=90.0,
    )


@pytest.mark.parametrize(
    ("spec", "about"),
    [
        ({"defaultWeight": -1}, "weight of everybody"),
        ({"defaultWeight": "much"}, "defaultWeight"),
        ({"weights": [{"user": "bob", "weight": 0}]}, "bob"),
        ({"weights": ["bob"]}, "bob"),
        ({"timeouts": {"start": "soon"}}, "timeouts.start"),
        ({"limits": {"waitingGangsPerUser": 0}}, "max_waiting_per_flow"),
        ({"limits": "none"}, ""),
        ({"nodes": {"selector": ["pool"]}}, "nodes.selector"),
        ({"limits": {"waitingGangsPerUser": math.inf}}, "limits.waitingGangsPerUser"),
        ({"timeouts": {"start": 10**400}}, "timeouts.start"),
        ({"flowKey": "Label"}, "flowKey"),
        ({"flowKey": ["User"]}, "flowKey"),
        ({"orderInsideUser": "Fifo"}, "PriorityThenArrival"),
        ({"limits": {"runTime": "0s"}}, "limits.runTime"),
        ({"autoscaler": {"releaseHeadAfter": "later"}}, "autoscaler.releaseHeadAfter"),
        ({"backfill": {"quantile": 0.7}}, "backfill_quantile"),
    ],
)
def test_what_cannot_be_obeyed_is_complained_of_and_left_as_it_was(
    spec: dict[str, object], about: str
) -> None:
    found = configured(spec, BASE)
    assert found.settings == BASE
    assert about in " ".join(found.complaints)
    assert bool(found.complaints) == bool(about)


def test_a_toleration_that_cannot_be_read_tolerates_nothing_and_the_others_count() -> None:
    spec = {"nodes": {"tolerations": [{"effect": "NoSchedule"}, "gpu", {"key": "a", "operator": "Exists"}]}}
    found = configured(spec, BASE)
    assert found.settings.node_tolerations == (Toleration("a", "Exists"),)
    assert len(found.complaints) == 2
    assert configured({"nodes": {"tolerations": []}}, BASE).settings.node_tolerations == ()


def test_a_checkpoint_says_between_whom_its_shares_are() -> None:
    core = {"ended": [], "paused": False}
    told = ControllerState(at_s=0.0, by_namespace=True).told(core, 1.0)
    assert ControllerState.of(told).by_namespace
    del told["by_namespace"]  # written before there was the choice
    assert not ControllerState.of(told).by_namespace


def test_a_condition_is_written_anew_only_when_it_says_something_else() -> None:
    told = condition_of(RECEIPT)
    assert told.message == "position 4: 3 gangs go before it"
    nearly = replace(RECEIPT, position=5, why="4 gangs go before it")
    assert condition_of(nearly).likeness == told.likeness
    nearer = replace(RECEIPT, position=2, why="1 gang goes before it")
    assert condition_of(nearer).likeness != told.likeness
    assert condition_of(replace(RECEIPT, position=1, expected_start_s=1000.0)).reason == "Reserved"
    released = replace(RECEIPT, phase=Phase.OPENING, position=0)
    running = replace(released, phase=Phase.RUNNING)
    assert condition_of(released).status == "False"
    assert condition_of(released).likeness == condition_of(running).likeness


def test_a_checkpoint_keeps_what_ended_lately_and_what_was_done_by_hand() -> None:
    state = ControllerState(at_s=0.0, paused=True, weights={"bob": 3.0})
    state.settled("old", 0.0)
    state.settled("new", 100.0)
    core = {"ended": [["old", ["a"]], ["new", ["b"]], ["unknown", ["c"]]], "paused": True, "more": 1}
    told = state.told(core, ENDED_KEPT_S + 50.0)
    assert told["core"] == {"ended": [["new", ["b"]]], "paused": False, "more": 1}
    revived = ControllerState.of(told)
    assert (revived.paused, revived.weights, revived.at_s) == (True, {"bob": 3.0}, ENDED_KEPT_S + 50.0)
    assert revived.told(core, told["at_s"] + 1.0)["core"]["ended"] == [["new", ["b"]]]
    with pytest.raises(ValueError, match="version"):
        ControllerState.of({**told, "version": 0})


def test_of_events_that_come_at_once_the_whole_list_decides() -> None:
    one_by_one, at_once = (Gatekeeper(slots_settings(1)) for _ in range(2))
    gangs = [_gang("late", "alice", 9.0), _gang("early", "bob", 1.0)]
    events = [NodeSet(slots_node(1)), *(GangArrived(gang) for gang in gangs)]
    first = [action for event in events for action in one_by_one.handle(event, 0.0)]
    assert [action.uid for action in first] == ["late"]  # type: ignore[union-attr]
    assert [action.uid for action in at_once.handle_all(events, 0.0)] == ["early"]  # type: ignore[union-attr]


def test_the_listing_has_those_that_wait_in_their_order_then_the_others() -> None:
    keeper = Gatekeeper(slots_settings(1))
    gangs = [_gang(f"{user}{number}", user, 1.0 + number) for number in range(3) for user in "ab"]
    keeper.handle_all([NodeSet(slots_node(1)), *(GangArrived(gang) for gang in gangs)], 0.0)
    listed = keeper.gangs()
    assert [gang.position for gang in listed] == [1, 2, 3, 4, 5, 0]
    assert [gang.uid for gang in listed if gang.position] == [
        gang.uid for gang in sorted(listed, key=lambda one: (one.tag, one.uid)) if gang.position
    ]
    mine = keeper.gangs("a")
    assert {gang.path for gang in mine} == {("a",)}
    for gang in mine:
        assert gang == keeper.explain(gang.uid)
    assert len(keeper.gangs(limit=2)) == 3


def test_the_status_tells_users_and_what_is_not_obeyed() -> None:
    keeper = Gatekeeper(slots_settings(2))
    gangs = [_gang(f"g{number}", "alice", 1.0) for number in range(3)]
    keeper.handle_all([NodeSet(slots_node(2)), *(GangArrived(gang) for gang in gangs)], 0.0)
    told = status_of(keeper.dump(), 7, "", ("limits.runTime: soon is no duration",))
    assert (told["users"], told["waiting"], told["running"], told["observedGeneration"]) == (1, 1, 2, 7)
    assert [flow["user"] for flow in told["flows"]] == ["alice"]
    by_type = {one["type"]: one for one in told["conditions"]}
    assert by_type["Ready"]["status"] == "True"
    assert by_type["Accepted"]["status"] == "False"
    assert "runTime" in by_type["Accepted"]["message"]


class _Recorder:
    """Knows one class; a stand-in for the connection, whose own tests are elsewhere."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.broken = False

    async def histories(self, classes: list[str], _users: list[str]) -> HistoryAnswer:
        self.asked.append(classes)
        if self.broken:
            raise RecorderError(0, "away")
        return HistoryAnswer({"etl": RunHistory(5, math.log(20.0), 0.0, 0.0, 0.5)}, {})


async def test_a_class_is_asked_for_once_and_its_history_becomes_the_estimate() -> None:
    recorder = _Recorder()
    estimates = Estimates(recorder)  # type: ignore[arg-type]
    pod = GangPod("p", Shape((("cpu", 1.0),)))
    arrived = GangArrived(Gang("g", "alice", (pod,), 0.0, job_class="etl"))
    assert estimates.inform([arrived]) == [arrived]  # nobody waits for an answer
    await estimates._fetch(recorder)  # type: ignore[arg-type]
    [informed] = estimates.inform([arrived])
    assert isinstance(informed, GangArrived)
    estimate = informed.gang.estimate
    assert estimate is not None
    assert estimate.p50_s == pytest.approx(20.0)
    assert estimate.p10_s == pytest.approx(20.0 / math.exp(1.2816 * 0.5))
    assert estimate.p90_s == pytest.approx(20.0 * math.exp(1.2816 * 0.5))
    assert estimate.source == "class history"
    recorder.broken = True
    estimates.of(replace(arrived.gang, job_class="other"))
    await estimates._fetch(recorder)  # type: ignore[arg-type]
    assert estimates.failure == "away"
    assert estimates.inform([arrived]) == [informed]


def test_a_lease_that_its_holder_trusts_longer_than_others_is_refused() -> None:
    with pytest.raises(ValueError, match="sure_s < duration_s"):
        Timing(duration_s=5, sure_s=5.0)


async def test_asking_again_costs_the_same_however_many_classes_are_known() -> None:
    recorder = _Recorder()
    estimates = Estimates(recorder)  # type: ignore[arg-type]
    for at in range(3 * AGAIN_AT_ONCE):
        estimates.of(replace(_gang("g", "alice", 1.0), job_class=f"class-{at}"))
    await estimates._fetch(recorder)  # type: ignore[arg-type]
    turns: list[set[str]] = []
    for _ in range(3):
        estimates._want_again()
        turns.append(set(estimates._wanted))
        await estimates._fetch(recorder)  # type: ignore[arg-type]
    assert [len(turn) for turn in turns] == [AGAIN_AT_ONCE] * 3
    assert len(set().union(*turns)) == 3 * AGAIN_AT_ONCE
