"""The plan of the kind comparison: what is collected when."""

from __future__ import annotations

from testbed.kind.e2e import FULL, SMOKE, gang_places

JUDGED = 0.25
"""Share of the newest runs that training judges a model on (model.splits)."""


def test_every_collected_gang_has_a_state_of_its_own() -> None:
    places = gang_places(FULL.collect_states, FULL.collect_gangs)
    assert len(set(places)) == FULL.collect_gangs
    assert min(places) >= 0
    assert max(places) < FULL.collect_states


def test_both_kinds_of_gangs_are_seen_before_the_runs_that_a_model_is_judged_on() -> None:
    learnt = FULL.collect_states * (1 - JUDGED)
    early = [place for place in gang_places(FULL.collect_states, FULL.collect_gangs) if place < learnt - 1]
    assert len(early) >= 2


def test_without_gangs_there_is_no_place_for_them() -> None:
    assert gang_places(SMOKE.collect_states, SMOKE.collect_gangs) == []


def test_the_full_plan_has_the_decisions_that_are_asked_for() -> None:
    assert FULL.transfers >= 30
    assert FULL.allreduces + FULL.shuffles >= 4
