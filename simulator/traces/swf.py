"""The Standard Workload Format: one job a line of 18 numbers, `;` begins a comment, -1 means unknown.

Format: Feitelson's Parallel Workloads Archive, "The Standard Workload Format"
version 2.2 (fields 1 job number, 2 submit time, 4 run time, 5 allocated
processors, 7 used and 10 requested memory in KB a processor, 8 requested
processors, 12 user). A job is rigid: a gang with one pod a processor.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from simulator.traces.errors import TraceError
from simulator.traces.files import opened
from simulator.workload import Job, Request, Workload, workload_of

FIELDS = 18
NUMBER, SUBMIT, RUN, ALLOCATED, USED_KB, WANTED, WANTED_KB, USER = 0, 1, 3, 4, 6, 7, 9, 11
UNKNOWN = -1
POD_LIMIT = 1_000_000
"""A larger job is a broken line, not a job."""


class _Line(NamedTuple):
    number: int
    text: str


def read_swf(path: Path) -> Workload:
    """The jobs of a `.swf` or `.swf.gz` file that ran; others are counted in the notes.

    Raises:
        TraceError: unreadable, no job, or a broken line.
    """
    try:
        # Headers of the archive name places in whatever encoding; the numbers are ASCII in all of them.
        with opened(path, errors="replace") as lines:
            return _workload(path, enumerate(lines, 1))
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path.name}: cannot be read: {error}") from error


def _workload(path: Path, lines: Iterable[tuple[int, str]]) -> Workload:
    jobs: list[Job] = []
    left_out = 0
    for line in (_Line(number, text.partition(";")[0].strip()) for number, text in lines):
        if line.text:
            job = _job(path, line)
            jobs += [job] if job else []
            left_out += job is None
    notes = [f"{left_out} jobs without submit time, run time or processors left out"] if left_out else []
    if not jobs:
        raise TraceError(f"{path.name}: no job that ran")
    return workload_of(jobs, path.name, notes)


def _job(path: Path, line: _Line) -> Job | None:
    """The job of one line; None where it never ran (cancelled before its start) or its time is not known."""
    numbers = _numbers(path, line)
    processors = numbers[ALLOCATED] if numbers[ALLOCATED] > 0 else numbers[WANTED]
    if numbers[SUBMIT] == UNKNOWN or numbers[RUN] <= 0 or processors <= 0:
        return None
    if processors > POD_LIMIT:
        raise TraceError.at(path, line.number, f"{processors:g} processors is more than {POD_LIMIT}")
    if not processors.is_integer():
        raise TraceError.at(path, line.number, f"{processors:g} processors is not a whole number")
    if numbers[SUBMIT] < 0:
        raise TraceError.at(
            path, line.number, f"submitted_s is {numbers[SUBMIT]}: times of this format begin at 0"
        )
    memory_kb = max(0.0, numbers[WANTED_KB] if numbers[WANTED_KB] > 0 else numbers[USED_KB])
    try:
        return Job(
            name=f"{numbers[NUMBER]:.0f}",
            user=f"user_{numbers[USER]:.0f}",
            submitted_s=numbers[SUBMIT],
            durations_s=(numbers[RUN],) * int(processors),
            request=Request(cpu=1.0, memory=memory_kb * 1024),
            gang=True,
        )
    except ValueError as error:
        raise TraceError.at(path, line.number, str(error)) from error


def _numbers(path: Path, line: _Line) -> Sequence[float]:
    parts = line.text.split()
    if len(parts) != FIELDS:
        raise TraceError.at(path, line.number, f"expected {FIELDS} numbers, found {len(parts)}")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise TraceError.at(path, line.number, f"expected {FIELDS} numbers: {error}") from error
    for part, number in zip(parts, numbers, strict=True):
        if not math.isfinite(number):
            raise TraceError.at(path, line.number, f"expected {FIELDS} numbers: {part} is not finite")
    return numbers
