"""A support bundle made on a laptop, of a real API server, real processes and logs, with secrets planted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubelet_of_ours import NAMESPACE, PARTS, container, kubelet, node, pod, remove, write_log

from scheduler.edge.kube import KubeClient
from testbed import binaries
from testbed.cluster import Cluster
from testbed.progress import Progress

Object = dict[str, Any]
BASE = f"/api/v1/namespaces/{NAMESPACE}"
PLANTED = {
    "argument": "planted-argument-1",
    "variable": "planted-variable-2",
    "annotation": "planted,annotation;3",
    "log": "planted/log&4",
    "cut key": "MIIEowIBAAKCAQEAplanted5" + "Ab1" * 10,
    "event": "82913746",
    "header": "planted-header-7",
    "store": "planted/store-8",
}
"""Where, and what."""
DIGEST = "sha256:" + "0a1b2c3d" * 8

pytestmark = pytest.mark.timeout(400)


def planted_pod(cluster: Cluster) -> Object:
    """The extender's, whose object tells too much."""
    made = pod("own-scheduler-0", "scheduler", [container(cluster, "extender", *PARTS["extender"][1:])])
    made["metadata"]["annotations"] = {
        "example.com/note": f"db_password={PLANTED['annotation']} for the store"
    }
    made["spec"]["containers"][0] |= {
        "args": ["extender", "--api-key", PLANTED["argument"]],
        "env": [{"name": "DATABASE", "value": PLANTED["variable"]}],
        "image": f"registry/fairlane@{DIGEST}",
    }
    return made


def settings_map(cluster: Cluster) -> Object:
    """The settings of the release, with what is secret in them."""
    told = yaml.safe_load(cluster.settings_file.read_text())
    told["prometheus"]["headers"] = {"X-Scope-OrgID": PLANTED["header"]}
    told["recorder"] = {**told.get("recorder", {}), "store_url": f"postgresql://u:{PLANTED['store']}@db/x"}
    return {"metadata": {"name": "fairlane-settings"}, "data": {"fairlane.yaml": json.dumps(told)}}


def event() -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": "Pod", "name": "own-scheduler-0", "namespace": NAMESPACE}
    message = f"Back-off restarting: PGPASSWORD={PLANTED['event']} was refused for alice"
    return {
        "metadata": {"name": "planted"},
        "involvedObject": about,
        "reason": "BackOff",
        "message": message,
    } | {
        "firstTimestamp": now,
        "lastTimestamp": now,
        "type": "Warning",
    }


async def install(cluster: Cluster, port: int) -> list[str]:
    others = [
        pod(f"own-{PARTS[name][0]}-0", PARTS[name][0], [container(cluster, name, *PARTS[name][1:])])
        for name in PARTS
        if name != "extender"
    ]
    silent = {"name": "probe", "image": "none", "ports": [{"name": "metrics", "containerPort": 9}]}
    stuck = pod("own-probe-0", "probe", [silent])
    pods = [planted_pod(cluster), *others, stuck]
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        await kube.post("/api/v1/nodes", node(port))
        known = json.loads(await kube.get("/api/v1/namespaces"))["items"]
        if NAMESPACE not in {one["metadata"]["name"] for one in known}:
            await kube.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for one in pods:
            await kube.post(f"{BASE}/pods", one)
        await kube.post(f"{BASE}/configmaps", settings_map(cluster))
        await kube.post(f"{BASE}/events", event())
        stamped = {"name": "stamped", "annotations": {"fairlane.dev/user": "alice"}}
        waiting = {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]}
        await kube.post("/api/v1/namespaces/default/pods", {"metadata": stamped, "spec": waiting})
    return [one["metadata"]["name"] for one in pods]


async def uninstall(cluster: Cluster, pods: list[str]) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        await remove(kube, pods)
        await kube.delete(f"{BASE}/configmaps/fairlane-settings")
        await kube.delete(f"{BASE}/events/planted")
        await kube.delete("/api/v1/namespaces/default/pods/stamped", {"gracePeriodSeconds": "0"})


