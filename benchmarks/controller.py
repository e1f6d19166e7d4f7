"""The controller on a real API server: how fast gates open, how much memory many waiting pods take.

Every pod is a gang of one, so each is decided about, planned for and charged
by itself. No kube-scheduler, KWOK or controller manager runs meanwhile. The
peer of the rate is a bare loop that sends the same patches and knows nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import msgspec

from benchmarks.jobs import CPU, IMAGE, MEMORY, NAMESPACE, PODS_PATH
from benchmarks.machine import busy_s, children, cpu_s, memory_mib
from benchmarks.setting import LEASE_S, NOT_NEEDED, ask, token_of
from scheduler.core.workloads.rules import GATE, RECEIPT, USER
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from scheduler.edge.release import UNCHECKED
from testbed.cluster import Cluster, Process
from testbed.control import TestbedError
from testbed.layout import OPTIONAL, Options
from testbed.progress import Progress

RELEASE_TARGET_PER_S = 600.0
MEMORY_TARGET_MIB, COLD_START_TARGET_S = 1024.0, 60.0
CREATING, PATCHING = 16, 32
LOOK_S = 0.1
MOST_S = 400.0
"""For one release of all pods, or one cold start."""
STEADY_S = 20.0
"""After the cold start the memory is looked at once more so much later."""
NODE_PODS = 110


class _Meta(msgspec.Struct, frozen=True):
    name: str
    uid: str


class _Gate(msgspec.Struct, frozen=True):
    name: str


class _Spec(msgspec.Struct, frozen=True):
    schedulingGates: tuple[_Gate, ...] = ()


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()


@dataclass(frozen=True, slots=True)
class Opened:
    """One release of all pods: `way` is who did it; from its first opened gate to the last."""

    way: str
    pods: int
    took_s: float
    cpu_ms_per_pod: dict[str, float]
    other_cores: float

    @property
    def rate(self) -> float:
        """Pods per second."""
        return self.pods / self.took_s


@dataclass(frozen=True, slots=True)
class ReleaseRate:
    """Rounds of the controller and of the bare loop, in turn."""

    users: int
    pods: int
    opened: tuple[Opened, ...]

    def rate(self, way: str) -> float:
        """Median pods per second."""
        return median(one.rate for one in self.opened if one.way == way)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rates = {way: self.rate(way) for way in dict.fromkeys(one.way for one in self.opened)}
        rounds = [{**asdict(one), "pods_per_s": one.rate} for one in self.opened]
        return {
            "users": self.users,
            "pods": self.pods,
            "target_pods_per_s": RELEASE_TARGET_PER_S,
            "pods_per_s": rates,
            "ratio": rates[FAIRLANE] / rates[BARE],
            "rounds": rounds,
        }


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A controller that is started where many pods wait.

    `ready_s`: until it says that it is ready; `first_release_s`: until the first gate is open. Memory of
    its process at its most, and `STEADY_S` later, and of its children then. `list_s`: how long a bare list of
    the same pods takes.
    """

    pods: int
    users: int
    ready_s: float
    first_release_s: float
    list_s: float
    memory_mib_most: float
    memory_mib_after: float
    children_mib_after: float
    cpu_s: float
    waiting: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        targets = {"target_memory_mib": MEMORY_TARGET_MIB, "target_cold_start_s": COLD_START_TARGET_S}
        return {**asdict(self), **targets}


FAIRLANE, BARE = "fairlane", "bare loop"


