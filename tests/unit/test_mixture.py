"""What a run is made of, and how much of each part a job's time holds."""

import numpy as np
import pytest

from model.estimator import CompletionTimeEstimator
from model.mechanism import SECONDS, seconds_of
from model.mixture import Mixture, fit_mixture
from model.schema import FEATURES, POSITION
from model.snapshot import Floats

NAMES = [name for name, _ in SECONDS]
FACTS = {
    "class_runs": 30.0,
    "class_mean_log_s": np.log(20.0),
    "class_ewma_log_s": np.log(20.0),
    "transfer_median_s": 8.0,
    "job_input_log_bytes": np.log1p(1e9),
    "input_s": 10.0,
    "shuffle_s": 2.0,
    "throughput_data_mean": 1e8,
    "throughput_data_mean_1m": 2e8,
    "rtt_data_mean": 0.02,
    "cpu_use_mean_1m": 0.5,
    "residents": 2.0,
    "residents_network_heavy": 1.0,
}


def a_row(**changes: float) -> Floats:
    row = np.full((1, len(FEATURES)), np.nan)
    for name, value in (FACTS | changes).items():
        row[0, POSITION[name]] = value
    return row


def parts_of(row: Floats) -> dict[str, float]:
    return dict(zip(NAMES, seconds_of(row)[0].tolist(), strict=True))


def test_parts_of_a_run_are_seconds() -> None:
    parts = parts_of(a_row())
    assert parts["seconds_transfer"] == pytest.approx(12.0)
    assert parts["seconds_transfer_1m"] == pytest.approx(10.0 / 2 + 2.0)
    assert parts["seconds_sharing"] == pytest.approx(12.0)
    assert parts["seconds_computing"] == pytest.approx(0.5 * parts["seconds_compute"])
    assert parts["seconds_answers"] == pytest.approx(0.02)


def test_data_on_the_node_itself_moves_nowhere() -> None:
    local = parts_of(a_row(data_local=1.0, input_s=0.0, shuffle_s=np.nan))
    assert local["seconds_transfer"] == local["seconds_transfer_1m"] == 0.0


def test_a_path_that_was_not_measured_counts_as_the_median_one() -> None:
    parts = parts_of(a_row(input_s=np.nan, shuffle_s=np.nan, throughput_data_mean_1m=np.nan))
    assert parts["seconds_transfer"] == parts["seconds_transfer_1m"] == 8.0


def test_a_node_that_says_nothing_is_unknown_and_not_idle() -> None:
    parts = parts_of(a_row(cpu_use_mean_1m=np.nan, residents=np.nan, rtt_data_mean=np.nan))
    assert np.isnan([parts["seconds_computing"], parts["seconds_crowding"], parts["seconds_answers"]]).all()


@pytest.mark.parametrize(
    "feature", [feature for feature in FEATURES if feature.monotone], ids=lambda f: f.name
)
def test_no_part_goes_against_the_sign_of_a_feature(feature) -> None:  # type: ignore[no-untyped-def]
    known = a_row()[0, POSITION[feature.name]]
    low = known if np.isfinite(known) else 0.5
    less, more = (seconds_of(a_row(**{feature.name: value})) for value in (low, 1.5 * low))
    change = np.nan_to_num((more - less) * feature.monotone)
    assert (change >= -1e-9).all()


def a_sample(rows: int = 400, noise: float = 0.05, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    seconds = np.column_stack([np.ones(rows), rng.gamma(2.0, 5.0, rows), rng.gamma(2.0, 3.0, rows)])
    return seconds, np.log(seconds @ [2.0, 1.5, 0.0]) + rng.normal(0, noise, rows)


def test_weights_are_found_again_and_none_is_negative() -> None:
    mixture = fit_mixture(*a_sample(), np.ones(400))
    assert mixture.weights == pytest.approx([2.0, 1.5, 0.0], abs=0.15)
    assert (mixture.weights >= 0).all()


def test_a_few_absurd_run_times_do_not_move_it() -> None:
    seconds, target = a_sample()
    target[:10] += 3.0
    target[10:20] -= 2.0
    assert fit_mixture(seconds, target, np.ones(400)).weights == pytest.approx([2.0, 1.5, 0.0], abs=0.3)


def test_an_unknown_part_counts_as_typical() -> None:
    seconds, target = a_sample()
    mixture = fit_mixture(seconds, target, np.ones(400))
    row = np.array([[1.0, np.nan, 2.0]])
    assert mixture.log_s(row) == pytest.approx(
        mixture.log_s(np.array([[1.0, np.median(seconds[:, 1]), 2.0]]))
    )


def test_what_each_part_adds_sums_to_the_prediction() -> None:
    mixture = Mixture(np.array([1.0, 0.5]), np.array([4.0, 2.0]))
    seconds = np.array([[4.0, 2.0], [8.0, 2.0], [1.0, 60.0], [np.nan, 3.0]])
    told = mixture.contributions(seconds).sum(axis=1) + mixture.typical_log_s
    assert told == pytest.approx(mixture.log_s(seconds))
    assert mixture.contributions(seconds)[1].tolist() == [pytest.approx(np.log(9 / 5)), 0.0]


def test_a_part_that_was_never_known_is_left_out() -> None:
    seconds, target = a_sample()
    seconds = np.column_stack([seconds, np.full(400, np.nan)])
    assert fit_mixture(seconds, target, np.ones(400)).weights[-1] == 0.0


def test_the_estimator_takes_the_mixture_where_it_is_better_and_tells_what_it_added() -> None:
    seconds, target = a_sample(600)
    X = np.column_stack([np.random.default_rng(1).random(600), seconds])
    fitted = CompletionTimeEstimator(trees=20, seconds_columns=(1, 2, 3)).fit(X, np.exp(target))
    assert fitted.recipe_.mixture
    assert fitted.contributions(X).sum(axis=1) == pytest.approx(np.log(fitted.predict(X)))
    beyond = np.array([[0.5, 1.0, 500.0, 5.0]])
    assert fitted.predict(beyond)[0] == pytest.approx(2.0 + 1.5 * 500.0, rel=0.2)
