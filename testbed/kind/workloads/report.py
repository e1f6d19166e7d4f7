"""The table at the end, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from testbed.kind.workloads.figures import JobFigures
from testbed.kind.workloads.scenarios import Result

LEGEND = (
    "Queue, start, run and predicted are medians over a job's pods, in s (queue: and the longest); "
    "whole: from the first pod's creation to the last end."
)


def write(folder: Path, results: Sequence[Result], facts: Mapping[str, Any]) -> list[Path]:
    """workloads.txt and workloads.json; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "workloads.txt", folder / "workloads.json"]
    with paths[0].open("w") as file:
        console = Console(file=file, width=132)
        for table in tables(results):
            console.print(table)
        console.print(LEGEND)
    document = {"facts": dict(facts), "scenarios": [asdict(one) for one in results]}
    paths[1].write_text(json.dumps(document, indent=1))
    return paths


def tables(results: Sequence[Result]) -> list[Table]:
    """Scenarios with their verdicts, then every job with its figures."""
    verdicts = Table(title="workloads", title_justify="left")
    for heading in ("", "scenario", "verdict", "s", "of at most", "jobs", "pods"):
        verdicts.add_column(heading, justify="left" if heading in ("", "scenario", "verdict") else "right")
    jobs = Table(title="jobs", title_justify="left")
    left = ("", "job", "user", "nodes")
    for heading in ("", "job", "user", "pods", "nodes", "queue", "start", "run", "predicted", "whole"):
        jobs.add_column(heading, justify="left" if heading in left else "right")
    for one in results:
        verdicts.add_row(*_verdict(one))
        for job in one.jobs:
            jobs.add_row(one.letter, *_row(job))
    return [verdicts, jobs]


def _verdict(one: Result) -> tuple[str, ...]:
    pods = sum(job.pods for job in one.jobs)
    told = f"FAILED: {one.failure.splitlines()[0][:60]}" if one.failure else "passed"
    counts = (f"{one.seconds:.0f}", f"{one.limit_s:.0f}", str(len(one.jobs)), str(pods))
    return one.letter, one.title, told, *counts


def _row(job: JobFigures) -> tuple[str, ...]:
    queue = seconds(job.queued_s)
    if job.pods > 1 and job.queued_s is not None:
        queue += f" ({seconds(job.queued_s_max)})"
    nodes = "+".join(node.rsplit("-", 1)[-1] for node in job.nodes)
    times = (queue, seconds(job.starting_s), seconds(job.run_s), seconds(job.predicted_s))
    return job.job, job.user or "-", str(job.pods), nodes, *times, seconds(job.whole_s)


def seconds(value: float | None) -> str:
    """A time with one digit behind the point; a dash where it is not known."""
    return "-" if value is None else f"{value:.1f}"