@dataclass
class Waiting:
    """A quiet cluster in which pods wait behind the gate."""

    cluster: Cluster
    progress: Progress

    @property
    def controller(self) -> Process:
        """The controller; it is not started yet."""
        return self.cluster.process("controller")

    def status(self) -> dict[str, Any]:
        """What the controller says of itself; empty while it does not answer."""
        return ask(self.cluster.layout.url("controller") + "/v1/status")

    async def create(self, kube: KubeClient, count: int, users: int) -> None:
        """So many gated pods of so many users."""
        numbers = iter(range(count))
        with self.progress.task("creating pods", total=count, unit="pods") as task:

            async def some() -> None:
                for number in numbers:
                    await kube.post(PODS_PATH, _manifest(number, f"user-{number % users}"))
                    task.advance(number + 1)

            await asyncio.gather(*(some() for _ in range(CREATING)))

    async def clear(self, kube: KubeClient) -> None:
        """Delete all pods.

        Raises:
            TestbedError: they did not go.
        """
        deadline_s = time.monotonic() + MOST_S
        while await _names(kube):
            if time.monotonic() > deadline_s:
                raise TestbedError(f"pods are still there {MOST_S:.0f} s after their deletion")
            names = iter(await _names(kube))
            await asyncio.gather(*(_delete(kube, names) for _ in range(CREATING)))

    def cpu(self) -> dict[str, float]:
        """CPU time of every process that matters, in s."""
        names = ("kube-apiserver", "etcd", "controller")
        return {name: cpu_s(self.cluster.process(name).pid or 0) for name in names}


@contextmanager
def waiting(nodes: int, progress: Progress) -> Iterator[Waiting]:
    """A cluster of so many nodes with nothing but etcd and the API server running, until the block ends."""
    own = {"expected_core_share": 0.0, "lease_s": 60}
    options = Options(
        nodes=nodes,
        sites=1,
        lease_s=LEASE_S,
        node_cpu=NODE_PODS,
        node_memory="1Ti",
        node_pods=NODE_PODS,
        without=OPTIONAL,
        settings={"controller": own},
    )
    with Cluster(options, progress=progress) as cluster:
        for name in NOT_NEEDED:
            cluster.process(name).stop()
        yield Waiting(cluster, progress)


