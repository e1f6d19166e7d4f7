"""Examples of rankings; the properties that always hold are in tests/simulation."""

import math

import numpy as np
import pytest

from scheduler.core.ranking import HOPELESS, SHARED_ERROR, Exploration, Ranking, rank, tie_width


def ranked(times_s: list[float], sigma: float = 0.0, listed: int = 5, **more: object) -> Ranking:
    log_s = np.log(np.array(times_s))
    ranking = rank(log_s, np.full(len(times_s), sigma), lambda some: some.tolist(), listed, **more)  # type: ignore[arg-type]
    assert ranking is not None
    return ranking


def scores(times_s: list[float], **more: object) -> dict[int, int]:
    ranking = ranked(times_s, **more)  # type: ignore[arg-type]
    return dict(zip(ranking.order.tolist(), ranking.scores, strict=True))


def test_best_has_ten_and_near_ties_nine() -> None:
    assert scores([10.0, 10.4, 10.5, 30.0], sigma=0.2) == {0: 10, 1: 9, 2: 9}


def test_a_certain_model_spreads_what_an_unsure_one_calls_a_tie() -> None:
    assert scores([10.0, 13.0], sigma=0.02)[1] < scores([10.0, 13.0], sigma=1.0)[1] == 9


def test_a_node_twice_as_slow_is_not_listed() -> None:
    assert scores([10.0, 10.0 * HOPELESS]) == {0: 10}


def test_only_the_best_are_listed() -> None:
    assert list(scores([10.0 + 0.1 * i for i in range(100)], listed=3)) == [0, 1, 2]


def test_exact_ties_are_broken_by_the_callers_number() -> None:
    tie_break = np.array([3.0, 1.0, 2.0])
    ranking = rank(np.array([1.0, 1.0, 1.0 + 1e-3]), np.zeros(3), lambda some: tie_break[some].tolist(), 5)
    assert ranking is not None
    assert ranking.order.tolist()[0] == 1


@pytest.mark.parametrize("log_s", [[], [math.nan], [math.inf, math.nan], [2.0, 2.0]])
def test_no_opinion_where_nothing_is_known_or_all_is_alike(log_s: list[float]) -> None:
    assert rank(np.array(log_s), np.zeros(len(log_s)), np.zeros_like, 5) is None


def test_nodes_without_a_time_are_never_listed() -> None:
    assert rank(np.array([math.nan, 2.0, math.inf, 2.1]), np.zeros(4), np.zeros_like, 5).order.tolist() == [
        1,
        3,
    ]  # type: ignore[union-attr]


def test_tie_width_is_that_of_a_difference_of_mostly_common_errors() -> None:
    assert tie_width(0.3) == pytest.approx(0.3 * math.sqrt(2 * (1 - SHARED_ERROR)))
    assert tie_width(math.nan) == tie_width(math.inf) == tie_width(-1.0) == 0.0


def test_exploration_puts_the_drawn_near_tie_first_and_keeps_the_best_second() -> None:
    ranking = ranked([10.0, 10.5, 30.0], exploration=Exploration(1.0, temperature=1.0), draws=(0.0, 0.99))
    assert (ranking.order.tolist(), ranking.explored) == ([1, 0], True)
    assert ranking.explorable.tolist() == [0, 1]  # the slow node is no near tie


def test_exploring_everywhere_is_uniform() -> None:
    ranking = ranked([10.0, 20.0, 90.0], exploration=Exploration(1.0, everywhere=True), draws=(0.0, 0.5))
    assert ranking.propensity.tolist() == pytest.approx([1 / 3] * 3)
    assert ranking.order.tolist()[0] == 1
