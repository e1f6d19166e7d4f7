"""What Fairlane costs where nothing happens: CPU and memory of each of its processes.

Three times, one after the other: without Fairlane, with it on an idle cluster,
and with many gangs waiting behind nodes that are all taken. Settings are the
defaults of the product. The probes run on loopback beside each other and
measure each other, as many at a time as on a large cluster.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.jobs import CPU, IMAGE, MEMORY, NAMESPACE, PODS_PATH
from benchmarks.machine import busy_s, children, cpu_s, memory_mib
from benchmarks.readings import source_settings
from benchmarks.setting import EPOCH_S, ask, start_telemetry, token_of
from scheduler.config import ProbeSettings
from scheduler.core.workloads.rules import GATE, USER
from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster, Process
from testbed.control import TestbedError
from testbed.layout import Options
from testbed.progress import Progress

OURS = ("controller", "extender", "recorder", "predictor")
PROBE = "probe"
CONTROL_PLANE = ("kube-apiserver", "etcd", "kube-scheduler")
WITHOUT, IDLE, WAITING = "without Fairlane", "idle", "waiting"
USERS, CREATING = 20, 16
SETTLING_S = EPOCH_S
"""After a change, before it is measured: tables and checkpoints have come to rest."""
TELLING_S_MAX = 300.0
"""Until all who wait have been told so, and when they are expected to start; then it is measured anyway."""
READY_S_MAX = 240.0
NODE_CPU = 16


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process and what it started: CPU of each sample in ms a second; memory (RSS) in MiB."""

    cpu_ms_per_s: tuple[float, ...]
    memory_mib: float
    children_mib: float


@dataclass(frozen=True, slots=True)
class Phase:
    """One state of the cluster; `other_cores`: what everything that is not measured here used meanwhile.

    `per_min`: how often some work was done.
    """

    name: str
    gangs_waiting: int
    costs: Mapping[str, Cost]
    other_cores: float
    per_min: Mapping[str, float]

    def cpu(self, process: str) -> float:
        """Median of the samples, ms a second."""
        return median(self.costs[process].cpu_ms_per_s)


@dataclass(frozen=True, slots=True)
class IdleCost:
    """All phases, in their order."""

    nodes: int
    sample_s: float
    phases: tuple[Phase, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "nodes": self.nodes,
            "sample_s": self.sample_s,
            "phases": [
                asdict(one) | {"cpu_ms_per_s": {name: one.cpu(name) for name in one.costs}}
                for one in self.phases
            ],
        }


