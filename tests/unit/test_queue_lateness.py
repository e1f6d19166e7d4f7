"""Lateness against the fluid reference, as gangs end."""

from __future__ import annotations

import pytest

from scheduler.core.queue import lateness as lateness_module
from scheduler.core.queue.actions import Settled
from scheduler.core.queue.events import Estimate
from scheduler.core.queue.fluid import FluidJob
from scheduler.core.queue.lateness import LatenessRecord, Verdict

ONE_S = Estimate.exactly(1.0)


def ended(uid: str, started_s: float, finished_s: float, **others: object) -> Settled:
    """A gang of the whole reference that arrived at 0."""
    work = finished_s - started_s
    values = {"uid": uid, "flow": uid, "job": uid, "group": "", "job_class": "", "arrived_s": 0.0}
    times = {"released_s": started_s, "started_s": started_s, "finished_s": finished_s, "share": 1.0}
    rest = {"charged_work": work, "actual_work": work, "estimate": ONE_S}
    return Settled(**{**values, **times, **rest, **others})  # type: ignore[arg-type]


def two_at_once() -> LatenessRecord:
    """Gangs a and b of a second each, which the fluid serves side by side until 2."""
    record = LatenessRecord()
    for uid in "ab":
        record.arrived(FluidJob(uid, uid, 0.0, 1.0, 1.0))
        record.arrived(FluidJob(uid, uid, 0.0, 1.0, 1.0))
    return record


def test_one_that_ends_before_its_fluid_finish_is_not_late() -> None:
    record = two_at_once()
    assert record.ended(ended("a", 0.0, 1.0), 1.0) == Verdict(0.0)
    assert record.ended(ended("b", 1.0, 2.0), 2.0) == Verdict(0.0)


def test_lateness_is_the_time_beyond_the_fluid_finish_and_beyond_the_bound_it_has_a_cause() -> None:
    record = two_at_once()
    record.ended(ended("a", 0.0, 1.0), 1.0)
    late = record.ended(ended("b", 2.0, 3.0), 3.0)
    assert late == Verdict(pytest.approx(0.5))
    for cause, others in (
        ("other", {}),
        ("backfill", {"backfilled": True}),
        ("overrun", {"share": 0.1}),
    ):
        record = two_at_once()
        record.ended(ended("a", 0.0, 1.0), 1.0)
        verdict = record.ended(ended("b", 5.5, 6.5, **others), 6.5)
        assert verdict == Verdict(pytest.approx(2.25), cause)


def test_half_the_nodes_take_twice_the_time() -> None:
    record = LatenessRecord()
    record.resize(0.5)
    record.arrived(FluidJob("a", "a", 0.0, 1.0, 1.0))
    assert record.ended(ended("a", 1.0, 2.0), 2.0) == Verdict(0.0)


def test_what_left_without_running_takes_nothing_of_the_fluid() -> None:
    record = two_at_once()
    record.withdrawn("b", 0.0)
    assert record.ended(ended("a", 1.0, 2.0), 2.0) == Verdict(pytest.approx(1.0))
    record = two_at_once()
    record.listed(frozenset("a"), 0.0)
    assert record.ended(ended("a", 1.0, 2.0), 2.0) == Verdict(pytest.approx(1.0))


def test_unknown_unseen_and_too_many_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    record = two_at_once()
    assert record.ended(ended("stranger", 0.0, 1.0), 1.0) is None
    assert record.ended(ended("a", 0.0, 1.0, vanished=True), 1.0) is None
    monkeypatch.setattr(lateness_module, "ACTIVE_MAX", 1)
    record.arrived(FluidJob("c", "c", 0.0, 1.0, 1.0))
    assert record.unjudged == 1
    assert record.ended(ended("c", 0.0, 1.0), 1.0) is None


def test_times_of_this_century_are_as_good_as_small_ones() -> None:
    """Their floats are a quarter of a microsecond apart: what is left of a gang may be shorter than that."""
    record, now_s = LatenessRecord(), 1.8e9
    for number in range(200):
        arrived_s = now_s + 0.0137 * number
        record.arrived(FluidJob(f"g{number}", "ab"[number % 2], arrived_s, 0.01 + 1e-7 * number, 0.3))
    for number in range(200):
        verdict = record.ended(ended(f"g{number}", now_s, now_s + 10.0 + 0.01 * number), now_s + 20.0)
        assert verdict is not None
