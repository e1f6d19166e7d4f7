"""From an example table to the matrix that the estimator is fitted on, and the same when serving.

Two kinds of tables: the feature table of this program, whose prior is
`model.prior`, and any other, whose prior is the class's own history and whose
names become category codes. Codes are those of the rows fitted on; a name
that was not among them is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from model.dataset import Examples
from model.estimator import CompletionTimeEstimator
from model.history import COLUMNS as HISTORY
from model.history import history_before, mean_outside
from model.mechanism import COMPUTING, EXPECTED, SECONDS, seconds_of
from model.prior import PARTS, log_prior_parts
from model.schema import FEATURES, NAMES, columns_of, without
from model.snapshot import Floats, Indices
from model.splits import Split, group_codes

ROLES = ("example_class", "example_node", "example_ended_at", "example_group")
"""Columns that tell of what an example is; no inputs of the trees."""
CLASS_TEMPER = 0.25
HALF_LIFE_S = 30 * 86400.0
HISTORY_WEIGHT = 1.0
"""Runs that the mean of all classes counts for in the prior of a class."""


@dataclass(frozen=True)
class Design:
    """Which columns the estimator sees.

    `features` are table columns in order, `levels` the names of each
    categorical one. `dropped` are the feature groups left out on purpose.
    `classes` are the job classes and `nodes` the nodes of the rows fitted on, by code.
    """

    of_fairlane: bool
    features: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    mean_log_s: float = 0.0
    classes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the estimator's columns, in order."""
        if self.of_fairlane:
            return (
                *NAMES,
                *(name for name, _ in (*PARTS, *SECONDS)),
                *ROLES,
            )
        return (
            *self.features, "job_class", *HISTORY, "prior_level", *ROLES,
        )  # fmt: skip

    def serving_matrix(self, features: Floats, classes: Iterable[str], nodes: Iterable[str]) -> Floats:
        """The estimator's matrix from the feature table, shape (rows, len(columns)).

        `classes` and `nodes` are names, one per row or one for all rows; those
        that the rows fitted on did not have are unknown.
        """
        visible = without(features, self.dropped) if self.dropped else features
        roles = np.full((len(visible), len(ROLES)), np.nan)
        roles[:, 0], roles[:, 1] = _codes_of(classes, self.classes), _codes_of(nodes, self.nodes)
        return np.concatenate([visible, log_prior_parts(visible), seconds_of(visible), roles], axis=1)

    def feature_contributions(self, parts: Floats) -> Floats:
        """Contributions of the feature table's columns from those of the estimator's; shape (rows, n + 1).

        Each term of the prior and each part of the mixture is told as the feature that moves it.
        """
        told = np.concatenate([parts[:, : len(NAMES)], parts[:, -1:]], axis=1)
        for position, (_, feature) in enumerate((*PARTS, *SECONDS)):
            told[:, NAMES.index(feature)] += parts[:, len(NAMES) + position]
        return told


def _names(rows: pd.DataFrame, column: str) -> tuple[str, ...]:
    """The names in a column, without the empty one; none without the column."""
    return tuple(sorted(set(rows[column].dropna()) - {""})) if column in rows else ()


def _codes_of(names: Iterable[str], fitted: Sequence[str]) -> Floats:
    """Positions among the names `fitted` on, NaN for others."""
    code = {name: float(i) for i, name in enumerate(fitted)}
    return np.array([code.get(name, np.nan) for name in names], dtype=np.float64)


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
    runs, mean = mean_outside(classes, group_codes(examples, known.split.column), run_s, fitted)
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
    columns = design.columns
    position = {name: i for i, name in enumerate(columns)}
    if design.of_fairlane:
        monotone: list[int] | None = [f.monotone for f in FEATURES] + [0] * (len(columns) - len(FEATURES))
        roles = {
            "prior_columns": tuple(position[name] for name, _ in PARTS),
            "seconds_columns": tuple(position[name] for name, _ in SECONDS),
            "expected_weights": EXPECTED,
            "computing_columns": tuple(position[name] for name in COMPUTING),
            "node_column": position["example_node"],
            "half_life_s": HALF_LIFE_S,
        }
    else:
        monotone = None
        roles = {"prior_columns": (position["prior_level"],)}
    return CompletionTimeEstimator(
        **{
            "monotone": monotone,
            "linear": not design.of_fairlane,
            "categorical_columns": tuple(position[name] for name in design.levels),
            "class_column": position["example_class"],
            "class_temper": CLASS_TEMPER if design.of_fairlane else 0.0,
            "time_column": position["example_ended_at"],
            "group_column": position["example_group"],
            **roles,
            **options,
        }
    )
