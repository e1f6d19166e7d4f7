"""From an example table to the matrix that the estimator is fitted on (`model.design`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.dataset import Examples
from model.design import Design
from model.estimator import CompletionTimeEstimator
from model.history import COLUMNS as HISTORY
from model.history import history_before, mean_outside
from model.mechanism import COMPUTING, EXPECTED
from model.schema import FEATURES, NAMES, columns_of
from model.snapshot import Floats, Indices
from model.splits import Split, group_codes

CLASS_TEMPER = 0.25
HALF_LIFE_S = 30 * 86400.0
HISTORY_WEIGHT = 1.0
"""Runs that the mean of all classes counts for in the prior of a class."""


def _names(rows: pd.DataFrame, column: str) -> tuple[str, ...]:
    """The names in a column, without the empty one; none without the column."""
    return tuple(sorted(set(rows[column].dropna()) - {""})) if column in rows else ()


@dataclass(frozen=True, eq=False)
class Known:
    """What a fold may look at: the rows fitted on, and how examples are split."""

    fitted: Indices
    split: Split


def design_for(examples: Examples, fitted: Indices, split: Split, dropped: Sequence[str] = ()) -> Design:
    """The design for a model fitted on these rows.

    In a split by groups, categorical columns whose every name occurs in one
    group only are left out: none of their names would be known for a new group.
    Raises ValueError for a feature group that does not exist.
    """
    columns_of(dropped)
    if examples.of_fairlane:
        classes, nodes = (_names(examples.frame.iloc[fitted], name) for name in ("job_class", "node"))
        return Design(True, tuple(NAMES), dropped=tuple(dropped), classes=classes, nodes=nodes)
    rows = examples.frame.iloc[fitted]
    hidden = _told_by_group(examples, split) if split.kind == "group" else set()
    features = tuple(name for name in examples.features if name not in hidden)
    levels = {
        name: tuple(sorted(rows[name].dropna().unique()))
        for name in (*examples.categorical, "job_class")
        if name not in hidden and (name in features or name == "job_class")
    }
    return Design(False, features, levels, mean_log_s=float(np.log(rows["run_s"]).mean()))


def _told_by_group(examples: Examples, split: Split) -> set[str]:
    group = examples.frame[split.column].astype("string").fillna("")
    nested = {split.column}
    for name in (*examples.categorical, "job_class"):
        per_name = group.groupby(examples.frame[name].fillna("")).nunique()
        if (per_name <= 1).mean() > 0.9:
            nested.add(name)
    return nested


def matrix_of(design: Design, examples: Examples, known: Known) -> Floats:
    """The estimator's matrix for all rows of the examples; history only from what `known` allows."""
    frame = examples.frame
    moments = np.column_stack([frame["ended_at"], _groups(examples, known.split)])
    if design.of_fairlane:
        nodes = frame.get("node", [""])
        features = frame[list(NAMES)].to_numpy(dtype=np.float64)
        matrix = design.serving_matrix(features, frame["job_class"], nodes)
        matrix[:, -moments.shape[1] :] = moments
        return matrix
    classes = _codes(frame["job_class"])
    history = _history(examples, classes, known, design.mean_log_s)
    columns = [_column(design, frame, name) for name in design.features]
    named = _column(design, frame, "job_class")
    unknown = np.full(len(frame), np.nan)
    return np.column_stack([*columns, named, history, classes, unknown, moments])


def _codes(names: pd.Series) -> Indices:
    return pd.factorize(names)[0].astype(np.intp)


def _groups(examples: Examples, split: Split) -> Floats:
    if split.kind == "group":
        return group_codes(examples, split.column).astype(np.float64)
    alone = np.arange(len(examples.frame), dtype=np.float64)  # every row a group of its own
    return alone if split.kind == "random" else np.full(len(alone), np.nan)


def _history(examples: Examples, classes: Indices, known: Known, overall: float) -> Floats:
    """History columns of each run's class and the prior's level; shape (rows, len(HISTORY) + 1)."""
    run_s = examples.frame["run_s"].to_numpy()
    if known.split.kind != "group":
        history = history_before(classes, examples.frame["ended_at"].to_numpy(), run_s)
        return np.column_stack([history, _level(history[:, 0], history[:, 1], overall)])
    fitted = np.zeros(len(classes), dtype=bool)
    fitted[known.fitted] = True
    groups = group_codes(examples, known.split.column)
    if len(np.unique(groups[fitted])) < 2:  # no other group tells the level: other runs must do
        groups = np.where(fitted, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    runs, mean = mean_outside(classes, groups, run_s, fitted)
    return np.column_stack([np.full((len(classes), len(HISTORY)), np.nan), _level(runs, mean, overall)])


def _level(runs: Floats, mean: Floats, overall: float) -> Floats:
    total = np.where(runs > 0, runs * mean, 0.0) + HISTORY_WEIGHT * overall
    return np.asarray(total / (runs + HISTORY_WEIGHT), dtype=np.float64)


def _column(design: Design, frame: pd.DataFrame, name: str) -> Floats:
    if name not in design.levels:
        if name == "job_class":  # left out: its names tell the group
            return np.full(len(frame), np.nan)
        return np.asarray(frame[name], dtype=np.float64)
    code = {level: float(i) for i, level in enumerate(design.levels[name])}
    return np.asarray(frame[name].map(code), dtype=np.float64)


def estimator_for(design: Design, **options: Any) -> CompletionTimeEstimator:
    """An unfitted estimator whose column roles fit the design's matrix."""
    roles = design.roles
    position = {name: i for i, name in enumerate(design.columns)}
    own: dict[str, Any] = {}
    if design.of_fairlane:
        own = {
            "monotone": [f.monotone for f in FEATURES] + [0] * (roles.count - len(FEATURES)),
            "expected_weights": EXPECTED,
            "computing_columns": tuple(position[name] for name in COMPUTING),
            "class_temper": CLASS_TEMPER,
            "half_life_s": HALF_LIFE_S,
        }
    return CompletionTimeEstimator(
        **{
            "linear": not design.of_fairlane,
            "categorical_columns": tuple(position[name] for name in design.levels),
            "prior_columns": roles.prior,
            "seconds_columns": roles.seconds,
            "class_column": roles.job_class,
            "node_column": roles.node,
            "time_column": position["example_ended_at"],
            "group_column": position["example_group"],
            "history_columns": tuple(position[name] for name in HISTORY if name in position),
            **own,
            **options,
        }
    )
