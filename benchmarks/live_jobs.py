"""Jobs as real pods behind the queue's gate, on simulated nodes: created, followed, and ended in time.

What is written down comes from a watch of the API server, not from the
controller: who really held how much is counted apart from the queue's books.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.jobs import IMAGE, NAMESPACE, PODS_PATH
from scheduler.core.workloads.rules import GATE
from scheduler.edge.kube import STRATEGIC_PATCH, KubeClient, KubeError, Listed

END_TRIES = 30
JOBS_PATH = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
JOB_NAME = "batch.kubernetes.io/job-name"
FAIRLANE = "fairlane"


class _Gate(msgspec.Struct, frozen=True):
    name: str


class _Meta(msgspec.Struct, frozen=True):
    name: str
    uid: str
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct, frozen=True):
    nodeName: str = ""
    schedulingGates: tuple[_Gate, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()


@dataclass(frozen=True, slots=True)
class Ask:
    """A pod that is wanted: who for, and for how long it will run; `told_s`: what its user says of that, if
    anything.

    Its job class is its own, so that only what its user says is known of it, unless `annotations` name
    another. With any scheduler but ours it has no gate.
    """

    user: str
    run_s: float
    told_s: float | None
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1"})
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] | None = None
    scheduler: str = FAIRLANE


@dataclass(slots=True)
class Life:
    """When what was seen of a pod, in unix seconds; `uid` once it is known."""

    ask: Ask
    created_s: float
    uid: str = ""
    open_s: float | None = None
    bound_s: float | None = None
    running_s: float | None = None
    ended_s: float | None = None

    def held_s(self, from_s: float, to_s: float) -> float:
        """For how much of a span it was on a node."""
        if self.bound_s is None:
            return 0.0
        end_s = to_s if self.ended_s is None else min(self.ended_s, to_s)
        return max(0.0, end_s - max(self.bound_s, from_s))


@dataclass(slots=True)
class LiveJob:
    """A Job of so many equal pods, which the job controller makes; `lives`: of those that were seen."""

    ask: Ask
    pods: int
    created_s: float
    lives: list[Life] = field(default_factory=list)

    @property
    def ended_s(self) -> float | None:
        """When its last pod ended; None before."""
        ends = [life.ended_s for life in self.lives if life.ended_s is not None]
        return max(ends) if len(ends) >= self.pods else None


class LiveJobs:
    """All pods of one benchmark by name; `lives` is filled by `follow`, and so are the lives of `jobs`."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self.lives: dict[str, Life] = {}
        self.jobs: dict[str, LiveJob] = {}
        self.most_bound = 0
        self._bound = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()

    async def submit(self, ask: Ask) -> str:
        """Create a pod behind the gate; its name."""
        name = f"{ask.user}-{len(self.lives):05d}"
        self.lives[name] = Life(ask, time.time())
        await self._kube.post(PODS_PATH, manifest(name, ask))
        return name

    async def submit_all(self, asks: Iterable[Ask]) -> list[str]:
        """Create pods at once; their names."""
        return await asyncio.gather(*(self.submit(ask) for ask in asks))

    async def submit_job(self, name: str, ask: Ask, pods: int) -> LiveJob:
        """Create a Job whose pods are as asked, all at once."""
        job = self.jobs[name] = LiveJob(ask, pods, time.time())
        await self._kube.post(JOBS_PATH, job_manifest(name, ask, pods))
        return job

    def waiting(self, user: str) -> int:
        """How many pods of a user were not seen open."""
        return sum(life.open_s is None for life in self.lives.values() if life.ask.user == user)

    def of(self, names: Iterable[str]) -> list[Life]:
        """What is known of these pods."""
        return [self.lives[name] for name in names]

    def over(self, names: Iterable[str]) -> bool:
        """True when all of them have ended."""
        return all(life.ended_s is not None for life in self.of(names))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that changes with what is seen of the pods."""
        while not holds():
            self._moved.clear()
            await self._moved.wait()

    async def follow(self) -> None:
        """Note what happens to the pods, and end each when it has run for its time; until cancelled."""
        async for event in self._kube.mirror(PODS_PATH, _Pod):
            gone = not isinstance(event, Listed) and event.kind == "DELETED"
            for pod in event.items if isinstance(event, Listed) else (event.item,):
                life = self._life(pod)
                if life is not None:
                    self._note(life, pod, gone)
            self._moved.set()

    async def give_up_waiting(self, users: Container[str]) -> None:
        """Delete these users' pods whose gate is closed; they count as if they had never been."""
        for name, life in list(self.lives.items()):
            if life.open_s is None and life.ask.user in users:
                with suppress(KubeError):
                    await self._kube.delete(f"{PODS_PATH}/{name}", {"gracePeriodSeconds": "0"})

    def _life(self, pod: _Pod) -> Life | None:
        """Of a pod that was submitted, or that the job controller made for a Job that was."""
        name = pod.metadata.name
        job = self.jobs.get(pod.metadata.labels.get(JOB_NAME, ""))
        if job is not None and name not in self.lives:
            self.lives[name] = Life(job.ask, time.time())
            job.lives.append(self.lives[name])
        return self.lives.get(name)

    def _note(self, life: Life, pod: _Pod, gone: bool) -> None:
        now_s = time.time()
        life.uid = pod.metadata.uid
        if life.open_s is None and not any(gate.name == GATE for gate in pod.spec.schedulingGates):
            life.open_s = now_s
        if life.bound_s is None and pod.spec.nodeName:
            life.bound_s, self._bound = now_s, self._bound + 1
        if life.running_s is None and pod.status.phase == "Running":
            life.running_s = now_s
            ending = asyncio.create_task(self._end(pod.metadata.name, life.ask.run_s))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if life.ended_s is None and (gone or pod.status.phase in ("Succeeded", "Failed")):
            life.ended_s = now_s
            life.open_s = now_s if life.open_s is None else life.open_s
            self._bound -= life.bound_s is not None
        self.most_bound = max(self.most_bound, self._bound)

    async def _end(self, name: str, run_s: float) -> None:
        await asyncio.sleep(run_s)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        over = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
        status = [{"name": "job", "state": {"terminated": over, "running": None}}]
        body = {"status": {"phase": "Succeeded", "containerStatuses": status}}
        for _ in range(END_TRIES):
            with suppress(KubeError):
                await self._kube.patch(f"{PODS_PATH}/{name}/status", body, STRATEGIC_PATCH)
                return
            await asyncio.sleep(0.5)


