"""What every experience store has to do; run on SQLite (unit) and on PostgreSQL (integration).

A module that imports these tests provides the fixture `store`: an opened, empty store.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from placing_builders import a_batch, a_decision, a_table, an_outcome

from model.schema import NAMES
from scheduler.core.outcomes import EndState
from scheduler.edge.store import ExperienceStore

NOW_S = 2000.0
FOREVER = {"keep_rows": 10**6, "keep_days": 10**4}


def test_a_completion_with_its_decision_is_an_example(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision()))
    store.write_outcomes([an_outcome(gang="g")], NOW_S)
    [example] = store.examples().to_dict("records")
    assert (example["run_s"], example["startup_s"], example["ended_at"]) == (10.0, 2.0, 1015.0)
    assert (example["job_class"], example["group"], example["user"]) == ("etl", "team/g", "ann")
    assert (example["node"], example["pod_uid"], example["propensity"]) == ("a", "u1", 1.0)
    assert (example["model_version"], example["predicted_s"]) == ("m1", pytest.approx(10.0))
    row = np.array([example[name] for name in NAMES])
    assert np.allclose(row, a_table().features[0], equal_nan=True, rtol=1e-6)


def test_it_does_not_matter_whether_decision_or_outcome_comes_first(store: ExperienceStore) -> None:
    store.write_outcomes([an_outcome()], NOW_S)
    _, [judged] = store.write_batch(a_batch(a_decision()))
    assert (judged.run_s, judged.p50_s) == (10.0, pytest.approx(10.0))
    assert len(store.examples()) == 1


def test_a_table_may_come_after_its_decision(store: ExperienceStore) -> None:
    reply, _ = store.write_batch(a_batch(a_decision(), tables=[]))
    assert reply.missing_tables == ["t1"]
    store.write_outcomes([an_outcome()], NOW_S)
    assert len(store.examples()) == 0
    reply, judged = store.write_batch(a_batch())
    assert (reply.missing_tables, len(judged), len(store.examples())) == ([], 1, 1)


def test_everything_may_be_sent_twice(store: ExperienceStore) -> None:
    for _ in range(2):
        store.write_batch(a_batch(a_decision()))
        store.write_outcomes([an_outcome()], NOW_S)
    rows = {"decisions": 1, "outcomes": 1, "score_tables": 1}
    assert store.counts() == {**rows, "examples": 1, "undecided": 0}


def test_a_pod_bound_without_a_decision_is_counted(store: ExperienceStore) -> None:
    store.write_outcomes([an_outcome()], NOW_S)
    assert store.counts()["undecided"] == 1
    store.write_batch(a_batch(a_decision()))
    assert store.counts()["undecided"] == 0


def test_a_prediction_is_judged_once(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision()))
    assert store.write_outcomes([an_outcome(run_s=None)], NOW_S) == []
    assert len(store.write_outcomes([an_outcome()], NOW_S)) == 1
    assert store.write_outcomes([an_outcome()], NOW_S) == []


@pytest.mark.parametrize("state", [state for state in EndState if state is not EndState.SUCCEEDED])
def test_only_completions_are_examples_and_histories(store: ExperienceStore, state: EndState) -> None:
    store.write_batch(a_batch(a_decision()))
    assert store.write_outcomes([an_outcome(end_state=state)], NOW_S) == []
    assert len(store.examples()) == 0
    assert store.histories(["etl"], [])[0]["etl"].count == 0


def test_the_last_decision_about_a_pod_is_the_one_that_counts(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision(at_s=1001.0), a_decision(at_s=1002.0)))
    store.write_outcomes([an_outcome()], NOW_S)
    [example] = store.examples().to_dict("records")
    assert example["decision_id"] == "d-u1-1002.0"


def test_a_run_of_a_node_whose_clock_is_a_year_ahead_ended_when_it_was_written_down(
    store: ExperienceStore,
) -> None:
    """Training weighs runs by how long before the newest they ended: one in the future would count alone."""
    year_s = 365 * 86400.0
    store.write_batch(a_batch(a_decision(), a_decision("u2")))
    ahead = an_outcome(started_at_s=1005.0 + year_s, ended_at_s=1015.0 + year_s)
    store.write_outcomes([ahead, an_outcome("u2")], NOW_S)
    found = store.examples()
    assert found[["pod_uid", "ended_at", "run_s"]].to_numpy().tolist() == [
        ["u2", 1015.0, 10.0],
        ["u1", NOW_S, 10.0],
    ]


def test_a_run_of_such_a_node_is_not_the_last_one_of_its_class_for_a_year(store: ExperienceStore) -> None:
    year_s = 365 * 86400.0
    ahead = an_outcome(started_at_s=1005.0 + year_s, ended_at_s=1025.0 + year_s)
    store.write_outcomes([ahead], NOW_S)
    later = an_outcome("u2", started_at_s=NOW_S + 50.0, ended_at_s=NOW_S + 60.0)
    store.write_outcomes([later], NOW_S + 61.0)
    assert store.histories(["etl"], [])[0]["etl"].last_log_s == pytest.approx(math.log(10.0))


def test_a_run_that_is_longer_than_its_pod_was_there_is_no_example(store: ExperienceStore) -> None:
    """A node without a clock of its own begins in 1970 and is set while jobs run."""
    store.write_batch(a_batch(a_decision(), a_decision("u2")))
    [judged] = store.write_outcomes([an_outcome(started_at_s=-1.7e9), an_outcome("u2")], NOW_S)
    assert judged.run_s == 10.0
    assert store.examples()["pod_uid"].tolist() == ["u2"]
    assert store.histories(["etl"], [])[0]["etl"].count == 1
    assert store.counts()["examples"] == 1


def test_a_pod_that_nobody_asked_about_is_an_outcome_without_decision(store: ExperienceStore) -> None:
    store.write_outcomes([an_outcome()], NOW_S)
    placement = store.placement("team", "u1")
    assert placement.decision is None
    assert placement.outcome == an_outcome()
    assert store.histories(["etl"], ["ann"])[1]["ann"].count == 1


def test_a_choice_that_the_table_does_not_know_is_no_example(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision()))
    store.write_outcomes([an_outcome(node="stranger")], NOW_S)
    assert len(store.examples()) == 0


def test_what_was_recorded_first_stays(store: ExperienceStore) -> None:
    store.write_outcomes([an_outcome(run_s=None, started_at_s=1005.25)], NOW_S)
    store.write_outcomes([an_outcome(node="b", started_at_s=1005.5)], NOW_S)
    found = store.placement("team", "u1").outcome
    assert found is not None
    assert (found.node, found.started_at_s, found.run_s) == ("a", 1005.25, 9.75)
    [row] = store.outcomes().to_dict("records")
    assert (row["run_s"], row["startup_s"]) == (9.75, 2.25)


def test_unfinished_pods_are_known_after_a_restart(store: ExperienceStore) -> None:
    store.write_outcomes([an_outcome(run_s=None), an_outcome("u2")], NOW_S)
    assert [outcome.pod_uid for outcome in store.unfinished()] == ["u1"]


def test_histories_sum_up_the_newest_runs(store: ExperienceStore) -> None:
    runs = [an_outcome(f"u{i}", run_s=math.e ** (1 + i)) for i in range(3)]
    store.write_outcomes(runs, NOW_S)
    history = store.histories(["etl", "new"], [])[0]
    assert history["etl"].count == 3
    assert history["etl"].mean_log_s == pytest.approx(2.0)
    assert history["etl"].last_log_s == pytest.approx(3.0)
    assert history["etl"].ewma_log_s == pytest.approx(1.0 + 0.3 + 0.3 * (2 - 0.3))
    assert history["new"].count == 0
    assert math.isnan(history["new"].mean_log_s)


def test_the_newest_pod_of_a_name_is_told(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision("u1", name="same"), a_decision("u2", at_s=1500.0, name="same")))
    store.write_outcomes(
        [an_outcome("u1", name="same"), an_outcome("u2", name="same", created_at_s=1400.0)], NOW_S
    )
    placement = store.placement("team", "same")
    assert placement.outcome is not None
    assert placement.decision is not None
    assert placement.outcome.pod_uid == placement.decision.pod_uid == "u2"
    assert store.placement("team", "other").outcome is None


def test_rows_beyond_the_limit_go_oldest_first(store: ExperienceStore) -> None:
    store.write_batch(a_batch(*(a_decision(f"u{i}", at_s=1000.0 + i) for i in range(5))))
    store.prune(NOW_S, keep_rows=2, keep_days=10**4)
    assert store.counts()["decisions"] == 2
    assert store.placement("team", "u4").decision is not None
    assert store.placement("team", "u0").decision is None


def test_rows_that_are_too_old_go(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision(at_s=1000.0)))
    store.write_outcomes([an_outcome()], 1000.0)
    assert store.prune(1000.0 + 86400.0 * 8, keep_rows=100, keep_days=7) == 3  # and the table nobody names
    assert set(store.counts().values()) == {0}


def test_score_tables_are_dropped_before_what_training_needs(store: ExperienceStore) -> None:
    store.write_batch(a_batch(a_decision()))
    store.write_outcomes([an_outcome()], NOW_S)
    store.prune(NOW_S, **FOREVER, keep_table_bytes=0)
    assert store.counts()["score_tables"] == 0
    assert len(store.examples()) == 1


def test_an_empty_store_has_an_empty_table_of_examples(store: ExperienceStore) -> None:
    table = store.examples()
    assert len(table) == 0
    assert {*NAMES, "run_s", "ended_at", "job_class", "group"} <= set(table.columns)


def test_a_burst_is_settled_in_pieces(store: ExperienceStore) -> None:
    uids = [f"u{i}" for i in range(1000)]
    store.write_batch(a_batch(*(a_decision(uid) for uid in uids)))
    assert len(store.write_outcomes([an_outcome(uid) for uid in uids], NOW_S)) == 1000
