"""Estimates without a predictor, settings, deadlines of the slack rule, heaps and lifts."""

from __future__ import annotations

import json
import math

import pytest

from scheduler.core.queue.checkpoint import VERSION
from scheduler.core.queue.estimates import UNKNOWN_S, PastRuns
from scheduler.core.queue.events import Estimate, Gang
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.fluid import jain_index, lateness
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.lifts import RETURNS_KEPT, Lifts
from scheduler.core.queue.ordered import Ordered
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.slack import time_until
from scheduler.core.queue.slots import slots_settings


def told(runs: PastRuns, flow: str = "u", **more: object) -> tuple[float, str]:
    estimate = runs.estimate(Gang("g", flow, (), 0.0, **more))  # type: ignore[arg-type]
    assert 0 < estimate.p10_s <= estimate.p50_s <= estimate.p90_s
    return estimate.p50_s, estimate.source


def history() -> PastRuns:
    runs = PastRuns()
    for duration_s in (1.0, 2.0, 9.0):
        runs.ended(Gang("g", "u", (), 0.0, job_class="etl"), duration_s)
    runs.ended(Gang("g", "v", (), 0.0), 40.0)
    return runs


def test_estimates_fall_back_from_the_predictor_to_what_is_known() -> None:
    runs = history()
    assert told(runs, estimate=Estimate(1, 3, 5), job_class="etl") == (3, "model")
    assert told(runs, job_class="etl", hint_s=7.0) == (4.0, "class")
    assert told(runs, job_class="new", hint_s=7.0) == (7.0, "hint")
    assert told(runs) == (2.0, "user")
    assert told(runs, "w") == (5.5, "queue")
    assert told(PastRuns(), "w") == (UNKNOWN_S, "nothing known")


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -1.0, 0.0, 1e300])
def test_an_absurd_estimate_is_not_believed(absurd: float) -> None:
    assert told(history(), estimate=Estimate.exactly(absurd), hint_s=absurd) == (2.0, "user")


def test_one_users_class_is_not_anothers() -> None:
    assert told(history(), "v", job_class="etl") == (40.0, "user")


def test_past_runs_survive_a_restart() -> None:
    again = PastRuns()
    again.revive(json.loads(json.dumps(history().export())))
    assert again.export() == history().export()


@pytest.mark.parametrize(
    "wrong",
    [
        {"reference": {}},
        {"reference": {"cpu": 0.0}},
        {"weights": {("u",): -1.0}},
        {"default_weight": math.nan},
        {"depth": 0},
        {"half_open_timeout_s": 0.0},
        {"stretch": -0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|not"):
        QueueSettings(**{"reference": {"cpu": 1.0}, **wrong})  # type: ignore[arg-type]


def test_a_checkpoint_of_another_version_or_reference_is_refused() -> None:
    state = Gatekeeper(slots_settings(2)).export()
    with pytest.raises(ValueError, match=f"to {VERSION} can be read"):
        Gatekeeper.revive(slots_settings(2), {**state, "version": 0})
    with pytest.raises(ValueError, match="another reference"):
        Gatekeeper.revive(slots_settings(3), state)


def test_a_deadline_is_when_v_reaches_the_tag_while_flows_leave() -> None:
    clock = FairClock()
    clock.arrive("a", 2.0)
    clock.arrive("b", 6.0)
    assert list(time_until(clock, [2.0, 6.0], speed=1.0)) == pytest.approx([4.0, 8.0])


def test_a_deadline_that_has_passed_counts_as_overdue() -> None:
    """What a job may be delayed by is counted from then on: else it is granted anew for ever."""
    clock = FairClock()
    for key in ("a", "b"):
        clock.arrive(key, 6.0)
    clock.advance(10.0)
    assert list(time_until(clock, [2.0, 6.0], speed=2.0)) == pytest.approx([-3.0, 1.0])


def test_a_heap_forgets_moved_and_removed_items() -> None:
    heap: Ordered[int] = Ordered()
    for item in range(200):
        heap.put(item, (float(item),))
    for item in range(0, 200, 2):
        heap.put(item, (1000.0 - item,))
    for item in range(1, 200, 4):
        heap.remove(item)
    expected = [*range(3, 200, 4), *range(198, -1, -2)]
    assert [item for _, item in heap.in_order()] == expected
    first = heap.first()
    assert first is not None
    assert first[1] == 3


def test_refunds_before_a_return_share_its_headroom() -> None:
    lifts = Lifts()
    lifts.come_back(charges_made=2, headroom=5.0)
    assert lifts.effective(1, -3.0) == -3.0
    assert lifts.effective(2, -3.0) == -2.0
    assert lifts.effective(3, -3.0) == -3.0


def test_a_charge_that_was_too_low_adds_headroom() -> None:
    lifts = Lifts()
    lifts.come_back(1, 1.0)
    assert lifts.effective(1, 4.0) == 4.0
    assert lifts.effective(1, -9.0) == -5.0


def test_only_so_many_returns_are_remembered() -> None:
    lifts = Lifts()
    for number in range(3 * RETURNS_KEPT):
        lifts.come_back(number, float(number) ** 2)
    assert len(lifts.at) == RETURNS_KEPT
    assert lifts.headroom == sorted(lifts.headroom)


def test_lateness_is_relative_to_the_time_in_the_fluid() -> None:
    assert lateness(10.0, 40.0, 20.0) == pytest.approx(2.0)
    assert lateness(10.0, 15.0, 20.0) == 0.0


def test_the_jain_index_is_one_when_all_get_their_part() -> None:
    assert jain_index({"a": 1.0, "b": 2.0}, {"a": 0.1, "b": 0.2}) == pytest.approx(1.0)
    assert jain_index({"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}) == pytest.approx(0.5)
