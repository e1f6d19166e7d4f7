"""Pods in every order of words: the books stay right, all is settled once, and nothing is left behind."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workload_world import World

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def played(dice: random.Random, *, faulty: bool, strangers: bool = True) -> World:
    """A world after everything; the queue's invariants were checked after every event in it."""
    world = World(dice, faulty, strangers)
    world.play()
    return world


def assert_nothing_is_left(world: World) -> None:
    view = world.keeper.dump()
    assert (view.waiting, view.opening, view.running, view.incomplete) == (0, 0, 0, 0)
    assert world.keeper.export()["charges"] == {}
    assert view.held == pytest.approx(0.0, abs=1e-9)
    assert world.assembly.sizes() == {"pods": 0, "families": 0, "foreign": 0, "held": 0}


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=60, **SLOW)
def test_nothing_is_left_when_all_pods_are_gone(dice: random.Random) -> None:
    assert_nothing_is_left(played(dice, faulty=True))


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=60, **SLOW)
def test_every_released_gang_is_settled_once_with_the_work_of_its_pods(dice: random.Random) -> None:
    """With words late, doubled and out of order, but none lost, no stranger, and no restart."""
    world = played(dice, faulty=False, strangers=False)
    assert_nothing_is_left(world)
    settled = Counter(one.uid for one in world.settled)
    assert settled == world.charged
    assert sum(one.actual_work for one in world.settled) == pytest.approx(world.work_done(), abs=1e-6)
