"""Usage by user and period, from what is settled and from views of the queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from scheduler.cli.usage import since_s
from scheduler.core.queue.actions import Settled
from scheduler.core.queue.events import (
    Estimate,
    Gang,
    GangArrived,
    GangEnded,
    GangPod,
    GangStarted,
    NodeSet,
    Shape,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import SLOT, slots_gang, slots_node, slots_settings
from scheduler.core.queue.usage import DAY_S, HOUR_S, HOURS_S, ROWS_MOST, UsageBook

HALF = 0.5


def ended(
    uid: str, flow: str, end_s: float, *, run_s: float = 10.0, wait_s: float = 0.0, job: str = ""
) -> Settled:
    """A gang that held half of the queue, 2 cores and 8 bytes."""
    work, estimate = HALF * run_s, Estimate.exactly(run_s)
    released_s = end_s - run_s
    return Settled(
        uid, flow, job or uid, "", "", released_s - wait_s, released_s, released_s, end_s, HALF, work, work,
        estimate, requests={"cpu": 2.0, "memory": 8.0},
    )  # fmt: skip


def test_what_ended_is_booked_with_what_it_asked_for_and_waited() -> None:
    book = UsageBook(0.0)
    book.settled(ended("a1", "alice", 100.0, wait_s=5.0, job="a"))
    book.settled(ended("a2", "alice", 120.0, run_s=20.0, wait_s=15.0, job="a"))
    book.settled(ended("b", "bob", 100.0))
    report = book.report(0.0)
    alice = report["alice"]
    assert (alice.jobs, alice.gangs) == (1, 2)
    assert alice.resource_seconds == {"cpu": 60.0, "memory": 240.0}
    assert (alice.work, alice.wait_s, alice.wait_s_most) == (15.0, 20.0, 15.0)
    assert report["bob"].work == 5.0
    assert [*book.report(0.0, "bob")] == ["bob"]


def test_only_periods_that_are_not_over_by_then_are_reported() -> None:
    book = UsageBook(0.0)
    book.settled(ended("old", "alice", HOUR_S - 1.0))
    book.settled(ended("new", "alice", 3 * HOUR_S + 1.0))
    assert book.report(HOUR_S)["alice"].gangs == 1
    assert book.report(HOUR_S - 1.0)["alice"].gangs == 2
    assert book.begin_s(3 * HOUR_S + 1800.0) == 3 * HOUR_S  # the hour counts as a whole


def test_received_and_entitled_count_only_while_the_user_waits() -> None:
    keeper, book = Gatekeeper(slots_settings(2)), UsageBook(0.0)
    keeper.handle(NodeSet(slots_node(2)), 0.0)
    for uid, flow in (("a", "alice"), ("a2", "alice"), ("b", "bob")):
        keeper.handle(GangArrived(slots_gang(uid, flow, 0.0, Estimate.exactly(50.0))), 0.0)
    keeper.handle_all([GangStarted("a"), GangStarted("a2")], 0.0)
    book.observed(keeper.dump(), 10.0)
    report = book.report(0.0)
    assert [*report] == ["bob"]  # alice runs and waits for nothing
    assert (report["bob"].waiting_s, report["bob"].received) == (10.0, 0.0)
    assert report["bob"].entitled == pytest.approx(5.0)
    assert report["bob"].delivered == pytest.approx(10.0)


def test_a_long_silence_is_not_booked() -> None:
    keeper, book = Gatekeeper(slots_settings(1)), UsageBook(0.0)
    keeper.handle(NodeSet(slots_node(1)), 0.0)
    for uid in ("a", "b"):
        keeper.handle(GangArrived(slots_gang(uid, "alice", 0.0, Estimate.exactly(50.0))), 0.0)
    book.observed(keeper.dump(), 1e5)
    assert book.report(0.0)["alice"].waiting_s <= 60.0


def test_old_hours_become_days_and_the_oldest_days_are_dropped_and_said_to_be() -> None:
    keeper = Gatekeeper(slots_settings(1))
    book = UsageBook(0.0)
    for hour in range(48):
        book.settled(ended(f"g{hour}", "alice", hour * HOUR_S + 1.0))
    book.observed(keeper.dump(), 2 * DAY_S + HOURS_S + 1.0)
    assert {length for _, length, _, *_ in book.export()["rows"]} == {DAY_S}
    assert book.report(0.0)["alice"].gangs == 48
    assert book.report(DAY_S + 1.0)["alice"].gangs == 24
    for user in range(ROWS_MOST + 1):
        book.settled(ended(f"u{user}", f"user-{user}", 4 * DAY_S))
    book.observed(keeper.dump(), 4 * DAY_S + 2 * HOUR_S)
    assert len(book.export()["rows"]) <= ROWS_MOST
    assert book.since_s > 0.0
    assert "alice" not in book.report(0.0)


def test_usage_survives_a_restart() -> None:
    book = UsageBook(5.0)
    book.settled(ended("a", "alice", 100.0, wait_s=7.0))
    again = UsageBook.revive(json.loads(json.dumps(book.export())))
    assert again.report(0.0) == book.report(0.0)
    assert again.since_s == 5.0
    again.settled(ended("a2", "alice", 110.0))
    assert again.report(0.0)["alice"].gangs == 2


def test_the_core_tells_what_a_gang_requested_pods_promised_included() -> None:
    keeper = Gatekeeper(slots_settings(4))
    keeper.handle(NodeSet(slots_node(4)), 0.0)
    shape = Shape(((SLOT, 1.0),))
    gang = Gang("g", "alice", (GangPod("g/0", shape),), 0.0, Estimate.exactly(5.0), promised=(shape, shape))
    keeper.handle(GangArrived(gang), 0.0)
    keeper.handle(GangStarted("g"), 0.0)
    (settled,) = [one for one in keeper.handle(GangEnded("g"), 5.0) if isinstance(one, Settled)]
    assert settled.requests[SLOT] == 3.0


def test_a_period_is_a_duration_before_now_or_a_date() -> None:
    assert since_s("90m", 10_000.0) == 10_000.0 - 5400.0
    assert since_s("7d", 1e6) == 1e6 - 7 * DAY_S
    assert since_s("2026-05-01", 0.0) == datetime(2026, 5, 1, tzinfo=UTC).timestamp()
    with pytest.raises(ValueError, match="duration"):
        since_s("yesterday", 0.0)


@pytest.mark.parametrize("period", ["infd", "nand", "-5d", "0d", "99999999d"])
def test_a_period_without_a_beginning_is_refused(period: str) -> None:
    with pytest.raises(ValueError, match="above zero and below 11574 days"):
        since_s(period, 1e9)
