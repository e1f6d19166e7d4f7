"""A trace by its file name's ending."""

from __future__ import annotations

from pathlib import Path

from simulator.traces.errors import TraceError
from simulator.traces.swf import read_swf
from simulator.traces.tables import read_csv, read_parquet
from simulator.traces.uwfq import read_macro
from simulator.workload import Workload

READERS = {
    ".swf": read_swf,
    ".swf.gz": read_swf,
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".parquet": read_parquet,
    ".json": read_macro,
    ".json.gz": read_macro,
}

__all__ = ["READERS", "TraceError", "read_trace"]


def read_trace(path: Path) -> Workload:
    """The workload in the file.

    Raises:
        TraceError: the file is missing, of an unknown kind, or broken.
    """
    reader = next((READERS[ending] for ending in READERS if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise TraceError(f"{path.name}: unknown kind of trace; it must end in one of {', '.join(READERS)}")
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    return reader(path)
