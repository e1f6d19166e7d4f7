"""One load as Jobs of real pods, under the default scheduler and under the fair queue, beside the simulator.

    default      the pods have no gate, and the testbed's plain kube-scheduler places them
    fairlane     behind the queue's gate; how long a class takes is known from runs that ended before
    oracle       behind the gate; every pod says its exact run time, and its class is new

Real are etcd, API server, job controller, kube-scheduler, our controller and
recorder; nodes and run times are simulated (`live_jobs`). Before the arm
`fairlane` some runs of each class go through the same queue, so small that all
have room: they make the history. What is measured becomes a schedule of the
simulator, so that every figure is worked out as its own are.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from benchmarks.eta import LoadError
from benchmarks.jobs import PODS_PATH
from benchmarks.live_jobs import FAIRLANE, JOB_NAME, JOBS_PATH, Ask, LiveJobs, followed
from benchmarks.peer_figures import DEFAULT, ORACLE, SIMULATED, Estimates, Ran, ran_of, simulated
from benchmarks.peer_loads import SLOTS, Load
from benchmarks.schedulers import PLAIN_SCHEDULER
from benchmarks.setting import Setting
from scheduler.core.workloads.rules import RECEIPT
from scheduler.edge.kube import KubeClient
from simulator.workload import Job
from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.layout import OPTIONAL, Options
from testbed.progress import Progress

ARMS = tuple(SIMULATED)
NODES = 4
SPREAD = 0.5
"""Standard deviation of the logarithm of earlier runs around the one to come."""
EARLIER_CPU = "50m"
"""All earlier runs have room at once."""
LOOK_S = 0.5
LONGER_THAN_SIMULATED, LONGER_S = 2.0, 60.0
"""So many times what the simulator says of first come first served, and so much more: an arm is stuck."""
CLEARED_S_MAX = 60.0
CALM_S = 3.0
"""Between the earlier runs and those that count."""


@dataclass(frozen=True, slots=True)
class Found:
    """One load under each arm. `earlier`: runs of each class before the arm `fairlane`."""

    load: Load
    whole: bool
    earlier: int
    seconds: float
    ran: tuple[Ran, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        jobs = self.load.workload.jobs
        return {
            "load": self.load.name,
            "jobs": len(jobs),
            "pods": sum(job.pods for job in jobs),
            "users": len(self.load.workload.users),
            "slots": SLOTS,
            "work_slot_s": sum(job.pod_seconds for job in jobs),
            "whole": self.whole,
            "earlier_runs": self.earlier,
            "earlier_spread": SPREAD,
            "seconds": self.seconds,
            "target": asdict(self.load.target),
            "arms": [asdict(one) for one in self.ran],
        }


def arms_of(names: str) -> list[str]:
    """Arms by their names, comma separated.

    Raises:
        LoadError: there is no such arm.
    """
    arms = [text.strip() for text in names.split(",")]
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise LoadError(f"{unknown[0]!r} is none of the arms {', '.join(ARMS)}")
    return list(dict.fromkeys(arms))


@contextmanager
def cluster(progress: Progress) -> Iterator[Setting]:
    """Nodes of 32 cores in all; of Fairlane nothing runs yet."""
    own = {"controller": {"reference": {"cpu": float(SLOTS)}}}
    options = Options(nodes=NODES, sites=1, node_cpu=SLOTS // NODES, without=OPTIONAL, settings=own)
    with Cluster(options, progress=progress) as made:
        yield Setting(made, progress)


def measure(at: Setting, load: Load, arms: Sequence[str], earlier: int, seed: int, *, whole: bool) -> Found:
    """The load under each of the arms, one after the other.

    Raises:
        TestbedError: Fairlane did not come up, or pods did not end in time.
    """
    began_s = time.monotonic()
    ran = []
    for arm in arms:
        runs = earlier if arm == FAIRLANE else 0
        with _fairlane(at) if arm != DEFAULT else nullcontext():
            ran.append(asyncio.run(_run(at, load, arm, runs, random.Random(f"{seed}/{load.name}"))))
    return Found(load, whole, earlier, time.monotonic() - began_s, tuple(ran))


@contextmanager
def _fairlane(at: Setting) -> Iterator[None]:
    recorder = at.cluster.process("recorder")
    recorder.start()
    try:
        with at.controller({}):
            yield
    finally:
        recorder.stop()


async def _run(at: Setting, load: Load, arm: str, earlier: int, dice: random.Random) -> Ran:
    async with followed(str(at.cluster.kubeconfig)) as (kube, jobs):
        if earlier:
            await _play_earlier(at.progress, load, arm, jobs, earlier, dice)
            await _clear(kube)
            await asyncio.sleep(CALM_S)
        await _play(at.progress, load, arm, jobs)
        told = _told(load, arm, await kube.list_all(PODS_PATH, _Released)) if arm != DEFAULT else {}
        await _clear(kube)
        live = {job.name: jobs.jobs[_name(load, arm, number)] for number, job in _numbered(load)}
        return ran_of(load, arm, live, told)


async def _play_earlier(
    progress: Progress, load: Load, arm: str, jobs: LiveJobs, runs: int, dice: random.Random
) -> None:
    """Runs of every class that ended before: as long as those to come, times a log-normal factor."""
    lengths = {load.class_of(job): (job.user, max(job.durations_s)) for job in load.workload.jobs}
    asks = [
        _ask(load, arm, user, one, run_s * dice.lognormvariate(0.0, SPREAD), {"cpu": EARLIER_CPU})
        for one, (user, run_s) in lengths.items()
        for _ in range(runs)
    ]
    longest_s = max(ask.run_s for ask in asks)
    text = f"{load.name}, {arm}: {runs} earlier runs of {len(lengths)} classes, up to {longest_s:.0f} s long"
    with progress.task(text, total=len(asks), unit="runs") as task:
        names = await jobs.submit_all(asks)
        lives = jobs.of(names)
        deadline_s = time.monotonic() + longest_s + 2 * LONGER_S
        while (ended := sum(life.ended_s is not None for life in lives)) < len(lives):
            _check(deadline_s, f"{len(lives) - ended} of {len(lives)} earlier runs have not ended")
            task.advance(ended)
            await asyncio.sleep(LOOK_S)


async def _play(progress: Progress, load: Load, arm: str, jobs: LiveJobs) -> None:
    workload = load.workload
    simulated_s = float(simulated(load, "fifo", workload.jobs, {}).finish_s.max())
    text = f"{load.name}, {arm}: simulated to take {simulated_s:.0f} s"
    deadline_s = time.monotonic() + LONGER_THAN_SIMULATED * simulated_s + LONGER_S
    with progress.task(text, total=len(workload.jobs), unit="jobs") as task:
        async with asyncio.TaskGroup() as together:
            began_s = time.monotonic()
            for number, job in _numbered(load):
                await asyncio.sleep(max(0.0, began_s + job.submitted_s - time.monotonic()))
                together.create_task(_submit(load, arm, number, job, jobs))
                task.advance(_ended(jobs))
        while (ended := _ended(jobs)) < len(workload.jobs):
            _check(deadline_s, f"{len(workload.jobs) - ended} of {len(workload.jobs)} jobs have not ended")
            task.advance(ended)
            await asyncio.sleep(LOOK_S)


async def _submit(load: Load, arm: str, number: int, job: Job, jobs: LiveJobs) -> None:
    run_s = job.durations_s[0]
    ask = _ask(load, arm, job.user, load.class_of(job), run_s, {"cpu": "1"})
    await jobs.submit_job(_name(load, arm, number), ask, job.pods)


def _ask(load: Load, arm: str, user: str, one: str, run_s: float, requests: Mapping[str, str]) -> Ask:
    """Users and classes of one arm are unknown in the next: what the queue owes or knows stays behind."""
    told_s = run_s if arm == ORACLE else None
    own = {} if arm == ORACLE else {"fairlane.dev/job-class": f"{load.name}-{arm}-{one}"}
    scheduler = PLAIN_SCHEDULER if arm == DEFAULT else FAIRLANE
    charged = f"{load.name}-{arm}-{user}".replace("_", "-")
    return Ask(charged, run_s, told_s, requests, own, scheduler=scheduler)


def _name(load: Load, arm: str, number: int) -> str:
    return f"{load.name}-{arm}-{number:04d}"


def _numbered(load: Load) -> Iterator[tuple[int, Job]]:
    return enumerate(load.workload.jobs)


def _ended(jobs: LiveJobs) -> int:
    return sum(job.ended_s is not None for job in jobs.jobs.values())


def _check(deadline_s: float, what: str) -> None:
    if time.monotonic() > deadline_s:
        raise TestbedError(f"{what} in time; look at `kubectl get pods` of a cluster in this state")


async def _clear(kube: KubeClient) -> None:
    """Nothing is left for whatever comes next to look at."""
    await kube.delete(JOBS_PATH, {"propagationPolicy": "Background"})
    await kube.delete(PODS_PATH, {"gracePeriodSeconds": "0"})
    deadline_s = time.monotonic() + CLEARED_S_MAX
    while await kube.list_all(PODS_PATH, _Released):
        _check(deadline_s, "pods that have ended were not removed")
        await asyncio.sleep(LOOK_S)


class _Estimate(msgspec.Struct, frozen=True):
    p50_s: float
    source: str


class _Receipt(msgspec.Struct, frozen=True):
    estimate: _Estimate


class _Meta(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Released(msgspec.Struct, frozen=True):
    metadata: _Meta


def _told(load: Load, arm: str, pods: Sequence[_Released]) -> Estimates:
    """What the receipts on the pods say that the queue believed."""
    names = {_name(load, arm, number): job.name for number, job in _numbered(load)}
    told: dict[str, list[tuple[float, str]]] = {name: [] for name in names.values()}
    for pod in pods:
        name = names.get(pod.metadata.labels.get(JOB_NAME, ""))
        if name is not None:
            receipt = msgspec.json.decode(pod.metadata.annotations[RECEIPT], type=_Receipt)
            told[name].append((receipt.estimate.p50_s, receipt.estimate.source))
    return told
