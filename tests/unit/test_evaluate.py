"""Figures of predictions, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model.evaluate import evaluate, ranking
from model.snapshot import Floats


def quantiles(p50: list[float], width: float = 2.0) -> Floats:
    median = np.array(p50)
    return np.stack([median / width, median, median * width], axis=1)


def test_error_is_relative_to_the_actual_time_and_coverage_counts_the_interval() -> None:
    frame = pd.DataFrame({"run_s": [10.0, 10.0, 10.0, 10.0]})
    found = evaluate(frame, quantiles([10.0, 11.0, 15.0, 50.0]))
    assert found.median_error == pytest.approx((0.1 + 0.5) / 2)
    assert found.coverage == 0.75


def test_an_interval_without_width_covers_its_own_time_however_it_was_rounded() -> None:
    frame = pd.DataFrame({"run_s": [10.0]})
    rounded = float(np.exp(np.log(10.0)))
    assert rounded != 10.0
    assert evaluate(frame, np.full((1, 3), rounded)).coverage == 1.0


def test_deciles_are_of_the_actual_time() -> None:
    actual = np.arange(1.0, 101.0)
    wrong_when_long = np.where(actual > 90, actual * 2, actual)
    found = evaluate(pd.DataFrame({"run_s": actual}), quantiles(wrong_when_long.tolist()))
    assert [part.median_error for part in found.deciles] == pytest.approx([0.0] * 9 + [1.0])
    assert [part.rows for part in found.deciles] == [10] * 10


def test_users_with_few_runs_are_not_judged() -> None:
    frame = pd.DataFrame({"run_s": np.ones(9), "user": ["ann"] * 6 + ["bob"] * 3})
    assert [part.name for part in evaluate(frame, quantiles([1.0] * 9)).users] == ["ann"]


def test_ranking_is_within_each_decision() -> None:
    frame = pd.DataFrame({"run_s": [1.0, 2.0, 3.0, 10.0, 20.0, 30.0], "decision_id": ["a"] * 3 + ["b"] * 3})
    found = ranking(frame, np.array([1.0, 2.0, 3.0, 5.0, 4.0, 9.0]))
    assert found is not None
    assert (found.decisions, found.top1, found.top2) == (2, 0.5, 1.0)
    assert found.mean_regret == pytest.approx((0.0 + 1.0) / 2)


def test_a_predictor_that_cant_tell_candidates_apart_gains_nothing() -> None:
    frame = pd.DataFrame({"run_s": [1.0, 2.0, 4.0], "decision_id": ["a"] * 3})
    found = ranking(frame, np.ones(3))
    assert found is not None
    assert (found.top1, found.mean_regret) == (0.0, 3.0)


@pytest.mark.parametrize("columns", [{}, {"decision_id": ["a", "b"]}, {"decision_id": ["", ""]}])
def test_without_decisions_of_several_candidates_there_is_no_ranking(columns: dict[str, list[str]]) -> None:
    assert ranking(pd.DataFrame({"run_s": [1.0, 2.0]} | columns), np.ones(2)) is None
