"""Gangs from what a real API server and its Job controller make: names, sizes, and whole lives."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from scheduler.core.queue.actions import ReleaseGang, Settled
from scheduler.core.queue.events import Event, Gang, GangArrived, Tick
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.wire import Node, Pod, Workload
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.membership import ObjectRef
from scheduler.core.workloads.nodes import node_event
from scheduler.core.workloads.rules import Rules
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError, Listed

Eventually = Callable[..., Awaitable[None]]
PLURALS = {
    "Job": "batch/v1/jobs",
    "PodGroup": "scheduling.x-k8s.io/v1alpha1/podgroups",
    "JobSet": "jobset.x-k8s.io/v1alpha2/jobsets",
    "PyTorchJob": "kubeflow.org/v1/pytorchjobs",
    "MPIJob": "kubeflow.org/v2beta1/mpijobs",
    "RayCluster": "ray.io/v1/rayclusters",
    "SparkApplication": "sparkoperator.k8s.io/v1beta2/sparkapplications",
}

pytestmark = pytest.mark.timeout(120)


class Watched:
    """A queue of one namespace, with neither leader nor record: what is needed to see a gang live."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace
        self.assembly = Assembly(Rules())
        self.keeper = Gatekeeper(QueueSettings(reference={"cpu": 10.0}))
        self.events: list[Event] = []
        self.settled: list[Settled] = []
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    async def follow(self) -> None:
        for node in await self.kube.list_all("/api/v1/nodes", Node):
            await self._take([node_event(node)])
        async for change in self.kube.mirror(self.pods, Pod):
            now_s = time.time()
            if isinstance(change, Listed):
                await self._take(self.assembly.set_pods(change.items, now_s))
                continue
            await self._take(self.assembly.set_pod(change.item, now_s))
            if change.kind == "DELETED":
                await self._take(self.assembly.remove_pod(change.item.metadata.uid, now_s))

    async def _take(self, events: list[Event]) -> None:
        self.events += events
        for event in [*events, Tick()]:
            for action in self.keeper.handle(event, time.time()):
                if isinstance(action, Settled):
                    self.settled.append(action)
                elif isinstance(action, ReleaseGang):
                    await asyncio.gather(*(self._open(uid) for uid in action.pods))
        for ref in self.assembly.needs:
            await self._take(await self._answer(ref))

    async def _answer(self, ref: ObjectRef) -> list[Event]:
        kind = "v1/configmaps" if ref.kind == "ConfigMap" else PLURALS[ref.kind]
        version, _, plural = kind.rpartition("/")
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        try:
            found = await self.kube.get(f"{root}/namespaces/{ref.namespace}/{plural}/{ref.name}")
        except KubeError:
            return self.assembly.remove_owner(ref, time.time())
        return self.assembly.set_owner(msgspec.json.decode(found, type=Workload), time.time())

    async def _open(self, uid: str) -> None:
        ref = self.assembly.pod_of(uid)
        assert ref is not None
        gate = f"/spec/schedulingGates/{ref.gate_index}"
        steps = [
            {"op": "test", "path": f"{gate}/name", "value": "fairlane.dev/queue"},
            {"op": "remove", "path": gate},
        ]
        await self.kube.patch(f"{self.pods}/{ref.name}", steps, JSON_PATCH)

    def arrived(self) -> Gang:
        """The gang that waits, as it was told last."""
        return [event.gang for event in self.events if isinstance(event, GangArrived)][-1]

    def settled_once(self, uid: str) -> Settled:
        (one,) = [one for one in self.settled if one.uid == uid]
        return one


@pytest_asyncio.fixture
async def watched(kube: KubeClient) -> AsyncIterator[Watched]:
    """A queue over a namespace of its own."""
    name = f"gangs-{uuid.uuid4().hex[:8]}"
    await kube.post("/api/v1/namespaces", {"metadata": {"name": name}})
    await kube.post(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "spark"}})
    queue = Watched(kube, name)
    task = asyncio.create_task(queue.follow())
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await kube.delete(f"/api/v1/namespaces/{name}")


