"""Why a pod is where it is, in sentences."""

import msgspec
import numpy as np
import pytest
from placing_builders import NODES, a_decision, a_pod, a_table, an_outcome

from scheduler.core.receipts import (
    MATTERED,
    Receipt,
    mattered,
    receipt_of,
    seconds,
    sentence,
    what_happened,
    which_telemetry,
)
from scheduler.core.records import Decision, Moment
from scheduler.core.table_records import ReadTable, read_table, table_record
from scheduler.core.types import Fallback


def stored() -> ReadTable:
    sent = table_record(a_table())
    return read_table(sent.nodes, sent.features, sent.quantiles, sent.feature_names)


def told(node: str | None = "a", limit: int = 10, **changes: object) -> Receipt:
    record = msgspec.structs.replace(a_decision(), **changes)
    return receipt_of(an_outcome(node=node, run_s=None), record, stored(), limit)


def test_the_predicted_fastest_is_told_with_time_and_margin() -> None:
    assert sentence(told()) == (
        "The pod was placed on a, predicted fastest at 10 s (9.0 s to 11 s), "
        "10% ahead of the next of 4 candidates."
    )


def test_a_near_tie_is_told_as_one() -> None:
    assert "a near tie with the next" in sentence(told(tie_width=0.5))


def test_a_pod_that_one_node_alone_could_take_is_not_said_to_have_the_fastest() -> None:
    assert sentence(told(candidates=1)) == (
        "The pod was placed on a, the only node that kube-scheduler offered; "
        "its time was predicted at 10 s (9.0 s to 11 s)."
    )


def test_an_overruled_recommendation_is_told() -> None:
    assert "runs on b although Fairlane recommended a" in sentence(told("b"))


def test_exploration_is_told() -> None:
    assert "to explore" in sentence(told(explored=True))


def test_a_pod_that_waits_is_told_with_the_recommendation() -> None:
    assert sentence(told(None)).startswith("The pod is not bound yet; Fairlane recommended a")


def test_a_placement_planned_at_release_is_told_as_such() -> None:
    assert sentence(told(at_release=True)) == (
        "The pod runs on a, as planned at its release: predicted at 10 s (9.0 s to 11 s), "
        "10% ahead of the next of 4 candidates."
    )
    assert "runs on b although it was planned on a when it was released" in sentence(
        told("b", at_release=True)
    )
    assert sentence(told(None, at_release=True)).startswith("The pod is not bound yet; it was planned on a")
    moment = Moment("d", 1.0, 0.1, 0, 0.0, Fallback.STALE_TELEMETRY, at_release=True)
    record = Decision(a_pod(), moment, lambda: ("a", "b", "c")).record()
    assert "no hint was written when it was released, because the telemetry was too old" in sentence(
        receipt_of(an_outcome(), record, None, 10)
    )


@pytest.mark.parametrize("reason", [reason for reason in Fallback if reason])
def test_every_fallback_has_its_words(reason: Fallback) -> None:
    record = Decision(a_pod(), Moment("d", 1.0, 0.1, 0, 0.0, reason), lambda: ("a", "b")).record()
    said = sentence(receipt_of(an_outcome(), record, None, 10))
    assert "had no opinion because" in said
    assert reason not in said


def test_a_pod_placed_without_asking_is_told_as_such() -> None:
    assert "without asking Fairlane" in sentence(receipt_of(an_outcome(), None, None, 10))
    assert sentence(Receipt(None)) == "Nothing is known of this pod."


def test_candidates_come_best_first_with_chosen_and_recommended_among_them() -> None:
    receipt = told("d", limit=1)
    assert [one.node for one in receipt.candidates] == ["a", "d"]
    assert [one.score for one in told().candidates] == [10, 8, 0, 0]
    assert told().candidates[0].features["cpu_use"] == pytest.approx(0.2)
    assert told().candidates[0].features["gpu_use"] is None


def test_a_receipt_without_its_table_says_so() -> None:
    receipt = receipt_of(an_outcome(), a_decision(), None, 10)
    assert "not kept" in receipt.note
    assert sentence(receipt) == "The pod was placed on a, predicted fastest."


def test_the_actual_time_is_compared_with_the_prediction() -> None:
    chosen = told().chosen
    assert what_happened(an_outcome(), chosen) == (
        "It ran for 10 s: +0% against the prediction, inside its interval."
    )
    assert "outside" in what_happened(an_outcome(run_s=20.0), chosen)
    assert "evicted" in what_happened(an_outcome(end_state="evicted"), chosen)
    assert what_happened(an_outcome(run_s=None), chosen) == "It is running."
    assert what_happened(None, None) == ""


def test_the_strongest_contributions_are_told_as_factors() -> None:
    names = [f"f{i}" for i in range(10)]
    contributions = np.array([0.0, -0.7, 0.1, 1.1, *[0.01] * 6, 4.0])
    values = np.array([1.0, np.nan, *range(8)], dtype=float)
    told = mattered(names, values, contributions)
    assert [one.feature for one in told][:3] == ["f3", "f1", "f2"]
    assert told[0].factor == pytest.approx(3.004, abs=0.01)
    assert told[1].value is None
    assert len(told) == MATTERED


@pytest.mark.parametrize(
    ("value_s", "text"), [(3.21, "3.2 s"), (48.0, "48 s"), (425.0, "7 min 5 s"), (11520.0, "3 h 12 min")]
)
def test_times_are_for_people(value_s: float, text: str) -> None:
    assert seconds(value_s) == text


def test_a_receipt_survives_json() -> None:
    receipt = told()
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt) == receipt
    assert {one.node for one in receipt.candidates} == set(NODES)


@pytest.mark.parametrize(("epoch", "said"), [(0, "there was none"), (7, "epoch 7, 12 s old")])
def test_telemetry_that_never_came_has_no_age(epoch: int, said: str) -> None:
    decision = told(epoch=epoch, epoch_age_s=12.0).decision
    assert decision is not None
    assert which_telemetry(decision) == said
