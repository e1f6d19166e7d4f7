"""A caller's feature columns beside ours, while two versions of the feature table are in use.

Columns are matched by name: what we do not know is ignored, what the caller
lacks is unknown. So a feature that changes its meaning has to change its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.schema import NAMES, POSITION, SCHEMA_VERSION
from model.snapshot import Floats, Indices

VERSIONS_APART = 1


class OtherSchemaError(ValueError):
    """The caller's columns cannot be understood; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Columns:
    """`ours[i]` is our column of the name of the caller's column `theirs[i]`, of the `count` it has."""

    count: int
    ours: Indices
    theirs: Indices

    @classmethod
    def of(cls, schema_version: int, names: Sequence[str]) -> Columns:
        """Those of a caller with this feature schema, whose columns have these names (none: it did not say).

        Raises:
            OtherSchemaError: too far from ours, or without (proper) names.
        """
        if schema_version == SCHEMA_VERSION:
            return _OURS
        if abs(schema_version - SCHEMA_VERSION) > VERSIONS_APART or not names:
            raise OtherSchemaError(
                f"the caller has feature schema {schema_version}, this server {SCHEMA_VERSION}: "
                "run both from the same release"
            )
        if len(set(names)) != len(names):
            raise OtherSchemaError("the caller names a feature twice")
        known = [(POSITION[name], column) for column, name in enumerate(names) if name in POSITION]
        ours, theirs = np.array(known, dtype=np.intp).reshape(-1, 2).T
        return cls(len(names), ours, theirs)

    def taken(self, features: Floats) -> Floats:
        """Rows of the caller's columns as rows of ours."""
        if self is _OURS:
            return features
        rows = np.full((len(features), len(NAMES)), np.nan)
        rows[:, self.ours] = features[:, self.theirs]
        return rows

    def told(self, contributions: Floats) -> Floats:
        """Contributions of our columns and the base as such of the caller's; sums stay what they are."""
        if self is _OURS:
            return contributions
        rows = np.zeros((len(contributions), self.count + 1))
        rows[:, self.theirs] = contributions[:, self.ours]
        rows[:, -1] = contributions.sum(axis=1) - rows.sum(axis=1)
        return rows


_OURS = Columns(len(NAMES), np.arange(len(NAMES)), np.arange(len(NAMES)))
