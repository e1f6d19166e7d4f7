"""The safety properties by name, on random workloads; also checked outside the queue's own books."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queue_harness import SlotCluster, Work

from scheduler.core.queue.actions import ReleaseGang
from scheduler.core.queue.events import (
    Estimate,
    GangArrived,
    GangPod,
    GangStarted,
    NodeSet,
    ReleaseHalfFailed,
    Tick,
)
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.invariants import InvariantBroken
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings

SLOTS = 4
works = st.lists(
    st.builds(
        Work,
        flow=st.sampled_from(["a", "b", "c"]),
        at_s=st.integers(0, 30).map(float),
        tasks=st.integers(1, 4),
        task_s=st.sampled_from([0.5, 1.0, 4.0, 45.0]),
        told=st.sampled_from([0.1, 1.0, 1.0, 7.0]),
        width=st.integers(1, SLOTS),
        priority=st.sampled_from([0, 0, 2]),
    ),
    min_size=1,
    max_size=10,
)
knobs: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"backfill": False},
        {"shortest_first": True},
        {"lag_limit_share_s": 1.0},
        {"max_share_while_others_wait": 0.5},
        {"weights": {("a",): 5.0}},
    ]
)


def played(jobs: list[Work], knob: dict[str, Any]) -> SlotCluster:
    """The cluster asserts at each release that there is room; the queue checks all invariants."""
    cluster = SlotCluster(SLOTS, **knob).submit_all(jobs)
    cluster.play()
    return cluster


@given(works, knobs)
@settings(max_examples=60)
def test_never_over_capacity_and_everything_runs(jobs: list[Work], knob: dict[str, Any]) -> None:
    cluster = played(jobs, knob)
    assert len(cluster.run.finish_s) == len(jobs)
    assert cluster.run.most_busy <= SLOTS


def _short(at_s: float = 0.0, task_s: float = 0.5, width: int = 1) -> Work:
    return Work(flow="a", at_s=at_s, tasks=1, task_s=task_s, told=0.1, width=width, priority=0)


RELEASED_BY_A_TICK = [*[_short()] * 3, _short(task_s=45.0), _short(), _short(width=4), _short(at_s=5.0)]
"""A job that outlives its estimate holds a reservation open until the tick lets the next one go."""


@given(works, knobs)
@example(RELEASED_BY_A_TICK, {})
@settings(max_examples=40)
def test_one_charge_per_uid_and_the_ledger_is_the_work_received(
    jobs: list[Work], knob: dict[str, Any]
) -> None:
    cluster = played(jobs, knob)
    assert max(Counter(cluster.run.released).values()) == 1
    assert max(Counter(one.uid for one in cluster.run.settled).values()) == 1
    received = {flow.path[0]: flow.received * SLOTS for flow in cluster.keeper.dump().flows}
    assert received == pytest.approx(cluster.run.held)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
@settings(max_examples=40)
def test_fifo_among_equal_tags(arrivals: list[int]) -> None:
    """Gangs of one size, each of its own flow and all waiting: their tags are equal."""
    cluster = SlotCluster(1, backfill=False)
    cluster.submit(slots_gang("first", "z", 0.0, Estimate.exactly(9.0)), 9.0)
    for number, at_s in enumerate(sorted(arrivals)):
        cluster.submit(
            slots_gang(f"g{number:02d}", f"u{number:02d}", float(at_s), Estimate.exactly(1.0)), 1.0
        )
    released = cluster.play().released[1:]
    expected = sorted(f"g{number:02d}" for number in range(len(arrivals)))
    assert released == expected


@given(st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=30, max_size=60), st.sampled_from([1.0, 2.0, 4.0]))
@settings(max_examples=30)
def test_two_backlogged_flows_differ_by_at_most_one_gang_of_each(lengths: list[float], weight: float) -> None:
    cluster = SlotCluster(1, backfill=False, weights={("b",): weight}, invariants_every=7)
    cluster.submit_all([Work(flow, 0.0, 1, length) for length in lengths for flow in "ab"])
    cluster.play(until_s=sum(lengths) / 2)
    served = {"a": 0.0, "b": 0.0}
    longest = {"a": max(lengths), "b": max(lengths)}
    for uid in cluster.run.released:
        flow = cluster._flows[uid]
        served[flow] += cluster.durations[uid]
        waiting = Counter(cluster._flows[one] for one in cluster.durations if one not in cluster.run.released)
        if waiting["a"] and waiting["b"]:
            assert abs(served["a"] - served["b"] / weight) <= longest["a"] + longest["b"] / weight + 1e-9


@given(st.integers(1, 100), st.integers(0, 3))
@settings(max_examples=20)
def test_no_gang_is_half_open_longer_than_its_timeout(step_s: int, opened: int) -> None:
    keeper = Gatekeeper(slots_settings(SLOTS, half_open_timeout_s=30.0))
    keeper.handle(NodeSet(slots_node(SLOTS)), 0.0)
    arrived = GangArrived(slots_gang("a", "u", 0.0, None, 4, recreates=True))
    half = ReleaseHalfFailed("a", tuple(f"a/{number}" for number in range(opened)), "conflict")
    for now_s in itertools.takewhile(lambda now_s: now_s < 200, itertools.count(0, step_s)):
        actions = keeper.handle(Tick() if now_s else arrived, float(now_s))
        while any(isinstance(action, ReleaseGang) for action in actions):
            actions = keeper.handle(half, float(now_s))
        receipt = keeper.explain("a")
        assert receipt is None or not opened or now_s < 30 + step_s


class RunsBackwards(FairClock):
    """V may go down."""

    def advance(self, delivered: float) -> None:
        super().advance(delivered)
        self.virtual_time -= delivered


class ForgetsTheEnd(FairClock):
    """A settlement that never reaches the ledger."""

    def _book(self, flow: Any, work: float, effective: float) -> None:
        super()._book(flow, work if work > 0 else 0.0, effective)


@pytest.mark.parametrize(("broken", "name"), [(RunsBackwards, "V never"), (ForgetsTheEnd, "ledger equals")])
def test_a_broken_clock_is_noticed_by_the_invariants(broken: type[FairClock], name: str) -> None:
    cluster = SlotCluster(2, broken)
    cluster.submit_all([Work("a", 0.0, 6, 2.0, told=3.0), Work("b", 0.0, 6, 2.0, told=3.0)])
    with pytest.raises(InvariantBroken, match=name):
        cluster.play()


def test_a_release_beyond_the_room_is_noticed_by_the_invariants() -> None:
    keeper = Gatekeeper(slots_settings(1))
    keeper.handle(NodeSet(slots_node(1)), 0.0)
    gang = slots_gang("a", "u", 0.0, None)
    keeper.handle(GangArrived(gang), 0.0)
    keeper._book.capacity.plan(GangPod("smuggled", gang.pods[0].shape), "slots")
    with pytest.raises(InvariantBroken, match="never over capacity"):
        keeper.handle(GangStarted("a"), 1.0)
