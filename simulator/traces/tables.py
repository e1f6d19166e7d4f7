"""Tables of jobs, CSV or Parquet, with the columns user, submitted_s, pods, cpu, memory, gpu, duration_s.

Optional are tasks, name and gang. `cpu`, `memory` and `gpu` are of one pod, as
numbers or Kubernetes quantities (`500m`, `4Gi`). Without `tasks` the row is a
gang of `pods` pods of `duration_s` each (`gang` = false: elastic). `tasks`
lists durations of elastic pods, `0.5x12 3` being twelve of 0.5 s and one of
3 s; `pods` and `duration_s` may then be empty.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scheduler.core.quantities import quantity
from simulator.traces.errors import TraceError
from simulator.traces.files import csv_rows, opened, refuse_doubled
from simulator.workload import Job, Request, Workload, workload_of

REQUIRED = ("user", "submitted_s", "pods", "cpu", "memory", "gpu", "duration_s")
OPTIONAL = ("tasks", "name", "gang")
POD_LIMIT = 1_000_000
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_csv(path: Path) -> Workload:
    """The jobs of a CSV file with a header line.

    Raises:
        TraceError: unreadable, a column missing or unknown, or a broken line.
    """
    try:
        with opened(path, newline="") as text:
            return _workload(path, *csv_rows(path, text))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path.name}: cannot be read: {error}") from error


def read_parquet(path: Path) -> Workload:
    """The jobs of a Parquet file with the same columns; a "line" in an error is a row, from 1.

    Raises:
        TraceError: unreadable, a column missing or unknown, or a broken row.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise TraceError(f"{path.name}: cannot be read: {error}") from error
    refuse_doubled(path, table.column_names)
    return _workload(path, table.column_names, enumerate(table.to_pylist(), 1))


def write_csv(path: Path, workload: Workload) -> None:
    """The workload as such a table.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([*REQUIRED, *OPTIONAL])
        writer.writerows(_row(job) for job in workload.jobs)


def _row(job: Job) -> Sequence[Any]:
    asked = [f"{part:.17g}" for part in job.request.parts]
    equal = min(job.durations_s) == max(job.durations_s)
    duration = repr(job.durations_s[0]) if equal else ""
    tasks = "" if equal else " ".join(repr(each) for each in job.durations_s)
    gang = str(job.gang).lower() if equal else ""
    return [job.user, repr(job.submitted_s), job.pods, *asked, duration, tasks, job.name, gang]


def _workload(path: Path, columns: Iterable[str], rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Workload:
    present = set(columns)
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise TraceError(f"{path.name}: column {missing[0]} is missing; needed are {', '.join(REQUIRED)}")
    unknown = sorted(present.difference(REQUIRED, OPTIONAL))
    if unknown:
        raise TraceError(f"{path.name}: unknown column {unknown[0]}; optional are {', '.join(OPTIONAL)}")
    jobs, left_out = [], 0
    for number, row in rows:
        cells = {name: _text(value) for name, value in row.items()}
        try:
            if not cells.get("tasks") and _number(cells, "duration_s") == 0:
                left_out += 1  # as logs have them that round to seconds
            else:
                jobs.append(_job(number, cells))
        except ValueError as error:
            raise TraceError.at(path, number, str(error)) from error
    if not jobs:
        raise TraceError(f"{path.name}: no job")
    return workload_of(jobs, path.name, [f"{left_out} jobs of 0 s left out"] if left_out else [])


def _text(value: Any) -> str:
    """A cell as text; what is absent, None or NaN, is empty."""
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if absent else str(value).strip()


def _job(number: int, row: Mapping[str, str]) -> Job:
    request = Request(*(_asked(row, name) for name in ("cpu", "memory", "gpu")))
    tasks = row.get("tasks", "")
    durations = task_list(tasks) if tasks else _equal(row)
    return Job(
        name=row.get("name", "") or f"job-{number}",
        user=row["user"],
        submitted_s=_number(row, "submitted_s"),
        durations_s=durations,
        request=request,
        gang=not tasks and _gang(row.get("gang", ""), len(durations)),
    )


def _asked(row: Mapping[str, str], name: str) -> float:
    try:
        return quantity(row[name]) if row[name] else 0.0
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _equal(row: Mapping[str, str]) -> tuple[float, ...]:
    pods = _number(row, "pods")
    if not (1 <= pods <= POD_LIMIT and pods.is_integer()):
        raise ValueError(f"pods is {row['pods']}, must be a whole number from 1 to {POD_LIMIT}")
    return (_number(row, "duration_s"),) * int(pods)


def _number(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise ValueError(f"{name} is {row[name]!r}, not a number") from error


def _gang(text: str, pods: int) -> bool:
    if not text:
        return pods > 1
    if text.lower() not in _TRUTH:
        raise ValueError(f"gang is {text!r}, must be true or false")
    return _TRUTH[text.lower()]


def task_list(text: str) -> tuple[float, ...]:
    """Durations of `0.5x12 3`: twelve times 0.5 s, once 3 s.

    Raises:
        ValueError: it is none, or longer than the limit.
    """
    durations: list[float] = []
    for part in text.split():
        duration, times, count = part.partition("x")
        try:
            repeats = int(count) if times else 1
            each_s = float(duration)
        except ValueError as error:
            raise ValueError(f"tasks: {part!r} is neither a duration nor DURATIONxCOUNT") from error
        if repeats < 1 or len(durations) + repeats > POD_LIMIT:
            raise ValueError(f"tasks: {part!r}: the count must be from 1 to {POD_LIMIT} in all")
        durations += [each_s] * repeats
    return tuple(durations)
