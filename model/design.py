"""The matrix that the estimator is fitted on and predicts from, and what its columns are.

Two kinds of tables: the feature table of this program, whose prior is
`model.prior`, and any other, whose prior is the class's own history and whose
names become category codes. Codes are those of the rows fitted on; a name
that was not among them is unknown. `model.fitting.matrix` makes it from examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.fitted import Columns
from model.history import COLUMNS as HISTORY
from model.mechanism import SECONDS, seconds_of
from model.prior import PARTS, log_prior_parts
from model.schema import NAMES, without
from model.snapshot import Floats

ROLES = ("example_class", "example_node", "example_ended_at", "example_group")
"""Columns that tell of what an example is; no inputs of the trees."""


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

    @property
    def roles(self) -> Columns:
        """What the columns are to the estimator."""
        position = {name: i for i, name in enumerate(self.columns)}
        prior = (name for name, _ in PARTS) if self.of_fairlane else ("prior_level",)
        seconds = SECONDS if self.of_fairlane else ()
        return Columns(
            len(position),
            tuple(position[name] for name in prior),
            tuple(position[name] for name, _ in seconds),
            position["example_class"],
            position["example_node"] if self.of_fairlane else None,
            (position["example_ended_at"], position["example_group"]),
        )

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


def _codes_of(names: Iterable[str], fitted: Sequence[str]) -> Floats:
    """Positions among the names `fitted` on, NaN for others."""
    code = {name: float(i) for i, name in enumerate(fitted)}
    return np.array([code.get(name, np.nan) for name in names], dtype=np.float64)
