"""The fair clock in O(log n) against the same definition with loops; the two fluids against each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_oracles import PouredJob, SlowClock, max_min, poured_finish

from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.fluid import FluidJob, FluidReference, fluid_finish, water_fill

FLOWS = ["a", "b", "c", "d"]
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 7.0}
amounts = st.sampled_from([0.125, 0.5, 1.0, 2.0, 3.5, 16.0])
steps = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(FLOWS), amounts), min_size=1, max_size=60)


class Pair:
    """Both clocks, told the same; gangs of a flow wait first come, first served, each a job of its own."""

    def __init__(self, lag_limit: float) -> None:
        self.fast, self.slow = FairClock(lag_limit), SlowClock(lag_limit)
        self.number = 0

    def step(self, what: int, key: str, amount: float) -> None:
        known = self.slow.flows.get(key)
        if what == 0:
            self.fast.advance(amount)
            self.slow.advance(amount)
        elif what == 1:
            self.arrive(key, amount)
        elif what == 2 and known and known.waiting:
            uid, work = next(iter(known.waiting.items()))
            self.slow.withdraw(key, uid)
            self.fast.withdraw(key, work)
            self.tell_head(key)
        elif what == 3 and self.slow.order():
            self.release()
        elif what in (4, 5) and known and known.charges:
            self.end(key, what == 4, amount)
        elif what == 6 and known:
            self.slow.reweigh(key, amount)
            if key in self.fast.flows:
                self.fast.reweigh(key, amount)

    def arrive(self, key: str, work: float) -> None:
        self.number += 1
        weight = self.slow.flows[key].weight if key in self.slow.flows else WEIGHTS[key]
        self.slow.arrive(key, f"g{self.number}", work, weight)
        self.fast.arrive(key, work, weight)
        self.tell_head(key)

    def release(self) -> None:
        key = self.slow.order()[0]
        uid, work = next(iter(self.slow.flows[key].waiting.items()))
        self.slow.charge(key, uid)
        self.fast.charge(key, uid, work)
        self.tell_head(key)

    def end(self, key: str, settles: bool, amount: float) -> None:
        uid = next(iter(self.slow.flows[key].charges))
        for clock in (self.slow, self.fast):
            (clock.settle if settles else clock.overrun)(key, uid, amount)

    def tell_head(self, key: str) -> None:
        if self.slow.flows[key].waiting:
            self.fast.set_head(key, self.slow.head(key), (0.0, key))

    def compare(self) -> None:
        assert self.fast.virtual_time == pytest.approx(self.slow.virtual_time, rel=1e-9, abs=1e-9)
        for key, flow in self.slow.flows.items():
            if flow.waiting or flow.charges or flow.meter > self.slow.virtual_time + 1e-9:
                assert self.fast.meter(key) == pytest.approx(flow.meter, rel=1e-9, abs=1e-9), key
        tags = [tag for tag, _, _ in self.fast.in_order()]
        assert tags == pytest.approx([self.slow.tag(key) for key in self.slow.order()], abs=1e-9)


@given(steps, st.sampled_from([math.inf, 0.5, 1.0, 4.0, 10.0]))
@settings(max_examples=600)
def test_the_clock_agrees_with_its_definition(todo: list[tuple[int, str, float]], lag_limit: float) -> None:
    pair = Pair(lag_limit)
    for what, key, amount in todo:
        pair.step(what, key, amount)
        pair.compare()


def test_a_refund_beyond_the_lag_limit_goes_to_the_others() -> None:
    """a may catch up by 10; what it is refunded beyond that has been used by b, who is in debt for it."""
    pair = Pair(10.0)
    for what, key, amount in [(1, "a", 16.0), (1, "a", 1.0), (0, "a", 16.0), (3, "a", 1.0), (1, "b", 16.0)]:
        pair.step(what, key, amount)
    before = pair.fast.virtual_time
    pair.step(4, "a", 1.0)
    pair.compare()
    assert pair.fast.virtual_time > before


def test_an_overrun_that_is_none_leaves_a_flow_at_its_limit_where_it_is() -> None:
    """b is drawn along by the limit, is told that a gang has used just what was charged, and is drawn on."""
    pair = Pair(0.5)
    before = [(1, "b", 16.0), (1, "a", 0.5), (0, "b", 16.0), (1, "b", 0.125), (3, "a", 1.0), (0, "a", 1.0)]
    for what, key, amount in [*before, (1, "a", 3.5), (3, "b", 1.0), (0, "a", 1.0), (5, "b", 16.0)]:
        pair.step(what, key, amount)
    pair.step(0, "a", 3.5)
    pair.compare()


jobs = st.lists(
    st.tuples(
        st.sampled_from(FLOWS),
        st.integers(0, 20),
        st.sampled_from([1.0, 3.0, 17.5]),
        st.sampled_from([1.0, 2.5]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("capped", [False, True])
@given(data=jobs)
@settings(max_examples=60)
def test_the_fluid_agrees_with_pouring_from_event_to_event(
    capped: bool, data: list[tuple[str, int, float, float]]
) -> None:
    slow = [
        PouredJob(f, float(at), work, cap if capped else math.inf, WEIGHTS[f]) for f, at, work, cap in data
    ]
    fast = [
        FluidJob(str(i), job.flow, job.arrived_s, job.work, job.cap, job.weight) for i, job in enumerate(slow)
    ]
    found, expected = fluid_finish(fast, 4.0), poured_finish(slow, 4.0)
    assert [found[str(i)] for i in range(len(slow))] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=8), amounts)
def test_water_filling_is_max_min(demands: list[tuple[float, float]], capacity: float) -> None:
    assert water_fill(demands, capacity) == pytest.approx(max_min(demands, capacity), abs=1e-9)


def test_a_fluid_job_is_corrected_when_its_real_work_is_known() -> None:
    fluid = FluidReference(2.0)
    fluid.arrive(FluidJob("a", "u", 0.0, 100.0))
    fluid.advance(5.0)
    fluid.correct("a", 20.0)
    fluid.drain()
    assert fluid.finished_s == {"a": pytest.approx(10.0)}


def test_a_job_that_is_removed_leaves_its_share_to_others_and_is_forgotten() -> None:
    fluid = FluidReference()
    for uid, work in (("a", 10.0), ("b", 10.0), ("c", 1.0)):
        fluid.arrive(FluidJob(uid, "u", 0.0, work))
    fluid.advance(6.0)  # 1 + 1.5 for a and b, c is done at 3
    fluid.remove("b")
    fluid.remove("c")
    fluid.drain()
    assert fluid.finished_s == {"a": pytest.approx(13.5)}


def test_time_that_passes_in_small_steps_pours_as_much_as_in_one() -> None:
    finish = []
    for steps in (1, 1000):
        fluid = FluidReference(2.0)
        for number in range(5):
            fluid.arrive(FluidJob(str(number), "uv"[number % 2], float(number), 3.0 + number, cap=1.0))
            for step in range(steps):
                fluid.advance(number + step / steps)
        fluid.drain()
        finish.append(fluid.finished_s)
    assert finish[0] == pytest.approx(finish[1], rel=1e-12)


def test_a_capped_job_leaves_to_others_what_it_cannot_use() -> None:
    finish = fluid_finish([FluidJob("a", "u", 0.0, 10.0, cap=1.0), FluidJob("b", "w", 0.0, 30.0)], 4.0)
    assert finish == {"a": pytest.approx(10.0), "b": pytest.approx(10.0)}
