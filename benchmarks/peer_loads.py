"""The three loads on which the queue is compared with its peers: two published slices, and a flood.

The slices are the workloads of the UWFQ evaluation (arXiv 2510.15485), which
are not part of this project: time runs four times as fast, and a job's work is
cut into equal one-slot pods. The flood is made here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.eta import LoadError
from simulator.traces import TraceError, read_trace
from simulator.workload import Job, Workload, workload_of, workload_of_first

SLOTS = 32
COMPRESSED = 4.0
POD_S_MOST, PODS_MOST, POD_S_LEAST = 20.0, 16, 1.0
"""Trace time of a pod; pods of a job, which goes before that; seconds of a pod as run."""
SLICES = {"hetero": "hetero_macro_config.json.gz", "homo": "homo_macro_config.json.gz"}
FOLDER = "uwfq_google_macro"
FLOOD = "flood"
NAMES = (*SLICES, FLOOD)
FLOOD_JOBS, FLOOD_PODS, FLOOD_POD_S = 200, 2, (5.0, 5.0)
FLOODER, SMALL_USERS = "flooder", ("small-1", "small-2", "small-3", "small-4")
SMALL_EVERY_S, SMALL_APART_S, SMALL_POD_S = 10.0, 2.5, (1.0, 3.0)
SMALL_S_LEAST = 30.0


class AbsentError(Exception):
    """A load cannot be had; the message says what is missing, and where it was looked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the queue has to reach, of the jobs that are scored: at most so much; `second` names what."""

    mean_s: float
    second: str
    second_most: float


TARGETS = {
    "hetero": Target(4.5, "late", 0.5),
    "homo": Target(8.6, "late", 0.2),
    FLOOD: Target(3.2, "p95_s", 5.5),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs of elastic one-slot pods. `scored`: users whose jobs count; `class_of`: what recurs of a job."""

    name: str
    workload: Workload
    scored: tuple[str, ...]
    class_of: Callable[[Job], str]

    @property
    def target(self) -> Target:
        """Of the whole load."""
        return TARGETS[self.name]


def loads_of(names: str, data: Path, first: int, seed: int) -> tuple[list[Load], list[str]]:
    """Loads by their names, comma separated, and a sentence about each whose data are not there.

    Raises:
        LoadError: a name is unknown, or nothing is left.
    """
    loads, absent = [], []
    for name in (text.strip() for text in names.split(",")):
        try:
            loads.append(load_of(name, data, first, seed))
        except AbsentError as error:
            absent.append(str(error))
    if not loads:
        raise LoadError("; ".join(absent))
    return loads, absent


def load_of(name: str, data: Path, first: int, seed: int) -> Load:
    """The load of that name, or its first jobs (0: all); `data`: the folder of public data sets.

    Raises:
        AbsentError: the slice is not there, or cannot be read.
        LoadError: there is no load of that name.
    """
    if name == FLOOD:
        workload = flood(first or FLOOD_JOBS, seed)
        return Load(name, workload, SMALL_USERS, lambda job: job.user)
    if name not in SLICES:
        raise LoadError(f"{name!r} is none of the scenarios {', '.join(NAMES)}")
    path = data / FOLDER / SLICES[name]
    if not path.is_file():
        raise AbsentError(
            f"{name} is left out: {path} is not there. It is published with arXiv 2510.15485 and not part "
            f"of this project; --data names the folder that holds {FOLDER}/"
        )
    try:
        workload = cut(read_trace(path))
    except TraceError as error:
        raise AbsentError(f"{name} is left out: {error}") from error
    workload = workload_of_first(workload, first) if first else workload
    return Load(name, workload, workload.users, lambda job: job.name)


def cut(workload: Workload) -> Workload:
    """Four times as fast, every job as equal pods: as few as keep each to 20 s of the trace, at most 16.

    Work is kept, except that no pod is shorter than 1 s.
    """
    return workload_of([_cut(job) for job in workload.jobs], workload.name, workload.notes)


def _cut(job: Job) -> Job:
    pods = min(PODS_MOST, max(1, math.ceil(job.pod_seconds / POD_S_MOST)))
    pod_s = max(POD_S_LEAST, job.pod_seconds / pods / COMPRESSED)
    return Job(job.name, job.user, job.submitted_s / COMPRESSED, (pod_s,) * pods)


def flood(jobs: int, seed: int) -> Workload:
    """So many jobs of one user at once; small ones of four others for as long as those would take alone."""
    dice = random.Random(f"{seed}/{FLOODER}")
    made = [
        _drawn(f"{FLOODER}-{number}", FLOODER, 0.0, FLOOD_PODS, dice, FLOOD_POD_S) for number in range(jobs)
    ]
    until_s = max(SMALL_S_LEAST, math.fsum(job.pod_seconds for job in made) / SLOTS)
    for place, user in enumerate(SMALL_USERS):
        dice, at_s = random.Random(f"{seed}/{user}"), (place + 1) * SMALL_APART_S
        while at_s < until_s:
            made.append(_drawn(f"{user}-{at_s:g}", user, at_s, 1, dice, SMALL_POD_S))
            at_s += SMALL_EVERY_S
    return workload_of(made, FLOOD)


def _drawn(
    name: str, user: str, at_s: float, pods: int, dice: random.Random, pod_s: tuple[float, float]
) -> Job:
    return Job(name, user, at_s, (dice.uniform(*pod_s),) * pods)
