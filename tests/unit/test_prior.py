"""The analytic prior: defined everywhere, and physically signed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features import FEATURES, NAMES
from model.prior import log_prior
from model.schema import POSITION
from model.snapshot import Floats

maybe_unknown = st.one_of(st.just(math.nan), st.floats(0.0, 20.0))
rows = st.lists(maybe_unknown, min_size=len(FEATURES), max_size=len(FEATURES)).map(np.array)


def row(**known: float) -> Floats:
    """One feature row in which all but `known` is unknown."""
    matrix = np.full((1, len(NAMES)), np.nan)
    for name, value in known.items():
        matrix[0, POSITION[name]] = value
    return matrix


def seconds(**known: float) -> float:
    return float(np.exp(log_prior(row(**known)))[0])


def test_nothing_known_is_a_minute_on_a_typical_node() -> None:
    assert seconds() == pytest.approx(60.0)


def test_the_hinted_duration_counts_before_any_run() -> None:
    assert seconds(job_expected_log_s=math.log(600)) == pytest.approx(600.0)


def test_the_history_of_the_class_outweighs_the_hint_after_a_few_runs() -> None:
    history = {"class_mean_log_s": math.log(100), "class_ewma_log_s": math.log(100)}
    after = [seconds(job_expected_log_s=math.log(600), class_runs=n, **history) for n in (1, 3, 30)]
    assert after[0] > after[1] > after[2] > 100
    assert after[2] == pytest.approx(100, rel=0.1)


def test_without_class_history_the_user_is_the_guess() -> None:
    assert seconds(user_mean_log_s=math.log(30)) == pytest.approx(30.0)


def test_a_slow_path_costs_in_proportion_to_the_hinted_volume() -> None:
    known = {"class_runs": 50.0, "class_mean_log_s": math.log(100), "class_ewma_log_s": math.log(100)}
    light = seconds(transfer_median_s=5.0, transfer_ratio=4.0, **known)
    heavy = seconds(transfer_median_s=60.0, transfer_ratio=4.0, **known)
    assert light < heavy


def test_a_transfer_is_slowed_down_by_those_that_last_beside_it() -> None:
    job = {
        "class_mean_log_s": math.log(10.0),
        "class_runs": 1e9,
        "transfer_ratio": 1.0,
        "transfer_median_s": 5.0,
    }

    def beside(left_s: float) -> float:
        return seconds(**job, residents_network_heavy=2.0, residents_transfer_s=left_s)

    assert [beside(left_s) for left_s in (0.0, 3.0, 1e3)] == pytest.approx([10.0, 13.0, 20.0])
    assert beside(math.nan) == pytest.approx(15.0), "half the time, where nobody knows"


def test_a_path_of_unknown_speed_is_a_typical_one() -> None:
    assert seconds(transfer_ratio=0.5) < seconds() < seconds(transfer_ratio=2.0)


def test_a_node_of_unknown_load_is_neither_best_nor_worst() -> None:
    assert seconds(cpu_use=0.0) < seconds() < seconds(cpu_use=0.9)


def test_a_node_too_full_for_the_request_is_slower_still() -> None:
    fits = seconds(cpu_use=0.5, job_cpu=2.0, cpu_cores=8.0)
    crowded = seconds(cpu_use=0.9, job_cpu=2.0, cpu_cores=8.0)
    assert crowded / fits > 1.15


@settings(max_examples=100, deadline=None)
@given(rows)
def test_it_is_never_unknown(values: Floats) -> None:
    assert np.isfinite(log_prior(values[None, :])).all()


@settings(max_examples=100, deadline=None)
@given(rows, st.sampled_from([f for f in FEATURES if f.monotone]), st.floats(0.01, 20.0))
def test_it_moves_the_way_physics_says(values: Floats, feature: object, step: float) -> None:
    position = POSITION[feature.name]  # type: ignore[attr-defined]
    if math.isnan(values[position]):
        return
    raised = values.copy()
    raised[position] += step
    before, after = log_prior(np.stack([values, raised]))
    assert (after - before) * feature.monotone >= -1e-9  # type: ignore[attr-defined]


def test_rows_do_not_influence_each_other() -> None:
    together = log_prior(np.concatenate([row(cpu_use=0.1), row(cpu_use=0.9)]))
    assert together[0] == log_prior(row(cpu_use=0.1))[0]


def test_a_matrix_of_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        log_prior(np.zeros((3, 2)))