def template(labels: dict[str, str] | None = None, cpu: str = "100m", **meta: Any) -> dict[str, Any]:
    """A pod that waits at the gate, as admission leaves it; it runs for half a second."""
    given = {"fairlane.dev/user": "ann", "testbed.fairlane.dev/job": '{"cpu_s": 0.5}'}
    return {
        "metadata": {"labels": labels or {}, "annotations": given, **meta},
        "spec": {
            "schedulerName": "fairlane",
            "schedulingGates": [{"name": "fairlane.dev/queue"}],
            "restartPolicy": "Never",
            "containers": [
                {"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}},
            ],
        },
    }


async def test_an_indexed_job_starts_together_and_is_settled(
    watched: Watched, eventually: Eventually
) -> None:
    spec = {"parallelism": 3, "completions": 3, "completionMode": "Indexed", "template": template()}
    path = f"/apis/batch/v1/namespaces/{watched.namespace}/jobs"
    job = msgspec.json.decode(await watched.kube.post(path, {"metadata": {"name": "train"}, "spec": spec}))
    uid = f"{watched.namespace}/train/{job['metadata']['uid']}/ann"

    async def ended() -> bool:
        return bool(watched.settled)

    await eventually(ended, within_s=60.0)
    one = watched.settled_once(uid)
    assert one.share == pytest.approx(0.03)
    assert one.started_s is not None
    assert one.actual_work == pytest.approx(0.03 * (one.finished_s - one.started_s), rel=0.5)
    gang = watched.arrived()
    assert (gang.size, len(gang.pods)) == (3, 3)
    assert watched.keeper.dump().running == 0


async def test_a_plain_job_starts_pod_by_pod(watched: Watched, eventually: Eventually) -> None:
    spec = {"parallelism": 2, "completions": 3, "template": template()}
    path = f"/apis/batch/v1/namespaces/{watched.namespace}/jobs"
    await watched.kube.post(path, {"metadata": {"name": "etl"}, "spec": spec})

    async def ended() -> bool:
        return len(watched.settled) == 3

    await eventually(ended, within_s=90.0)
    assert len({one.uid for one in watched.settled}) == 3
    assert {one.job.split("/")[1] for one in watched.settled} == {"etl"}


async def test_a_spark_driver_waits_for_its_executors_room(watched: Watched, eventually: Eventually) -> None:
    labels = {"spark-app-selector": "spark-1", "spark-role": "driver"}
    driver = template(labels, name="drv")
    driver["spec"]["serviceAccountName"] = "spark"
    driver["spec"]["volumes"] = [{"name": "spark-conf-volume-driver", "configMap": {"name": "drv-conf-map"}}]
    properties = "spark.executor.instances=2\nspark.executor.cores=1\nspark.executor.memory=512m\n"
    maps = f"/api/v1/namespaces/{watched.namespace}/configmaps"
    data = {"metadata": {"name": "drv-conf-map"}, "data": {"spark.properties": properties}}
    await watched.kube.post(maps, data)
    made = msgspec.json.decode(await watched.kube.post(watched.pods, driver))

    async def released() -> bool:
        view = watched.assembly.gang_of(made["metadata"]["uid"])
        return view is not None and not view.pods[0].gated

    await eventually(released)
    gang = watched.arrived()
    assert (gang.uid, gang.size) == (f"{watched.namespace}/spark-1//ann", 3)
    executor = template({"spark-app-selector": "spark-1", "spark-role": "executor"}, name="exec-1")
    account = f"system:serviceaccount:{watched.namespace}:spark"
    executor["metadata"]["annotations"]["fairlane.dev/user"] = account
    executor["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Pod", "name": "drv", "uid": made["metadata"]["uid"], "controller": True}
    ]
    needs = {"cpu": "1", "memory": "896Mi"}
    executor["spec"]["containers"][0]["resources"] = {"requests": needs}
    added = msgspec.json.decode(await watched.kube.post(watched.pods, executor))

    async def joined() -> bool:
        view = watched.assembly.gang_of(added["metadata"]["uid"])
        return view is not None and view.uid == gang.uid and not view.pods[-1].gated

    await eventually(joined)
    shapes = {
        pod.uid: pod.shape for event in watched.events if hasattr(event, "gang") for pod in event.gang.pods
    }
    assert shapes[added["metadata"]["uid"]] == gang.promised[0], "what Spark asks for is what was promised"


