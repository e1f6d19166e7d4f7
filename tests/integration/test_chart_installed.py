"""A release in its life: installed, tried, upgraded, rolled back, uninstalled, with pods waiting and running.

Helm and the API server are real; the pods of the release run on simulated
nodes, so the same processes are started here, with the settings of the
release and as its service accounts: with no more rights than the chart gives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_variants import helm_or_skip
from test_chart_detection import COMMUNITY, STACK, Known

from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from testbed.chart.helm import CHART, NAMESPACE, NEWEST, HelmError
from testbed.cluster import Cluster
from testbed.credentials import kubeconfig
from testbed.layout import OPTIONAL, Options

Object = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
QUEUES = "/apis/fairlane.dev/v1alpha1/fairqueues"
GATE = "fairlane.dev/queue"
VALUES: Object = {
    # without a volume: nothing on the testbed makes one
    "storage": {"postgresql": {"existingSecret": "store"}, "registryUrl": "memory://models"},
    "settings": {"controller": {"lease_s": 6, "checkpoint_s": 1.0}},
}
CERTIFICATE = f"/api/v1/namespaces/{NAMESPACE}/secrets/fairlane-predictor-certificates"
MOUNTED = "/etc/fairlane-certificate"
PROCESSES = ("chart-controller", "chart-recorder", "chart-extender", "chart-scheduler")
COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


class Release:
    """A release on a testbed of its own, and its processes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.helm = helm_or_skip(cluster.kubeconfig)

    def act(self, *words: str, values: Object | None = None) -> str:
        """A command of Helm about the release."""
        return self.helm.run(*words, "--namespace", NAMESPACE, values=values)

    async def start(self) -> None:
        """The scheduler, controller, recorder and extender of the release, as its service accounts."""
        async with KubeClient.connect(str(self.cluster.kubeconfig)) as kube:
            await self._settle_files(kube)
            for account in ("scheduler", "controller", "recorder"):
                await self._account(kube, account)
        ports = self.cluster.layout.ports
        self._run_fairlane("recorder", "recorder", {"STORE_URL": f"sqlite:///{self._file('own.db')}"})
        self._run_fairlane("extender", "scheduler", {})
        self._run_fairlane("controller", "controller", {})
        self.cluster.process("fairlane-scheduler").stop()
        program = self.cluster.layout.binaries["kube-scheduler"]
        flags = ["--config", str(self._file("scheduler.yaml")), "--bind-address=127.0.0.1"]
        flags += [
            f"--secure-port={ports['fairlane_scheduler']}",
            f"--kubeconfig={self._file('scheduler.kube')}",
        ]
        flags += [
            f"--{one}-kubeconfig={self._file('scheduler.kube')}"
            for one in ("authentication", "authorization")
        ]
        self.cluster.run("chart-scheduler", str(program), *flags)

    async def mount_certificate(self) -> None:
        """What the recorder of the release keeps for the predictor, where its settings say that it is."""
        folder = self._file("certificate")
        folder.mkdir(exist_ok=True)
        async with KubeClient.connect(str(self.cluster.kubeconfig)) as kube:
            await _filled(kube, CERTIFICATE)
            secret = await _read(kube, CERTIFICATE)
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (folder / name).write_bytes(base64.b64decode(secret["data"][name]))

    async def try_it(self) -> subprocess.CompletedProcess[str]:
        """What the test hook runs, with the hook's rights."""
        hooks = [
            one
            for one in self.helm.objects(VALUES, NEWEST)
            if one["kind"] in COLLECTIONS and "helm.sh/hook" in one["metadata"].get("annotations", {})
        ]
        async with KubeClient.connect(str(self.cluster.kubeconfig)) as kube:
            for one in hooks:
                await kube.post(COLLECTIONS[one["kind"]].format(one["metadata"].get("namespace")), one)
            await self._account(kube, "test")
        words = [
            "--namespace",
            "fairlane-test",
            "--kubeconfig",
            str(self._file("test.kube")),
            "--within",
            "60",
        ]
        command = [sys.executable, "-m", "scheduler.cli.main", "trial", *words]
        environment = {**os.environ, **self._environment("RECORDER", {})}
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=240
        )

    async def _settle_files(self, kube: KubeClient) -> None:
        base = f"/api/v1/namespaces/{NAMESPACE}"
        settings = await _read(kube, f"{base}/configmaps/fairlane-settings")
        text = settings["data"]["fairlane.yaml"].replace(MOUNTED, str(self._file("certificate")))
        self._file("fairlane.settings").write_text(text)
        scheduler = await _read(kube, f"{base}/configmaps/fairlane-scheduler")
        text = scheduler["data"]["scheduler.yaml"].replace(
            ":8888", f":{self.cluster.layout.ports['extender']}"
        )
        given = yaml.safe_load(text)
        given["clientConnection"] = {"kubeconfig": str(self._file("scheduler.kube"))}
        self._file("scheduler.yaml").write_text(yaml.safe_dump(given))
        secret = await _read(kube, f"{base}/secrets/fairlane-token")
        self.token = base64.b64decode(secret["data"]["token"]).decode()

    async def _account(self, kube: KubeClient, name: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/fairlane-{name}/token"
        made = json.loads(await kube.post(path, {"spec": {"expirationSeconds": 7200}}))
        url, trusted = self.cluster.layout.url("apiserver", "https"), self.cluster.layout.file("ca.crt")
        content = kubeconfig(url, trusted, f"fairlane-{name}", made["status"]["token"])
        self._file(f"{name}.kube").write_text(json.dumps(content))

    def _run_fairlane(self, command: str, account: str, own: dict[str, str]) -> None:
        argv = (
            sys.executable,
            "-m",
            "scheduler.cli.main",
            command,
            "--kubeconfig",
            str(self._file(f"{account}.kube")),
        )
        self.cluster.run(f"chart-{command}", *argv, env=self._environment(command.upper(), own))

    def _environment(self, section: str, own: dict[str, str]) -> dict[str, str]:
        port = str(self.cluster.layout.ports[section.lower()])
        given = {
            f"FAIRLANE_{section}__{key}": value
            for key, value in {"HOST": "127.0.0.1", "PORT": port, **own}.items()
        }
        return given | {
            "FAIRLANE_CONFIG": str(self._file("fairlane.settings")),
            "FAIRLANE_TOKEN": self.token,
            "FAIRLANE_RECORDER_URL": self.cluster.layout.url("recorder"),
            "FAIRLANE_PREDICTOR_ADDRESS": "",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }

    def _file(self, name: str) -> Path:
        return self.cluster.directory / name


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """A testbed with room for four pods, and nothing installed."""
    helm_or_skip()
    with Cluster(Options(nodes=3, sites=1, node_cpu=2, without=OPTIONAL)) as cluster:
        yield Release(cluster)


async def test_a_release_lives_and_no_pod_is_lost(release: Release) -> None:
    words = ("install", "fairlane", str(CHART), "--create-namespace")
    said = release.act(*words, values=VALUES)
    assert "helm test fairlane" in said
    await release.start()
    tried = await release.try_it()
    log = release.cluster.process("chart-controller").log_tail(30)
    assert tried.returncode == 0, f"{tried.stdout}{tried.stderr}\n{log}"
    for step in ("gated 2", "waits while one", "a receipt on every pod", "placed them", "recorder knows"):
        assert step in tried.stdout
    _metrics_of_alerts_are_served(release.cluster)
    for process in PROCESSES:
        assert "forbidden" not in release.cluster.process(process).log_tail(10_000).lower(), process
    async with KubeClient.connect(str(release.cluster.kubeconfig)) as kube:
        queue = _head("FairQueue", "default") | {"apiVersion": "fairlane.dev/v1alpha1", "spec": {}}
        await kube.post(QUEUES, queue)
        before = [await _submit(kube, name, size) for name, size in (("runs", 1), ("waits", 2))]
        await _until(kube, "runs", lambda pod: pod["status"].get("phase") == "Running")
        await _until(kube, "waits", lambda pod: "conditions" in pod["status"])
        await _through_changes(release, kube, before)
        await _uninstalled(release, kube, before)
        release.act(*words, values=VALUES)  # what stayed belongs to the release again
        release.act("uninstall", "fairlane")


async def test_a_found_prometheus_outlives_upgrades_and_is_found_anew_when_it_has_gone(
    release: Release,
) -> None:
    upgrade = ("upgrade", "fairlane", str(CHART), "--reset-then-reuse-values")
    async with KubeClient.connect(str(release.cluster.kubeconfig)) as kube:
        first, better = (
            f"http://{name}.{where}.svc:{port}" for where, name, _, port, _ in (COMMUNITY, STACK)
        )
        gone = await _serve(kube, COMMUNITY)
        release.act("install", "fairlane", str(CHART), "--create-namespace", values=VALUES)
        assert await _found(kube) == (first, first)
        await _serve(kube, STACK)
        assert f"Passed over: {better}." in release.act(*upgrade)
        assert await _found(kube) == (first, first)
        await kube.delete(gone)
        assert f"{first}, is not there any more" in release.act(*upgrade)
        assert await _found(kube) == (better, better)
        release.act("rollback", "fairlane")  # to what was rendered then
        assert await _found(kube) == (first, first)
        release.act(*upgrade)
        assert await _found(kube) == (better, better)
        named = {"settings": {"prometheus": {"url": "http://named.example:9090"}}}
        release.act(*upgrade, values=named)
        assert await _found(kube) == ("http://named.example:9090", None)
        release.act(*upgrade, values={"settings": {"prometheus": {"url": ""}}})
        assert await _found(kube) == (better, better)
    release.act("uninstall", "fairlane")


async def test_a_namespace_that_somebody_made_is_not_taken_over_for_the_test(release: Release) -> None:
    install = ("install", "fairlane", str(CHART), "--create-namespace")
    async with KubeClient.connect(str(release.cluster.kubeconfig)) as kube:
        await kube.post("/api/v1/namespaces", _head("Namespace", "team"))
        with pytest.raises(HelmError, match=r'Namespace "team" .* exists and cannot be imported'):
            release.act(*install, values={**VALUES, "test": {"namespace": "team"}})
        with contextlib.suppress(HelmError):  # nothing was installed
            release.act("uninstall", "fairlane")
        team = await _read(kube, "/api/v1/namespaces/team")
        assert "deletionTimestamp" not in team["metadata"]


def test_a_release_elsewhere_takes_over_what_an_uninstall_left(release: Release) -> None:
    release.act("install", "fairlane", str(CHART), "--create-namespace", values=VALUES)
    release.act("uninstall", "fairlane")
    words = ("install", "other", str(CHART), "--namespace", "elsewhere", "--create-namespace")
    with pytest.raises(HelmError, match="exists and cannot be imported"):
        release.helm.run(*words, values=VALUES)
    release.helm.run(*words, "--take-ownership", values=VALUES)
    release.helm.run("uninstall", "other", "--namespace", "elsewhere")


async def _serve(kube: KubeClient, known: Known) -> str:
    """Make the Service of a well-known Prometheus; its path."""
    namespace, name, labels, port, target = known
    with contextlib.suppress(KubeError):  # it is there
        await kube.post("/api/v1/namespaces", _head("Namespace", namespace))
    ports = [{"name": "http", "port": port, "targetPort": target}]
    service = _head("Service", name) | {"spec": {"selector": {"prometheus": name}, "ports": ports}}
    service["metadata"]["labels"] = labels
    await kube.post(f"/api/v1/namespaces/{namespace}/services", service)
    return f"/api/v1/namespaces/{namespace}/services/{name}"


async def _found(kube: KubeClient) -> tuple[str, str | None]:
    """Where the extender reads telemetry, and what is noted as found."""
    base = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    settings = json.loads((await _read(kube, f"{base}/fairlane-settings"))["data"]["fairlane.yaml"])
    try:
        noted = await _read(kube, f"{base}/fairlane-prometheus-found")
    except KubeError:
        return settings["prometheus"]["url"], None
    return settings["prometheus"]["url"], json.loads(noted["data"]["found"])["url"]


def _metrics_of_alerts_are_served(cluster: Cluster) -> None:
    """An alert about a metric that nobody serves would never fire; tests/unit looks at the others'."""
    served = ""
    for process in ("controller", "recorder"):
        with urllib.request.urlopen(f"{cluster.layout.url(process)}/metrics", timeout=10) as answer:
            served += answer.read().decode()
    alerts = (CHART / "files" / "alerts.yaml").read_text()
    found = re.findall(r"\bfairlane_(?:queue|controller|recorder|prediction)_\w+", alerts)
    named = {re.sub(r"_(sum|count)$", "", name) for name in found}
    assert {name for name in named if name not in served} == set()


async def _through_changes(release: Release, kube: KubeClient, before: list[str]) -> None:
    before_it = await _secrets(kube)
    assert before_it["fairlane-predictor-certificates"].keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    changed = {**VALUES, "controller": {"replicas": 2}, "admission": {"kinds": ["jobsets"]}}
    release.act("upgrade", "fairlane", str(CHART), values=changed)
    policies = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies"
    assert await _read(kube, f"{policies}/fairlane-stamp-jobsets")
    assert await _secrets(kube) == before_it
    release.act("rollback", "fairlane")
    assert await _secrets(kube) == before_it
    with pytest.raises(KubeError, match="404"):
        await _read(kube, f"{policies}/fairlane-stamp-jobsets")
    await _are_there(kube, before)


async def _secrets(kube: KubeClient) -> dict[str, Object]:
    """What the chart and the recorder wrote into Secrets: neither an upgrade nor a rollback may change it."""
    base = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    names = ("fairlane-token", "fairlane-predictor-certificates")
    return {name: (await _read(kube, f"{base}/{name}")).get("data", {}) for name in names}


async def _uninstalled(release: Release, kube: KubeClient, before: list[str]) -> None:
    opened = [{"op": "remove", "path": "/spec/schedulingGates"}]
    with pytest.raises(KubeError, match="only the Fairlane controller removes the gate"):
        await kube.patch(f"{PODS}/waits", opened, JSON_PATCH)
    release.act("uninstall", "fairlane")
    await _are_there(kube, before)
    await _until_allowed(lambda: kube.patch(f"{PODS}/waits", opened, JSON_PATCH))
    assert (await _read(kube, f"{QUEUES}/default"))["spec"] is not None
    for gone in ("deployments/fairlane-controller", "deployments/fairlane-scheduler"):
        with pytest.raises(KubeError, match="404"):
            await _read(kube, f"/apis/apps/v1/namespaces/{NAMESPACE}/{gone}")
    with pytest.raises(HelmError, match="not found"):
        release.act("status", "fairlane")


async def _until_allowed(act: Callable[[], Awaitable[bytes]]) -> None:
    """A policy that is gone is asked for a moment longer."""
    for _ in range(100):
        try:
            await act()
            return
        except KubeError as error:
            refused = error
            await asyncio.sleep(0.2)
    raise refused


async def _are_there(kube: KubeClient, uids: list[str]) -> None:
    running, waiting = [await _read(kube, f"{PODS}/{name}") for name in ("runs", "waits")]
    assert [running["metadata"]["uid"], waiting["metadata"]["uid"]] == uids
    assert running["status"]["phase"] == "Running"
    assert [gate["name"] for gate in waiting["spec"]["schedulingGates"]] == [GATE]


async def _submit(kube: KubeClient, name: str, size: int) -> str:
    """One pod of a gang of `size`; its uid."""
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    pod = _head("Pod", name)
    pod["metadata"]["annotations"] = {"fairlane.dev/gang": name, "fairlane.dev/gang-size": str(size)}
    pod["spec"] = {"schedulerName": "fairlane", "containers": [container]}
    return str(json.loads(await kube.post(PODS, pod))["metadata"]["uid"])


async def _until(kube: KubeClient, name: str, holds: Any) -> None:
    for _ in range(300):
        if holds(await _read(kube, f"{PODS}/{name}")):
            return
        await asyncio.sleep(0.2)
    raise AssertionError(await _read(kube, f"{PODS}/{name}"))


async def _filled(kube: KubeClient, path: str) -> None:
    for _ in range(60):
        if (await _read(kube, path)).get("data"):
            return
        await asyncio.sleep(0.5)


async def _read(kube: KubeClient, path: str) -> Object:
    return dict(json.loads(await kube.get(path)))


def _head(kind: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
