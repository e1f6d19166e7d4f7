"""A support bundle made on a laptop, of a real API server, real processes and logs, with secrets planted."""

from __future__ import annotations

import asyncio
import base64
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
from kubelet import Container, Kubelet

from scheduler.cli.support_bundle import INCOMPLETE
from scheduler.edge import pod_commands
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.pod_commands import Ended, run_in
from scheduler.edge.whereabouts import Place
from testbed import binaries
from testbed.cluster import Cluster
from testbed.progress import Progress

Object = dict[str, Any]
Laptop = Callable[..., subprocess.CompletedProcess[str]]
NAMESPACE = "fairlane-system"
BASE = f"/api/v1/namespaces/{NAMESPACE}"
PARTS = {
    "extender": ("scheduler", "metrics", "extender_metrics"),
    "controller": ("controller", "http", "controller"),
    "recorder": ("recorder", "http", "recorder"),
    "predictor": ("predictor", "metrics", "predictor_metrics"),
}
"""Containers, their component, and the port at which they tell of themselves."""
STORE = "planted/store-8"
PLANTED = {
    "argument": "planted-argument-1",
    "variable": "planted-variable-2",
    "annotation": "planted,annotation;3",
    "token of a kubeconfig": "planted-kube-token-4",
    "cut key": "MIIEowIBAAKCAQEAplanted5" + "Ab1" * 10,
    "event": "82913746",
    "header": "planted-header-7",
    "store": STORE,
    "store in a URL": STORE.replace("/", "%2F"),
    "store in base64": base64.b64encode(STORE.encode()).decode()[:18],
    "log": "planted/log&9",
    "bearer": "planted.bearer-10",
    "database of a log": "planted-pg-11",
    "key of a kubeconfig": base64.b64encode(b"-----BEGIN EC PRIVATE KEY-----planted").decode(),
    "JSON in JSON": "planted-inner-12",
}
"""Where, and what."""
LINES = (
    PLANTED["cut key"],
    "-----END RSA PRIVATE KEY-----",
    f"login with password: {PLANTED['log']} by alice",
    f"GET /v1/queue?user%3Dalice Authorization: Bearer {PLANTED['bearer']}",
    f"postgresql://fair:{PLANTED['database of a log']}@db.internal:5432/x is refused",
    json.dumps(json.dumps({"apiToken": PLANTED["JSON in JSON"], "said": "by\nalice\tagain"})),
    "users:",
    "- name: admin",
    "  user:",
    f"    client-key-data: {PLANTED['key of a kubeconfig']}",
    f"    token: {PLANTED['token of a kubeconfig']}",
    f"the store has {base64.b64encode(STORE.encode()).decode()}",
)
DIGEST = "sha256:" + "0a1b2c3d" * 8

pytestmark = pytest.mark.timeout(400)


def pod(cluster: Cluster, name: str, component: str, containers: list[Object]) -> Object:
    """One as the chart makes it, bound already."""
    labels = {"app.kubernetes.io/name": "fairlane", "app.kubernetes.io/component": component}
    spec = {"nodeName": cluster.worker_names[0], "containers": containers, "terminationGracePeriodSeconds": 0}
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "spec": spec}


def part(cluster: Cluster, name: str) -> Object:
    """The pod of a part whose process listens at a port of the testbed."""
    component, port_name, port = PARTS[name]
    ports = [{"name": port_name, "containerPort": cluster.layout.ports[port]}]
    return pod(cluster, f"own-{component}-0", component, [{"name": name, "image": "none", "ports": ports}])


