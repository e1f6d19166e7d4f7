"""f. Faults while jobs wait and run: each of our pods, a worker, the API server. All jobs end, none twice.

Before every fault two users submit a Job each, one whose pods start one by one and one whose pods start
together, so that some of them run and some wait when it happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from testbed.chart.helm import NAMESPACE
from testbed.kind.workloads.figures import Object
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Life, Unmet
from testbed.kind.workloads.people import Person

POD_S = 8.0
CPU = "700m"
SINGLE, GANG = 6, 3
"""Pods of the two Jobs: two fit on each of three workers, so that somebody waits."""
READY_S_MAX = 120.0
STOPPED_S = 15.0
ENDED_S_MAX = 400.0
AGAIN_S_MAX = 60.0
DEPLOYED = ("scheduler", "controller", "recorder", "predictor")
INDEX = "batch.kubernetes.io/job-completion-index"
JOB = "batch.kubernetes.io/job-name"

Fault = Callable[[Ground], Awaitable[None]]


async def run(ground: Ground) -> None:
    """One fault after the other, each with fresh jobs in flight."""
    await ground.load(ground.cluster.images.transfer)
    alice, bob = [await ground.person(name) for name in ("alice", "bob")]
    faults: list[Fault] = [_deleted(part) for part in DEPLOYED]
    faults += [_probe_deleted, _worker_stopped, _api_server_restarted]
    for number, fault in enumerate(faults):
        await submit_both(ground, [alice, bob], number)
        await fault(ground)
    await all_completed(ground, [alice, bob], len(faults))


async def submit_both(ground: Ground, people: Sequence[Person], number: int) -> None:
    """A Job of the first user whose pods start one by one, one of the second that starts as a whole.

    Returns when something runs.
    """
    await _submit(ground, people[0], f"single-{number}", SINGLE, "NonIndexed")
    await _submit(ground, people[1], f"gang-{number}", GANG, "Indexed")
    await _in_flight(ground, people, number)


async def all_completed(ground: Ground, people: Sequence[Person], jobs: int) -> None:
    """So many Jobs of each user completed, nothing twice; raises `Unmet`."""
    for who, pods in zip(people, (SINGLE, GANG), strict=True):
        await _completed(ground, who, jobs, pods)


async def _submit(ground: Ground, who: Person, name: str, pods: int, mode: str) -> None:
    await ground.apply([job(name, ground.cluster.images.transfer, pods, mode)], by=who)


def job(name: str, image: str, pods: int, mode: str) -> Object:
    """A Job of so many pods that all may run at once."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-c", f"import time; time.sleep({POD_S})"],
        "resources": {"requests": {"cpu": CPU, "memory": "30Mi"}},
    }
    spec = {
        "schedulerName": "fairlane",
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "completionMode": mode,
            "backoffLimit": 12,
            "template": {"spec": spec},
        },
    }


async def _in_flight(ground: Ground, people: Sequence[Person], number: int) -> None:
    """Until the newest jobs' pods are there, and something runs."""

    def there() -> bool:
        pods = [life for who in people for life in ground.journal.pods(who.namespace)]
        newest = [life for life in pods if life.label(JOB).endswith(f"-{number}")]
        return len(newest) >= SINGLE + GANG and any(life.phase == "Running" for life in pods)

    await ground.journal.until(there, READY_S_MAX, lambda: "nothing runs")


def counts(ground: Ground) -> str:
    """How many pods are released and how many wait, in words."""
    pods = [life for namespace in ground.namespaces for life in ground.journal.pods(namespace)]
    alive = [life for life in pods if not life.ended]
    waiting = sum(not life.was_open for life in alive)
    return f"{len(alive) - waiting} released, {waiting} waiting"


def _deleted(part: str) -> Fault:
    async def fault(ground: Ground) -> None:
        told = counts(ground)
        selector = f"app.kubernetes.io/component={part}"
        await ground.kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--wait=false")
        took_s = await _ready(ground, f"deploy/fairlane-{part}")
        ground.see(f"{part} deleted ({told}): ready again after {took_s:.0f} s")

    return fault


async def _probe_deleted(ground: Ground) -> None:
    selector = "app.kubernetes.io/component=probe"
    await ground.kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--wait=false")
    took_s = await _ready(ground, "daemonset/fairlane-probe")
    ground.see(f"all probes deleted: ready again after {took_s:.0f} s")