OBJECTS: list[tuple[str, dict[str, Any], dict[str, str], int]] = [
    ("PodGroup", {"minMember": 3}, {"scheduling.x-k8s.io/pod-group": "it"}, 3),
    (
        "JobSet",
        {"replicatedJobs": [{"replicas": 2, "template": {"spec": {"parallelism": 2, "completions": 2}}}]},
        {"jobset.sigs.k8s.io/jobset-name": "it"},
        4,
    ),
    (
        "PyTorchJob",
        {"pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 4}}},
        {"training.kubeflow.org/job-name": "it"},
        5,
    ),
    (
        "MPIJob",
        {"mpiReplicaSpecs": {"Launcher": {"replicas": 1}, "Worker": {"replicas": 2}}},
        {"training.kubeflow.org/job-name": "it", "training.kubeflow.org/job-role": "worker"},
        3,
    ),
    ("RayCluster", {"workerGroupSpecs": [{"replicas": 2}]}, {"ray.io/cluster": "it"}, 3),
    (
        "SparkApplication",
        {"executor": {"instances": 3}},
        {"spark-app-selector": "it", "spark-role": "driver", "sparkoperator.k8s.io/app-name": "it"},
        4,
    ),
]


@pytest.mark.parametrize(("kind", "spec", "labels", "size"), OBJECTS, ids=[one[0] for one in OBJECTS])
async def test_custom_objects_give_the_size(
    watched: Watched,
    eventually: Eventually,
    kind: str,
    spec: dict[str, Any],
    labels: dict[str, str],
    size: int,
) -> None:
    group, version, plural = PLURALS[kind].split("/")
    await define(watched.kube, group, version, kind, plural)
    path = f"/apis/{group}/{version}/namespaces/{watched.namespace}/{plural}"

    async def served() -> bool:
        try:
            await watched.kube.get(path)
        except KubeError:
            return False
        return True

    await eventually(served)
    body = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": "it"}, "spec": spec}
    made = msgspec.json.decode(await watched.kube.post(path, body))
    owner = {"apiVersion": body["apiVersion"], "kind": kind, "name": "it", "uid": made["metadata"]["uid"]}
    pod = template(labels, name="it-0", ownerReferences=[{**owner, "controller": True}])
    await watched.kube.post(watched.pods, pod)

    async def arrived() -> bool:
        return any(isinstance(event, GangArrived) for event in watched.events)

    await eventually(arrived)
    assert (watched.arrived().size, watched.arrived().flow) == (size, "ann")


async def test_the_launcher_that_a_real_job_makes_starts_with_its_workers(
    watched: Watched, eventually: Eventually
) -> None:
    """MPIJob's workers are its own pods; its launcher is the pod of a Job that its operator makes."""
    group, version, plural = PLURALS["MPIJob"].split("/")
    await define(watched.kube, group, version, "MPIJob", plural)
    spec = {"mpiReplicaSpecs": {"Launcher": {"replicas": 1}, "Worker": {"replicas": 1}}}
    body = {"apiVersion": f"{group}/{version}", "kind": "MPIJob", "metadata": {"name": "ring"}, "spec": spec}
    path = f"/apis/{group}/{version}/namespaces/{watched.namespace}/{plural}"

    ring: dict[str, Any] = {}

    async def made() -> bool:
        try:
            ring.update(msgspec.json.decode(await watched.kube.post(path, body)))
        except KubeError:
            return False
        return True

    await eventually(made)
    labels = {"training.kubeflow.org/job-name": "ring", "training.kubeflow.org/operator-name": "mpi-operator"}
    launcher = template({**labels, "training.kubeflow.org/job-role": "launcher"})
    jobs = f"/apis/batch/v1/namespaces/{watched.namespace}/jobs"
    await watched.kube.post(jobs, {"metadata": {"name": "ring-launcher"}, "spec": {"template": launcher}})
    # By its true uid: the garbage collector deletes a pod whose owner is not there, once it knows the kind.
    owner = {"apiVersion": body["apiVersion"], "kind": "MPIJob", "name": "ring", "controller": True}
    owner["uid"] = ring["metadata"]["uid"]
    worker = {**labels, "training.kubeflow.org/job-role": "worker"}
    await watched.kube.post(watched.pods, template(worker, name="ring-worker-0", ownerReferences=[owner]))

    async def whole() -> bool:
        return any(len(event.gang.pods) == 2 for event in watched.events if isinstance(event, GangArrived))

    await eventually(whole)
    assert watched.arrived().uid == f"{watched.namespace}/ring//ann"


async def define(kube: KubeClient, group: str, version: str, kind: str, plural: str) -> None:
    """The smallest definition of a kind of objects."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    body = {
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
    try:
        await kube.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    except KubeError as error:
        if error.status != 409:
            raise