async def all_run(cluster: Cluster, pods: list[str]) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        for name in pods:
            for _ in range(300):
                told = json.loads(await kube.get(f"{BASE}/pods/{name}"))
                if told["status"].get("phase") == "Running":
                    break
                await asyncio.sleep(0.1)
            assert told["status"]["phase"] == "Running", told


@pytest.fixture(scope="module")
def release(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The processes of the testbed in pods, as a release with names of its own has them."""
    folder = tmp_path_factory.mktemp("kubelet")
    for name in ("recorder", "predictor", "extender", "controller"):
        cluster.process(name).restart()
    for name in PARTS:
        lines = cluster.process(name).log_tail(40).splitlines()
        planted = ["-----END RSA PRIVATE KEY-----", f"login with password: {PLANTED['log']} by alice"]
        write_log(folder, name, [PLANTED["cut key"], *planted, *lines, "the last word of " + name])
    with kubelet(cluster, folder) as port:
        pods = asyncio.run(install(cluster, port))
        asyncio.run(all_run(cluster, pods))
        yield cluster
        asyncio.run(uninstall(cluster, pods))
    for name in ("controller", "extender", "predictor", "recorder"):
        cluster.process(name).stop()


@pytest.fixture
def laptop(release: Cluster, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs commands of ours where nothing is known but the API server."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FAIRLANE")}
    (tmp_path / "kubectl").symlink_to(binaries.ensure(["kubectl"], Progress(quiet=True))["kubectl"])
    own |= {"KUBECONFIG": str(release.kubeconfig), "PATH": f"{tmp_path}:{own['PATH']}"}

    def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"scheduler.cli.{module}", *words]
        return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=200)

    return run


def read(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        contents = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        found = {name: content.read().decode() for name, content in contents.items() if content}
    return {name.removeprefix("fairlane-support/"): text for name, text in found.items()}


def test_a_bundle_of_a_laptop_has_what_each_part_says_and_no_secret(
    laptop: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file = tmp_path / "bundle.tar.gz"
    told = laptop("main", "support-bundle", "--hash-users", "--output", str(file))
    assert told.returncode == 0, told.stderr
    files = read(file)
    everything = "\n".join([*files, *files.values(), told.stdout, told.stderr])
    assert [where for where, secret in PLANTED.items() if secret in everything] == []
    assert "alice" not in everything
    for name, (component, _, _) in PARTS.items():
        where = f"own-{component}-0"
        assert json.loads(files[f"{name}/{where}-status.txt"]), name
        assert "fairlane_" in files[f"{name}/{where}-metrics.txt"]
        log = files[f"logs/{where}-{name}.log"]
        assert f"the last word of {name}" in log
        assert "login with password: [redacted] by user-" in log
    assert "PGPASSWORD=[redacted] was refused for user-" in files["cluster/events.json"]
    assert DIGEST in files["cluster/pods.json"]
    assert json.loads(files["cluster/settings.json"])["recorder"]["store_url"].startswith("postgresql://")
    assert {one["part"] for one in json.loads(files["doctor.json"])["findings"]} >= {"recorder"}
    assert "flows" in json.loads(files["queue.json"])
    assert json.loads(files["status.json"])
    assert json.loads(files["cluster/version.json"])["gitVersion"].startswith("v1.")
    assert json.loads(files["cluster/nodes.json"])["items"]
    left_out = files["left-out.txt"]
    assert "probe/own-probe-0-status.txt: it does not answer: <urlopen error [Errno 111]" in left_out
    assert "logs/own-probe-0-probe.log: " in left_out


@pytest.mark.parametrize("command", [("doctor", "-o", "json"), ("queue", "-o", "json")])
def test_a_real_kubectl_runs_the_plugins_commands_in_the_pod_that_is_there(
    laptop: Callable[..., subprocess.CompletedProcess[str]], command: tuple[str, ...]
) -> None:
    told = laptop("plugin", *command)
    assert json.loads(told.stdout), told.stderr