@asynccontextmanager
async def followed(kubeconfig: str) -> AsyncIterator[tuple[KubeClient, LiveJobs]]:
    """A client, and pods that are followed, until the block ends."""
    async with KubeClient.connect(kubeconfig, parallel=32) as kube:
        jobs = LiveJobs(kube)
        following = asyncio.create_task(jobs.follow())
        try:
            yield kube, jobs
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


def job_manifest(name: str, ask: Ask, pods: int) -> dict[str, Any]:
    """A Job of so many pods at once, its template as admission would leave it."""
    pod = manifest(name, ask)
    template = {
        "metadata": {
            part: pod["metadata"][part] for part in ("annotations", "labels") if part in pod["metadata"]
        },
        "spec": pod["spec"],
    }
    spec = {"parallelism": pods, "completions": pods, "backoffLimit": 0, "template": template}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def manifest(name: str, ask: Ask) -> dict[str, Any]:
    """The pod behind its gate, if the scheduler is ours, as admission would leave it."""
    told = {} if ask.told_s is None else {"fairlane.dev/expected-duration": f"{ask.told_s:g}s"}
    given = {
        "fairlane.dev/user": ask.user,
        "fairlane.dev/job-class": name,
        **told,
        **ask.annotations,
    }
    container = {
        "name": "job",
        "image": IMAGE,
        "resources": {"requests": ask.requests, "limits": ask.requests},
    }
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "annotations": given}
    if ask.labels:
        metadata["labels"] = dict(ask.labels)
    if ask.owner is not None:
        metadata["ownerReferences"] = [ask.owner]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "schedulerName": ask.scheduler,
            "restartPolicy": "Never",
            "schedulingGates": [{"name": GATE}] if ask.scheduler == FAIRLANE else [],
            "containers": [container],
        },
    }
