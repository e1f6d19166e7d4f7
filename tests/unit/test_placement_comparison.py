"""Top-1, regret and their intervals on a kind cluster's decisions whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scheduler.core.receipts import Candidate
from testbed.judgement import Judgement
from testbed.kind.comparison import DEFAULT, OURS, Decision, above_default, compare, coverage, median_error

SECONDS = {("a",): 10.0, ("b",): 15.0, ("c",): 40.0}


def decided(ours: str, default: str, rtt_s: dict[str, float] | None = None) -> Decision:
    known = [Candidate(n, 8.0, 12.0, 20.0, 10, 1.0, {"rtt_data_mean": v}) for n, v in (rtt_s or {}).items()]
    return Decision("transfer", "job", {}, (ours,), (default,), SECONDS, known)


def of(policy: str, judgements: list[Judgement]) -> Judgement:
    return next(one for one in judgements if one.policy == policy)


def test_the_best_node_every_time_is_top1_without_regret() -> None:
    ours = of(OURS, compare([decided("a", "b")] * 10))
    assert (ours.top1.mean, ours.regret.mean, ours.run_s.mean) == (1.0, 0.0, 10.0)


def test_regret_is_the_time_lost_in_parts_of_the_best() -> None:
    assert of(DEFAULT, compare([decided("a", "b")])).regret.mean == pytest.approx(0.5)


def test_choosing_blindly_is_the_mean_over_all_choices() -> None:
    blind = of("random", compare([decided("a", "a")]))
    assert blind.top1.mean == pytest.approx(1 / 3)
    assert blind.run_s.mean == pytest.approx(65 / 3)


def test_the_interval_of_a_sure_difference_excludes_zero() -> None:
    margin = above_default([decided("a", "b")] * 30)
    assert margin.low == margin.mean == margin.high == 1.0


def test_the_interval_of_no_difference_holds_zero() -> None:
    margin = above_default([decided("a", "b"), decided("b", "a")] * 15)
    assert margin.mean == 0.0
    assert margin.low < 0.0 < margin.high


def test_a_simple_policy_takes_the_node_with_the_least_signal() -> None:
    found = compare([decided("a", "a", {"a": 0.03, "b": 0.01, "c": 0.02})])
    assert of("least RTT to the data", found).run_s.mean == 15.0


def test_an_unknown_signal_is_never_the_least() -> None:
    found = compare([decided("a", "a", {"c": 0.02})])
    assert of("least RTT to the data", found).run_s.mean == 40.0


def test_a_policy_that_knows_nothing_has_not_decided() -> None:
    found = compare([decided("a", "a", {"a": math.nan, "b": math.nan})])
    assert "least RTT to the data" not in [one.policy for one in found]


def test_between_equal_signals_our_own_choice_is_not_preferred() -> None:
    picked = {}
    for ours in "ab":
        seconds = {(ours,): SECONDS[ours,], **SECONDS}  # our run is the first to be known
        known = [Candidate(node, 8.0, 12.0, 20.0, 10, 1.0, {"rtt_data_mean": 0.01}) for node in "abc"]
        one = Decision("transfer", "job", {}, (ours,), ("c",), seconds, known)
        picked[ours] = of("least RTT to the data", compare([one])).run_s.mean
    assert picked["a"] == picked["b"]


def test_the_model_without_network_features_is_not_told_any() -> None:
    seen = []
    compare(
        [decided("a", "a", {"a": 0.03})],
        blind=lambda rows, *_: seen.append(rows) or np.zeros(len(rows)),
    )
    assert np.isnan(seen[0]).all()


def test_predictions_are_held_against_what_was_measured() -> None:
    some = [decided("a", "a", {"a": 0.01}), decided("c", "a", {"c": 0.01})]
    assert median_error(some) == pytest.approx((0.2 + 0.7) / 2)
    assert coverage(some) == 0.5


def test_without_any_prediction_there_is_no_error_to_tell() -> None:
    assert math.isnan(median_error([decided("a", "a")]))
