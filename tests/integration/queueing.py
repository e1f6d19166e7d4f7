"""A testbed with the fair queue: jobs of several users, run for real, and a record of what happened."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import yaml

from scheduler.edge.kube import STRATEGIC_PATCH, KubeClient, KubeError, Listed
from testbed.cluster import Cluster
from testbed.layout import OPTIONAL, Options

PATH = "/api/v1/namespaces/default/pods"
GATE = "fairlane.dev/queue"
USER = "fairlane.dev/user"
RECEIPT = "fairlane.dev/receipt"
RUN_S = "test/run-s"
LEASE_S = 6


class _Gate(msgspec.Struct, frozen=True):
    name: str


class _Meta(msgspec.Struct, frozen=True):
    name: str
    uid: str
    annotations: dict[str, str] = {}


class _Spec(msgspec.Struct, frozen=True):
    nodeName: str = ""
    schedulingGates: tuple[_Gate, ...] = ()


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    lastTransitionTime: str = ""


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: tuple[_Condition, ...] = ()


class SeenPod(msgspec.Struct, frozen=True):
    """A pod as the API server tells it."""

    metadata: _Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def gated(self) -> bool:
        return any(gate.name == GATE for gate in self.spec.schedulingGates)

    @property
    def ended(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")


@dataclass
class Life:
    """When a pod was first seen open, bound, running and ended, in monotonic seconds.

    `placed_s` and `over_s`: when it was bound and ended in truth, by the API server's times, in unix seconds.
    How late this process sees that says how busy the machine is, and nothing of what the pod held.
    """

    user: str
    released_s: float | None = None
    bound_s: float | None = None
    running_s: float | None = None
    ended_s: float | None = None
    placed_s: float | None = None
    over_s: float | None = None

    @property
    def held_s(self) -> float:
        """For how long it held its place, known to half a second; 0 while that is not over."""
        return 0.0 if self.placed_s is None or self.over_s is None else self.over_s - self.placed_s


def small_cluster(**settings: Any) -> Cluster:
    """Two nodes of two cores: four slots; no telemetry, and a controller that can be started."""
    own = {
        "reference": {"cpu": 4.0},
        "lease_s": LEASE_S,
        "checkpoint_s": 1.0,
        "tick_s": 1.0,
        "announce_s": 1.0,
        "check_s": 1.0,
        "expected_every_s": 2.0,
        **settings,
    }
    options = Options(nodes=2, sites=1, node_cpu=2, without=OPTIONAL, settings={"controller": own})
    return Cluster(options)


class Jobs:
    """Creates gated pods, ends them when their time has come, and writes down what happens to them.

    `most_open` is the largest number of pods that were open and not over at the same time.
    """

    def __init__(self, kube: KubeClient) -> None:
        self.kube = kube
        self.prefix = f"job-{uuid.uuid4().hex[:6]}"
        self.lives: dict[str, Life] = {}
        self.order: list[str] = []
        self.most_open = 0
        self._numbers = iter(range(10**6))
        self._ending: set[asyncio.Task[None]] = set()

    async def submit(
        self, user: str, run_s: float = 1.0, gang: str = "", size: int = 1, cpu: str = "1", gated: bool = True
    ) -> str:
        """Create one pod (of a gang); its name."""
        name = f"{self.prefix}-{next(self._numbers):05d}"
        annotations = {USER: user, RUN_S: str(run_s), "fairlane.dev/job-class": f"{user}-jobs"}
        if gang:
            annotations |= {"fairlane.dev/gang": gang, "fairlane.dev/gang-size": str(size)}
        container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}
        spec: dict[str, Any] = {
            "schedulerName": "fairlane",
            "restartPolicy": "Never",
            "containers": [container],
        }
        if gated:
            spec["schedulingGates"] = [{"name": GATE}]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": annotations},
            "spec": spec,
        }
        self.lives[name] = Life(user)
        await self.kube.post(PATH, body)
        return name

    async def submit_gang(self, user: str, size: int, run_s: float = 1.0) -> list[str]:
        """Create a gang, one pod after another."""
        gang = f"gang-{uuid.uuid4().hex[:6]}"
        return [await self.submit(user, run_s, gang, size) for _ in range(size)]

    def ended(self, user: str = "") -> int:
        """How many pods are over."""
        return sum(one.ended_s is not None for one in self.lives.values() if user in ("", one.user))

    async def follow(self) -> None:
        """Follow the pods until cancelled."""
        async for event in self.kube.mirror(PATH, SeenPod):
            gone = not isinstance(event, Listed) and event.kind == "DELETED"
            for pod in event.items if isinstance(event, Listed) else (event.item,):
                if pod.metadata.name.startswith(self.prefix):
                    self._note(pod, gone)

    def _note(self, pod: SeenPod, gone: bool) -> None:
        now_s, name = time.monotonic(), pod.metadata.name
        life = self.lives.setdefault(name, Life(pod.metadata.annotations.get(USER, "")))
        if life.released_s is None and not pod.gated:
            life.released_s = now_s
            self.order.append(name)
        if life.bound_s is None and pod.spec.nodeName:
            life.bound_s, life.placed_s = now_s, _placed_s(pod)
        if life.running_s is None and pod.status.phase == "Running":
            life.running_s = now_s
            ending = asyncio.create_task(self._end(name, float(pod.metadata.annotations[RUN_S])))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if life.ended_s is None and (gone or pod.ended):
            life.ended_s = now_s
            life.over_s = time.time() if life.over_s is None else life.over_s
        open_now = [one for one in self.lives.values() if one.released_s is not None and one.ended_s is None]
        self.most_open = max(self.most_open, len(open_now))

    async def finish(self, names: list[str]) -> None:
        """End pods now that would run on."""
        await asyncio.gather(*(self._end(name, 0.0) for name in names))

    async def _end(self, name: str, run_s: float) -> None:
        await asyncio.sleep(run_s)
        over_s = self.lives[name].over_s = time.time()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(over_s))
        over = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
        state = {"terminated": over, "running": None}
        body = {"status": {"phase": "Succeeded", "containerStatuses": [{"name": "main", "state": state}]}}
        for _ in range(60):
            with contextlib.suppress(KubeError):
                await self.kube.patch(f"{PATH}/{name}/status", body, STRATEGIC_PATCH)
                return
            await asyncio.sleep(0.5)

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Wait until a condition holds."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not true within {within_s:.0f} s: {self.lives}"
            await asyncio.sleep(0.05)

    async def pod(self, name: str) -> SeenPod:
        """A pod as it is now."""
        return msgspec.json.decode(await self.kube.get(f"{PATH}/{name}"), type=SeenPod)

    async def delete_ended(self) -> None:
        """Delete the pods that are over, once the controller has had time to take note of their ends."""
        over = [name for name, life in self.lives.items() if life.ended_s is not None]
        await asyncio.sleep(2.0)
        for name in over:
            with contextlib.suppress(KubeError):
                await self.kube.delete(f"{PATH}/{name}")

    async def delete_all(self) -> None:
        """Delete all pods made here."""
        await self.kube.delete(PATH)


def _placed_s(pod: SeenPod) -> float:
    """When it was bound: now, if that is the second it is told in, else the middle of that second.

    The middle of what has passed of the second would be too early for all who are seen at once.
    """
    now_s = time.time()
    for one in pod.status.conditions:
        if one.type == "PodScheduled" and one.status == "True" and one.lastTransitionTime:
            at_s = datetime.fromisoformat(one.lastTransitionTime).timestamp()
            return now_s if now_s < at_s + 1.0 else at_s + 0.5
    return now_s


@asynccontextmanager
async def jobs_on(cluster: Cluster) -> AsyncIterator[Jobs]:
    """Jobs that are followed for as long as the block lasts; their pods are deleted at its end."""
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        jobs = Jobs(kube)
        following = asyncio.create_task(jobs.follow())
        try:
            yield jobs
        finally:
            following.cancel()
            await jobs.delete_all()


def ask(cluster: Cluster, path: str, port: int = 0) -> Any:
    """GET of the controller's API (of the replica on `port`) by our token; None while it does not answer."""
    url = f"http://127.0.0.1:{port}" if port else cluster.layout.url("controller")
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token_of(cluster)}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def token_of(cluster: Cluster) -> str:
    """What Fairlane's own processes on this testbed share."""
    return str(yaml.safe_load(cluster.settings_file.read_text())["token"])


def received(cluster: Cluster) -> dict[str, float]:
    """Share-seconds that each user has received, by the controller's ledger."""
    told = ask(cluster, "/v1/queue") or {"flows": []}
    return {flow["user"]: flow["received"] for flow in told["flows"]}


Waiting = Callable[[], Awaitable[bool]]
