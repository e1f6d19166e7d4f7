"""Example tables: one row a completed run, read from CSV or Parquet or handed over as a frame.

`docs/examples-table.md` describes the columns. Everything that is wrong with a
table is said at once, with the number of rows and the first of them; censored
runs are left out and counted, because a run that was cut short says nothing
about how long it would have taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from model.schema import NAMES, SCHEMA_VERSION

REQUIRED = ("run_s", "ended_at", "job_class")
KNOWN = (
    *REQUIRED,
    "group",
    "user",
    "node",
    "pod_uid",
    "propensity",
    "decision_id",
    "explored",
    "startup_s",
    "end_state",
    "censored",
    "schema_version",
    "model_version",
    "predicted_s",
)
"""Columns with a meaning of their own; all others are features."""
SUCCEEDED = "succeeded"
READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
LONGEST_S = 10 * 366 * 86400.0


class ExamplesError(ValueError):
    """The table can't be used; the message says what is wrong with which rows."""


class SchemaMismatchError(ExamplesError):
    """The table's features were built with another version of the feature table."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Usable examples, oldest end first, row numbers from 0.

    `features` are the feature columns in order, `categorical` those of them
    that hold names. `of_fairlane` is True when they are the feature table of
    this program. `excluded` counts rows left out by reason; `notes` says what
    else was noticed, in sentences.
    """

    frame: pd.DataFrame
    features: tuple[str, ...]
    categorical: tuple[str, ...]
    of_fairlane: bool
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> pd.DataFrame:
    """The table in a .csv (also .csv.gz, .csv.xz ...) or .parquet file.

    Raises ExamplesError when the file is not there, of another kind or not readable.
    """
    kinds = [suffix for suffix in path.suffixes if suffix in READERS]
    if not kinds:
        raise ExamplesError(f"{path}: the name must end in .csv or .parquet")
    try:
        return READERS[kinds[-1]](path)
    except FileNotFoundError:
        raise ExamplesError(f"{path}: no such file") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise ExamplesError(f"{path}: not readable as {kinds[-1][1:]}: {error}") from error


def examples_from(table: pd.DataFrame) -> Examples:
    """Validate a table and sort it by end.

    Raises SchemaMismatchError when it holds features of another version of
    the feature table, ExamplesError for everything else that is wrong.
    """
    _require_columns(table)
    of_fairlane = _has_fairlane_features(table)
    frame, excluded = _without_censored(table)
    problems = [*_number_problems(frame), *_class_problems(frame)]
    if problems:
        raise ExamplesError("; ".join(problems))
    notes: list[str] = []
    frame = _typed(frame)
    features = list(NAMES) if of_fairlane else _feature_columns(frame, notes)
    if of_fairlane:
        frame = _numeric_features(frame)
    categorical = [name for name in features if not pd.api.types.is_numeric_dtype(frame[name])]
    frame = frame.sort_values("ended_at", kind="stable", ignore_index=True)
    return Examples(frame, tuple(features), tuple(categorical), of_fairlane, excluded, tuple(notes))


def _require_columns(table: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise ExamplesError(
            f"the table lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it has {', '.join(map(str, table.columns[:20]))}"
        )
    twice = sorted({str(name) for name in table.columns[table.columns.duplicated()]})
    if twice:
        raise ExamplesError(f"the table has more than one column named {', '.join(twice)}")


def _has_fairlane_features(table: pd.DataFrame) -> bool:
    """Whether the columns are the feature table; a part of it is an older or newer version."""
    if "schema_version" in table.columns:
        others = sorted(set(table["schema_version"].dropna()) - {SCHEMA_VERSION})
        if others:
            raise SchemaMismatchError(
                f"the examples have feature schema {others[0]}, this program has {SCHEMA_VERSION}: "
                "train with the version that recorded them, or record new ones"
            )
    present = [name for name in NAMES if name in table.columns]
    if len(present) == len(NAMES):
        return True
    if len(present) > len(NAMES) // 2:
        lacking = [name for name in NAMES if name not in table.columns]
        raise SchemaMismatchError(
            f"the examples have {len(present)} of the {len(NAMES)} features of schema {SCHEMA_VERSION}; "
            f"missing: {', '.join(lacking[:5])}: they were recorded by another version"
        )
    return False


def _without_censored(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Runs that ended by themselves; how many others there were, by end state."""
    cut = pd.Series(False, index=table.index)
    reason = pd.Series("censored", index=table.index, dtype=object)
    if "end_state" in table.columns:
        state = table["end_state"].astype("string").str.strip().str.lower().fillna("unknown")
        cut |= state != SUCCEEDED
        reason = reason.mask(cut, state.astype(object))
    if "censored" in table.columns:
        flagged = table["censored"].map(_is_true)
        cut |= flagged
    return table[~cut], {str(name): int(n) for name, n in reason[cut].value_counts().items()}


def _is_true(value: object) -> bool:
    return str(value).strip().lower() in {"true", "1", "1.0", "yes"}


def _number_problems(frame: pd.DataFrame) -> list[str]:
    run_s, ended = _numbers(frame["run_s"]), _numbers(frame["ended_at"])
    wrong = {
        "run_s is not a number": run_s.isna(),
        "run_s is not positive": run_s <= 0,
        f"run_s is longer than {LONGEST_S:.0f} s": run_s > LONGEST_S,
        "ended_at is not a time in unix seconds": ~np.isfinite(ended.fillna(np.nan)),
    }
    return [_told(problem, rows) for problem, rows in wrong.items() if rows.any()]


def _class_problems(frame: pd.DataFrame) -> list[str]:
    name = frame["job_class"].astype("string")
    empty = name.isna() | (name.str.strip() == "")
    return [_told("job_class is empty", empty)] if empty.any() else []


def _told(problem: str, rows: pd.Series) -> str:
    first = rows[rows].index[0]
    return f"{problem} in {int(rows.sum())} of {len(rows)} rows (first: row {first})"


def _numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype(np.float64)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {name: frame[name] for name in frame.columns}
    columns["run_s"], columns["ended_at"] = _numbers(frame["run_s"]), _numbers(frame["ended_at"])
    for name in ("job_class", "group", "user", "node", "decision_id"):
        if name in columns:
            columns[name] = frame[name].astype("string").fillna("").astype(object)
    return pd.DataFrame(columns)


def _feature_columns(frame: pd.DataFrame, notes: list[str]) -> list[str]:
    """Every other column that tells rows apart; names become categories, truth values numbers."""
    features = []
    for name in (column for column in frame.columns if column not in KNOWN):
        values = frame[name]
        if values.nunique(dropna=True) < 2:
            notes.append(f"column {name} has one value only: not used")
        elif pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
            frame[name] = values.astype(np.float64).replace([np.inf, -np.inf], np.nan)
            features.append(name)
        elif values.nunique() > max(len(frame) // 4, 2):
            notes.append(f"column {name} has a different name in most rows: not used")
        else:
            frame[name] = values.astype("string").astype(object)
            features.append(name)
    return features


def _numeric_features(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = frame[list(NAMES)].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    others = frame.drop(columns=list(NAMES))
    finite: pd.DataFrame = numbers.replace([np.inf, -np.inf], np.nan)
    return pd.concat([finite, others], axis=1)
