"""Objects beside pods: a Job's size makes a gang of its pods, and the FairQueue object is obeyed and kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from queueing import GATE, RUN_S, USER, Jobs, ask, jobs_on, small_cluster

from scheduler.edge.kube import KubeClient, KubeError
from testbed.cluster import Cluster

QUEUES = "/apis/fairlane.dev/v1alpha1/fairqueues"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SLOTS = 4

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cores; the controller runs."""
    with small_cluster() as running:
        running.process("controller").start()
        yield running


@pytest.fixture
async def jobs(cluster: Cluster) -> AsyncIterator[Jobs]:
    """Jobs on a queue that leads."""
    async with jobs_on(cluster) as made:
        await made.until(lambda: bool((ask(cluster, "/v1/status") or {}).get("leads")))
        yield made


async def test_the_pods_of_an_indexed_job_start_together(jobs: Jobs) -> None:
    taken = [await jobs.submit("alice", run_s=run_s) for run_s in (1.0, 1.0, 3.0, 3.0)]
    await jobs.until(lambda: len(jobs.order) == SLOTS)
    await jobs.kube.post("/apis/batch/v1/namespaces/default/jobs", _indexed(jobs.prefix, 3))
    await jobs.until(lambda: len(jobs.lives) == SLOTS + 3)
    workers = [name for name in jobs.lives if name not in taken]
    await jobs.until(lambda: jobs.ended("alice") == 2)
    await asyncio.sleep(1.0)  # two slots are free, which is room for two of the three
    assert all(jobs.lives[name].released_s is None for name in workers)
    await jobs.until(lambda: jobs.ended() == SLOTS + 3)
    first_end_s = min(jobs.lives[name].ended_s or 0.0 for name in workers)
    assert max(jobs.lives[name].released_s or 0.0 for name in workers) < first_end_s


async def test_the_fair_queue_object_is_obeyed_and_told_how_it_goes(jobs: Jobs, cluster: Cluster) -> None:
    spec: dict[str, Any] = {
        "paused": True,
        "flowKey": "Namespace",
        "weights": [{"user": "default", "weight": 3}],
        "orderInsideUser": "PriorityThenArrival",
        "nodes": {"tolerations": []},
        "backfill": {"quantile": 0.5},
        "limits": {"runTime": "2s"},
        "autoscaler": {"releaseHeadAfter": "1s"},
    }
    await _obeyed(jobs, cluster, spec)
    name = await jobs.submit("bob", run_s=600.0)
    await jobs.until(lambda: ask(cluster, "/v1/queue")["waiting"] == 1)
    assert ask(cluster, "/v1/queue?user=default")["flows"][0]["weight"] == 3.0
    assert ask(cluster, "/v1/queue?user=bob")["flows"] == []
    status = await _status(jobs.kube, lambda told: told.get("waiting") == 1)
    assert status["users"] == 1
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Ready": "True",
        "Accepted": "True",
    }
    assert jobs.lives[name].released_s is None
    await jobs.kube.patch(f"{QUEUES}/default", {"spec": {"paused": False, "weights": []}})
    await jobs.until(lambda: jobs.lives[name].ended_s is not None)  # it is deleted, long before its end
    await _status(jobs.kube, lambda told: told.get("waiting") == 0 and told.get("running") == 0)
    larger_than_a_node = await jobs.submit("bob", cpu="3")
    await jobs.until(lambda: jobs.lives[larger_than_a_node].released_s is not None)
    assert (await jobs.pod(larger_than_a_node)).spec.nodeName == ""


async def test_another_flow_key_begins_the_queue_anew_between_others(jobs: Jobs, cluster: Cluster) -> None:
    """The real definition forbids it; who deletes the object and makes another one gets there as well."""
    await _obeyed(jobs, cluster, {"paused": True, "flowKey": "Namespace"})
    await jobs.submit("bob")
    await jobs.until(lambda: _waiting_of(cluster, "default") == 1)
    await jobs.kube.patch(f"{QUEUES}/default", {"spec": {"flowKey": "User"}})
    await jobs.until(lambda: _waiting_of(cluster, "bob") == 1)
    assert ask(cluster, "/v1/queue?user=default")["flows"] == []
    await jobs.kube.patch(f"{QUEUES}/default", {"spec": {"paused": False}})
    await jobs.until(lambda: jobs.ended() == 1)


def _waiting_of(cluster: Cluster, flow: str) -> int:
    told = ask(cluster, f"/v1/queue?user={flow}") or {"flows": []}
    return sum(one["waiting"] for one in told["flows"])


async def _obeyed(jobs: Jobs, cluster: Cluster, spec: dict[str, Any]) -> None:
    """The FairQueue has this specification, which is one that pauses, and the controller knows."""
    await _unless(409, lambda: jobs.kube.post(CRDS, _definition()))
    await _unless(404, lambda: jobs.kube.delete(f"{QUEUES}/default"))
    body = {"apiVersion": "fairlane.dev/v1alpha1", "kind": "FairQueue", "metadata": {"name": "default"}}
    await _when_served(lambda: jobs.kube.post(QUEUES, {**body, "spec": spec}))
    cluster.process("controller").restart()  # or it would take up to half a minute to look for such objects
    await jobs.until(lambda: bool((ask(cluster, "/v1/queue") or {}).get("paused")))


async def _unless(status: int, act: Callable[[], Any]) -> None:
    try:
        await act()
    except KubeError as error:
        if error.status != status:
            raise


async def _status(kube: KubeClient, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for _ in range(300):
        told = json.loads(await kube.get(f"{QUEUES}/default")).get("status", {})
        if holds(told):
            return told
        await asyncio.sleep(0.1)
    raise AssertionError(told)


async def _when_served(act: Callable[[], Any]) -> None:
    for _ in range(100):
        try:
            await act()
            return
        except KubeError as error:
            if error.status != 404:
                raise
        await asyncio.sleep(0.1)
    raise AssertionError("the API server does not serve FairQueue objects")


def _indexed(name: str, pods: int) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    template = {
        "metadata": {"annotations": {USER: "carol", RUN_S: "2.0"}},
        "spec": {
            "schedulerName": "fairlane",
            "restartPolicy": "Never",
            "schedulingGates": [{"name": GATE}],
            "containers": [container],
        },
    }
    spec = {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _definition() -> dict[str, Any]:
    """As little of a definition as there can be: the real one is tested with admission."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "fairqueues.fairlane.dev"},
        "spec": {
            "group": "fairlane.dev",
            "scope": "Cluster",
            "names": {"kind": "FairQueue", "plural": "fairqueues", "singular": "fairqueue"},
            "versions": [version],
        },
    }
