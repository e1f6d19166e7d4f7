"""Score tables: made from predictions, corrected for bindings, estimated before they are there."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from placing_builders import JOB, NODES, a_basis, a_snapshot, a_table, a_view

from model.features import build
from model.placement import Job, NodeFacts
from model.prior import log_prior
from model.schema import POSITION
from scheduler.core.estimate import NOBODY, adapted, compared, estimated_table, exact_rows, warm
from scheduler.core.scoring import (
    CORRECTED_AT_ONCE,
    bring_up_to_date,
    settle_unmeasured,
    table_from_model,
    table_from_prior,
    tie_break_of,
)
from scheduler.core.types import Corrections, Fallback, Prediction, key_of, positions_of


def test_a_table_keeps_the_models_times_and_width() -> None:
    table = a_table((10.0, 20.0, 30.0, 40.0))
    assert np.exp(table.p50).tolist() == pytest.approx([10.0, 20.0, 30.0, 40.0])
    assert table.sigma == pytest.approx(np.full(4, np.log(1.1 / 0.9) / 2.5631), rel=1e-3)
    assert table.from_model


@pytest.mark.parametrize(
    "bad", [[10.0, 20.0, 30.0], [10.0, 20.0, 30.0, float("nan")], [10.0, 20.0, 30.0, 0.0]]
)
def test_an_answer_that_makes_no_sense_is_refused(bad: list[float]) -> None:
    times = np.array(bad)
    with pytest.raises(ValueError, match="the predictor answered"):
        table_from_model(a_basis(), Prediction(times, times, times, "m"), "t", 0.0)


def test_a_prior_table_says_why_and_is_unsure() -> None:
    table = table_from_prior(a_basis(), Fallback.PREDICTOR_DOWN, "t", 0.0)
    assert not table.from_model
    assert table.reason is Fallback.PREDICTOR_DOWN
    assert (table.sigma > 0.5).all()


def test_an_unmeasured_node_is_neither_best_nor_worst() -> None:
    log_s = np.log([5.0, 10.0, 20.0, 40.0])
    measured = np.array([False, True, True, True])
    settled = settle_unmeasured(log_s, measured)
    assert np.exp(settled).tolist() == pytest.approx([20.0, 10.0, 20.0, 40.0])
    assert settle_unmeasured(log_s, ~np.ones(4, dtype=bool)) is log_s


def test_a_node_without_readings_is_not_ranked_first() -> None:
    snapshot = a_snapshot(("a", "b", "c"))  # telemetry does not know d
    table = table_from_prior(a_basis(Job("x"), snapshot), Fallback.NO_PREDICTOR, "t", 0.0)
    assert table.measured.tolist() == [True, True, True, False]
    assert table.ranked[3] >= np.median(table.ranked[:3])


def test_a_network_heavy_pod_bound_since_makes_its_node_slower() -> None:
    table = a_table((10.0, 10.5, 20.0, 40.0))
    corrections = Corrections.none(table)
    crowded = NodeFacts(zone="z", allocatable_cpu=8.0, requested_cpu=1.0, residents=1, network_heavy=1)
    bring_up_to_date(corrections, table, ["a"], a_view(a=crowded), version=7, now_s=0.0)
    assert corrections.shift[0] > 0.05
    assert corrections.shift[1:].tolist() == [0.0, 0.0, 0.0]
    assert corrections.view_version == 7


def test_a_full_cpu_bound_since_makes_its_node_slower() -> None:
    table = a_table(basis=a_basis(Job("cpu-bound", cpu=4.0)))
    corrections = Corrections.none(table)
    bring_up_to_date(
        corrections,
        table,
        ["b"],
        a_view(b=NodeFacts(zone="z", allocatable_cpu=8.0, requested_cpu=8.0)),
        1,
        0.0,
    )
    assert corrections.shift[1] > 0.2


def test_a_pod_that_left_gives_the_node_back_exactly() -> None:
    table = a_table()
    corrections = Corrections.none(table)
    busy = a_view(a=NodeFacts(zone="z", allocatable_cpu=8.0, requested_cpu=4.0, residents=1, network_heavy=1))
    bring_up_to_date(corrections, table, ["a"], busy, 1, 0.0)
    bring_up_to_date(corrections, table, ["a"], a_view(), 2, 0.0)
    assert corrections.shift.tolist() == [0.0] * 4


def test_one_call_corrects_a_bounded_number_of_nodes_newest_first() -> None:
    nodes = tuple(f"n{i}" for i in range(2 * CORRECTED_AT_ONCE))
    table = a_table()
    many = replace(table, nodes=nodes, index={node: i % 4 for i, node in enumerate(nodes)})
    corrections = Corrections.none(table)
    bring_up_to_date(corrections, many, nodes, {}, 1, 0.0)
    assert corrections.view_version == 1


def test_ties_are_broken_differently_for_different_pods() -> None:
    table = a_table()
    firsts = {int(np.argmin(tie_break_of(table, np.arange(4), f"pod-{i}"))) for i in range(50)}
    assert firsts == {0, 1, 2, 3}
    assert tie_break_of(table, np.array([2]), "x") == tie_break_of(table, np.arange(4), "x")[2:3]


def test_an_estimate_from_a_draft_knows_where_the_data_is_near() -> None:
    snapshot = a_snapshot(throughput={("d", "b"): 1e9, ("d", "a"): 1e6})
    draft = a_basis(NOBODY, snapshot)
    warm(draft)
    table = estimated_table(draft, JOB, "t", 0.0)
    exact = table_from_prior(a_basis(JOB, snapshot), Fallback.MISS, "t", 0.0)
    assert np.argsort(table.p50).tolist() == np.argsort(exact.p50).tolist()
    assert table.p50 == pytest.approx(exact.p50, abs=0.02)
    assert table.reason is Fallback.MISS


def test_an_estimate_moves_the_gang_towards_its_newest_member() -> None:
    snapshot = a_snapshot(throughput={("c", "b"): 1e9, ("b", "c"): 1e9, ("c", "a"): 1e6, ("a", "c"): 1e6})
    job = Job("shuffle", shuffle_bytes=2e9, gang_size=2)
    table = a_table((10.0, 10.0, 10.0, 10.0), a_basis(job, snapshot))
    placed = replace(job, peer_nodes=("c",))
    corrections = adapted(table, Corrections.none(table), placed)
    assert corrections.shift[1] < corrections.shift[3] < corrections.shift[0]


def test_a_larger_job_takes_longer_by_its_transfer_and_no_more() -> None:
    snapshot = a_snapshot(throughput={("d", "a"): 1e8, ("d", "b"): 1e9})
    job = Job("etl", input_bytes=5e8, data_nodes=("d",))
    table = a_table((10.0, 10.0, 10.0, 10.0), a_basis(job, snapshot))
    shift = adapted(table, Corrections.none(table), replace(job, input_bytes=1e9)).shift
    times = 10.0 * np.exp(shift)
    assert times[:2] == pytest.approx([15.0, 10.5])  # 5 s and 0.5 s more
    assert times[3] == pytest.approx(10.0)  # holds the data itself


def test_no_job_changes_more_than_its_transfer_does() -> None:
    snapshot = a_snapshot(throughput={("d", "a"): 1e8})
    job = Job("etl", input_bytes=5e8, data_nodes=("d",))
    table = a_table((1.0, 1.0, 1.0, 1.0), a_basis(job, snapshot))  # less than 5 s for the transfer alone
    twice, half = (
        np.exp(adapted(table, Corrections.none(table), replace(job, input_bytes=volume)).shift)
        for volume in (1e9, 2.5e8)
    )
    assert (twice[0], half[0]) == (pytest.approx(2.0), pytest.approx(0.5))


def test_without_hints_the_prior_compares() -> None:
    snapshot = a_snapshot(throughput={("c", "b"): 1e9, ("b", "c"): 1e9, ("c", "a"): 1e6, ("a", "c"): 1e6})
    table = a_table((10.0, 10.0, 10.0, 10.0), a_basis(Job("ring", gang_size=2), snapshot))
    placed = Job("ring", gang_size=2, peer_nodes=("c",))
    shift = adapted(table, Corrections.none(table), placed).shift
    assert shift[1] < shift[0]


def test_rows_for_the_record_are_those_that_training_would_build() -> None:
    snapshot, job = a_snapshot(), replace(JOB, peer_nodes=("c",))
    table = a_table(basis=a_basis(JOB, snapshot))
    corrections = adapted(table, Corrections.none(table), job)
    seen = compared(table, corrections, np.arange(len(NODES)))
    rows = exact_rows(seen, job, NODES, snapshot, a_view(), 0.0)
    exact = build(job, NODES, snapshot, a_view(), 0.0)
    assert np.allclose(rows, exact, equal_nan=True, rtol=1e-6)


def test_jobs_that_differ_only_in_gang_or_history_share_a_key() -> None:
    assert key_of(replace(JOB, gang="g")) == key_of(replace(JOB, gang="h"))
    assert key_of(replace(JOB, shuffle_bytes=float("nan"))) == key_of(JOB)
    assert key_of(replace(JOB, peer_nodes=("b", "a"))) == key_of(replace(JOB, peer_nodes=("a", "b")))
    assert key_of(replace(JOB, data_nodes=("a",))) != key_of(JOB)


def test_positions_of_unknown_nodes_are_negative() -> None:
    assert positions_of({"a": 0, "b": 1}, ["b", "x", "a"]).tolist() == [1, -1, 0]


@pytest.mark.parametrize("until_s", [14.0, float("nan")])
def test_a_correction_is_what_the_prior_says_of_the_row_that_telemetry_would_bring(until_s: float) -> None:
    snapshot = a_snapshot(cpu_use={"a": 0.7, "b": float("nan")}, throughput={("d", "a"): 1e7})
    basis = a_basis(JOB, snapshot)
    table, corrections = a_table(basis=basis), Corrections.none(a_table())
    crowd = structs.replace(
        a_view()["a"], requested_cpu=3.0, residents=3, network_heavy=2, receiving_until_s=until_s
    )
    bring_up_to_date(corrections, table, ["a", "b"], a_view(a=crowd, b=crowd), 1, 10.0)
    rows = basis.features[:2].copy()
    rows[:, POSITION["residents_network_heavy"]] = 2.0
    rows[:, POSITION["residents_transfer_s"]] = until_s - 10.0
    rows[:, POSITION["cpu_use"]] += 3.0 / 8.0
    level_stays = log_prior(rows) - log_prior(basis.features[:2])
    assert corrections.shift[:2] == pytest.approx(level_stays)
    assert corrections.shift[0] != corrections.shift[1]
