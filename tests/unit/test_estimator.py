"""The estimator: its contract, what it does with few data, unknowns, and how honest its intervals are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from model.central import Central, Recipe
from model.estimator import CompletionTimeEstimator, group_folds
from model.fitting.intervals import fit_intervals
from model.fitting.linear import fit_log_linear
from model.linear import LogLinear
from model.snapshot import Floats
from model.weights import example_weights

SMALL = {"trees": 60, "seed": 1}


@parametrize_with_checks([CompletionTimeEstimator(trees=60)])  # type: ignore[untyped-decorator]
def test_it_keeps_the_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def jobs(rows: int, seed: int = 0, noise: float = 0.1) -> tuple[Floats, Floats]:
    """Columns rtt, cpu use, noise, prior level; times that grow with rtt and cpu use."""
    rng = np.random.default_rng(seed)
    rtt, use, other = rng.lognormal(-4, 1, rows), rng.random(rows), rng.normal(size=rows)
    level = rng.choice([2.0, 4.0], rows)
    log_s = level + 0.4 * np.log1p(100 * rtt) + 0.8 * use + noise * rng.normal(size=rows)
    return np.column_stack([rtt, use, other, level]), np.exp(log_s)


def error(estimator: CompletionTimeEstimator, X: Floats, y: Floats) -> float:
    return float(np.median(np.abs(estimator.predict(X) / y - 1)))


def test_without_enough_examples_the_prior_alone_answers() -> None:
    X, y = jobs(8)
    estimator = CompletionTimeEstimator(prior_columns=(3,)).fit(X, y)
    assert estimator.trees_ == 0
    predicted = np.log(estimator.predict(X)) - X[:, 3]
    assert predicted == pytest.approx(np.full(8, predicted[0]))


def test_a_wrong_prior_is_corrected_the_more_the_more_runs_there_are() -> None:
    shifts = []
    for rows in (1, 10, 400):
        X, y = jobs(rows)
        X[:, 3] += 3.0
        estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, y)
        shifts.append(float(np.median(np.log(estimator.predict(X) / y))))
    assert shifts[0] > shifts[1] > shifts[2]
    assert abs(shifts[2]) < 0.1


def test_it_learns_what_the_prior_does_not_say() -> None:
    X, y = jobs(800)
    estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X[:600], y[:600])
    prior = float(np.median(np.abs(np.exp(X[600:, 3]) / y[600:] - 1)))
    assert prior > 0.4
    assert error(estimator, X[600:], y[600:]) < 0.12


def test_trees_that_only_one_span_of_time_gains_by_are_not_grown() -> None:
    rng = np.random.default_rng(3)
    X = rng.uniform(-1, 1, (800, 3))
    for ends, kept in ((600, False), (800, True)):
        holds = np.arange(800) < ends
        y = np.exp(3.0 + np.where(holds, 0.3 * np.sign(X[:, 0]), 0.0) + rng.normal(0, 0.1, 800))
        assert (CompletionTimeEstimator(recipe={}).fit(X, y).trees_ > 0) == kept


def test_outliers_do_not_pull_the_median() -> None:
    X, y = jobs(600)
    struck = np.random.default_rng(2).random(600) < 0.1
    spoilt = np.where(struck, y * 50, y)
    estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, spoilt)
    assert error(estimator, X[~struck], y[~struck]) < 0.15


@pytest.mark.parametrize("column", [0, 1])
def test_constraints_hold_whatever_the_data_say(column: int) -> None:
    X, y = jobs(400, noise=0.8)
    X[:, column] = -X[:, column]  # the data say the opposite
    estimator = CompletionTimeEstimator(monotone=[1, 1, 0, 0], prior_columns=(3,), **SMALL).fit(X, y)
    grid = np.repeat(X[:1], 50, axis=0)
    grid[:, column] = np.linspace(X[:, column].min(), X[:, column].max(), 50)
    assert (np.diff(estimator.predict(grid)) >= -1e-9).all()


def test_quantiles_are_ordered_and_the_median_is_the_prediction() -> None:
    X, y = jobs(500)
    estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, y)
    quantiles = estimator.predict_quantiles(X)
    assert quantiles.shape == (500, 3)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert quantiles[:, 1] == pytest.approx(estimator.predict(X))


def test_intervals_cover_four_fifths_of_later_runs() -> None:
    X, y = jobs(2400, noise=0.3)
    estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X[:1200], y[:1200])
    quantiles = estimator.predict_quantiles(X[1200:])
    covered = ((quantiles[:, 0] <= y[1200:]) & (y[1200:] <= quantiles[:, 2])).mean()
    assert covered == pytest.approx(0.8, abs=0.05)


def test_intervals_cover_most_runs_of_groups_never_seen() -> None:
    X, y = jobs(2400)
    group = np.repeat(np.arange(60.0), 40)
    offset = np.random.default_rng(2).normal(0, 0.5, (2, 60))
    X = np.column_stack([X, np.repeat(offset[0], 40), group])  # one column names the group, as many do
    y = y * np.exp(np.repeat(offset[1], 40))
    seen, new = group < 40, group >= 40
    estimator = CompletionTimeEstimator(prior_columns=(3,), group_column=5, **SMALL).fit(X[seen], y[seen])
    low, _, high = estimator.predict_quantiles(X[new]).T
    assert 0.7 <= np.mean((low <= y[new]) & (y[new] <= high)) <= 0.95


def test_intervals_are_wider_where_times_scatter_more() -> None:
    X, _ = jobs(2000)
    rng = np.random.default_rng(3)
    y = np.exp(X[:, 3] + np.where(X[:, 1] > 0.5, 0.6, 0.05) * rng.normal(size=2000))
    quantiles = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, y).predict_quantiles(X)
    width = np.log(quantiles[:, 2] / quantiles[:, 0])
    assert np.median(width[X[:, 1] > 0.6]) > 3 * np.median(width[X[:, 1] < 0.4])


def test_a_node_that_says_nothing_is_neither_best_nor_worst_and_widely_uncertain() -> None:
    X, y = jobs(600)
    estimator = CompletionTimeEstimator(monotone=[1, 1, 0, 0], prior_columns=(3,), **SMALL).fit(X, y)
    known = np.repeat(X[:1], 40, axis=0)
    known[:, 0], known[:, 1] = np.quantile(X[:, 0], np.linspace(0.02, 0.98, 40)), np.linspace(0, 1, 40)
    silent = known[:1].copy()
    silent[0, :3] = np.nan
    told, untold = estimator.predict_quantiles(known), estimator.predict_quantiles(silent)[0]
    assert told[:, 1].min() < untold[1] < told[:, 1].max()
    assert untold[2] / untold[0] > 3 * np.median(told[:, 2] / told[:, 0])


def test_contributions_add_up_to_the_prediction() -> None:
    X, y = jobs(500)
    estimator = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, y)
    parts = estimator.contributions(X[:20])
    assert parts.shape == (20, 5)
    assert parts.sum(axis=1) == pytest.approx(np.log(estimator.predict(X[:20])))


def test_columns_with_a_role_are_no_inputs() -> None:
    X, y = jobs(300)
    estimator = CompletionTimeEstimator(time_column=2, class_column=1, prior_columns=(3,), **SMALL).fit(X, y)
    moved = X.copy()
    moved[:, [1, 2]] = np.nan
    assert estimator.predict(moved) == pytest.approx(estimator.predict(X))


def test_rows_are_put_in_the_order_of_time_before_the_latest_are_held_out() -> None:
    X, y = jobs(300)
    X[:, 2] = np.arange(300)
    shuffled = np.random.default_rng(0).permutation(300)
    options = {"time_column": 2, "prior_columns": (3,), **SMALL}
    ordered = CompletionTimeEstimator(**options).fit(X, y).predict(X)
    assert CompletionTimeEstimator(**options).fit(X[shuffled], y[shuffled]).predict(X) == pytest.approx(
        ordered
    )


def test_categories_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    kind = rng.integers(0, 6, 400).astype(float)
    kind[rng.random(400) < 0.05] = np.nan
    y = np.exp(np.nan_to_num(np.array([3.0, 0.5, 2.0, 0.1, 4.0, 1.0])[np.nan_to_num(kind).astype(int)]))
    estimator = CompletionTimeEstimator(categorical_columns=(0,), **SMALL).fit(kind[:, None], y)
    assert error(estimator, kind[:, None], y) < 0.1


def test_power_laws_carry_beyond_what_was_seen() -> None:
    rng = np.random.default_rng(5)
    size, speed = rng.lognormal(10, 1, 600), rng.lognormal(5, 1, 600)
    X, y = np.column_stack([size, speed]), size / speed
    estimator = CompletionTimeEstimator(**SMALL).fit(X, y)
    assert estimator.recipe_.linear
    assert estimator.predict([[size.max() * 4, 150.0]])[0] == pytest.approx(size.max() * 4 / 150, rel=0.25)


def test_a_history_that_misleads_for_a_while_is_left_out() -> None:
    X, y = jobs(800)
    told = np.random.default_rng(1).permutation(np.log(y))
    told[:300] = np.log(y[:300])  # of the older runs it told all, of the newer ones it tells nothing
    X = np.column_stack([X, told])
    left_out, kept = (
        CompletionTimeEstimator(prior_columns=(3,), history_columns=columns, **SMALL).fit(X[:600], y[:600])
        for columns in ((4,), ())
    )
    assert not np.any(left_out.contributions(X)[:, 4])
    assert error(left_out, X[600:], y[600:]) < error(kept, X[600:], y[600:])


def test_a_history_that_tells_something_is_kept() -> None:
    X, y = jobs(800)
    X = np.column_stack([X, np.log(y) + np.random.default_rng(1).normal(size=800) / 10])
    estimator = CompletionTimeEstimator(prior_columns=(3,), history_columns=(4,), **SMALL).fit(X, y)
    assert np.any(estimator.contributions(X)[:, 4])


def test_where_all_runs_are_of_one_group_the_newest_are_held_out() -> None:
    X, y = jobs(400)
    X = np.column_stack([X, np.full(400, 7.0)])
    estimator = CompletionTimeEstimator(prior_columns=(3,), group_column=4, **SMALL).fit(X, y)
    assert estimator.trees_ > 0


def test_run_times_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        CompletionTimeEstimator().fit(np.ones((3, 1)), [1.0, 0.0, 2.0])


def test_signs_must_match_the_columns() -> None:
    with pytest.raises(ValueError, match="2 signs for 1 columns"):
        CompletionTimeEstimator(monotone=[1, 0]).fit(np.ones((50, 1)), np.ones(50))


@pytest.mark.parametrize(
    "wrong",
    [
        {"trees": -1},
        {"learning_rate": 0},
        {"learning_rate": math.inf},
        {"prior_sigma": math.nan},
        {"threads": 0},
        {"held_out": 0.0},
        {"held_out": 0.5},
        {"half_life_s": 0.0},
        {"time_column": 4},
        {"categorical_columns": (-1,)},
        {"categorical_columns": (3,), "monotone": (1, 0, 0, 1)},
    ],
)
def test_parameters_that_cant_be_used_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"out of range|X has 4|no order"):
        CompletionTimeEstimator(**wrong).fit(*jobs(100))


def test_a_prior_that_is_not_known_is_refused_instead_of_predicting_nothing() -> None:
    X, y = jobs(100)
    fitted = CompletionTimeEstimator(prior_columns=(3,), **SMALL).fit(X, y)
    X[7, 3] = np.nan
    for ask in (fitted.predict_quantiles, lambda rows: fitted.fit(rows, y)):
        with pytest.raises(ValueError, match=r"the prior \(columns \[3\]\) is not known in 1 of 100 rows"):
            ask(X)


def test_no_group_is_both_fitted_on_and_held_out() -> None:
    groups = np.random.default_rng(6).integers(0, 9, 200).astype(float)
    held_out = []
    for fit, held in group_folds(groups, 4, seed=0):
        assert not set(groups[fit]) & set(groups[held])
        held_out += held.tolist()
    assert sorted(held_out) == list(range(200))


def test_rare_classes_and_new_runs_weigh_more() -> None:
    classes, ended = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 100.0, 100.0, 100.0])
    weight = example_weights(classes, ended, 4, temper=1.0, half_life_s=100.0)
    assert weight[3] == pytest.approx(3 * weight[1])
    assert weight[0] == pytest.approx(weight[1] / 2)
    assert weight.mean() == pytest.approx(1.0)


def test_few_residuals_leave_the_spread_of_the_prior() -> None:
    nothing = fit_intervals(np.zeros(0), np.zeros((0, 1)), 0.8, {})
    some = fit_intervals(np.full(15, 0.05), np.zeros((15, 1)), 0.8, {})
    assert nothing.typical_size == pytest.approx(0.8)
    assert 0.05 < some.typical_size < 0.8


def test_the_linear_part_survives_being_written_down() -> None:
    X, y = jobs(100)
    fitted = fit_log_linear(X, np.log(y), np.ones(100), categorical={3})
    assert LogLinear.from_json(fitted.to_json()).predict(X) == pytest.approx(fitted.predict(X))


def test_an_unknown_input_of_the_linear_part_counts_as_the_mean() -> None:
    X = np.array([[1.0], [math.e], [math.e**2]])
    fitted = fit_log_linear(X, np.array([1.0, 2.0, 3.0]), np.ones(3), set())
    assert fitted.predict(np.array([[math.nan]]))[0] == pytest.approx(2.0, abs=0.05)


def test_a_rarely_unknown_input_never_reads_as_zero() -> None:
    central = Central(Recipe(), 0.0, np.array([0.5, math.nan]), None, None, None)
    completed = central.completed(np.array([[math.nan, math.nan]]))[0]
    assert completed[0] == 0.5
    assert np.isnan(completed[1])
