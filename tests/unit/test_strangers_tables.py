"""Tables of other people through `fairlane train --examples`: read as meant, or refused with a reason.

Expected values are computed from the same runs written plainly.
"""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from model.dataset import Examples, examples_from
from model.fitting.matrix import design_for
from model.reading import ExamplesError, read_table
from model.schema import SCHEMA_VERSION
from model.splits import Split, folds_of
from scheduler.cli.train import app

ROWS = 60
ENDED_S = 1.7e9 + 100.0 * np.arange(ROWS)


def runs(**columns: Any) -> pd.DataFrame:
    """Runs of three classes, 100 s apart, whose time is told by their size."""
    size = np.random.default_rng(0).lognormal(0, 1, ROWS).round(3)
    base = {"run_s": 10 * size, "ended_at": ENDED_S, "job_class": list("abc") * (ROWS // 3), "size": size}
    return pd.DataFrame(base | columns)


def train(path: Path, *options: object) -> Result:
    """The command, measuring only; a training of so few rows takes a tenth of a second."""
    arguments = ["--examples", path, "--evaluate-only", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def csv_of(folder: Path, table: pd.DataFrame, **options: Any) -> Path:
    path = folder / "runs.csv"
    table.to_csv(path, index=False, **options)
    return path


def parquet_of(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "runs.parquet"
    table.to_parquet(path)
    return path


def read(path: Path) -> Examples:
    return examples_from(*read_table(path))


def refused(path: Path, *options: object) -> str:
    """What the command says of input that it can't use; its documented exit code is 2."""
    ended = train(path, *options)
    assert ended.exit_code == 2, ended.output
    assert isinstance(ended.exception, SystemExit)
    return ended.output


def cells(name: str, change: dict[int, str], **columns: Any) -> dict[str, list[str]]:
    """A column as text with some cells written otherwise."""
    text = [str(value) for value in runs(**columns)[name]]
    return {name: [change.get(row, cell) for row, cell in enumerate(text)]}


# -- times and durations ------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "milli"), (1e6, "micro"), (1e9, "nano")])
def test_times_in_finer_units_are_refused_with_what_to_divide_by(
    tmp_path: Path, factor: float, unit: str
) -> None:
    said = refused(csv_of(tmp_path, runs(ended_at=(ENDED_S * factor).astype("int64"))))
    assert f"ended_at is in {unit}seconds, divide it by " in said
    assert "in 60 of 60 rows" in said


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_timestamps_of_parquet_become_unix_seconds(tmp_path: Path, zone: str | None, unit: str) -> None:
    moments = pd.to_datetime(pd.Series(ENDED_S), unit="s", utc=True)
    held = (moments.dt.tz_localize(None) if zone is None else moments.dt.tz_convert(zone)).dt.as_unit(unit)
    examples = read(parquet_of(tmp_path, runs(ended_at=held)))
    assert examples.frame["ended_at"].tolist() == ENDED_S.tolist()
    assert any("ended_at read as times" in note for note in examples.notes)


@pytest.mark.parametrize("shape", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.000+00:00"])
def test_times_written_out_become_unix_seconds(tmp_path: Path, shape: str) -> None:
    moments = pd.to_datetime(pd.Series(ENDED_S), unit="s").dt.strftime(shape)
    assert read(csv_of(tmp_path, runs(ended_at=moments))).frame["ended_at"].tolist() == ENDED_S.tolist()


def test_missing_timestamps_are_counted_and_refused(tmp_path: Path) -> None:
    moments = pd.to_datetime(pd.Series(ENDED_S), unit="s")
    moments[5:9] = pd.NaT
    said = refused(parquet_of(tmp_path, runs(ended_at=moments)))
    assert "ended_at is not a time" in said
    assert "in 4 of 60 rows (first: row 5)" in said


def test_run_times_held_as_durations_become_seconds(tmp_path: Path) -> None:
    table = runs()
    examples = read(parquet_of(tmp_path, table.assign(run_s=pd.to_timedelta(table["run_s"], unit="s"))))
    assert np.allclose(examples.frame["run_s"], table["run_s"])


def test_a_moment_is_no_run_time(tmp_path: Path) -> None:
    path = parquet_of(tmp_path, runs(run_s=pd.to_datetime(pd.Series(ENDED_S), unit="s")))
    assert "run_s is not a number in 60 of 60 rows" in refused(path)


@pytest.mark.parametrize("held", ["csv", "parquet"])
def test_a_date_that_stands_for_never_is_a_date_like_others(tmp_path: Path, held: str) -> None:
    until = [dt.datetime(9999, 12, 31) if row % 3 else dt.datetime(2024, 1, 1) for row in range(ROWS)]
    table = runs(until=np.array(until, dtype="datetime64[us]"))
    examples = read(csv_of(tmp_path, table) if held == "csv" else parquet_of(tmp_path, table))
    assert set(examples.frame["until"]) == {253402214400.0, 1704067200.0}


def test_a_run_that_ends_never_is_refused(tmp_path: Path) -> None:
    moments = ["9999-12-31", *pd.to_datetime(pd.Series(ENDED_S[1:]), unit="s").map(str)]
    assert "or after the year 5138: in 1 of 60 rows" in refused(csv_of(tmp_path, runs(ended_at=moments)))


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("longer_from", [1, 31])
def test_rows_longer_than_the_header_are_refused_with_the_line(tmp_path: Path, longer_from: int) -> None:
    path = csv_of(tmp_path, runs())
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:longer_from], *(f"{line}," for line in lines[longer_from:])]))
    said = refused(path)
    assert "rows have more cells than the header" in said
    assert f"line {longer_from + 1} has 5, the header 4" in said


@pytest.mark.parametrize("index", ["ended_at", ["job_class", "size"]])
def test_a_named_index_that_pandas_wrote_is_a_column(tmp_path: Path, index: Any) -> None:
    examples = read(parquet_of(tmp_path, runs().set_index(index)))
    assert examples.features == ("size",)
    assert examples.frame["ended_at"].tolist() == ENDED_S.tolist()


def test_an_index_named_like_a_column_is_refused() -> None:
    table = runs().rename_axis("run_s")
    with pytest.raises(ExamplesError, match="more than one column named run_s"):
        examples_from(table)


def test_names_held_as_bytes_are_read(tmp_path: Path) -> None:
    zones = [b"eu", b"us", b"\xff\xfe"]
    examples = read(parquet_of(tmp_path, runs(zone=zones * (ROWS // 3), job_class=[b"a"] * ROWS)))
    assert set(examples.frame["zone"]) == {"eu", "us", "\\xff\\xfe"}
    assert set(examples.frame["job_class"]) == {"a"}


def test_lines_that_stray_quotes_make_a_cell_are_told(tmp_path: Path) -> None:
    path = csv_of(tmp_path, runs(zone=["x"] * ROWS))
    lines = path.read_text().splitlines()
    for line in (3, 8):
        lines[line] = lines[line].removesuffix("x") + '"x'
    path.write_text("\n".join(lines))
    ended = train(path)
    assert "55 completed runs" in ended.output
    assert "cells of column zone go over several lines" in " ".join(ended.output.split())


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = csv_of(tmp_path, runs(again=runs()["run_s"]))
    path.write_text(path.read_text().replace("again", "run_s", 1))
    assert "more than one column named run_s" in refused(path)


def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = gzip.compress(runs().to_csv(index=False).encode())
    damaged = {
        "cut.csv.gz": whole[: len(whole) // 2],
        "bad.csv.gz": whole[:200] + b"\0" * 50 + whole[250:],
        "plain.csv.zip": b"run_s,ended_at\n",
        "cut.csv.xz": b"\xfd7zXZ\0broken",
        "cut.parquet": parquet_of(tmp_path, runs()).read_bytes()[:900],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert "not readable as " in refused(tmp_path / name), name


def test_endings_may_be_in_capitals_and_archives_zipped(tmp_path: Path) -> None:
    runs().to_csv(tmp_path / "RUNS.CSV", index=False)
    runs().to_csv(tmp_path / "runs.csv.zip", index=False)
    assert len(read(tmp_path / "RUNS.CSV").frame) == len(read(tmp_path / "runs.csv.zip").frame) == ROWS


@pytest.mark.parametrize(("separator", "told"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_found_and_told(tmp_path: Path, separator: str, told: str) -> None:
    examples = read(csv_of(tmp_path, runs(), sep=separator))
    assert examples.features == ("size",)
    assert examples.notes == (f"cells are separated by {told}",)


# -- what counts as cut short -------------------------------------------------------------------


@pytest.mark.parametrize("words", [("t", "f"), ("Y", "N"), ("TRUE", ""), ("yes", "no"), ("1", "0")])
def test_truth_is_spelled_in_many_ways(tmp_path: Path, words: tuple[str, str]) -> None:
    examples = read(csv_of(tmp_path, runs(censored=[words[row % 4 != 0] for row in range(ROWS)])))
    assert examples.excluded == {"censored": 15}


def test_an_unclear_censored_is_refused(tmp_path: Path) -> None:
    path = csv_of(tmp_path, runs(censored=["no", "maybe"] * 30))
    said = " ".join(refused(path).split())
    assert "censored is neither true nor false, but 'maybe' in 30 of 60 rows (first: row 1)" in said


# -- features -----------------------------------------------------------------------------------


def test_a_few_unreadable_cells_leave_a_column_of_numbers(tmp_path: Path) -> None:
    examples = read(csv_of(tmp_path, runs(**cells("size", {3: "-", 5: "", 7: "broken"}))))
    assert (examples.features, examples.categorical) == (("size",), ())
    assert np.flatnonzero(examples.frame["size"].isna()).tolist() == [3, 5, 7]
    assert examples.notes == ("column size: 2 of 60 cells hold no number (such as '-'): unknown",)


def test_commas_between_thousands_are_read_where_they_can_be_nothing_else(tmp_path: Path) -> None:
    sizes = 5 * 1000.25 ** (np.arange(ROWS) / ROWS * 1.5)
    examples = read(csv_of(tmp_path, runs(size=[f"{size:,.2f}" for size in sizes])))
    assert np.allclose(examples.frame["size"], sizes.round(2))
    ambiguous = csv_of(tmp_path, runs(run_s=["1,234"] * ROWS))
    assert "run_s is not a number in 60 of 60 rows" in refused(ambiguous)


def test_one_unit_is_read_and_several_are_not(tmp_path: Path) -> None:
    table = runs()
    examples = read(csv_of(tmp_path, runs(size=[f"{size} GB" for size in table["size"]])))
    assert np.allclose(examples.frame["size"], table["size"])
    assert examples.notes == ("column size read as numbers of GB",)
    units = ["GB", "MB"] * 30
    several = runs(size=[f"{size} {unit}" for size, unit in zip(table["size"], units, strict=True)])
    assert read(csv_of(tmp_path, several)).features == ()


def test_decimals_times_and_durations_are_numbers(tmp_path: Path) -> None:
    size = runs()["size"]
    began = pd.Series(pd.to_datetime(ENDED_S - 500, unit="s"))
    table = runs(
        size=[decimal.Decimal(str(value)) for value in size],
        began=began,
        day=[dt.date(2026, 1, 1) + dt.timedelta(days=row % 20) for row in range(ROWS)],
        waited=pd.to_timedelta(size, unit="s"),
    )
    examples = read(parquet_of(tmp_path, table))
    assert (examples.features, examples.categorical) == (("size", "began", "day", "waited"), ())
    assert np.allclose(examples.frame[["size", "waited"]], np.column_stack([size, size]))
    assert np.allclose(examples.frame["began"], ENDED_S - 500)
    assert examples.frame["day"][1] - examples.frame["day"][0] == 86400


def test_na_and_none_are_names_like_others(tmp_path: Path) -> None:
    table = runs(region=["NA", "EU", ""] * 20, job_class=["NA", "None", "null"] * 20)
    examples = read(csv_of(tmp_path, table))
    assert set(examples.frame["job_class"]) == {"NA", "None", "null"}
    assert set(examples.frame["region"].dropna()) == {"NA", "EU"}
    assert int(examples.frame["region"].isna().sum()) == 20


def test_lists_and_records_are_noted_and_not_used(tmp_path: Path) -> None:
    table = runs(tags=[["a", str(row)] for row in range(ROWS)], spec=[{"a": row} for row in range(ROWS)])
    path = parquet_of(tmp_path, table)
    examples = read(path)
    assert examples.features == ("size",)
    assert examples.notes == tuple(
        f"column {name} holds lists or records: not used" for name in ("tags", "spec")
    )
    assert "holds lists or records" in refused(path, "--split", "group:tags")
    table["job_class"] = table["tags"]
    assert "lists or records in the column job_class" in refused(parquet_of(tmp_path, table))


def test_features_named_like_the_columns_we_make_keep_their_own_cells(tmp_path: Path) -> None:
    examples = read(csv_of(tmp_path, runs(class_runs=["big", "small"] * 30)))
    design = design_for(examples, np.arange(ROWS), Split("time"))
    assert design.features == ("size", "class_runs (table)")
    assert len(set(design.columns)) == len(design.columns)
    assert any(note.startswith("column class_runs is called") for note in examples.notes)


def test_a_wide_table_says_what_will_take_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.train.measure", _nothing_measured)
    many = {f"f{place}": np.roll(runs()["size"], place) for place in range(500)}
    ended = train(csv_of(tmp_path, runs(**many)))
    assert "501 features: nearly all time goes into growing trees" in ended.stderr


def _nothing_measured(*_: object) -> None:
    raise ExamplesError("not measured")


@pytest.mark.parametrize(
    ("version", "code"), [(f"{SCHEMA_VERSION}", 0), (f"{SCHEMA_VERSION}.0", 0), ("x", 4), ("99", 4)]
)
def test_a_schema_version_may_be_text(tmp_path: Path, version: str, code: int) -> None:
    assert train(parquet_of(tmp_path, runs(schema_version=version))).exit_code == code


# -- splits -------------------------------------------------------------------------------------


def test_rows_without_a_decision_meet_no_decision_of_that_number(tmp_path: Path) -> None:
    ids = pd.array([None] * 15 + [row // 4 for row in range(ROWS - 15)], dtype="Int64")
    examples = read(parquet_of(tmp_path, runs(decision_id=ids)))
    [(fit, held)] = folds_of(examples, Split("time"))
    ended = examples.frame["ended_at"]
    assert ended[fit].max() < ended[held].min()
    assert len(fit) + len(held) == ROWS


def test_decisions_across_the_cut_are_on_neither_side_and_told(tmp_path: Path) -> None:
    names = [f"d{row}" for row in range(ROWS)]
    names[10] = names[55]  # one candidate ended long before the other
    path = csv_of(tmp_path, runs(decision_id=names))
    [(fit, held)] = folds_of(read(path), Split("time"))
    assert not {10, 55} & {*fit, *held}
    report = json.loads(train(path, "--json").stdout)
    assert (
        "2 runs of decisions that had ended in part before the judged ones: left out of both sides"
        in report["notes"]
    )


def test_two_ends_are_split_between_them(tmp_path: Path) -> None:
    examples = read(csv_of(tmp_path, runs(ended_at=[100.0] * 48 + [200.0] * 12)))
    [(fit, held)] = folds_of(examples, Split("time"))
    assert (len(fit), len(held)) == (48, 12)


def test_why_there_is_nothing_to_split_by_time_is_said_rightly(tmp_path: Path) -> None:
    assert "all ended at the same time" in refused(csv_of(tmp_path, runs(ended_at=5.0)))
    assert "all examples are of one decision_id" in refused(csv_of(tmp_path, runs(decision_id=1)))


@pytest.mark.parametrize("column", ["run_s", "ended_at"])
def test_the_answer_is_no_group(tmp_path: Path, column: str) -> None:
    assert f"--split group:{column}: " in refused(csv_of(tmp_path, runs()), "--split", f"group:{column}")


def test_a_group_of_numbers_is_no_feature(tmp_path: Path) -> None:
    examples = read(csv_of(tmp_path, runs(site=[7919 * (row % 5) for row in range(ROWS)])))
    assert design_for(examples, np.arange(ROWS), Split("time")).features == ("size", "site")
    assert design_for(examples, np.arange(ROWS), Split("group", "site")).features == ("size",)


# -- what is printed ----------------------------------------------------------------------------


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    states = ["[/b]oom"] * 5 + ["succeeded"] * 55
    table = runs(**{"disk[/dev/sda]": 1, "mem[gb]": 1}, user="[bold]ev[/bold][/]", end_state=states)
    table["site[/x]"] = [row % 5 for row in range(ROWS)]
    ended = train(csv_of(tmp_path, table), "--split", "group:site[/x]")
    assert ended.exit_code == 0, ended.output
    for name in ("disk[/dev/sda]", "mem[gb]", "[bold]ev[/bold][/]", "5 [/b]oom", "group:site[/x]"):
        assert name in ended.stdout


def test_notes_are_printed_and_in_the_report(tmp_path: Path) -> None:
    path = csv_of(tmp_path, runs(**cells("size", {3: "-"})))
    cores = len(os.sched_getaffinity(0))
    ended = train(path, "--threads", 1000, "--out", tmp_path / "report")
    assert ended.exit_code == 0, ended.output
    notes = json.loads((tmp_path / "report" / "report.json").read_text())["notes"]
    assert notes[0].startswith(f"{cores} threads are used, not 1000")
    assert "such as '-'" in notes[1]
    for note in notes:
        assert note in " ".join(ended.stdout.split())


def test_a_folder_that_cant_be_made_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.train.measure", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    assert "--out" in refused(csv_of(tmp_path, runs()), "--out", tmp_path / "file" / "report")


def test_a_table_that_cant_be_used_raises_the_documented_error(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="is empty"):
        read_table(csv_of(tmp_path, pd.DataFrame()))
