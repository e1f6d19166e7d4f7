"""Tables of examples from files: CSV, also compressed, and Parquet.

A CSV file is read as it is meant or not at all. pandas alone would take the
first cells of rows that are longer than the header for row names, which moves
every column by one, would give a second column of one name a name of its own,
and would take "NA" for an empty cell, though it may be a region.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa

KINDS = (".csv", ".parquet")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NAMES = ("job_class", "group", "user", "node", "pod_uid", "decision_id", "end_state", "model_version")
"""Columns of names: 007 stays 007."""
_LONGER = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


class ExamplesError(ValueError):
    """The table can't be used; the message says what is wrong with which rows."""


def read_table(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table in a .csv (also .csv.gz, .bz2, .xz, .zip) or .parquet file, and notes about how it was read.

    Raises ExamplesError when the file is not there, of another kind or not readable.
    """
    kinds = [ending for ending in map(str.lower, path.suffixes) if ending in KINDS]
    if not kinds:
        raise ExamplesError(f"{path}: the name must end in .csv or .parquet")
    try:
        return _read_csv(path) if kinds[-1] == ".csv" else (pd.read_parquet(path), ())
    except ExamplesError as error:
        raise ExamplesError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise ExamplesError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ExamplesError(f"{path}: not readable as csv: it is no text in UTF-8 ({error})") from error
    except _DAMAGED as error:
        packed = path.suffix.lower() if path.suffix.lower() in _COMPRESSED else ""
        raise ExamplesError(f"{path}: not readable as {kinds[-1][1:]}{packed}: {error}") from error


_DAMAGED = (
    OSError, ValueError, EOFError, csv.Error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
    NotImplementedError, pd.errors.ParserError, pa.lib.ArrowException,
)  # fmt: skip


def _read_csv(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    with _text(path) as file:
        separator = _separator_of(next((line for line in file if line.strip()), ""))
    with _text(path) as file:
        names = _columns(csv.reader(file, delimiter=separator))
    with _text(path) as file:
        try:
            table = pd.read_csv(
                file,
                sep=separator,
                header=0,
                names=names,
                dtype=cast(Any, {name: str for name in NAMES if name in names}),
                keep_default_na=False,
                na_values=[""],
                low_memory=False,
            )
        except pd.errors.ParserError as error:
            raise _explained(error) from error
    return table, (*_told_of_separator(separator), *_told_of_line_breaks(table))


def _told_of_separator(separator: str) -> tuple[str, ...]:
    return () if separator == "," else (f"cells are separated by {SEPARATORS[separator]}",)


def _told_of_line_breaks(table: pd.DataFrame) -> tuple[str, ...]:
    """A stray quote makes all lines up to the next one a single cell: rows are gone unseen."""
    text = table.select_dtypes(["object", "string"])
    broken = [str(name) for name in text if text[name].map(_has_line_break).any()]
    if not broken:
        return ()
    columns = ", ".join(broken)
    return (f"cells of column {columns} go over several lines: a quote that is not closed takes rows away",)


def _has_line_break(cell: object) -> bool:
    return isinstance(cell, str) and "\n" in cell


def _separator_of(header: str) -> str:
    """The one that makes most columns of the header; a comma in doubt."""
    return max(SEPARATORS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _columns(rows: Iterator[list[str]]) -> list[str]:
    """The names in the header, each once, and no first row that is longer than it.

    Raises ExamplesError otherwise.
    """
    filled = (row for row in rows if len(row) > 1 or "".join(row).strip())
    header = next(filled, None)
    if header is None:
        raise ExamplesError("the file is empty")
    names = [name.strip() or f"unnamed column {place}" for place, name in enumerate(header, 1)]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ExamplesError(f"the header has more than one column named {', '.join(twice)}")
    first = next(filled, [])
    if len(first) > len(names):
        line = cast(Any, rows).line_num
        raise _longer(line, len(first), len(names))
    return names


def _explained(error: Exception) -> ExamplesError:
    found = _LONGER.search(str(error))
    if found is None:
        return ExamplesError(f"not readable as csv: {error}")
    columns, line, cells = map(int, found.groups())
    return _longer(line, cells, columns)


def _longer(line: int, cells: int, columns: int) -> ExamplesError:
    return ExamplesError(
        f"rows have more cells than the header has columns: line {line} has {cells}, the header {columns} "
        "(a separator at the end of each line is one cell more)"
    )


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _zipped(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    if len(archive.namelist()) != 1:
        raise ExamplesError(f"the archive holds {len(archive.namelist())} files, one is expected")
    return archive.open(archive.namelist()[0])


_COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _zipped,
}  # fmt: skip


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    with (
        _COMPRESSED.get(path.suffix.lower(), _plain)(path) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        yield text