def release_objects(cluster: Cluster) -> dict[str, Object]:
    """By path. The extender's object tells too much, and nobody answers beside the probe."""
    extender = part(cluster, "extender")
    extender["metadata"]["annotations"] = {"note": f"db_password={PLANTED['annotation']} for the store"}
    extender["spec"]["containers"][0] |= {
        "args": ["extender", "--api-key", PLANTED["argument"]],
        "env": [{"name": "DATABASE", "value": PLANTED["variable"]}],
        "image": f"registry/fairlane@{DIGEST}",
    }
    silent = {"name": "probe", "image": "none", "ports": [{"name": "metrics", "containerPort": 9}]}
    strange = {"name": "admission", "image": "none", "ports": [{"name": "https", "containerPort": 9}]}
    pods = [extender, *(part(cluster, name) for name in PARTS if name != "extender")]
    pods += [pod(cluster, "own-probe-0", "probe", [silent]), pod(cluster, "own-x-0", "x", [strange])]
    settings = yaml.safe_load(cluster.settings_file.read_text())
    settings["prometheus"]["headers"] = {"X-Scope-OrgID": PLANTED["header"]}
    settings["recorder"] = {
        **settings.get("recorder", {}),
        "store_url": f"postgresql://u:{PLANTED['store in a URL']}@db/x",
    }
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "involvedObject": {"kind": "Pod", "name": "own-scheduler-0", "namespace": NAMESPACE},
        "message": f"Back-off restarting: PGPASSWORD={PLANTED['event']} was refused for alice",
        **{"reason": "BackOff", "type": "Warning", "firstTimestamp": now, "lastTimestamp": now},
    }
    stamped = {
        "metadata": {"name": "stamped", "annotations": {"fairlane.dev/user": "alice"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
    }
    return {
        **{f"{BASE}/pods/{one['metadata']['name']}": one for one in pods},
        f"{BASE}/configmaps/fairlane-settings": {"data": {"fairlane.yaml": json.dumps(settings)}},
        f"{BASE}/events/planted": event,
        "/api/v1/namespaces/default/pods/stamped": stamped,
    }


async def install(cluster: Cluster, objects: dict[str, Object]) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        known = json.loads(await kube.get("/api/v1/namespaces"))["items"]
        if NAMESPACE not in {one["metadata"]["name"] for one in known}:
            await kube.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for path, one in objects.items():
            collection, _, name = path.rpartition("/")
            await kube.post(collection, {**one, "metadata": {"name": name, **one.get("metadata", {})}})
        for path in objects:
            for _ in range(300 if path.startswith(f"{BASE}/pods/") else 0):
                told = json.loads(await kube.get(path))
                if told["status"].get("phase") == "Running":
                    break
                await asyncio.sleep(0.1)
            else:
                assert "/pods/own-" not in path, told


async def uninstall(cluster: Cluster, objects: dict[str, Object]) -> None:
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        for path in objects:
            await kube.delete(path, {"gracePeriodSeconds": "0"})


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Cluster]:
    """The processes of the testbed in pods, as a release with names of its own has them."""
    for name in ("recorder", "predictor", "extender", "controller"):
        cluster.process(name).restart()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inside = {"PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    inside["FAIRLANE_CONFIG"] = str(cluster.settings_file)
    containers = {name: Container(name, inside) for name in PARTS} | {"probe": Container("", inside)}
    kubelet, objects = Kubelet(cluster, NAMESPACE, containers, {}), release_objects(cluster)
    with kubelet.at_work():
        for name in PARTS:
            said = cluster.process(name).log_tail(40).splitlines()
            kubelet.write_log(name, [*LINES, *said, f"the last word of {name}"])
        asyncio.run(install(cluster, objects))
        yield cluster
        asyncio.run(uninstall(cluster, objects))
    for name in ("controller", "extender", "predictor", "recorder"):
        cluster.process(name).stop()


@pytest.fixture
def laptop(release: Cluster, tmp_path: Path) -> Laptop:
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


@pytest.fixture
def files(laptop: Laptop, tmp_path: Path) -> dict[str, str]:
    """Of a bundle in which nobody is to be recognised."""
    file = tmp_path / "bundle.tar.gz"
    told = laptop("plugin", "support-bundle", "--hash-users", "--output", str(file))
    assert told.returncode == INCOMPLETE, told.stderr
    found = read(file)
    everything = "\n".join([*found, *found.values(), told.stdout, told.stderr])
    assert [where for where, secret in PLANTED.items() if secret in everything] == []
    assert "alice" not in everything
    return found


def test_a_bundle_of_a_laptop_has_what_each_part_says_and_no_secret(files: dict[str, str]) -> None:
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
    assert json.loads(files["cluster/probes.json"])["items"]
    left_out = files["left-out.txt"]
    assert "probe/own-probe-0-status.txt: it does not answer: <urlopen error [Errno 111]" in left_out
    assert "admission/own-x-0: it could not be asked" in left_out
    assert "logs/own-x-0-admission.log: " in left_out


@pytest.mark.parametrize("command", [("doctor", "-o", "json"), ("queue", "-o", "json")])
def test_a_real_kubectl_runs_the_plugins_commands_in_the_pod_that_is_there(
    laptop: Laptop, command: tuple[str, ...]
) -> None:
    told = laptop("plugin", *command)
    assert told.stdout.startswith("{"), told.stderr
    assert json.loads(told.stdout)


async def test_commands_end_in_time_and_do_not_say_too_much(
    release: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Place(NAMESPACE, "own-scheduler-0", "extender")
    async with KubeClient.connect(str(release.kubeconfig)) as kube:

        async def run(script: str, within_s: float = 30.0, where: Place = at) -> Ended:
            return await run_in(kube, where, ("python3", "-c", script), within_s)

        ended = await run("import sys; print('said'); print('complained', file=sys.stderr); sys.exit(3)")
        assert (ended.printed, ended.complained) == ("said\n", "complained\n")
        assert "exit status 3" in ended.failure
        assert (await run("print(1)")).failure == ""
        with pytest.raises(KubeError, match="did not end within 1 s"):
            await run("import time; time.sleep(20)", within_s=1.0)
        with pytest.raises(KubeError, match=r"404 Not Found: no connection is opened to .*/pods/gone/exec"):
            await run("print(1)", where=Place(NAMESPACE, "gone", "extender"))
        monkeypatch.setattr(pod_commands, "BYTES_MAX", 1000)
        with pytest.raises(KubeError, match="printed more than 1000 bytes"):
            await run("print('x' * 2000)")