def measure(
    nodes: int, waiting: int, samples: int, sample_s: float, registry: Path, progress: Progress
) -> IdleCost:
    """So many samples of each phase with Fairlane, and half as many without."""
    phases: list[Phase] = []

    def look(name: str, processes: Mapping[str, Process], times: int, gangs: int = 0) -> None:
        progress.say(f"{name}: measuring for {times * sample_s:.0f} s")
        before = _work(cluster) if name != WITHOUT else {}
        phase = _phase(name, gangs, processes, times, sample_s)
        after = _work(cluster) if name != WITHOUT else {}
        per_min = {what: 60.0 * (after[what] - before[what]) / (times * sample_s) for what in before}
        phases.append(replace(phase, per_min=per_min))

    with _quiet(nodes, registry, progress) as cluster:
        others = {name: cluster.process(name) for name in CONTROL_PLANE}
        time.sleep(SETTLING_S)
        look(WITHOUT, others, -(-samples // 2))
        ours = others | _start_ours(cluster)
        _wait_known(cluster, 0)
        time.sleep(SETTLING_S)
        look(IDLE, ours, samples)
        asyncio.run(_fill(cluster, nodes, waiting, progress))
        _wait_told(cluster, progress)
        look(WAITING, ours, samples, _wait_known(cluster, waiting))
    return IdleCost(nodes, sample_s, tuple(phases))


@contextmanager
def _quiet(nodes: int, registry: Path, progress: Progress) -> Iterator[Cluster]:
    """A cluster whose nodes renew their leases as real ones do; generated telemetry; none of ours yet."""
    options = Options(
        nodes=nodes,
        sites=min(3, nodes),
        node_cpu=NODE_CPU,
        without=("prometheus", "physics", *OURS),
        settings={
            "epoch_s": EPOCH_S,
            "sources": [source_settings()],
            "predictor": {"registry": str(registry)},
        },
    )
    with Cluster(options, progress=progress) as cluster:
        start_telemetry(cluster)
        yield cluster


def _start_ours(cluster: Cluster) -> dict[str, Process]:
    """All of Fairlane's processes by name, and one of the probes."""
    found = {name: cluster.process(name) for name in OURS}
    for process in found.values():
        process.start(wait=False)
    found[PROBE] = _probes(cluster)
    for name in OURS:
        found[name].wait_ready()
    return found


def _probes(cluster: Cluster) -> Process:
    """As many as one measures in a round, and one: that one."""
    count = ProbeSettings().peers_per_round + 1
    ports = cluster.control.ports(2 * count)
    peers = cluster.layout.file("probe-peers")
    peers.write_text("".join(f"probe-{at} 127.0.0.1:{port}\n" for at, port in enumerate(ports[:count])))
    started = []
    for at in range(count):
        options = {"node": f"probe-{at}", "peers": peers, "host": "127.0.0.1", "peers-from": "file"}
        options |= {"config": cluster.settings_file, "port": ports[at], "metrics-port": ports[count + at]}
        flags = (f"--{name}={value}" for name, value in options.items())
        argv = (sys.executable, "-m", "scheduler.cli.main", "probe", *flags)
        started.append(cluster.run(f"probe-{at}", *argv))
    return started[0]


async def _fill(cluster: Cluster, nodes: int, waiting: int, progress: Progress) -> None:
    """Take every node whole, by gangs that stay, and then let the others come."""
    async with KubeClient.connect(str(cluster.kubeconfig), parallel=CREATING) as kube:
        takers = [_pod(f"taker-{number:04d}", "taker", str(NODE_CPU)) for number in range(nodes)]
        await _create(kube, takers, progress)
        await asyncio.to_thread(_until, cluster, "the nodes are taken", lambda told: told["running"] >= nodes)
        users = [f"user-{number % USERS:02d}" for number in range(waiting)]
        await _create(kube, [_pod(f"wait-{at:05d}", user, CPU) for at, user in enumerate(users)], progress)


async def _create(kube: KubeClient, pods: list[dict[str, Any]], progress: Progress) -> None:
    todo = iter(pods)
    with progress.task("creating pods", total=len(pods), unit="pods") as task:

        async def some() -> None:
            for done, pod in enumerate(todo):
                await kube.post(PODS_PATH, pod)
                task.advance(done + 1)

        await asyncio.gather(*(some() for _ in range(CREATING)))


def _pod(name: str, user: str, cpu: str) -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": MEMORY}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {USER: user}},
        "spec": {
            "schedulerName": "fairlane",
            "schedulingGates": [{"name": GATE}],
            "restartPolicy": "Never",
            "containers": [{"name": "job", "image": IMAGE, "resources": {"requests": requests}}],
        },
    }


def _wait_known(cluster: Cluster, waiting: int) -> int:
    """How many gangs wait, once the controller says that all do."""
    told = _until(cluster, f"{waiting} gangs wait", lambda told: told["waiting"] >= waiting)
    return int(told["waiting"])


def _wait_told(cluster: Cluster, progress: Progress) -> None:
    """Until no condition was written for as long as it takes to settle: nobody hears anything new."""
    progress.say("waiting until those who wait have been told so")
    deadline_s, told = time.monotonic() + TELLING_S_MAX, -1.0
    while time.monotonic() < deadline_s and told != (now := _work(cluster)["conditions written"]):
        told = now
        time.sleep(SETTLING_S)


def _until(cluster: Cluster, what: str, holds: Any) -> dict[str, Any]:
    """What the controller says of the queue, as soon as that is so.

    Raises:
        TestbedError: it is not so in time.
    """
    deadline_s = time.monotonic() + READY_S_MAX
    url, token = cluster.layout.url("controller") + "/v1/queue?limit=1", token_of(cluster)
    while not ((told := ask(url, token=token)) and holds(told)):
        if time.monotonic() > deadline_s:
            raise TestbedError(f"it took more than {READY_S_MAX:.0f} s until {what}; the queue: {told}")
        time.sleep(0.5)
    return told


def _phase(name: str, gangs: int, of: Mapping[str, Process], samples: int, sample_s: float) -> Phase:
    pids = {process: one.pid or 0 for process, one in of.items()}
    cpu: dict[str, list[float]] = {process: [] for process in of}
    busy_begun_s, begun_s = busy_s(), time.monotonic()
    before, before_s = {process: cpu_s(pid) for process, pid in pids.items()}, begun_s
    first = dict(before)
    for _ in range(samples):
        time.sleep(sample_s)
        now, now_s = {process: cpu_s(pid) for process, pid in pids.items()}, time.monotonic()
        for process in of:
            cpu[process].append(1000.0 * (now[process] - before[process]) / (now_s - before_s))
        before, before_s = now, now_s
    for one in of.values():
        one.check()
    used_s = sum(before[process] - first[process] for process in of)
    others = max(0.0, busy_s() - busy_begun_s - used_s) / (before_s - begun_s)
    costs = {process: _cost(cpu[process], pid) for process, pid in pids.items()}
    return Phase(name, gangs, costs, others, {})


def _work(cluster: Cluster) -> dict[str, float]:
    """What was done since the start, by what the processes say of themselves."""
    extender = ask(f"{cluster.extender_url}/v1/status")
    controller = ask(cluster.layout.url("controller") + "/v1/status")
    return {
        "score tables made": sum(extender["tables_made"].values()),
        "conditions written": controller["announcements"].get("conditions", 0),
        "decisions of the queue": controller["decisions"],
        "outlooks on expected starts": controller["expected_starts"]["outlooks"],
    }


def _cost(cpu_ms_per_s: list[float], pid: int) -> Cost:
    below = sum(memory_mib(child) for child in children(pid))
    return Cost(tuple(cpu_ms_per_s), memory_mib(pid), below)


def show(found: IdleCost, console: Console) -> None:
    """Print one row per process."""
    last = found.phases[-1]
    table = Table(title=f"Processes on {found.nodes:,} nodes: CPU in ms a second, memory (RSS) in MiB")
    table.add_column("process")
    for one in found.phases:
        count = f", {one.gangs_waiting:,} gangs" if one.gangs_waiting else ""
        table.add_column(f"{one.name}{count}: CPU", justify="right")
        if one.name != WITHOUT:
            table.add_column("memory", justify="right")
    for name in (*OURS, PROBE, *CONTROL_PLANE):
        cells = [cell for one in found.phases for cell in _cells(one, name)]
        table.add_row(name, *cells, end_section=name == PROBE)
    console.print(table)
    for one in found.phases[1:]:
        console.print(_sentence(one))
        console.print(
            "Each minute: " + ", ".join(f"{count:.1f} {what}" for what, count in one.per_min.items())
        )
    samples = len(last.costs[PROBE].cpu_ms_per_s)
    console.print(
        f"Medians of {samples} samples of {found.sample_s:g} s. Each node has one probe; admission by "
        "policies, which is the default, is no process."
    )


def _cells(phase: Phase, process: str) -> list[str]:
    cost = phase.costs.get(process)
    if cost is None:
        return [""] if phase.name == WITHOUT else ["", ""]
    most = max(cost.cpu_ms_per_s)
    cells = [f"{phase.cpu(process):.1f} (most {most:.1f})"]
    if phase.name != WITHOUT:
        below = f" + {cost.children_mib:.0f}" if cost.children_mib else ""
        cells.append(f"{cost.memory_mib:.0f}{below}")
    return cells


def _sentence(phase: Phase) -> str:
    cores = sum(phase.cpu(name) for name in OURS) / 1000.0
    memory = sum(phase.costs[name].memory_mib + phase.costs[name].children_mib for name in OURS)
    return (
        f"{phase.name}: Fairlane without the probes takes {cores:.3f} cores and {memory:,.0f} MiB; "
        f"processes that are not measured used {phase.other_cores:.2f} cores meanwhile."
    )
