"""Example tables: one row a completed run, as `model.reading` reads them or handed over as a frame.

`docs/examples-table.md` describes the columns. Everything that is wrong with a
table is said at once, with the number of rows and the first of them; censored
runs are left out and counted, because a run that was cut short says nothing
about how long it would have taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from model.cells import (
    DURATION_WAYS,
    MOMENT_WAYS,
    Numbers,
    finer_units,
    is_mostly,
    is_nested,
    numbers_of,
    states,
    truth,
    without_bytes,
)
from model.history import COLUMNS as HISTORY
from model.reading import ExamplesError
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
RESERVED = (*HISTORY, "prior_level", "example_class", "example_node", "example_ended_at", "example_group")
"""What `model.design` calls columns that it makes itself."""
NAMED = ("job_class", "group", "user", "node", "decision_id")
SUCCEEDED = "succeeded"
LONGEST_S = 10 * 366 * 86400.0


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


def examples_from(table: pd.DataFrame, notes: Sequence[str] = ()) -> Examples:
    """Validate a table and sort it by end; `notes` are those of its reading.

    Raises SchemaMismatchError when it holds features of another version of
    the feature table, ExamplesError for everything else that is wrong.
    """
    table = _plain(table)
    _require_columns(table)
    table = pd.DataFrame({name: without_bytes(table[name]) for name in table.columns})
    of_fairlane = _has_fairlane_features(table)
    frame, excluded = _without_censored(table)
    moments = {"run_s": numbers_of(frame["run_s"], DURATION_WAYS)}
    moments["ended_at"] = numbers_of(frame["ended_at"], MOMENT_WAYS)
    problems = [
        *_number_problems(moments["run_s"].values, moments["ended_at"].values),
        *_class_problems(frame),
    ]
    if problems:
        raise ExamplesError("; ".join(problems))
    told = [*notes, *_manners(moments)]
    columns = _typed(frame) | {name: found.values for name, found in moments.items()}
    used, categorical = _numeric_features(columns, told) if of_fairlane else _features(columns, told)
    frame = pd.DataFrame(columns | used).sort_values("ended_at", kind="stable", ignore_index=True)
    return Examples(frame, tuple(used), tuple(categorical), of_fairlane, excluded, tuple(told))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by number, columns by name; a named index, which pandas keeps in Parquet, is a column too."""
    named = [name for name in table.index.names if name is not None]
    table = table.reset_index(level=named, allow_duplicates=True) if named else table
    return table.set_axis([str(name) for name in table.columns], axis=1).reset_index(drop=True)


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
    nested = [name for name in KNOWN if name in table.columns and is_nested(table[name])]
    if nested:
        raise ExamplesError(f"lists or records in the column {', '.join(nested)}: one value a row is needed")


def _has_fairlane_features(table: pd.DataFrame) -> bool:
    """Whether the columns are the feature table; a part of it is an older or newer version."""
    if "schema_version" in table.columns:
        found = table["schema_version"].dropna()
        others = found[pd.to_numeric(found, errors="coerce") != SCHEMA_VERSION]
        if len(others):
            raise SchemaMismatchError(
                f"the examples have feature schema {others.iloc[0]}, this program has {SCHEMA_VERSION}: "
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
        flags = table["censored"].map(truth).astype(object)
        _require_truth(table["censored"], flags.isna())
        cut |= flags.astype(bool)
    return table[~cut], {str(name): int(n) for name, n in reason[cut].value_counts().items()}


def _require_truth(values: pd.Series, unclear: pd.Series) -> None:
    if unclear.any():
        first = str(values[unclear].iloc[0])
        raise ExamplesError(_told(f"censored is neither true nor false, but {first!r}", unclear))


def _number_problems(run_s: pd.Series, ended: pd.Series) -> list[str]:
    wrong = {
        "run_s is not a number": run_s.isna(),
        "run_s is not positive": run_s <= 0,
        f"run_s is longer than {LONGEST_S:.0f} s": run_s > LONGEST_S,
        "ended_at is not a time in unix seconds (nor one of ISO 8601)": ~np.isfinite(ended),
        **finer_units(ended.where(np.isfinite(ended))),
    }
    return [_told(problem, rows) for problem, rows in wrong.items() if rows.any()]


def _class_problems(frame: pd.DataFrame) -> list[str]:
    name = _text(frame["job_class"])
    empty = name.isna() | (name.str.strip() == "")
    return [_told("job_class is empty", empty)] if empty.any() else []


def _told(problem: str, rows: pd.Series) -> str:
    first = rows[rows].index[0]
    return f"{problem} in {int(rows.sum())} of {len(rows)} rows (first: row {first})"


def _typed(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns, those of names as text, empty where there is none."""
    columns = {str(name): frame[name] for name in frame.columns}
    for name in NAMED:
        if name in columns:
            columns[name] = _text(frame[name]).fillna("").astype(object)
    return columns


def _text(values: pd.Series) -> pd.Series:
    return values.astype(object).astype("string")


def _manners(found: Mapping[str, Numbers]) -> list[str]:
    return [f"column {name} read as {one.manner}" for name, one in found.items() if one.manner]


Chosen = tuple[dict[str, pd.Series], list[str]]
"""Feature columns in order, and which of them hold names."""


def _features(columns: Mapping[str, pd.Series], notes: list[str]) -> Chosen:
    """Every other column that tells rows apart; names become categories, truth values numbers."""
    used: dict[str, pd.Series] = {}
    categorical: list[str] = []
    for column, values in columns.items():
        if column in KNOWN:
            continue
        name = _own_name(column, notes)
        if is_nested(values):
            notes.append(f"column {name} holds lists or records: not used")
            continue
        numbers = numbers_of(values)
        named = isinstance(values.dtype, pd.CategoricalDtype)
        numeric = not named and is_mostly(numbers.values.notna(), states(values))
        chosen = _finite(numbers) if numeric else _text(values).astype(object)
        if chosen.nunique() < 2:
            notes.append(f"column {name} has one value only: not used")
        elif not numeric and chosen.nunique() > max(len(values) // 4, 2):
            notes.append(f"column {name} has a different name in most rows: not used")
        else:
            used[name] = chosen
            notes += _told_of(name, values, numbers) if numeric else ()
            categorical += () if numeric else (name,)
    return used, categorical


def _own_name(column: str, notes: list[str]) -> str:
    """The column's name, or another where the estimator's matrix has one of that name itself."""
    if column not in RESERVED:
        return column
    notes.append(
        f"column {column} is called {column} (table), since class histories and the like have such names"
    )
    return f"{column} (table)"


def _numeric_features(columns: Mapping[str, pd.Series], notes: list[str]) -> Chosen:
    used = {}
    for name in NAMES:
        numbers = numbers_of(columns[name])
        used[name] = _finite(numbers)
        notes += _told_of(name, columns[name], numbers)
    return used, []


def _finite(numbers: Numbers) -> pd.Series:
    return numbers.values.replace([np.inf, -np.inf], np.nan)


def _told_of(name: str, values: pd.Series, numbers: Numbers) -> list[str]:
    """What of a column of numbers was not read as it stands."""
    told = _manners({name: numbers})
    if count := int(numbers.unread.sum()):
        first = str(values[numbers.unread].iloc[0])
        told.append(
            f"column {name}: {count} of {len(values)} cells hold no number (such as {first!r}): unknown"
        )
    if count := int(np.isinf(numbers.values).sum()):
        told.append(f"column {name}: {count} of {len(values)} numbers are infinite: unknown")
    return told
