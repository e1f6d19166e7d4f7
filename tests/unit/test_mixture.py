"""What a run is made of, and how much of each part a job's time holds."""

import json

import numpy as np
import pytest

from model.estimator import CompletionTimeEstimator
from model.fitting.mixture import fit_mixture
from model.mechanism import AWAY_AT_MOST, COMPUTING, SECONDS, seconds_of
from model.mixture import Mixture, Parts
from model.prior import MOVING
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
    "residents_transfer_s": 0.0,
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
    assert parts["seconds_transfer_1m"] == pytest.approx(12.0 / AWAY_AT_MOST)
    assert parts["seconds_transfer_now"] == pytest.approx(12.0)
    assert parts["seconds_waiting"] == pytest.approx(2.0)
    assert parts["seconds_computing"] == pytest.approx(2.0 * parts["seconds_compute"])
    assert parts["seconds_crowding"] == pytest.approx(0.5)
    assert parts["seconds_crowded"] == pytest.approx(0.5 * parts["seconds_compute"])
    assert parts["seconds_answers"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("link_s", "seconds"),
    [(np.nan, [0.0, 5.0, 24.0, 2.0 * MOVING * 12.0]), (9.0, [0.0, 2.0, 15.0, 6.0])],
    ids=["the link is what is slow", "the path is slower"],
)
def test_residents_share_the_link_as_long_as_they_still_transfer(link_s: float, seconds: list[float]) -> None:
    shared = [
        parts_of(a_row(residents_network_heavy=2.0, residents_transfer_s=left, link_s=link_s))
        for left in (0.0, 5.0, 60.0, np.nan)
    ]
    assert [parts["seconds_sharing"] for parts in shared] == pytest.approx(seconds)


def test_data_on_the_node_itself_moves_nowhere() -> None:
    local = parts_of(a_row(data_local=1.0, input_s=0.0, shuffle_s=np.nan))
    assert local["seconds_transfer"] == local["seconds_transfer_1m"] == 0.0


def test_the_last_minute_counts_as_far_as_the_newest_measurements_bear_it_out() -> None:
    seconds = [parts_of(a_row(throughput_data_mean_1m=of)) for of in (1e6, 0.9e8, 1.1e8, 1e10)]
    changed, slower, faster, changed_back = (each["seconds_transfer_1m"] for each in seconds)
    assert slower == pytest.approx(10.0 / 0.9 + 2.0)
    assert faster == pytest.approx(10.0 / 1.1 + 2.0)
    assert changed == pytest.approx(12.0 * AWAY_AT_MOST)
    assert changed_back == pytest.approx(12.0 / AWAY_AT_MOST)


def test_a_measurement_that_met_others_says_little_of_a_lone_transfer() -> None:
    met = parts_of(a_row(input_s=10.0, throughput_data_mean=1e7))
    assert met["seconds_transfer_now"] == pytest.approx(12.0 * AWAY_AT_MOST)


def test_a_path_that_was_not_measured_counts_as_the_median_one() -> None:
    parts = parts_of(a_row(input_s=np.nan, shuffle_s=np.nan, throughput_data_mean_1m=np.nan))
    assert parts["seconds_transfer"] == parts["seconds_transfer_1m"] == 8.0


def test_a_node_that_says_nothing_is_unknown_and_not_idle() -> None:
    silent = {"cpu_use": np.nan, "cpu_use_mean_1m": np.nan, "residents_network_heavy": np.nan}
    silent["residents_transfer_s"] = np.nan
    parts = parts_of(a_row(**silent, rtt_data_mean=np.nan))
    assert np.isnan([parts[f"seconds_{name}"] for name in ("sharing", "answers", "chatter")]).all()
    idle = parts_of(a_row(cpu_use=0.05, cpu_use_mean_1m=0.05))
    for name in ("waiting", "computing", "computing_1m", "crowding", "crowded"):
        assert parts[f"seconds_{name}"] > 1.3 * idle[f"seconds_{name}"]


def test_a_processor_that_was_not_read_just_now_counts_as_in_the_last_minute() -> None:
    parts = parts_of(a_row(cpu_use=np.nan, cpu_use_mean_1m=0.5))
    assert parts["seconds_computing"] == parts["seconds_computing_1m"]


def test_a_full_processor_still_serves() -> None:
    assert parts_of(a_row(cpu_use=1.0))["seconds_waiting"] == pytest.approx(20.0)


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


def no_class(rows: int = 1) -> Floats:
    return np.full(rows, np.nan)


def parts_in(seconds: Floats, classes: Floats | None = None, nodes: Floats | None = None) -> Parts:
    unknown = no_class(len(seconds))
    return Parts(seconds, unknown if classes is None else classes, unknown if nodes is None else nodes)


def fit(seconds: Floats, target: Floats, classes: Floats | None = None) -> Mixture:
    return fit_mixture(parts_in(seconds, classes), target, np.ones(len(target)))


