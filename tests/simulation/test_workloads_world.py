"""Pods in every order of words: the books stay right, all is settled once, and nothing is left behind."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import workload_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workload_takeovers import TakingOver
from workload_world import World
from workload_world import stamp as exact_stamp

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


@pytest.mark.parametrize("first", [0, 20])
def test_whoever_takes_over_from_whichever_checkpoint_each_pod_is_charged_once(first: int) -> None:
    """Also while the former leader goes on releasing; only what nobody saw run out of sight is left out."""
    for world in taken_over(range(first, first + 20)):
        assert_nothing_is_left(world)
        assert world.received == pytest.approx(world.work_done(), abs=1e-6)


def test_with_times_in_whole_seconds_a_takeover_errs_by_a_second_a_pod_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workload_world, "stamp", lambda at_s: exact_stamp(float(int(at_s))))
    whole = sum(workload_world.NODES.values())
    for world in taken_over(range(40, 60)):
        assert_nothing_is_left(world)
        a_second_each = sum(one.cpu / whole for one in world.pods.values() if one.ours and one.node)
        assert world.received == pytest.approx(world.work_done(), abs=a_second_each + 1e-6)


def taken_over(seeds: range) -> list[TakingOver]:
    """Worlds after everything, in which no pod vanished unwatched; most are such."""
    worlds = [TakingOver(random.Random(seed)) for seed in seeds]
    for world in worlds:
        world.play()
    found = [world for world in worlds if not world.unwatched]
    assert len(found) > len(seeds) / 2
    assert sum(world.takeovers for world in found) > len(seeds)
    return found
