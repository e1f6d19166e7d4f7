"""The chart's own Prometheus: its configuration, rules and rights, in a real one that asks a real API server.

Prometheus runs here as a process, as the chart's service account. Pods are
those of simulated nodes, except that they are said to be at the loopback
address, where small exporters answer for them.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from admission_setup import with_admin
from chart_variants import BUNDLED, Object, helm_or_skip, objects_of, pod_of
from real_prometheus import Exporter, RealPrometheus, binary, eventually

from scheduler.config import Settings
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller
from testbed.chart.helm import NAMESPACE
from testbed.cluster import Cluster
from testbed.credentials import kubeconfig

PROGRAM = "prometheus-kubernetes"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
STRANGERS = "strangers"
MERGE = "application/merge-patch+json"
NODE_METRICS = """\
node_time_seconds {now}
node_load1 2
node_cpu_seconds_total{{cpu="0",mode="idle"}} 5
node_memory_MemAvailable_bytes 3e9
node_memory_MemTotal_bytes 4e9
node_filesystem_size_bytes 7
"""
PROBE_METRICS = 'fairlane_probe_rtt_seconds{{source="{node}",target="{other}"}} 0.002\n'


def _named(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


def _configuration(objects: list[Object]) -> Object:
    found: Object = yaml.safe_load(
        _named(objects, "ConfigMap", "fairlane-prometheus")["data"]["prometheus.yml"]
    )
    return found


class Seen:
    """What runs: Prometheus, the exporters behind the pods, and the objects it was rendered from."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.node_exporter = Exporter(lambda: NODE_METRICS.format(now=time.time()))
        self.nodes: list[str] = []
        self.probe = Exporter(lambda: PROBE_METRICS.format(node=self.nodes[0], other=self.nodes[1]))
        port = int(self.node_exporter.address.rpartition(":")[2])
        own = {"enabled": True, "scrapeInterval": "1s", "exporters": {"node-exporter": port}}
        self.objects = helm_or_skip().objects({**BUNDLED, "bundledPrometheus": own})
        self.prometheus: RealPrometheus | None = None

    def ask(self, what: str, **words: str) -> Any:
        assert self.prometheus is not None
        url = f"{self.prometheus.url}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def start(self, token: str) -> None:
        """Prometheus with the rendered configuration, and another way to the API server than from a pod."""
        access = self.folder / "prometheus.kube"
        layout = self.cluster.layout
        content = kubeconfig(layout.url("apiserver", "https"), layout.file("ca.crt"), "prometheus", token)
        access.write_text(json.dumps(content))
        given = _configuration(self.objects)
        for job in given["scrape_configs"]:
            for discovery in job["kubernetes_sd_configs"]:
                discovery["kubeconfig_file"] = str(access)
        alerts = _named(self.objects, "ConfigMap", "fairlane-prometheus")["data"]["alerts.yml"]
        (self.folder / "alerts.yml").write_text(alerts)
        jobs = given.pop("scrape_configs")
        pod = pod_of(_named(self.objects, "Deployment", "fairlane-prometheus"))
        assert pod is not None
        flags = [word for word in pod["containers"][0]["args"] if "retention" in word]
        self.prometheus = RealPrometheus(self.folder, {}, jobs=jobs, more=given, flags=flags, program=PROGRAM)
        self.prometheus.start()

    def close(self) -> None:
        for one in (self.node_exporter, self.probe, self.prometheus):
            if one is not None:
                one.close()


