"""The testbed behaves like a cluster, and its processes like processes that may fail."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.edge.kube import KubeClient, KubeError
from testbed.cluster import Cluster
from testbed.control import TestbedError

PODS = "/api/v1/namespaces/default/pods"
Pod = dict[str, Any]
Eventually = Callable[..., Awaitable[None]]
MakePod = Callable[..., Pod]

pytestmark = pytest.mark.timeout(120)


async def test_workers_are_ready_untainted_and_spread_over_sites(cluster: Cluster, kube: KubeClient) -> None:
    nodes = {node["metadata"]["name"]: node for node in await _items(kube, "/api/v1/nodes")}
    workers = [nodes[name] for name in cluster.worker_names]
    assert all(_is_ready(node) and not node["spec"].get("taints") for node in workers)
    sites = [node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in workers]
    assert sites == ["site-a", "site-a", "site-b", "site-b", "site-c", "site-c"]


async def test_node_leases_are_renewed_as_by_kubelets(
    cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    async def renewals() -> dict[str, str]:
        return {lease["metadata"]["name"]: lease["spec"]["renewTime"] for lease in await _items(kube, path)}

    first = await renewals()
    assert set(cluster.worker_names) <= set(first)

    async def all_renewed() -> bool:
        now = await renewals()
        return all(now[name] > first[name] for name in cluster.worker_names)

    await eventually(all_renewed)


@pytest.mark.parametrize("scheduler", ["default-scheduler", "fairlane"])
async def test_either_scheduler_places_a_pod_on_a_worker_where_it_runs(
    cluster: Cluster, kube: KubeClient, pod: MakePod, eventually: Eventually, scheduler: str
) -> None:
    created = await _create(kube, pod(scheduler))
    await eventually(lambda: _has_phase(kube, created, "Running"))
    running = await _get(kube, created)
    assert running["spec"]["nodeName"] in cluster.worker_names  # never on a data node
    assert running["status"]["podIP"]
    await kube.delete(f"{PODS}/{created}")


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_nodes_whose_leases_run_out_are_tainted_until_they_are_renewed(
    cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    cluster.process("kwok").pause()

    async def tainted() -> list[bool]:
        return [bool(node["spec"].get("taints")) for node in await _items(kube, "/api/v1/nodes")]

    async def all_lost() -> bool:
        return all(await tainted())

    async def workers_back() -> bool:
        return (await tainted()).count(False) == len(cluster.worker_names)

    await eventually(all_lost, 120)
    cluster.process("kwok").resume()
    await eventually(workers_back, 90)


async def test_physics_ends_a_pod_and_the_job_controller_completes_its_job(
    kube: KubeClient, pod: MakePod, eventually: Eventually
) -> None:
    work = {"testbed.fairlane.dev/job": json.dumps({"cpu_s": 0.5})}
    template = {"metadata": {"annotations": work}, "spec": pod()["spec"]}
    job = {"metadata": {"name": "short"}, "spec": {"completions": 2, "parallelism": 2, "template": template}}
    path = "/apis/batch/v1/namespaces/default/jobs"
    await kube.post(path, {"apiVersion": "batch/v1", "kind": "Job", **job})

    async def complete() -> bool:
        return bool(json.loads(await kube.get(f"{path}/short"))["status"].get("completionTime"))

    await eventually(complete)


async def test_a_deleted_pod_is_gone(kube: KubeClient, pod: MakePod, eventually: Eventually) -> None:
    created = await _create(kube, pod())
    await eventually(lambda: _has_phase(kube, created, "Running"))
    await kube.delete(f"{PODS}/{created}")

    async def gone() -> bool:
        try:
            await _get(kube, created)
        except KubeError as error:
            return error.status == 404
        return False

    await eventually(gone)


async def test_prometheus_has_readings_of_every_node_under_its_name(
    cluster: Cluster, eventually: Eventually
) -> None:
    wanted = {*cluster.worker_names, *cluster.data_node_names}

    async def all_seen() -> bool:
        return {series["metric"]["node"] for series in _query(cluster, "node_load1")} == wanted

    await eventually(all_seen)


async def test_prometheus_reads_the_schedulers(cluster: Cluster, eventually: Eventually) -> None:
    async def both() -> bool:
        seen = {series["metric"]["job"] for series in _query(cluster, "scheduler_pending_pods")}
        return seen == {"default-scheduler", "fairlane-scheduler"}

    await eventually(both)


SPACE, SYSTEM = "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
READS = {
    "extender": {PODS, "/api/v1/nodes"},
    "doctor": {PODS, "/api/v1/nodes"},
    "recorder": {PODS},
    "controller": {PODS, "/api/v1/nodes", "/apis/batch/v1/jobs"},
    "prometheus": set(),
}
"""What each user may list; the predictor is none."""


@pytest.mark.parametrize("user", READS)
async def test_each_of_our_processes_reads_what_it_needs_and_no_more(cluster: Cluster, user: str) -> None:
    everything = set[str]().union(*READS.values())
    for path in everything | {f"{SPACE}/secrets", f"{SYSTEM}/configmaps", "/api/v1/namespaces"}:
        assert await _may(cluster, user, "get", path) == (path in READS[user]), path


@pytest.mark.parametrize("user", READS)
async def test_only_the_controller_changes_anything_and_only_what_is_the_queues(
    cluster: Cluster, user: str
) -> None:
    """404: it may, but there is no such object; 403: it may not."""
    queues = [(verb, f"{PODS}/none") for verb in ("patch", "delete")] + [("patch", f"{PODS}/none/status")]
    own = [("put", f"{LEASES.format('kube-system')}/none"), ("put", f"{SYSTEM}/configmaps/none")]
    for verb, path in (*queues, *own):
        assert await _may(cluster, user, verb, path) == (user == "controller"), (verb, path)
    others = [
        *(("delete", f"{path}/none") for path in (f"{SPACE}/secrets", "/api/v1/nodes", "/api/v1/namespaces")),
        *(("put", f"{path}/none") for path in (f"{SPACE}/configmaps", LEASES.format("default"), PODS)),
        ("delete", f"{SYSTEM}/configmaps/none"),
        ("delete", "/apis/batch/v1/namespaces/default/jobs/none"),
    ]
    for verb, path in others:
        assert not await _may(cluster, user, verb, path), (verb, path)


def test_each_process_is_given_its_own_user_and_the_predictor_none(cluster: Cluster) -> None:
    given = {
        name: next((one for one in cluster.process(name).spec.argv if "kubeconfig" in one), "")
        for name in ("extender", "recorder", "controller", "predictor")
    }
    assert given.pop("predictor") == ""
    assert {name: Path(one.partition("=")[2]).stem for name, one in given.items()} == {
        name: name for name in given
    }


async def _may(cluster: Cluster, user: str, verb: str, path: str) -> bool:
    async with KubeClient.connect(str(cluster.layout.file(f"{user}.kubeconfig"))) as one:
        acts = {"get": one.get, "delete": one.delete}
        try:
            await (acts[verb](path) if verb in acts else getattr(one, verb)(path, {}))
        except KubeError as error:
            return error.status != 403
        return True


async def test_placement_goes_on_without_the_extender(
    kube: KubeClient, pod: MakePod, eventually: Eventually
) -> None:
    created = await _create(kube, pod("fairlane"))  # nobody listens on the extender's port
    await eventually(lambda: _has_phase(kube, created, "Running"))
    await kube.delete(f"{PODS}/{created}")


def test_a_killed_process_is_reported_and_can_be_started_again(cluster: Cluster) -> None:
    prometheus = cluster.process("prometheus")
    prometheus.kill()
    state = prometheus.state
    assert state is not None
    assert (state.state, state.exit_code) == ("died", -9)
    with pytest.raises(TestbedError, match=r"prometheus ended by itself .*SIGKILL"):
        prometheus.check()
    prometheus.restart()
    assert prometheus.pid not in (None, state.pid)


def test_a_paused_process_keeps_its_connections_and_answers_again_later(cluster: Cluster) -> None:
    physics = cluster.process("physics")
    physics.pause()
    assert physics.state is not None
    assert physics.state.state == "paused"
    physics.resume()
    physics.wait_ready()


def test_a_process_that_cannot_start_shows_its_last_words(cluster: Cluster) -> None:
    unlucky = cluster.run("unlucky", "sh", "-c", "echo no such luck; exit 3")
    assert unlucky.wait_ended() == 3
    with pytest.raises(TestbedError, match=r"(?s)exit code 3.*no such luck"):
        unlucky.check()
    with pytest.raises(TestbedError, match="no process 'unheard-of'; there are: etcd"):
        cluster.process("unheard-of")


def test_another_program_attaches_by_the_folder(cluster: Cluster) -> None:
    attached = Cluster.attach(cluster.directory)
    assert attached.process("etcd").pid == cluster.process("etcd").pid
    assert attached.prometheus_url == cluster.prometheus_url
    assert attached.options == cluster.options


async def _items(kube: KubeClient, path: str) -> list[dict[str, Any]]:
    return list(json.loads(await kube.get(path))["items"])


def _is_ready(node: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])


async def _create(kube: KubeClient, manifest: Pod) -> str:
    await kube.post(PODS, manifest)
    return str(manifest["metadata"]["name"])


async def _get(kube: KubeClient, name: str) -> Pod:
    found: Pod = json.loads(await kube.get(f"{PODS}/{name}"))
    return found


async def _has_phase(kube: KubeClient, name: str, phase: str) -> bool:
    return bool((await _get(kube, name))["status"].get("phase") == phase)


def _query(cluster: Cluster, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{cluster.prometheus_url}/api/v1/query?{query}", timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])
