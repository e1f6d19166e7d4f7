"""What holds for every ranking, whatever the times."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.snapshot import Floats
from scheduler.core.ranking import BEST, SAME, Exploration, Ranking, rank

TIMES = arrays(np.float64, st.integers(1, 40), elements=st.floats(-5.0, 12.0) | st.just(float("nan")))
UNKNOWN = [float("nan"), float("inf"), -float("inf")]
SIGMAS = st.floats(0.0, 3.0)
DRAWS = st.tuples(st.floats(0.0, 1.0, exclude_max=True), st.floats(0.0, 1.0, exclude_max=True))
EXPLORATIONS = st.builds(
    Exploration, st.floats(0.0, 1.0), st.floats(0.01, 10.0), st.floats(0.0, 5.0), st.booleans()
)


def ranking_of(
    log_s: Floats, sigma: float, exploration: Exploration, draws: tuple[float, float], listed: int = 5
) -> Ranking | None:
    n = len(log_s)
    return rank(log_s, np.full(n, sigma), lambda some: some.tolist(), listed, exploration, draws)


@given(TIMES, SIGMAS, EXPLORATIONS, DRAWS, st.integers(1, 50))
def test_scores_are_whole_numbers_from_0_to_10_and_the_first_alone_has_10(
    log_s: Floats, sigma: float, exploration: Exploration, draws: tuple[float, float], listed: int
) -> None:
    ranking = ranking_of(log_s, sigma, exploration, draws, listed)
    if ranking is None:
        return
    assert all(isinstance(score, int) and 0 < score <= BEST for score in ranking.scores)
    assert [score for score in ranking.scores if score == BEST] == [ranking.scores[0]]
    assert len(ranking.scores) == len(ranking.order) <= listed
    assert len(set(ranking.order.tolist())) == len(ranking.order)


@given(TIMES, SIGMAS, EXPLORATIONS, DRAWS)
def test_scores_never_rise_with_the_predicted_time(
    log_s: Floats, sigma: float, exploration: Exploration, draws: tuple[float, float]
) -> None:
    ranking = ranking_of(log_s, sigma, exploration, draws)
    if ranking is None:
        return
    others = sorted(zip(log_s[ranking.order[1:]], ranking.scores[1:], strict=True))
    assert [score for _, score in others] == sorted((score for _, score in others), reverse=True)
    if not ranking.explored:
        assert log_s[ranking.order[0]] <= np.nanmin(log_s) + 1e-9


@given(
    arrays(
        np.float64, st.integers(0, 30), elements=st.sampled_from([1.0, 1.0 + SAME / 2, 1.05, 1.1, *UNKNOWN])
    ),
    st.integers(1, 6),
)
@example(np.array([1.0 + SAME / 2, 1.0, 1.0, 1.05]), 1)
def test_listed_are_the_first_of_all_finite_times_sorted(log_s: Floats, listed: int) -> None:
    finite = sorted((time, place) for place, time in enumerate(log_s.tolist()) if np.isfinite(time))
    least, most = (finite[0][0], finite[-1][0]) if finite else (0.0, 0.0)
    ranking = ranking_of(log_s, 0.0, Exploration(), (1.0, 0.0), listed)
    if not finite or (len(finite) > 1 and most - least < SAME):
        assert ranking is None
        return
    first = min(place for time, place in finite if time <= least + SAME)
    others = [place for _, place in finite if place != first]
    assert ranking is not None
    assert ranking.order.tolist() == [first, *others][:listed]


@given(TIMES, SIGMAS)
def test_a_listed_node_is_not_slower_than_one_left_out(log_s: Floats, sigma: float) -> None:
    ranking = ranking_of(log_s, sigma, Exploration(), (1.0, 0.0))
    if ranking is None:
        return
    left_out = np.setdiff1d(np.flatnonzero(np.isfinite(log_s)), ranking.order)
    if len(left_out):
        assert log_s[ranking.order].max() <= log_s[left_out].min() + 1e-9


@given(TIMES, SIGMAS, EXPLORATIONS, DRAWS)
def test_propensities_are_a_distribution_that_contains_the_choice(
    log_s: Floats, sigma: float, exploration: Exploration, draws: tuple[float, float]
) -> None:
    ranking = ranking_of(log_s, sigma, exploration, draws)
    if ranking is None:
        return
    assert np.isclose(ranking.propensity.sum(), 1.0)
    assert (ranking.propensity >= 0).all()
    assert ranking.order[0] in ranking.explorable


def test_nodes_come_first_as_often_as_their_propensity_says() -> None:
    log_s, exploration = np.log([10.0, 10.5, 11.0, 50.0]), Exploration(0.5, temperature=0.1)
    rng = np.random.default_rng(0)
    draws = rng.random((20_000, 2))
    first = [ranking_of(log_s, 0.1, exploration, tuple(draw)).order[0] for draw in draws]  # type: ignore[union-attr, arg-type]
    told = ranking_of(log_s, 0.1, exploration, (1.0, 0.0))
    assert told is not None
    seen = np.bincount(first, minlength=4)[told.explorable] / len(draws)
    assert np.allclose(seen, told.propensity, atol=0.01)
