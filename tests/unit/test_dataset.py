"""Example tables: what is refused and how it is said, what is left out, what becomes a feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.dataset import SchemaMismatchError, examples_from
from model.features import NAMES
from model.fitting.matrix import Known, design_for, estimator_for, matrix_of
from model.history import history_before, mean_outside
from model.reading import ExamplesError, read_table
from model.splits import Split, folds_of


def table(rows: int = 12, **columns: object) -> pd.DataFrame:
    """A valid table of `rows` runs, 100 s apart, with further columns."""
    base = {
        "run_s": np.arange(1.0, rows + 1),
        "ended_at": 1000.0 + 100 * np.arange(rows),
        "job_class": ["a", "b"] * (rows // 2),
        "load": np.arange(rows) / rows,
    }
    return pd.DataFrame(base | columns)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ExamplesError, match="lacks the column ended_at"):
        examples_from(table().drop(columns="ended_at"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("run_s", "soon", r"run_s is not a number in 1 of 12 rows \(first: row 3\)"),
        ("run_s", 0.0, "run_s is not positive in 1 of 12 rows"),
        ("run_s", -5, "run_s is not positive"),
        ("run_s", np.inf, "run_s is longer than"),
        ("ended_at", None, r"ended_at is not a time in unix seconds \(nor one of ISO 8601\) in 1 of 12"),
        ("job_class", " ", "job_class is empty"),
    ],
)
def test_a_wrong_value_is_counted_and_located(column: str, value: object, message: str) -> None:
    wrong = table()
    wrong[column] = wrong[column].astype(object)
    wrong.loc[3, column] = value
    with pytest.raises(ExamplesError, match=message):
        examples_from(wrong)


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = table(run_s=[-1.0] * 12, job_class=[""] * 12)
    with pytest.raises(ExamplesError, match=r"run_s is not positive.*job_class is empty"):
        examples_from(wrong)


def test_cut_short_runs_are_left_out_and_counted() -> None:
    states = ["succeeded"] * 9 + ["Failed", "evicted", "evicted"]
    examples = examples_from(table(end_state=states, run_s=[1.0] * 11 + [np.nan]))
    assert len(examples.frame) == 9
    assert examples.excluded == {"evicted": 2, "failed": 1}


def test_a_censored_flag_leaves_out_too() -> None:
    examples = examples_from(table(censored=[True, "yes", 0] * 4))
    assert examples.excluded == {"censored": 8}


def test_rows_are_sorted_by_their_end() -> None:
    examples = examples_from(table().iloc[::-1])
    assert examples.frame["ended_at"].is_monotonic_increasing
    assert examples.frame["run_s"].tolist() == list(range(1, 13))


def test_known_columns_are_no_features() -> None:
    examples = examples_from(
        table(user="u", node=[f"n{i}" for i in range(12)], propensity=0.5, group=list("ab") * 6)
    )
    assert examples.features == ("load",)


def test_names_become_categories_and_useless_columns_are_noted() -> None:
    examples = examples_from(
        table(size=["s", "m", "l"] * 4, id=[f"run{i}" for i in range(12)], same=1.0, flag=[True, False] * 6)
    )
    assert examples.features == ("load", "size", "flag")
    assert examples.categorical == ("size",)
    assert len(examples.notes) == 2


def test_infinite_features_are_unknown() -> None:
    examples = examples_from(table(load=[np.inf, 1.0, 2.0] * 4))
    assert int(examples.frame["load"].isna().sum()) == 4


@pytest.mark.parametrize("digits", ["9" * 400, 10**400])
def test_whole_numbers_beyond_all_floats_are_infinite_and_end_nothing(digits: object) -> None:
    """A key of RSA or a product of primes; pandas gives up on the whole column."""
    examples = examples_from(table(load=[digits, 1, 2] * 4))
    assert examples.frame["load"].isna().sum() == 4
    assert any("4 of 12 numbers are infinite" in note for note in examples.notes)


def test_the_feature_table_is_recognised() -> None:
    features = pd.DataFrame(np.zeros((12, len(NAMES))), columns=list(NAMES))
    examples = examples_from(pd.concat([table().drop(columns="load"), features], axis=1))
    assert examples.of_fairlane
    assert examples.features == NAMES


def test_part_of_the_feature_table_is_another_version_of_it() -> None:
    features = pd.DataFrame(np.zeros((12, len(NAMES))), columns=list(NAMES)).drop(columns=["rtt_all"])
    with pytest.raises(SchemaMismatchError, match="rtt_all"):
        examples_from(pd.concat([table(), features], axis=1))


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(SchemaMismatchError, match="feature schema 99"):
        examples_from(table(schema_version=99))


@pytest.mark.parametrize("name", ["runs.csv", "runs.csv.gz", "runs.parquet"])
def test_tables_are_read_from_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table().to_parquet(path) if name.endswith("parquet") else table().to_csv(path, index=False)
    assert len(examples_from(*read_table(path)).frame) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.xlsx", b"", r"must end in \.csv or \.parquet"),
        ("runs.parquet", b"PAR1 cut short", "not readable as parquet"),
        ("runs.csv", b'a,b\n"1,2\n', "not readable as csv"),
        ("none.csv", None, "no such file"),
    ],
)
def test_an_unreadable_file_is_told(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExamplesError, match=message):
        read_table(tmp_path / name)


def test_the_newest_quarter_is_judged() -> None:
    [(fit, held)] = folds_of(examples_from(table(40)), Split("time"))
    assert held.tolist() == list(range(29, 40))
    assert fit.tolist() == list(range(29))


def test_one_decision_is_never_on_both_sides() -> None:
    decisions = [f"d{i // 4}" for i in range(40)]
    examples = examples_from(table(40, decision_id=decisions))
    [(fit, held)] = folds_of(examples, Split("time"))
    names = examples.frame["decision_id"]
    assert not set(names[fit]) & set(names[held])


def test_runs_that_ended_together_cant_be_split_by_time() -> None:
    with pytest.raises(ExamplesError, match="all ended at the same time"):
        folds_of(examples_from(table(ended_at=5.0)), Split("time"))


@pytest.mark.parametrize("text", ["times", "group", "group:", "time:now"])
def test_an_unknown_split_is_told(text: str) -> None:
    with pytest.raises(ExamplesError, match="--split is"):
        Split.parse(text)


def test_a_split_by_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(ExamplesError, match="no column vm"):
        folds_of(examples_from(table()), Split("group", "vm"))


def test_a_run_too_short_for_unix_seconds_does_not_know_itself() -> None:
    run_s = np.array([1e-8, 2e-8, 3e-8])
    for ended, before in ((1.7e9 + np.arange(3.0), [0, 1, 2]), (np.full(3, 1.7e9), [0, 0, 0])):
        assert history_before(np.zeros(3, dtype=np.intp), ended, run_s)[:, 0].tolist() == before


def test_history_knows_only_runs_that_had_ended_before_the_start() -> None:
    ended, run_s = np.array([10.0, 20.0, 21.0, 40.0]), np.array([5.0, 15.0, 1.0, 10.0])
    history = history_before(np.zeros(4, dtype=np.intp), ended, run_s)
    assert history[:, 0].tolist() == [0, 0, 2, 3]  # the second began at 5, before the first had ended
    assert history[3, 1] == pytest.approx(np.log(run_s[:3]).mean())
    assert history[3, 3] == pytest.approx(np.log(1.0))
    assert np.isnan(history[0, 1])


def test_history_keeps_classes_apart() -> None:
    history = history_before(np.array([0, 1], dtype=np.intp), np.array([10.0, 99.0]), np.array([1.0, 1.0]))
    assert history[1, 0] == 0


def test_across_groups_a_class_is_known_from_the_other_groups_only() -> None:
    classes, groups = np.zeros(4, dtype=np.intp), np.array([0, 0, 1, 2], dtype=np.intp)
    known = np.array([True, True, True, False])
    count, mean = mean_outside(classes, groups, np.exp([1.0, 3.0, 5.0, 9.0]), known)
    assert count.tolist() == [1, 1, 2, 3]
    assert mean.tolist() == pytest.approx([5.0, 5.0, 2.0, 3.0])


def test_with_one_other_group_a_class_is_as_fast_for_the_runs_fitted_on_as_for_those_judged() -> None:
    gpu, classes = ["a"] * 150 + ["b"] * 150, ["slow", "fast"] * 150
    rng = np.random.default_rng(0)
    examples = examples_from(
        table(300, gpu=gpu, job_class=classes, run_s=rng.lognormal(0, 0.1, 300) * ([100.0, 1.0] * 150))
    )
    split, fitted = Split("group", "gpu"), np.arange(150)
    design = design_for(examples, fitted, split)
    levels = matrix_of(design, examples, Known(fitted, split))[:, design.columns.index("prior_level")]
    assert (
        np.abs(levels[:150].reshape(-1, 2).mean(axis=0) - levels[150:].reshape(-1, 2).mean(axis=0)).max()
        < 0.1
    )


def test_a_name_keeps_its_code_and_a_new_name_is_unknown() -> None:
    examples = examples_from(table(size=["s", "m"] * 5 + ["new", "new"]))
    design = design_for(examples, np.arange(10), Split("time"))
    column = design.columns.index("size")
    matrix = matrix_of(design, examples, Known(np.arange(10), Split("time")))
    assert matrix[:4, column].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert np.isnan(matrix[10:, column]).all()


def test_names_that_tell_the_group_are_left_out_when_groups_are_unseen() -> None:
    examples = examples_from(table(24, vm=[f"v{i // 4}" for i in range(24)], size=["s", "m"] * 12))
    design = design_for(examples, np.arange(24), Split("group", "vm"))
    assert design.features == ("load", "size")


def test_the_answer_is_not_among_the_inputs() -> None:
    rng = np.random.default_rng(0)
    examples = examples_from(table(200, run_s=rng.lognormal(3, 1, 200), load=rng.random(200)))
    for split in (Split("time"), Split("group", "job_class"), Split("random")):
        rows = np.arange(200)
        design = design_for(examples, rows, split)
        matrix = matrix_of(design, examples, Known(rows, split))
        estimator = estimator_for(design, trees=30).fit(matrix, examples.frame["run_s"])
        columns = estimator.fitted_model.columns
        inputs = [design.columns[i] for i in [*columns.inputs, *columns.terms]]
        assert not {"run_s", "example_ended_at", "example_class", "example_group"} & set(inputs)