def test_weights_are_found_again_and_none_is_negative() -> None:
    mixture = fit(*a_sample())
    assert mixture.weights == pytest.approx([2.0, 1.5, 0.0], abs=0.15)
    assert (mixture.weights >= 0).all()


def test_a_few_absurd_run_times_do_not_move_it() -> None:
    seconds, target = a_sample()
    target[:10] += 3.0
    target[10:20] -= 2.0
    assert fit(seconds, target).weights == pytest.approx([2.0, 1.5, 0.0], abs=0.3)


def two_classes(of_second: int) -> tuple[Floats, Floats, Floats]:
    """Class 0 as in `a_sample`; class 1, of which there are few runs, holds the parts the other way round."""
    seconds, target = a_sample(400 + of_second)
    target[400:] = np.log(seconds[400:] @ [2.0, 0.0, 3.0])
    return seconds, target, np.repeat([0.0, 1.0], [400, of_second])


def test_classes_hold_the_parts_in_proportions_of_their_own() -> None:
    mixture = fit(*two_classes(of_second=200))
    assert mixture.own[0] == pytest.approx([2.0, 1.5, 0.0], abs=0.2)
    assert mixture.own[1] == pytest.approx([2.0, 0.0, 3.0], abs=0.4)
    long_second, long_third = np.array([[1.0, 40.0, 1.0]]), np.array([[1.0, 1.0, 40.0]])
    for code, longer, shorter in ((0.0, long_second, long_third), (1.0, long_third, long_second)):
        assert (
            mixture.log_s(parts_in(longer, np.array([code])))
            > mixture.log_s(parts_in(shorter, np.array([code]))) + 1.0
        )


def test_the_fewer_runs_a_class_has_the_nearer_it_stays_to_all() -> None:
    def distance(runs: int) -> float:
        mixture = fit(*two_classes(of_second=runs))
        return float(np.abs(mixture.own[1] - mixture.weights).max())

    assert distance(8) < distance(30) < distance(200)


def test_a_class_of_very_few_runs_and_an_unknown_one_take_the_weights_of_all() -> None:
    mixture = fit(*two_classes(of_second=7))
    assert set(mixture.own) == {0}
    row = np.array([[1.0, 10.0, 10.0]])
    of_all = Mixture(mixture.weights, mixture.typical).log_s(parts_in(row))
    assert mixture.log_s(parts_in(row, np.array([1.0]))) == mixture.log_s(parts_in(row)) == of_all