async def _ready(ground: Ground, what: str) -> float:
    """Seconds until it is rolled out again."""
    begun_s = asyncio.get_running_loop().time()
    await asyncio.sleep(1.0)  # until the deletion is counted
    words = ["-n", NAMESPACE, "rollout", "status", what, f"--timeout={READY_S_MAX:.0f}s"]
    await ground.kubectl(*words, timeout_s=READY_S_MAX + 10)
    return asyncio.get_running_loop().time() - begun_s


async def _worker_stopped(ground: Ground) -> None:
    node = ground.cluster.workers[-1]
    told, docker = counts(ground), ground.cluster.docker
    await asyncio.to_thread(docker.run, "stop", node)
    await asyncio.sleep(STOPPED_S)
    begun_s = asyncio.get_running_loop().time()
    await asyncio.to_thread(docker.run, "start", node)
    await _restarted_kubelet(ground, node)
    took_s = asyncio.get_running_loop().time() - begun_s
    await ground.gpus()  # a kubelet that starts anew may forget resources that no plugin of its own gave it
    ground.see(f"{node} stopped for {STOPPED_S:.0f} s and started ({told}): ready after {took_s:.0f} s")


async def _restarted_kubelet(ground: Ground, node: str) -> None:
    """Until the node is Ready and its lease was renewed after the start: it may never have been unready."""
    words = ("get", "lease", node, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}")
    before = await ground.kubectl(*words)
    deadline_s = asyncio.get_running_loop().time() + READY_S_MAX
    while await ground.kubectl(*words) == before:
        if asyncio.get_running_loop().time() > deadline_s:
            raise Unmet(f"{node} did not come back within {READY_S_MAX:.0f} s")
        await asyncio.sleep(1.0)
    wait = ["wait", "--for=condition=Ready", f"node/{node}", f"--timeout={READY_S_MAX:.0f}s"]
    await ground.kubectl(*wait, timeout_s=READY_S_MAX + 10)


async def _api_server_restarted(ground: Ground) -> None:
    told, begun_s = counts(ground), asyncio.get_running_loop().time()
    node = ground.cluster.control_plane
    await asyncio.to_thread(ground.cluster.on_node, node, "kill $(pidof kube-apiserver)")
    await asyncio.sleep(2.0)
    await ground.patiently("get", "--raw", "/readyz", within_s=READY_S_MAX, timeout_s=10.0)
    took_s = asyncio.get_running_loop().time() - begun_s
    ground.see(f"API server killed ({told}): answers again after {took_s:.0f} s")
    for part in DEPLOYED:
        await ground.patiently(
            *("-n", NAMESPACE, "rollout", "status", f"deploy/fairlane-{part}", "--timeout=90s"),
            within_s=AGAIN_S_MAX,
            timeout_s=100.0,
        )


async def _completed(ground: Ground, who: Person, jobs: int, pods: int) -> None:
    """Every Job completed, every part of it ended well exactly once, and no pod was released twice."""
    await ground.patiently(
        *("wait", "--for=condition=Complete", "job", "--all", "-n", who.namespace),
        f"--timeout={ENDED_S_MAX:.0f}s",
        within_s=AGAIN_S_MAX,
        timeout_s=ENDED_S_MAX + 10,
    )
    lives = ground.journal.pods(who.namespace)
    if wrong := twice(lives):
        raise Unmet(f"{who.name}'s: {wrong}")
    done = Counter(life.label(JOB) for life in lives if life.phase == "Succeeded")
    ground.expect(
        len(done) == jobs and set(done.values()) == {pods},
        f"{who.name}'s {jobs} Jobs completed, each with {pods} pods that ended well, "
        f"{len(lives) - jobs * pods} made anew; none was released twice",
        f"{who.name}'s Jobs ended well with so many pods: {dict(done)}; {pods} each were asked for",
    )


def twice(lives: list[Life]) -> str:
    """What happened more than once of what may happen once, in a sentence; empty if nothing did."""
    for life in lives:
        if len(life.receipts) > 1:
            return f"{life.name} was released {len(life.receipts)} times: {life.receipts}"
        if life.gated_again:
            return f"{life.name} waited again after its release"
    ended = Counter(
        (life.label(JOB), index)
        for life in lives
        if life.phase == "Succeeded" and (index := life.label(INDEX))
    )
    again = [f"{name} index {index}" for (name, index), count in ended.items() if count > 1]
    return f"ended well more than once: {', '.join(again)}" if again else ""
