"""Two versions of the feature table: columns are matched by name, and nothing else is guessed."""

from __future__ import annotations

import numpy as np
import pytest

from model.columns import Columns, OtherSchemaError
from model.schema import NAMES, SCHEMA_VERSION

NEIGHBOURS = (SCHEMA_VERSION - 1, SCHEMA_VERSION + 1)
THEIRS = ("brand_new", *reversed(NAMES[1:]))
"""A caller's columns: it has one that we do not know, lacks our first, and has others in another order."""


@pytest.mark.parametrize("schema", NEIGHBOURS)
def test_what_we_do_not_know_is_ignored_and_what_the_caller_lacks_is_unknown(schema: int) -> None:
    columns = Columns.of(schema, THEIRS)
    features = np.arange(2.0 * len(THEIRS)).reshape(2, -1)
    rows = columns.taken(features)
    assert rows.shape == (2, len(NAMES))
    assert np.isnan(rows[:, 0]).all()
    assert (rows[:, 1:] == features[:, :0:-1]).all()


def test_contributions_are_told_of_the_callers_columns_and_keep_their_sum() -> None:
    parts = np.arange(2.0 * (len(NAMES) + 1)).reshape(2, -1)
    told = Columns.of(NEIGHBOURS[0], THEIRS).told(parts)
    assert told.shape == (2, len(THEIRS) + 1)
    assert (told[:, 0] == 0.0).all()
    assert (told[:, 1:-1] == parts[:, -2:0:-1]).all()
    assert told[:, -1] == pytest.approx(parts[:, -1] + parts[:, 0])


def test_our_own_schema_is_taken_as_it_comes() -> None:
    features = np.ones((3, len(NAMES)))
    columns = Columns.of(SCHEMA_VERSION, ())
    assert columns.taken(features) is features
    assert columns.told(features) is features


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (SCHEMA_VERSION + 2, THEIRS),
        (SCHEMA_VERSION - 2, THEIRS),
        (NEIGHBOURS[0], ()),
        (NEIGHBOURS[1], ("brand_new", "brand_new")),
    ],
)
def test_what_cannot_be_understood_is_refused(schema: int, names: tuple[str, ...]) -> None:
    with pytest.raises(OtherSchemaError, match=r"run both from the same release|twice"):
        Columns.of(schema, names)


def test_a_caller_of_whose_columns_we_know_none_has_nothing_but_unknown() -> None:
    assert np.isnan(Columns.of(NEIGHBOURS[0], ("brand_new",)).taken(np.ones((2, 1)))).all()
