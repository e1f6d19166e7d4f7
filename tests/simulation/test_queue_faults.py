"""Deterministic simulation with faults: whatever goes wrong, the books stay right and all gangs run once."""

from __future__ import annotations

import math

import pytest
from queue_world import World


def played(seed: int) -> World:
    """A world after everything; invariants were checked after every event in it."""
    world = World(seed)
    world.play()
    return world


def assert_all_ended_well(world: World) -> None:
    waiting = {uid: real for uid, real in world.gangs.items() if not real.over}
    assert not waiting, {uid: world.keeper.explain(uid) for uid in waiting}
    assert all(real.times_run <= 1 for real in world.gangs.values())
    view = world.keeper.dump()
    assert (view.waiting, view.opening, view.running, view.incomplete, view.turned_away) == (0,) * 5
    assert world.keeper.export()["charges"] == {}
    assert view.held == pytest.approx(0.0, abs=1e-9)
    assert all(math.isfinite(flow.lead) for flow in view.flows)


def assert_work_is_what_ran(world: World) -> None:
    """What was settled for a gang never exceeds what its pods really did."""
    for uid, real in world.gangs.items():
        mine = [one for one in world.settled if one.uid == uid]
        share = sum(pod.shape.requests[0][1] for pod in real.pods.values()) / 10.0
        assert sum(one.actual_work for one in mine) <= share * 60.0 * max(1, len(mine)) + 1e-6


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_fifty_faulty_worlds_end_well(first: int) -> None:
    for seed in range(first, first + 10):
        world = played(seed)
        assert_all_ended_well(world)
        assert_work_is_what_ran(world)


@pytest.mark.long
@pytest.mark.parametrize("first", range(50, 2050, 100))
def test_two_thousand_faulty_worlds_end_well(first: int) -> None:
    for seed in range(first, first + 100):
        assert_all_ended_well(played(seed))


def test_a_world_is_the_same_each_time_it_is_played() -> None:
    one, other = played(3), played(3)
    assert one.settled == other.settled
    assert one.keeper.export() == other.keeper.export()


def test_the_worlds_are_faulty_enough_to_mean_something() -> None:
    worlds = [played(seed) for seed in range(5)]
    assert sum(world.restarts for world in worlds) >= 3
