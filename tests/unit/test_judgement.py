"""Judging placements: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.judgement import Choice, bootstrap, judge, pick_lowest, random_choices

RNG = np.random.default_rng(0)
TRUTHS = [np.array([4.0, 2.0, 8.0]), np.array([1.0, 3.0, 2.0])]


def test_the_oracle_has_no_regret() -> None:
    judged = judge("oracle", [pick_lowest(truth, truth) for truth in TRUTHS], RNG)
    assert (judged.top1.mean, judged.top2.mean, judged.regret.mean) == (1.0, 1.0, 0.0)


def test_random_choice_is_right_once_in_n() -> None:
    judged = judge("random", random_choices(TRUTHS), RNG)
    assert judged.top1.mean == pytest.approx(1 / 3)
    assert judged.regret.mean == pytest.approx(np.mean([1.0, 0.0, 3.0, 0.0, 2.0, 1.0]))


def test_regret_and_rank_of_the_second_best() -> None:
    choice = Choice(TRUTHS[0], 0)
    assert (choice.rank, choice.regret) == (1, 1.0)


def test_an_unknown_reading_is_never_the_lowest() -> None:
    assert pick_lowest(TRUTHS[0], np.array([np.nan, 5.0, 7.0])).chosen == 1


def test_the_interval_holds_the_mean_and_narrows_with_data() -> None:
    few, many = bootstrap(RNG.normal(5, 1, 10), RNG), bootstrap(RNG.normal(5, 1, 1000), RNG)
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
