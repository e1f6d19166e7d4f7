"""Expected starts as people read them: in the pod's condition and in the commands."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from scheduler.cli.gangs import gang_lines, start_from_now
from scheduler.core.queue.events import Estimate
from scheduler.core.queue.expected import ExpectedStart, StartSource
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.receipts import FlowView, GangReceipt
from scheduler.edge.announcements import condition_of, differs
from scheduler.edge.controller_metrics import jain_index

RECEIPT = GangReceipt(
    "g",
    ("alice",),
    Phase.WAITING,
    4,
    1.0,
    0.1,
    6.0,
    Estimate(30.0, 60.0, 120.0, "class"),
    math.nan,
    0.5,
    9.0,
    "3 gangs go before it",
    ("pod",),
)
SURE = ExpectedStart(1000.0, 2000.0, 3000.0, math.inf, StartSource.ARRIVALS, 20)
LATER = ExpectedStart(math.inf, math.inf, math.inf, 5000.0, StartSource.NO_ARRIVALS, 10)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (
            SURE,
            "position 4: 3 gangs go before it; expected start 1970-01-01T00:33:20Z, between "
            "1970-01-01T00:16:40Z and 1970-01-01T00:50:00Z with a probability of 80 % "
            "(by 20 futures with arrivals like the recent past's)",
        ),
        (
            LATER,
            "position 4: 3 gangs go before it; expected start: later than 1970-01-01T01:23:20Z "
            "(by 10 futures in which nobody submits anything more)",
        ),
        (
            ExpectedStart.reserved(1000.0),
            "position 4: 3 gangs go before it; expected start 1970-01-01T00:16:40Z (by its reservation)",
        ),
        (None, "position 4: 3 gangs go before it"),
    ],
)
def test_a_waiting_pod_is_told_when_it_starts_how_sure_that_is_and_who_says_so(
    start: ExpectedStart | None, told: str
) -> None:
    assert condition_of(RECEIPT, start).message == told


def test_a_p90_beyond_what_was_followed_is_said_to_be_open() -> None:
    assert "and much after 1970" in condition_of(RECEIPT, replace(SURE, p90_s=math.inf)).message


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (replace(SURE, p50_s=2020.0), False),
        (replace(SURE, p50_s=2300.0), False),  # less than a quarter of the time until then
        (replace(SURE, p50_s=2900.0), True),
        (replace(SURE, p10_s=600.0), True),
        (replace(SURE, p90_s=math.inf), True),
        (replace(SURE, futures=99), False),
        (replace(SURE, source=StartSource.NO_ARRIVALS), True),
        (None, True),
    ],
)
def test_a_condition_is_written_anew_when_the_start_moved_noticeably(
    now: ExpectedStart | None, changed: bool
) -> None:
    assert differs(condition_of(RECEIPT, SURE), condition_of(RECEIPT, now), 500.0) is changed


def start_of(**changes: Any) -> dict[str, Any]:
    told = {
        "p10_s": 130.0,
        "p50_s": 400.0,
        "p90_s": 20_000.0,
        "later_than_s": None,
        "source": "x",
        "futures": 20,
    }
    return told | changes


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (None, ""),
        (start_of(), "in 5 min (30 s to 5.5 h)"),
        (start_of(p90_s=None), "in 5 min (30 s to ?)"),
        (start_of(p10_s=None, p90_s=None, futures=0), "in 5 min"),
        (start_of(p10_s=None, p50_s=None, p90_s=None, later_than_s=3700.0), "later than in 60 min"),
        (start_of(p10_s=None, p50_s=None, p90_s=None), "later"),
        (start_of(p50_s=10.0, p10_s=5.0, p90_s=100.0), "at any moment"),
        (start_of(p50_s=10.0, p10_s=5.0, p90_s=130.0), "in 0 s (0 s to 30 s)"),
    ],
)
def test_times_are_told_from_now_on(start: dict[str, Any] | None, told: str) -> None:
    assert start_from_now(start, 100.0) == told


def test_a_gang_is_explained_in_sentences() -> None:
    gang = {
        "user": "alice",
        "pods": ["a/p"],
        "state": "waiting",
        "position": 4,
        "why": "3 gangs go before it",
        "expected_start": start_of(source="futures", later_than_s=None),
        "share": 0.1,
        "work": 6.0,
        "tag": 1.5,
        "estimate": {"p10_s": 30.0, "p50_s": 60.0, "p90_s": 119.0, "source": "class"},
        "arrived_s": 10.0,
        "released_s": None,
        "charged_work": None,
        "backfilled": False,
        "user_entitled": 0.5,
        "user_received": 9.0,
    }
    assert gang_lines(gang, "a/g", 100.0) == [
        "Gang a/g of alice (1 pods) is waiting, position 4: 3 gangs go before it.",
        "Expected start in 5 min (30 s to 5.5 h), by 20 futures.",
        "It is expected to take 60 s (30 s to 119 s), by class.",
        "It asks for 10.00 % of the queue, 6 share-seconds; its tag is 1.5.",
        "alice is entitled to 50.0 % now and has received 9 share-seconds.",
    ]
    released = gang | {"released_s": 60.0, "charged_work": 6.0, "backfilled": True, "expected_start": None}
    assert (
        "It was released ahead of its turn, since it delayed nobody after 50 s; so far it is charged 6 "
        "share-seconds." in gang_lines(released, "a/g", 100.0)
    )


def test_the_jain_index_compares_what_those_who_wait_hold_of_their_entitlement() -> None:
    def flow(held: float, entitled: float, waiting: int = 1) -> FlowView:
        return FlowView(("u",), 1.0, entitled, held, 0.0, 0.0, waiting, 0.0, 0)

    assert jain_index([flow(0.2, 0.2), flow(0.8, 0.8)]) == pytest.approx(1.0)
    assert jain_index([flow(0.5, 0.5), flow(0.0, 0.5)]) == pytest.approx(0.5)
    assert jain_index([flow(0.5, 0.5), flow(0.0, 0.5, waiting=0)]) == pytest.approx(1.0)
    assert jain_index([]) is None
