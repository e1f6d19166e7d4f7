"""The workload files of the UWFQ evaluation (arXiv 2510.15485): users with workloads, as JSON or JSON.gz.

Those of the macro benchmark (`LoopCustom`) carry `job_runtime_s`, slot-seconds
of one job; its several entries are the stages of that job. One job is made of
each user and `workloadName`, submitted at `startTimeMs` of its first entry,
and cut into floor(work / 0.5 s) equal tasks, at least one (the published
runtime partitioning).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulator.traces.errors import TraceError
from simulator.traces.files import is_packed
from simulator.workload import Job, Workload, workload_of

TASK_S = 0.5
"""Run time that a task is cut to."""
POD_LIMIT = 1_000_000


def read_macro(path: Path) -> Workload:
    """The jobs of a macro workload file.

    Raises:
        TraceError: unreadable, not of this form, or without any job.
    """
    try:
        text = gzip.decompress(path.read_bytes()) if is_packed(path) else path.read_bytes()
        users = json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise TraceError(f"{path.name}: cannot be read as JSON: {error}") from error
    if not isinstance(users, list):
        raise TraceError(f"{path.name}: expected a list of users, each with user and workloads")
    jobs: dict[tuple[str, str], Job] = {}
    for job in _jobs(path, users):
        jobs.setdefault((job.user, job.name), job)
    if not jobs:
        raise TraceError(f"{path.name}: no job")
    return workload_of(list(jobs.values()), path.name)


def _jobs(path: Path, users: Iterable[Any]) -> Iterable[Job]:
    """One job of every entry; the entries of one job are alike, and the caller keeps the first of them."""
    for at, user in enumerate(users, 1):
        try:
            for entry in user["workloads"]:
                yield _job(str(user["user"]), entry)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = (
                f"{type(error).__name__} {error}" if isinstance(error, KeyError | TypeError) else str(error)
            )
            raise TraceError(
                f"{path.name}: user {at} of the list: {what}; expected user and workloads with workloadName, "
                "startTimeMs and params.job_runtime_s"
            ) from error


def _job(user: str, entry: Any) -> Job:
    work_s = float(entry["params"]["job_runtime_s"])
    if not 0 < work_s <= POD_LIMIT * TASK_S:
        most = f"{POD_LIMIT} tasks of {TASK_S:g} s"
        raise ValueError(f"job_runtime_s is {work_s:g}, must be above 0 s and at most {most}")
    tasks = max(1, int(work_s // TASK_S))
    submitted_s = float(entry["startTimeMs"]) / 1000
    return Job(str(entry["workloadName"]), user, submitted_s, (work_s / tasks,) * tasks)