def measure_release(pods: int, users: int, rounds: int, progress: Progress) -> ReleaseRate:
    """Rounds of both ways, in turn: on each all pods are created anew and released as fast as it goes."""
    with waiting(-(-pods // NODE_PODS) + 1, progress) as at:
        found = asyncio.run(_rounds(at, pods, users, rounds))
    return ReleaseRate(users, pods, tuple(found))


async def _rounds(at: Waiting, pods: int, users: int, rounds: int) -> list[Opened]:
    found: list[Opened] = []
    async with KubeClient.connect(str(at.cluster.kubeconfig), parallel=PATCHING) as kube:
        for number in range(rounds):
            ways = (FAIRLANE, BARE) if number % 2 == 0 else (BARE, FAIRLANE)
            for way in ways:
                await at.create(kube, pods, users)
                found.append(await (_by_controller if way == FAIRLANE else _by_loop)(at, kube, pods))
                at.progress.say(f"round {number + 1} of {rounds}, {way}: {found[-1].rate:.0f} pods/s")
                await at.clear(kube)
    return found


async def _by_controller(at: Waiting, kube: KubeClient, pods: int) -> Opened:
    """From the first opened gate on: the list before it is the cold start's affair."""
    controller = at.controller
    await asyncio.to_thread(controller.start)
    try:
        patched = await _patched(at, 1)
        before, busy, begun_s = at.cpu(), busy_s(), time.monotonic()
        at_begin = patched
        while patched < pods:
            _check(begun_s, f"{patched} of {pods} gates are open")
            await asyncio.sleep(LOOK_S)
            patched = at.status().get("patched", patched)
        took_s = time.monotonic() - begun_s
        made = _opened(FAIRLANE, pods - at_begin, took_s, before, at.cpu(), busy)
    finally:
        await asyncio.to_thread(controller.stop)
    closed = [pod for pod in await kube.list_all(PODS_PATH, _Pod) if pod.spec.schedulingGates]
    if closed:
        raise TestbedError(f"{len(closed)} pods are gated, although the controller says that none is")
    return made


async def _patched(at: Waiting, least: int) -> int:
    begun_s = time.monotonic()
    while (patched := int(at.status().get("patched", 0))) < least:
        _check(begun_s, "no gate was opened")
        await asyncio.sleep(LOOK_S)
    return patched


async def _by_loop(at: Waiting, kube: KubeClient, pods: int) -> Opened:
    listed = await kube.list_all(PODS_PATH, _Pod)
    todo = iter(listed)
    before, busy, begun_s = at.cpu() | {"benchmark": _own_cpu_s()}, busy_s(), time.monotonic()

    async def some() -> None:
        for pod in todo:
            path = f"{PODS_PATH}/{pod.metadata.name}"
            await kube.patch(path, _patch(pod.metadata.uid), JSON_PATCH, UNCHECKED)

    await asyncio.gather(*(some() for _ in range(PATCHING)))
    took_s = time.monotonic() - begun_s
    return _opened(BARE, pods, took_s, before, at.cpu() | {"benchmark": _own_cpu_s()}, busy)


def _opened(
    way: str,
    pods: int,
    took_s: float,
    before: dict[str, float],
    after: dict[str, float],
    busy_before_s: float,
) -> Opened:
    used_s = {name: after[name] - before[name] for name in before}
    others = max(0.0, busy_s() - busy_before_s - sum(used_s.values())) / took_s
    return Opened(way, pods, took_s, {name: 1000.0 * used / pods for name, used in used_s.items()}, others)


def measure_cold_start(pods: int, users: int, nodes: int, progress: Progress) -> ColdStart:
    """Create the pods, then start the controller and watch it until some are released."""
    with waiting(nodes, progress) as at:
        return asyncio.run(_cold_start(at, pods, users))


async def _cold_start(at: Waiting, pods: int, users: int) -> ColdStart:
    async with KubeClient.connect(str(at.cluster.kubeconfig), parallel=PATCHING) as kube:
        await at.create(kube, pods, users)
        begun_s = time.monotonic()
        await kube.list_all(PODS_PATH, _Pod)
        list_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    await asyncio.to_thread(at.controller.start, False)
    ready_s = 0.0
    while not (status := at.status()).get("patched"):
        if not ready_s and status and not status["unready"]:
            ready_s = time.monotonic() - begun_s
        _check(begun_s, f"no gate was opened; the controller says {status}")
        at.controller.check()
        await asyncio.sleep(LOOK_S)
    first_s = time.monotonic() - begun_s
    pid = at.controller.pid or 0
    await asyncio.sleep(STEADY_S)
    url = at.cluster.layout.url("controller") + "/v1/queue?limit=1"
    queue = ask(url, timeout_s=60.0, token=token_of(at.cluster))
    return ColdStart(
        pods=pods,
        users=users,
        ready_s=ready_s or first_s,
        first_release_s=first_s,
        list_s=list_s,
        memory_mib_most=memory_mib(pid, "VmHWM"),
        memory_mib_after=memory_mib(pid, "VmRSS"),
        children_mib_after=sum(memory_mib(child, "VmRSS") for child in children(pid)),
        cpu_s=cpu_s(pid),
        waiting=int(queue["waiting"]),
    )


def _check(begun_s: float, what: str) -> None:
    if time.monotonic() > begun_s + MOST_S:
        raise TestbedError(f"after {MOST_S:.0f} s {what}")


def _manifest(number: int, user: str) -> dict[str, Any]:
    annotations = {USER: user, "fairlane.dev/job-class": f"class-{number % 50}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"wait-{number:06d}", "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "schedulerName": "fairlane",
            "schedulingGates": [{"name": GATE}],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "job",
                    "image": IMAGE,
                    "resources": {"requests": {"cpu": CPU, "memory": MEMORY}},
                }
            ],
        },
    }


def _patch(uid: str) -> list[dict[str, Any]]:
    """What the controller sends for one pod, with a receipt as long as its own."""
    receipt = {
        "gang": uid,
        "flow": "user-000",
        "released_s": 1.7e9,
        "charged_work": 0.001234,
        "rest": "-" * 220,
    }
    note = f"/metadata/annotations/{RECEIPT.replace('/', '~1')}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/schedulingGates/0/name", "value": GATE},
        {"op": "remove", "path": "/spec/schedulingGates/0"},
        {"op": "add", "path": note, "value": msgspec.json.encode(receipt).decode()},
    ]


async def _names(kube: KubeClient) -> list[str]:
    return [pod.metadata.name for pod in await kube.list_all(PODS_PATH, _Pod)]


async def _delete(kube: KubeClient, names: Iterator[str]) -> None:
    for name in names:
        try:
            await kube.delete(f"{PODS_PATH}/{name}", {"gracePeriodSeconds": "0"})
        except KubeError as error:
            if error.status != 404:
                raise


def _own_cpu_s() -> float:
    return time.process_time()
