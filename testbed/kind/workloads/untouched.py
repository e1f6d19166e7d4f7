"""d. A namespace that has not opted in: the same objects, nodes and times with our release and without it.

The same pods and the same Job are made twice, by the default scheduler; in between our release is
uninstalled, and installed again at the end. Which node a pod gets is settled by the pods, not by chance:
some prefer a node, others find one node clearly emptier than the rest.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scheduler.core.types import PREFIX
from testbed.kind import release
from testbed.kind.jobs import HOSTNAME
from testbed.kind.workloads.figures import Object
from testbed.kind.workloads.ground import Ground

PREFERRING, CHOOSING = 6, 2
BALLAST_CPU_M = (600, 300)
"""What is taken on the first two workers, so that the third is the emptiest for the pods that choose."""
BALLAST_S, POD_S = 60, 10
ENDED_S_MAX = 120.0
STEP_S_MAX = 60.0
CREATE_S_WORSE, BOUND_S_WORSE = 0.1, 0.5
"""How much longer the median may be with us: far more than a policy costs, far less than a gate."""
VARYING = re.compile(
    r"uid|resourceVersion|.*[tT]ime(stamp)?|.*IPs?|containerID|.*At|generation|observedGeneration"
)
"""Fields that differ between any two pods made of one manifest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The objects as they were once all had ended, and how long the API server and the scheduler took."""

    objects: list[Any]
    nodes: list[str]
    created_s: list[float]
    bound_s: list[float]


async def run(ground: Ground) -> None:
    """With us, without us, and with us again."""
    await ground.load(ground.cluster.images.transfer)
    ours = await _measured(ground, "ours")
    ground.expect(
        PREFIX not in str(ours.objects),
        f"{len(ours.objects)} objects of a namespace that has not opted in: no gate, no stamp, no word",
        f"something of ours is on {_ours(ours.objects)}",
    )
    await asyncio.to_thread(release.remove, ground.cluster)
    ground.see("our release was uninstalled")
    try:
        alone = await _measured(ground, "alone")
    finally:
        await asyncio.to_thread(release.install, ground.cluster)
    _same(ground, ours, alone)


def _same(ground: Ground, ours: Measured, alone: Measured) -> None:
    ground.expect(
        ours.nodes == alone.nodes,
        f"the same placements without us: {', '.join(node.rsplit('-', 1)[-1] for node in ours.nodes)}",
        f"with us on {ours.nodes}, without us on {alone.nodes}",
    )
    ground.expect(ours.objects == alone.objects, "the same objects, field by field", _difference(ours, alone))
    for what, with_s, without_s, worse_s in (
        ("creating a pod", median(ours.created_s), median(alone.created_s), CREATE_S_WORSE),
        ("until it was bound", median(ours.bound_s), median(alone.bound_s), BOUND_S_WORSE),
    ):
        told = f"{what}: {1000 * with_s:.0f} ms with us, {1000 * without_s:.0f} ms without (medians)"
        ground.expect(with_s <= without_s + worse_s, told, f"slower: {told}")


async def _measured(ground: Ground, name: str) -> Measured:
    namespace = ground.namespace(name)
    image, workers = ground.cluster.images.transfer, ground.cluster.workers
    await ground.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
    await _with_account(ground, namespace)
    for node, cpu_m in zip(workers, BALLAST_CPU_M, strict=False):
        await _placed(
            ground, namespace, _pod(f"ballast-{cpu_m}", image, cpu_m, {"nodeName": node}, BALLAST_S)
        )
    created_s, bound_s, nodes = [], [], []
    for number in range(PREFERRING + CHOOSING):
        wanted = _preferring(workers[number % len(workers)]) if number < PREFERRING else {}
        manifest = _pod(f"pod-{number}", image, 50, wanted)
        times, node = await _placed(ground, namespace, manifest)
        created_s.append(times[0])
        bound_s.append(times[1])
        nodes.append(node)
    await ground.apply([_job(image, namespace, workers[0])])
    count = len(BALLAST_CPU_M) + PREFERRING + CHOOSING + 1
    pods = await ground.all_ended(namespace, count, ENDED_S_MAX)
    job = await ground.read("job", "plain", "-n", namespace)
    found = [_plain(_told(one), namespace) for one in [*(life.pod for life in pods), job]]
    return Measured(sorted(found, key=str), nodes, created_s, bound_s)


async def _with_account(ground: Ground, namespace: str) -> None:
    """Pods are refused until the namespace's own account is there."""
    await ground.patiently("get", "serviceaccount", "default", "-n", namespace, within_s=20.0)


async def _placed(ground: Ground, namespace: str, manifest: Object) -> tuple[tuple[float, float], str]:
    """Create a pod; how long that took, and until it was bound, and its node."""
    name, begun_s = manifest["metadata"]["name"], time.monotonic()
    await ground.kube.post(f"/api/v1/namespaces/{namespace}/pods", manifest)
    created_s = time.monotonic() - begun_s

    def node() -> str:
        found = [life.pod["spec"] for life in ground.journal.pods(namespace) if life.name == name]
        return str(found[0].get("nodeName", "")) if found else ""

    await ground.journal.until(lambda: bool(node()), STEP_S_MAX, lambda: f"{name} was not bound")
    return (created_s, time.monotonic() - begun_s), node()


def _pod(name: str, image: str, cpu_m: int, more: Object, seconds: int = POD_S) -> Object:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-c", f"import time; time.sleep({seconds})"],
        "resources": {"requests": {"cpu": f"{cpu_m}m", "memory": "30Mi"}},
    }
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _preferring(node: str) -> Object:
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [node]}]}
    preferred = [{"weight": 100, "preference": term}]
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}


def _job(image: str, namespace: str, node: str) -> Object:
    spec = _pod("", image, 50, _preferring(node))["spec"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "plain", "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }


def _told(whole: Object) -> Object:
    """The object, and of its status what is not up to how fast the kubelet was."""
    status = whole["status"]
    kept = {key: status[key] for key in ("phase", "qosClass", "succeeded", "failed") if key in status}
    conditions = sorted(one["type"] for one in status.get("conditions", ()))
    return {**whole, "status": {**kept, "conditions": conditions}}


def _plain(found: Any, namespace: str) -> Any:
    """Without what differs between any two of the kind, and without the generated parts of names."""
    if isinstance(found, dict):
        kept = {key: one for key, one in found.items() if not VARYING.fullmatch(key)}
        kept = {key: one for key, one in kept.items() if key not in ("managedFields", "controller-uid")}
        return {
            key: _plain(one, namespace) for key, one in kept.items() if not key.endswith("/controller-uid")
        }
    if isinstance(found, list):
        return [_plain(one, namespace) for one in found]
    if isinstance(found, str):
        return re.sub(r"(plain-|kube-api-access-)[a-z0-9]{5}\b", r"\1*", found.replace(namespace, "*"))
    return found


def _ours(objects: Sequence[Any]) -> str:
    names = [one["metadata"]["name"] for one in objects if PREFIX in str(one)]
    return ", ".join(names)


def _difference(ours: Measured, alone: Measured) -> str:
    found = [
        f"{path}: {one} with us, {other} without"
        for path, one, other in differing(ours.objects, alone.objects)
    ]
    return "; ".join(found)


def differing(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two objects differ: the path, and what each has there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differing(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differing(first, second, f"{path}[{index}]")
    elif one != other:
        yield path, one, other
