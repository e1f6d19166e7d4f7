"""Accounts survive an upgrade and the way back: checkpoints of the version before, and of the one after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from queue_keeper import Queue, arrive, gang, settled

from scheduler.core.queue.checkpoint import VERSION
from scheduler.core.queue.events import GangEnded, GangFound, GangStarted, Listed, NodeSet, PodEnded, Tick
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_node, slots_settings
from scheduler.edge import controller_state
from scheduler.edge.controller_state import ControllerState, revived

BEFORE = Path(__file__).parents[1] / "checkpoint_version_1.json"
"""As version 1 wrote it at 30 s: alice's gang had ended; of bob's two pods, which began at 20, one had."""
BOBS = gang("b", "bob", width=2, lasts_s=30.0, at_s=20.0)


def a_running_queue() -> Queue:
    """Alice received 20 share seconds, bob runs."""
    queue = Queue(4)
    queue.at(0, arrive("a", "alice", width=4, lasts_s=20.0), GangStarted("a"))
    queue.at(20, GangEnded("a", 20.0))
    queue.at(20, arrive("b", "bob", width=2, lasts_s=30.0, at_s=20.0), GangStarted("b"))
    queue.at(30, Tick())
    return queue


def as_the_next_version_adds_to_it(state: Any) -> Any:
    """Every object with a field that we do not know."""
    if isinstance(state, list):
        return [as_the_next_version_adds_to_it(one) for one in state]
    if not isinstance(state, dict):
        return state
    found = {key: as_the_next_version_adds_to_it(value) for key, value in state.items()}
    by_name = found.keys() & {"version", "uid", "p50_s", "charged_work", "meter", "virtual_time", "rows"}
    return {**found, "wish": "more"} if by_name else found


def test_the_accounts_of_the_version_before_go_on() -> None:
    keeper = Gatekeeper.revive(slots_settings(4), json.loads(BEFORE.read_text()))
    keeper.check_invariants()
    export = keeper.export()
    assert (export["received"], export["charges"]["b"]["used_work"]) == ([[["alice"], 20.0]], 3.75)
    found = GangFound(BOBS, {"b/0": "slots", "b/1": "slots"}, 20.0, 20.0, 15.0)
    first = PodEnded("b", "b/0", 25.0, started_s=20.0)
    keeper.handle_all([NodeSet(slots_node(4)), found, first, Listed(frozenset({"b"}))], 35.0)
    last = PodEnded("b", "b/1", 40.0, started_s=20.0)
    [ended] = settled(keeper.handle_all([last], 40.0))
    assert ended.actual_work == pytest.approx((5.0 + 20.0) / 4)
    keeper.check_invariants()


def test_what_vanished_under_the_version_before_is_charged_as_it_was_last_seen() -> None:
    keeper = Gatekeeper.revive(slots_settings(4), json.loads(BEFORE.read_text()))
    [ended] = settled(keeper.handle_all([NodeSet(slots_node(4)), Listed(frozenset())], 50.0))
    assert (ended.uid, ended.actual_work) == ("b", 3.75)


def test_after_going_back_the_accounts_that_the_newer_version_kept_go_on() -> None:
    ours = a_running_queue().keeper.export()
    newer = as_the_next_version_adds_to_it(ours) | {"version": VERSION + 1, "readable_by": VERSION}
    assert newer["charges"]["b"]["place"]["wish"] == newer["order"]["wish"] == "more"
    keeper = Gatekeeper.revive(slots_settings(4), json.loads(json.dumps(newer)))
    assert keeper.export() == Gatekeeper.revive(slots_settings(4), ours).export()
    assert keeper.export()["received"] == [[["alice"], 20.0]]


def test_a_newer_version_that_we_would_misread_is_refused_with_a_reason() -> None:
    ours = a_running_queue().keeper.export()
    told = rf"version {VERSION + 1}, which can be read by version {VERSION + 1} or newer, not {VERSION}"
    for newer in ({"version": VERSION + 1}, {"version": VERSION + 1, "readable_by": VERSION + 1}):
        state = {name: value for name, value in ours.items() if name != "readable_by"} | newer
        with pytest.raises(ValueError, match=told):
            Gatekeeper.revive(slots_settings(4), state)


def test_what_the_controller_keeps_around_it_survives_both_ways() -> None:
    """Shape of before there were `readable_by`, `usage` and `by_namespace`; and what a newer one adds."""
    core = json.loads(BEFORE.read_text())
    before = {"version": 1, "at_s": 30.0, "paused": True, "weights": {"bob": 3.0}, "core": core}
    newer = {**before, "version": controller_state.VERSION + 1, "readable_by": 1, "wish": "more"}
    for plain in (before, newer):
        state = ControllerState.of(plain)
        assert (state.paused, state.weights, state.at_s) == (True, {"bob": 3.0}, 30.0)
        keeper, trouble = revived(slots_settings(4), state.core, 31.0)
        assert (trouble, keeper.export()["received"]) == ("", [[["alice"], 20.0]])
    with pytest.raises(ValueError, match="a newer Fairlane wrote it"):
        ControllerState.of({**newer, "readable_by": controller_state.VERSION + 1})


@pytest.mark.parametrize("damaged", ["order", "charges", "runs", "received", "ended", "weights"])
@pytest.mark.parametrize("value", [None, [[]], {"a": 1}, "x"])
def test_the_queue_begins_without_a_checkpoint_that_is_damaged(damaged: str, value: object) -> None:
    core = {**a_running_queue().keeper.export(), damaged: value}
    keeper, trouble = revived(slots_settings(4), core, 31.0)
    assert trouble.startswith("the checkpoint cannot be used") or not trouble
    keeper.handle(Tick(), 32.0)


def test_a_checkpoint_without_its_charges_is_not_used() -> None:
    core = {**a_running_queue().keeper.export(), "charges": None}
    keeper, trouble = revived(slots_settings(4), core, 31.0)
    assert "charges come from the pods' receipts" in trouble
    assert keeper.gangs() == []
