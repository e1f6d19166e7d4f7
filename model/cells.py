"""What the cells of a column say: numbers, times in seconds, truth values.

Tables come from other programs, which write "-" for unknown, "1,234.50" or
"12 GB" for numbers, and times in several ways. What is read in another way
than it stands there is told, so that nobody is surprised by his own data.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

UNKNOWN_WORDS = frozenset(
    {"", "-", "--", "?", "na", "n/a", "#n/a", "nan", "nat", "null", "none", "nil", "unknown"}
)
"""What programs write for "not known"; among numbers these words cost a column nothing."""
MOSTLY = 0.9
"""A column holds numbers if so many of its cells do that hold anything."""
TRUE, FALSE = (
    frozenset({"true", "t", "yes", "y", "1", "1.0"}),
    frozenset({"false", "f", "no", "n", "0", "0.0"}),
)
UNITS_OF_A_SECOND = ((1e17, "nano", "1e9"), (1e14, "micro", "1e6"), (1e11, "milli", "1,000"))
"""From which number on a unix time can't be in seconds (1e11 s is the year 5138), and what it is in."""

_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_WITH_UNIT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ%][\w/%]*)", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?\s?(?:Z|UTC|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_EPOCH = pd.Timestamp(0, tz="UTC").as_unit("us")


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column as floats, NaN where unknown.

    `unread` marks cells that hold something else than a number; `manner` says
    how the others were read, empty when they are plain numbers.
    """

    values: pd.Series
    unread: pd.Series
    manner: str = ""


@dataclass(frozen=True, eq=False)
class Cells:
    """A column as it is held, and as text; empty cells are empty text."""

    held: pd.Series
    text: pd.Series

    @property
    def unknown(self) -> pd.Series:
        """As many unknown numbers."""
        return pd.Series(np.nan, index=self.held.index)


Reading = tuple[pd.Series, str]
"""Values and manner, see `Numbers`."""
Way = Callable[[Cells], Reading]
"""Reads cells in one way; what can't be read like that is NaN."""


def plain(cells: Cells) -> Reading:
    """Numbers as every program writes them, decimals, and truth values as 0 and 1."""
    numbers = _floats(cells.held)
    return numbers, ""


def _floats(cells: pd.Series) -> pd.Series:
    """Cells as floats, NaN where they are no numbers."""
    try:
        numbers = pd.to_numeric(cells, errors="coerce")
    except OverflowError:  # whole numbers of more than 308 digits are no floats, and pandas gives up on all
        numbers = cells.map(_float)
    return numbers.astype(np.float64)


def _float(cell: object) -> float:
    try:
        return float(cell)  # type: ignore[arg-type]
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def grouped(cells: Cells) -> Reading:
    """Numbers with a comma after every third digit.

    1,234 alone may as well be a decimal comma: a cell like 1,234.5 or
    1,234,567 has to show which it is.
    """
    numbers = _floats(cells.text)
    with_comma = cells.text[cells.text.str.contains(",", regex=False)]
    matches = with_comma[with_comma.map(lambda cell: _GROUPED.fullmatch(cell) is not None)]
    if matches.map(lambda cell: "." in cell or cell.count(",") > 1).any():
        read = _floats(matches.str.replace(",", ""))
        numbers = numbers.where(~numbers.index.isin(read.index), read.reindex(numbers.index))
    return numbers, "numbers with commas between thousands"


def one_unit(cells: Cells) -> Reading:
    """Numbers followed by a unit, the same in all cells; nothing where units differ."""
    found = {row: match for row, cell in cells.text.items() if (match := _WITH_UNIT.fullmatch(cell))}
    units = {match[2] for match in found.values()}
    if len(units) != 1:
        return cells.unknown, ""
    numbers = pd.Series({row: float(match[1]) for row, match in found.items()}, dtype=np.float64)
    return numbers.reindex(cells.held.index), f"numbers of {units.pop()}"


def times(cells: Cells) -> Reading:
    """Dates and times (ISO 8601), as unix seconds; those without a zone are of UTC."""
    like = cells.text.map(lambda cell: _TIME.fullmatch(cell) is not None)
    if not like.any():
        return cells.unknown, ""
    moments = pd.to_datetime(cells.text.where(like), errors="coerce", utc=True, format="ISO8601")
    return _since(moments), "times, in unix seconds (of UTC where no zone is given)"


