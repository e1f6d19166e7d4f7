"""What the pages tell an administrator to type, typed: a release in its life, by their words.

Helm, kubectl, the API server, its volume binder, KWOK's kubelet interface and all of Fairlane's processes are
real; the processes run on this machine, with the settings and rights of the release. Its pods are simulated.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from docs_blocks import ROOT, Block, blocks, pages
from docs_reader import reader_in
from kubelet import Container, Kubelet
from test_chart_installed import GATE, PODS, Release, _read, _submit, _until, helm_or_skip

from scheduler.edge.kube import KubeClient
from testbed.chart.helm import NAMESPACE
from testbed.cluster import Cluster
from testbed.layout import OPTIONAL, Options

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
INSTALL = ROOT / "docs" / "install.md"
FIRST, LAST = ("On a cluster that is there", "Day two"), ("Upgrade, roll back", "Uninstall")
"""Sections of install.md by when they are read."""
PROCESSES = ("scheduler", "controller", "extender", "recorder", "predictor")
VOLUME_CONTROLLERS = ("persistentvolume-binder-controller", "persistentvolumeclaim-protection-controller")
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "for-fairlane"},
    "spec": {
        "capacity": {"storage": "10Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/nowhere"},
        "persistentVolumeReclaimPolicy": "Delete",
    },
}


class Site:
    """A cluster on which an administrator reads the pages."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.release = Release(cluster)
        homes = dict.fromkeys(("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), str(folder / "helm"))
        self.reader = reader_in(folder, "helm", KUBECONFIG=str(cluster.kubeconfig), **homes)
        self.reader.before, self.reader.after = self._before, self._after
        self.kubelet: Kubelet | None = None
        self.stack = ExitStack()

    def follow(self, found: list[Block]) -> str:
        """Do what the blocks say; what was printed."""
        assert found
        said = ""
        for block in found:
            told = self.reader.follow(block.text)
            print(f"--- {block}\n{told}")
            said += told
        return said

    def _before(self, command: str) -> None:
        if " logs " in command and self.kubelet is not None:
            self.kubelet.refresh_logs()
        if command.startswith("helm uninstall"):
            self._stop()

    def _after(self, command: str) -> None:
        if command.startswith("helm install"):
            self._start()

    def _start(self) -> None:
        """What the pods that Helm just made would run."""
        asyncio.run(self.release.start())
        asyncio.run(self.release.mount_certificate())
        ports, layout = self.cluster.layout.ports, self.cluster.layout
        common = {
            "PATH": self.reader.environment["PATH"],
            "FAIRLANE_CONTROLLER_URL": layout.url("controller"),
            "FAIRLANE_EXTENDER_URL": layout.url("extender"),
        }
        for section in ("recorder", "extender", "controller"):
            common |= self.release._environment(section.upper(), {})
        registry = self.cluster.directory / "models"
        served = {
            "FAIRLANE_PREDICTOR__HOST": "127.0.0.1",
            "FAIRLANE_PREDICTOR__PORT": str(ports["predictor"]),
            "FAIRLANE_PREDICTOR__METRICS_PORT": str(ports["predictor_metrics"]),
            "FAIRLANE_PREDICTOR__REGISTRY": str(registry),
        }
        words = (sys.executable, "-m", "scheduler.cli.main", "predictor")
        self.cluster.run("chart-predictor", *words, env=common | served)
        self.kubelet = Kubelet(
            self.cluster,
            NAMESPACE,
            {
                "extender": Container("chart-extender", common),
                "kube-scheduler": Container("chart-scheduler", common),
                "controller": Container("chart-controller", common, {8891: ports["controller"]}),
                "recorder": Container("chart-recorder", common, {8890: ports["recorder"]}),
                "predictor": Container("chart-predictor", common, {8896: ports["predictor_metrics"]}),
                "train": Container("", common),
                "trial": Container("", common),
            },
            {
                "http://fairlane-recorder:8890": layout.url("recorder"),
                "/var/lib/fairlane": str(registry.parent),
            },
        )
        self.stack.enter_context(self.kubelet.at_work())

    def _stop(self) -> None:
        self.stack.close()
        self.kubelet = None
        for name in PROCESSES:
            self.cluster.process(f"chart-{name}").stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A testbed with a volume to be had, and nothing installed."""
    helm_or_skip()
    with Cluster(Options(nodes=3, sites=1, node_cpu=4, without=OPTIONAL)) as cluster:
        asyncio.run(_offer_a_volume(cluster))
        site = Site(cluster, tmp_path_factory.mktemp("administrator"))
        with site.stack:
            yield site


async def _offer_a_volume(cluster: Cluster) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        await kube.post("/api/v1/persistentvolumes", VOLUME)
    changed = {"controllers": ",".join(VOLUME_CONTROLLERS), "secure-port": "0"}
    argv = [
        f"--{name}={changed[name]}" if (name := word.strip("-").split("=")[0]) in changed else word
        for word in cluster.process("kube-controller-manager").spec.argv
    ]
    cluster.run("volume-binder", *argv)


def installed_blocks(page: Path, *sections: str) -> list[Block]:
    """The blocks of a page for a cluster with the chart; of sections, in the order as named."""
    found = [one for one in blocks(page) if (one.mark, one.more) == ("run", "installed")]
    heads = {
        block: re.findall(r"^## (.+)$", "\n".join(page.read_text().splitlines()[: block.line]), re.M)[-1]
        for block in found
    }
    if not sections:
        return found
    assert set(sections) <= set(heads.values())
    return [block for section in sections for block in found if heads[block] == section]


OTHERS = [
    page
    for page in pages()
    if page not in (INSTALL, ROOT / "README.md", ROOT / "docs/admission.md") and installed_blocks(page)
]


def test_it_is_installed_and_looked_after(site: Site) -> None:
    said = site.follow(installed_blocks(INSTALL, FIRST[0]))
    for word in ("STATUS: deployed", "a receipt on every pod", "Phase:          Succeeded"):
        assert word in said
    asyncio.run(_jobs_come(site.cluster))
    said = site.follow(installed_blocks(INSTALL, FIRST[1]))
    assert "Forwarding from 127.0.0.1:8891" in said
    assert "Queue      default: " in said


async def _jobs_come(cluster: Cluster) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        for name, size in (("runs", 1), ("waits", 2)):
            await _submit(kube, name, size)
        await _until(kube, "runs", lambda pod: pod["status"].get("phase") == "Running")
        await _until(kube, "waits", lambda pod: "conditions" in pod["status"])


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_what_is_told_to_be_typed_with_a_release(page: Path, site: Site) -> None:
    site.reader.instead = {
        "NAMESPACE/NAME": "default/runs",
        "NAME": "runs",
        "/var/lib/fairlane": str(site.cluster.directory),
    }
    found = installed_blocks(page)
    if any("UID" in block.text for block in found):
        site.reader.instead["UID"] = asyncio.run(_gang_that_waits(site))
    try:
        site.follow(found)
    finally:
        site.reader.run("kubectl delete pods -l large")


async def _gang_that_waits(site: Site) -> str:
    """Its uid, as `fairlane queue` tells it."""
    async with KubeClient.connect(str(site.cluster.kubeconfig)) as kube:
        for number in range(4):  # more than there are nodes, and no node has room for two
            body = {"metadata": {"name": f"large-{number}", "labels": {"large": ""}}}
            container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "3"}}}
            await kube.post(PODS, {**body, "spec": {"schedulerName": "fairlane", "containers": [container]}})
    asked = f"kubectl --namespace {NAMESPACE} exec deploy/fairlane-controller -- fairlane queue -o json"
    for _ in range(20):
        told = json.loads(await asyncio.to_thread(site.reader.run, asked))
        for gang in told["gangs"]:
            if gang["pods"][0].startswith("default/large-") and gang["position"]:
                return str(gang["uid"])
        await asyncio.sleep(0.5)
    raise AssertionError(told)


def test_it_is_upgraded_rolled_back_and_removed(site: Site) -> None:
    site.reader.run(
        "kubectl create namespace batch && kubectl label namespace batch fairlane.dev/enabled=true"
    )
    site.follow(installed_blocks(INSTALL, LAST[0]))
    told = site.reader.run(f"helm history fairlane --namespace {NAMESPACE} -o json")
    assert [one["revision"] for one in json.loads(told)] == [1, 2, 3]
    assert "Rollback to 1" in told
    removal = installed_blocks(INSTALL, LAST[1])
    site.follow(removal[:-1])
    asyncio.run(_nothing_is_lost(site.cluster))
    site.follow(removal[-1:])
    left = site.reader.run("kubectl get crd,namespaces,clusterroles,validatingadmissionpolicies -o name")
    assert "fairlane" not in left


async def _nothing_is_lost(cluster: Cluster) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        runs, waits = [await _read(kube, f"{PODS}/{name}") for name in ("runs", "waits")]
    assert runs["status"]["phase"] == "Running"
    assert [gate["name"] for gate in waits["spec"]["schedulingGates"]] == [GATE]


@pytest.mark.parametrize("page", [INSTALL, ROOT / "README.md"], ids=lambda page: page.stem)
def test_other_ways_to_install(page: Path, site: Site) -> None:
    sections = ("Without a way out",) if page == INSTALL else ()
    said = site.follow(installed_blocks(page, *sections))
    assert "STATUS: deployed" in said
    if page == INSTALL:
        images = re.findall(r"image: (\S+)", said)
        assert len(images) > 4
        assert all(image.strip('"').startswith("registry.internal:5000/mirror/") for image in images)
    site.reader.follow(f"helm uninstall fairlane --namespace {NAMESPACE}")


def test_admission_by_hand(site: Site) -> None:
    site.reader.environment["FAIRLANE_CONFIG"] = ""
    (site.reader.folder / "fairlane.yaml").write_text("{}")
    said = site.follow(installed_blocks(ROOT / "docs" / "admission.md"))
    assert "mutatingadmissionpolicy.admissionregistration.k8s.io/fairlane" in said
    assert "mutatingwebhookconfiguration.admissionregistration.k8s.io/fairlane" in said