def on_four_nodes(rows: int = 400, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Part 0 takes half again as long on node 1 and two thirds on node 2; part 1 is the same on all."""
    rng = np.random.default_rng(seed)
    seconds = np.column_stack([rng.gamma(4.0, 2.0, rows), rng.gamma(4.0, 2.0, rows)])
    nodes = rng.integers(0, 4, rows).astype(float)
    slowness = np.array([1.0, 1.5, 2 / 3, 1.0])[nodes.astype(int)]
    taken = slowness * seconds[:, 0] + seconds[:, 1]
    return seconds, nodes, np.log(taken) + rng.normal(0, 0.1, rows)


def test_a_slow_machine_is_known_by_its_runs() -> None:
    seconds, nodes, target = on_four_nodes()
    mixture = fit_mixture(parts_in(seconds, nodes=nodes), target, np.ones(len(target)), computed=(0,))
    slowness = np.array([mixture.slowness[code] for code in range(4)])
    assert slowness / slowness[0] == pytest.approx([1.0, 1.5, 2 / 3, 1.0], rel=0.08)
    computes, moves = np.array([[9.0, 1.0]]), np.array([[1.0, 9.0]])
    for seconds_of_run, least in ((computes, 0.3), (moves, 0.0)):
        slow, fast = (mixture.log_s(parts_in(seconds_of_run, nodes=np.array([code]))) for code in (1.0, 2.0))
        assert slow > fast + least
    assert mixture.log_s(parts_in(computes)) == mixture.log_s(parts_in(computes, nodes=np.array([99.0])))


def test_a_slow_machine_takes_longer_to_start_a_program() -> None:
    """Runs that last as long whatever is asked of them are still those of a processor."""
    rng = np.random.default_rng(5)
    uses = rng.uniform(0.0, 0.6, 400)
    seconds = np.concatenate([seconds_of(a_row(cpu_use=use, cpu_use_mean_1m=use)) for use in uses])
    nodes = rng.integers(0, 2, 400).astype(float)
    target = np.log(3.0 * np.array([1.0, 1.3])[nodes.astype(int)]) + rng.normal(0, 0.05, 400)
    computed = [NAMES.index(name) for name in COMPUTING]
    mixture = fit_mixture(parts_in(seconds, nodes=nodes), target, np.ones(400), computed=computed)
    fast, slow = (mixture.log_s(parts_in(seconds[:1], nodes=np.array([code]))) for code in (0.0, 1.0))
    assert slow - fast == pytest.approx(np.log(1.3), abs=0.03)


def test_a_node_with_few_runs_counts_nearly_like_all() -> None:
    seconds, nodes, target = on_four_nodes()
    few = np.flatnonzero((nodes != 1) | (np.cumsum(nodes == 1) <= 2))
    mixture = fit_mixture(
        parts_in(seconds[few], nodes=nodes[few]), target[few], np.ones(len(few)), computed=(0,)
    )
    assert 1.0 < mixture.slowness[1] < 1.3


def test_without_parts_of_the_processor_no_node_is_slow() -> None:
    seconds, nodes, target = on_four_nodes()
    assert not fit_mixture(parts_in(seconds, nodes=nodes), target, np.ones(len(target))).slowness


def test_it_survives_being_written() -> None:
    mixture = fit(*two_classes(of_second=50))
    again = Mixture.from_json(json.loads(json.dumps(mixture.to_json())))
    row = np.array([[1.0, 10.0, np.nan]])
    for code in (0.0, 1.0, np.nan):
        assert again.log_s(parts_in(row, np.array([code]))) == mixture.log_s(parts_in(row, np.array([code])))


def test_an_unknown_part_counts_as_typical() -> None:
    seconds, target = a_sample()
    mixture = fit(seconds, target)
    row = np.array([[1.0, np.nan, 2.0]])
    typical = np.array([[1.0, np.median(seconds[:, 1]), 2.0]])
    assert mixture.log_s(parts_in(row)) == pytest.approx(mixture.log_s(parts_in(typical)))


def test_what_each_part_adds_sums_to_the_prediction() -> None:
    mixture = Mixture(np.array([1.0, 0.5]), np.array([4.0, 2.0]), {3: np.array([0.0, 2.0])})
    seconds = np.array([[4.0, 2.0], [8.0, 2.0], [1.0, 60.0], [np.nan, 3.0], [8.0, 4.0]])
    classes = np.array([np.nan, 0.0, 0.0, 0.0, 3.0])
    parts, usual = mixture.contributions(parts_in(seconds, classes))
    assert parts.sum(axis=1) + usual == pytest.approx(mixture.log_s(parts_in(seconds, classes)))
    assert parts[1].tolist() == [pytest.approx(np.log(9 / 5)), 0.0]
    assert parts[4].tolist() == [0.0, pytest.approx(np.log(2.0))]


def test_a_part_that_was_never_known_is_left_out() -> None:
    seconds, target = a_sample()
    seconds = np.column_stack([seconds, np.full(400, np.nan)])
    assert fit(seconds, target).weights[-1] == 0.0


def test_the_estimator_takes_the_mixture_where_it_is_better_and_tells_what_it_added() -> None:
    seconds, target = a_sample(600)
    X = np.column_stack([np.random.default_rng(1).random(600), seconds])
    fitted = CompletionTimeEstimator(trees=20, seconds_columns=(1, 2, 3)).fit(X, np.exp(target))
    assert fitted.recipe_.mixture
    assert fitted.contributions(X).sum(axis=1) == pytest.approx(np.log(fitted.predict(X)))
    beyond = np.array([[0.5, 1.0, 500.0, 5.0]])
    assert fitted.predict(beyond)[0] == pytest.approx(2.0 + 1.5 * 500.0, rel=0.2)


def test_with_few_runs_it_stays_near_the_weights_that_were_expected() -> None:
    def weights(rows: int) -> Floats:
        seconds, target = a_sample(rows)
        return fit_mixture(parts_in(seconds), target, np.ones(rows), expected=(1.0, 0.5, 1.0)).weights

    few, many = (np.abs(weights(rows) - [1.0, 0.5, 1.0]).max() for rows in (3, 400))
    assert few < 0.5 * many
    assert weights(400) == pytest.approx([2.0, 1.5, 0.0], abs=0.3)


def test_no_tree_grows_on_the_noise_that_a_mixture_leaves() -> None:
    seconds, target = a_sample(500, noise=0.3)
    X = np.column_stack([np.random.default_rng(2).random((500, 6)), seconds])
    fitted = CompletionTimeEstimator(seconds_columns=(6, 7, 8)).fit(X, np.exp(target))
    assert fitted.recipe_.mixture
    assert fitted.trees_ == 0


def test_chance_does_not_lead_away_from_the_mixture_with_few_noisy_runs() -> None:
    """Inputs that tell the seconds too, and held-out rows so few that trees alone win on some of them."""
    for seed in (0, 7, 11):
        seconds, target = a_sample(90, noise=0.6, seed=seed)
        random = np.random.default_rng(100 + seed)
        tells = np.log(seconds[:, 1]) + random.normal(0, 0.1, 90)
        X = np.column_stack([tells, random.random((90, 5)), np.full(90, 2.0), seconds])
        fitted = CompletionTimeEstimator(trees=20, prior_columns=(6,), seconds_columns=(7, 8, 9))
        assert fitted.fit(X, np.exp(target)).recipe_.mixture, seed