def durations(cells: Cells) -> Reading:
    """Durations held as such, in seconds."""
    held = cells.held.where(cells.held.map(lambda cell: isinstance(cell, dt.timedelta)))
    return pd.to_timedelta(held, errors="coerce").dt.total_seconds(), "durations, in seconds"


FEATURE_WAYS: tuple[Way, ...] = (plain, grouped, one_unit, times, durations)
DURATION_WAYS: tuple[Way, ...] = (plain, grouped, durations)
MOMENT_WAYS: tuple[Way, ...] = (plain, times, durations)


def numbers_of(values: pd.Series, ways: Sequence[Way] = FEATURE_WAYS) -> Numbers:
    """The column read in the first of the ways that suits most cells, else in that which suits the most."""
    nothing = pd.Series(False, index=values.index)
    if pd.api.types.is_datetime64_any_dtype(values):
        if times not in ways:
            return Numbers(pd.Series(np.nan, index=values.index), values.notna())
        return Numbers(_since(values), nothing, "times, in unix seconds (of UTC where no zone is given)")
    if pd.api.types.is_timedelta64_dtype(values):
        return Numbers(values.dt.total_seconds(), nothing, "durations, in seconds")
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return Numbers(values.astype(np.float64), nothing)
    return _numbers_in(values.astype(object), ways)


def _numbers_in(cells: pd.Series, ways: Sequence[Way]) -> Numbers:
    text = cells.map(str).str.strip().where(cells.notna(), "")
    stated = ~text.str.lower().isin(UNKNOWN_WORDS)
    best: Numbers | None = None
    for way in ways:
        values, manner = way(Cells(cells, text))
        found = Numbers(values, (text != "") & values.isna(), manner)
        if best is None or found.unread.sum() < best.unread.sum():
            best = found
        if is_mostly(best.values.notna(), stated):
            break
    assert best is not None
    return best


def is_mostly(read: pd.Series, stated: pd.Series) -> bool:
    """Whether nearly all cells that state something were read."""
    return bool(read.sum() >= MOSTLY * stated.sum() and read.any())


def states(values: pd.Series) -> pd.Series:
    """Which cells state something: not empty, and no word for "not known"."""
    if not (pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)):
        return values.notna()
    text = values.astype(object).map(str).str.strip().str.lower()
    return values.notna() & ~text.isin(UNKNOWN_WORDS)


def _since(moments: pd.Series) -> pd.Series:
    aware = moments if moments.dt.tz is not None else moments.dt.tz_localize("UTC")
    # nanoseconds end in the year 2262, and 9999-12-31 is what many programs write for "never"
    seconds: pd.Series = (aware.dt.as_unit("us") - _EPOCH) / pd.Timedelta(seconds=1)
    return seconds


def truth(value: object) -> bool | None:
    """Whether a cell says true; None for what is neither true nor false. An empty cell is false."""
    word = "" if pd.isna(value) else str(value).strip().lower()  # type: ignore[call-overload]
    if word in TRUE:
        return True
    return False if word in FALSE or word == "" else None


def without_bytes(values: pd.Series) -> pd.Series:
    """The column with text where it holds bytes, as some programs write names to Parquet."""
    if values.dtype != object or not any(isinstance(cell, bytes) for cell in values):
        return values
    return values.map(
        lambda cell: cell.decode(errors="backslashreplace") if isinstance(cell, bytes) else cell
    )


def is_nested(values: pd.Series) -> bool:
    """Whether cells hold lists or records, as Parquet allows."""
    if values.dtype != object:
        return False
    return any(isinstance(cell, list | dict | tuple | set | np.ndarray) for cell in values)


def finer_units(moments: pd.Series) -> dict[str, pd.Series]:
    """Rows whose time is too large for unix seconds, by what is wrong with them."""
    size = moments.abs()
    below, found = np.inf, {}
    for least, prefix, divisor in UNITS_OF_A_SECOND:
        rows = (size >= least) & (size < below)
        found[f"ended_at is in {prefix}seconds, divide it by {divisor}, or after the year 5138:"] = rows
        below = least
    return found
