"""Text files as programs of all kinds write them: with a byte order mark, packed, rows of unequal length."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from simulator.traces.errors import TraceError

Row = dict[str, str]


def is_packed(path: Path) -> bool:
    """Whether its name ends in .gz, in capitals or not."""
    return path.name.lower().endswith(".gz")


def opened(path: Path, errors: str = "strict", newline: str | None = None) -> TextIO:
    """The text of a file, unpacked, without a byte order mark.

    Raises:
        OSError: it cannot be opened.
    """
    if is_packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors=errors, newline=newline)
    return path.open(encoding="utf-8-sig", errors=errors, newline=newline)


def csv_rows(path: Path, text: TextIO) -> tuple[Sequence[str], Iterator[tuple[int, Row]]]:
    """The columns of a table, and its rows by their lines.

    Raises:
        TraceError: a column comes twice; while rows are read, one has more or fewer cells than columns.
    """
    reader = csv.DictReader(text, strict=True)
    columns = reader.fieldnames or []
    refuse_doubled(path, columns)
    return columns, _whole_rows(path, reader)


def refuse_doubled(path: Path, columns: Iterable[str]) -> None:
    """Nobody can say which of two columns of one name is meant.

    Raises:
        TraceError: there are such.
    """
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise TraceError(f"{path.name}: column {doubled[0]} comes more than once")


def _whole_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[int, Row]]:
    for row in reader:
        if None in row:
            raise TraceError.at(path, reader.line_num, "more cells than columns")
        absent = [name for name, cell in row.items() if cell is None]
        if absent:
            raise TraceError.at(path, reader.line_num, f"fewer cells than columns: {absent[0]} is missing")
        yield reader.line_num, row