@pytest.fixture(scope="module")
def seen(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Prometheus as the chart has it; a probe, node_exporters and pods of other kinds in the cluster."""
    if binary(PROGRAM) is None:
        pytest.skip(f"`fairlane testbed programs {PROGRAM}` builds it once, then this test runs")
    made = Seen(cluster, tmp_path_factory.mktemp("bundled"))
    asyncio.run(with_admin(cluster, lambda kube: _begin(made, kube)))
    try:
        yield made
    finally:
        made.close()
        asyncio.run(with_admin(cluster, lambda kube: _end(made, kube)))


async def _begin(seen: Seen, kube: KubeClient) -> None:
    listed = json.loads(await kube.get("/api/v1/nodes"))["items"]
    seen.nodes = sorted(node["metadata"]["name"] for node in listed)
    for name in (NAMESPACE, STRANGERS):
        await _there(kube, "/api/v1/namespaces", {"metadata": {"name": name}})
    for path, one in _rights(seen.objects):
        await _there(kube, path, one)
    own = _named(seen.objects, "DaemonSet", "fairlane-probe")["spec"]["template"]["metadata"]["labels"]
    probe_port = {"name": "metrics", "containerPort": int(seen.probe.address.rpartition(":")[2])}
    await _pod(kube, NAMESPACE, "probe-0", own, [probe_port], seen.nodes[0])
    others = {**own, "app.kubernetes.io/instance": "another"}
    await _pod(kube, NAMESPACE, "probe-of-another-release", others, [probe_port], seen.nodes[0])
    await _pod(kube, STRANGERS, "exporter-0", {"app": "node-exporter"}, [], seen.nodes[0])
    both = {"app.kubernetes.io/name": "node-exporter", "k8s-app": "node-exporter"}
    await _pod(kube, STRANGERS, "exporter-1", both, [{"name": "x", "containerPort": 7}], seen.nodes[1])
    await _pod(kube, STRANGERS, "exporter-ended", {"app": "node-exporter"}, [], seen.nodes[2], "Succeeded")
    await _pod(kube, STRANGERS, "web", {"app": "web"}, [{"containerPort": 80}], seen.nodes[1])
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/fairlane-prometheus/token"
    token = json.loads(await kube.post(account, {"spec": {"expirationSeconds": 3600}}))["status"]["token"]
    await asyncio.to_thread(seen.start, token)


async def _end(seen: Seen, kube: KubeClient) -> None:
    pods = [f"/api/v1/namespaces/{NAMESPACE}/pods/{name}" for name in ("probe-0", "probe-of-another-release")]
    rights = [f"{path}/{one['metadata']['name']}" for path, one in _rights(seen.objects)]
    for path in (*pods, *rights, f"/api/v1/namespaces/{STRANGERS}"):
        await kube.delete(path)


def _rights(objects: list[Object]) -> list[tuple[str, Object]]:
    paths = {
        "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
        "ClusterRole": f"{RBAC}/clusterroles",
        "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    }
    return [
        (paths[one["kind"]], one)
        for one in objects
        if one["kind"] in paths and one["metadata"]["name"] == "fairlane-prometheus"
    ]


async def _there(kube: KubeClient, path: str, one: Object) -> None:
    try:
        await kube.post(path, one)
    except KubeError as error:
        if error.status != 409:
            raise


async def _pod(
    kube: KubeClient,
    namespace: str,
    name: str,
    labels: Object,
    ports: list[Object],
    node: str,
    phase: str = "Running",
) -> None:
    """A pod of a simulated node that is said to be at the loopback address."""
    container = {"name": "main", "image": "none", "ports": ports}
    spec = {"nodeName": node, "containers": [container], "automountServiceAccountToken": False}
    path = f"/api/v1/namespaces/{namespace}/pods"
    pod = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    async with _patient():
        await _again(lambda: kube.post(path, pod))
    for _ in range(150):
        told = json.loads(await kube.get(f"{path}/{name}"))
        if told["status"].get("phase") == "Running":
            break
        await asyncio.sleep(0.2)
    status = {"phase": phase, "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    await kube.patch(f"{path}/{name}/status", {"status": status}, MERGE)


@asynccontextmanager
async def _patient() -> AsyncIterator[None]:
    async with asyncio.timeout(30):
        yield


async def _again(act: Any) -> None:
    """A namespace that was just made has no service account for a moment."""
    while True:
        try:
            await act()
            return
        except KubeError as error:
            if error.status != 403:
                raise
            await asyncio.sleep(0.2)


def test_it_scrapes_our_parts_and_the_exporters_and_nothing_else(seen: Seen) -> None:
    def found() -> dict[tuple[str, str, str], str]:
        active = seen.ask("targets", state="active")["activeTargets"]
        labels = [(one["labels"], one["health"]) for one in active]
        return {(one["job"], one["pod"], one["node"]): health for one, health in labels}

    node, other = seen.nodes[:2]
    expected = {
        ("fairlane-probe", "probe-0", node): "up",
        ("node-exporter", "exporter-0", node): "up",
        ("node-exporter", "exporter-1", other): "up",
    }
    assert eventually(lambda: found() == expected), found()


def test_what_it_keeps_is_what_telemetry_reads(seen: Seen) -> None:
    values = {
        "prometheus": {"url": seen.prometheus.url if seen.prometheus else "", "rate_range_s": 5},
        "sources": ["node_exporter", "fairlane_probe"],
        "epoch_s": 1,
    }
    identities = [NodeIdentity(name) for name in seen.nodes]
    poller = TelemetryPoller(Settings.model_validate(values), lambda: identities)

    def known() -> bool:
        poller.poll()
        memory = poller.snapshot.node_readings.get("memory_available")
        return memory is not None and bool(np.isfinite(memory[:2]).all())

    assert eventually(known), poller.stats
    assert poller.snapshot.node_readings["memory_available"][:2].tolist() == [0.75, 0.75]
    assert seen.ask("query", query="node_load1")["result"]
    assert seen.ask("query", query="node_filesystem_size_bytes")["result"] == []


def test_the_alerts_of_the_chart_are_its_rules(seen: Seen) -> None:
    def evaluated() -> list[Object]:
        return [rule for group in seen.ask("rules")["groups"] for rule in group["rules"]]

    assert eventually(lambda: all(rule["health"] == "ok" for rule in evaluated()), 60.0), evaluated()
    text = _named(seen.objects, "ConfigMap", "fairlane-prometheus")["data"]["alerts.yml"]
    written = [rule["alert"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in evaluated()] == written
    assert "FairlaneTelemetryOld" in written


@pytest.mark.parametrize(
    "variant", ["bundled Prometheus", "bundled Prometheus, webhook, placement at release"]
)
def test_it_scrapes_the_same_as_an_operators_prometheus(variant: str) -> None:
    objects = objects_of(variant)
    own = _configuration(objects)["scrape_configs"][0]
    assert own["job_name"] == "fairlane"
    jobs = {
        rule["replacement"]: tuple(rule["regex"].split(";"))
        for rule in own["relabel_configs"]
        if rule.get("target_label") == "job"
    }
    secure = {rule["regex"] for rule in own["relabel_configs"] if rule.get("target_label") == "__scheme__"}
    monitors = [one for one in objects if one["kind"] == "ServiceMonitor"]
    assert jobs.keys() == {one["metadata"]["name"] for one in monitors}
    for one in monitors:
        [endpoint] = one["spec"]["endpoints"]
        component, port = jobs[one["metadata"]["name"]]
        assert port == endpoint["port"]
        assert (f"{component};{port}" in secure) == (endpoint.get("scheme") == "https")
        assert _declares(objects, component, port), (component, port)


def _declares(objects: list[Object], component: str, port: str) -> bool:
    pods = [
        pod for one in objects if one["metadata"]["name"] == f"fairlane-{component}" and (pod := pod_of(one))
    ]
    return any(port == named["name"] for pod in pods for box in pod["containers"] for named in box["ports"])


@pytest.mark.parametrize(
    ("variant", "asks"),
    [
        ("bundled Prometheus", "scheduler"),
        ("bundled Prometheus, webhook, placement at release", "controller"),
    ],
)
def test_the_network_lets_it_reach_our_parts_and_only_who_asks_reach_it(variant: str, asks: str) -> None:
    policies = {one["metadata"]["name"]: one for one in objects_of(variant) if one["kind"] == "NetworkPolicy"}
    own = policies["fairlane-prometheus"]["spec"]
    callers = [_component(peer) for rule in own["ingress"] for peer in rule["from"] if "podSelector" in peer]
    assert callers == [asks]
    reached = {
        (_component(peer), rule["ports"][0]["port"]) for rule in own["egress"] for peer in rule.get("to", ())
    }
    let_in = {
        (spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"], rule["ports"][0]["port"])
        for name, policy in policies.items()
        if name.endswith("-scraped")
        for spec in [policy["spec"]]
        for rule in spec["ingress"]
    }
    assert reached == let_in
    asked = policies["fairlane-prometheus-asked"]["spec"]
    assert asked["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == asks
    anywhere = [rule for rule in policies[f"fairlane-{asks}"]["spec"]["egress"] if "to" not in rule]
    assert {port["port"] for rule in anywhere for port in rule["ports"]} == {443, 6443}


def _component(peer: Object) -> str:
    return str(peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"])
