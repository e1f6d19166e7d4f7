"""What runs in the cluster: monitoring, data servers and our own components, from manifests/*.yaml.

A manifest names what depends on the cluster as @name@; a name that is left
over is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import yaml

from testbed.configuration import laid_over
from testbed.kind.cluster import KindCluster
from testbed.kind.images import HERE
from testbed.kind.shell import CommandError

ROLLOUT_S_MAX = 300
TRAIN_S_MAX = 300.0
REFUSED = (3, 5)
"""Exit codes of `fairlane train` for too few examples and for a model that is no better."""


def render(manifest: str, values: Mapping[str, str]) -> str:
    """The text of manifests/MANIFEST.yaml with every @name@ replaced; raises `KeyError` if unknown."""
    text = (HERE / "manifests" / f"{manifest}.yaml").read_text()
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], text)


def apply(cluster: KindCluster, manifest: str, values: Mapping[str, str]) -> None:
    """Apply one manifest and wait until everything in it runs."""
    names = {"control_plane": cluster.control_plane, **values}
    text = render(manifest, names)
    cluster.kubectl("apply", "-f", "-", stdin=text)
    with cluster.progress.task(f"starting {manifest}") as task:
        for namespace in sorted(set(re.findall(r"namespace: ([\w-]+)", text))):
            _wait(cluster, namespace)
    cluster.progress.say(f"{manifest} runs ({task.elapsed_s:.0f} s)")


def _wait(cluster: KindCluster, namespace: str) -> None:
    for kind in ("deployment", "daemonset"):
        for name in cluster.kubectl("-n", namespace, "get", kind, "-o", "name").split():
            try:
                cluster.kubectl("-n", namespace, "rollout", "status", name, f"--timeout={ROLLOUT_S_MAX}s")
            except CommandError as error:
                said = cluster.kubectl("-n", namespace, "logs", name, "--all-containers", "--tail=15")
                raise CommandError(f"{name} in {namespace} does not get ready:\n{error}\n{said}") from error


def monitoring(cluster: KindCluster) -> None:
    """Prometheus and node_exporter."""
    images = cluster.images
    cluster.load([images.node_exporter], [images.prometheus])
    apply(cluster, "monitoring", {"prometheus": images.prometheus, "node_exporter": images.node_exporter})


def data(cluster: KindCluster) -> None:
    """Data servers and competing traffic."""
    cluster.load([cluster.images.transfer])
    apply(cluster, "data", {"transfer": cluster.images.transfer})


ASK_STATUS = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:8888/v1/status", timeout=5).read().decode())
"""
SETTINGS: dict[str, Any] = {
    "prometheus": {"url": "http://prometheus.monitoring:9090", "rate_range_s": 10.0},
    "sources": ["node_exporter", "fairlane_probe"],
    "epoch_s": 3.0,
    "predictor_address": "predictor.fairlane:8889",
    "recorder_url": "http://recorder.fairlane:8890",
    "recorder": {"store_url": "sqlite:////var/lib/fairlane/experience.db"},
    "predictor": {"registry": "/var/lib/fairlane/registry"},
    "probe": {
        "interval_s": 6.0,
        "samples": 4,
        # 256 KiB over 20 ms is slow start alone and would tell nothing of a link's rate
        "transfer_bytes": 768 * 1024,
        "budget_bytes_per_minute": 40 * 2**20,
        "peers_refresh_s": 20.0,
    },
}
"""Settings of the components in the cluster: links change within a minute, so readings are frequent."""


def everything(cluster: KindCluster, settings: Mapping[str, Any] | None = None, gangs: bool = False) -> None:
    """All of it, on a cluster that is up; `gangs`: the large images of their jobs too."""
    images = cluster.images
    jobs = [images.allreduce, images.spark] if gangs else []
    everywhere = [images.transfer, images.node_exporter, images.probe, *jobs]
    cluster.load(everywhere, [images.prometheus, images.fairlane])
    data(cluster)
    monitoring(cluster)
    apply(cluster, "jobs", {})
    components(cluster, settings)


def token(cluster: KindCluster) -> str:
    """The secret that our components in this cluster share; made at the first call."""
    file = cluster.kubeconfig.with_name("token")
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def components(cluster: KindCluster, settings: Mapping[str, Any] | None = None) -> None:
    """Probe, recorder, predictor and our scheduler with its extender, with `settings` laid over SETTINGS."""
    images = cluster.images
    cluster.load([images.probe], [images.fairlane])
    # the pods run without rights and share this folder
    cluster.on_node(cluster.control_plane, "install -d -o 65532 -g 65532 /var/lib/fairlane")
    text = yaml.safe_dump(laid_over(SETTINGS, settings or {}), sort_keys=True)
    cluster.kubectl("apply", "-f", "-", stdin=_settings_manifest(text, token(cluster)))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    names = {"fairlane": images.fairlane, "probe": images.probe, "scheduler": images.scheduler}
    names["settings_digest"] = digest
    apply(cluster, "fairlane", names)


def _settings_manifest(text: str, secret: str) -> str:
    namespace = "fairlane"
    objects: list[dict[str, Any]] = [
        {"kind": "Namespace", "metadata": {"name": namespace}},
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"fairlane.yaml": text}},
        {"kind": "Secret", "metadata": {"name": "fairlane"}, "stringData": {"token": secret}},
    ]
    for one in objects:
        one["apiVersion"] = "v1"
        if one["kind"] != "Namespace":
            one["metadata"]["namespace"] = namespace
    return yaml.safe_dump_all(objects)


def train(cluster: KindCluster, least: int) -> tuple[str, bool]:
    """Run `fairlane train` in the cluster on what the recorder has; what it said, and whether it published.

    That a model is refused, for few examples or for being no better than the
    prior, is a result too: the prior goes on answering. Any other end raises
    `CommandError`.
    """
    cluster.kubectl("-n", "fairlane", "delete", "job", "train", "--ignore-not-found", "--wait")
    names = {"control_plane": cluster.control_plane, "fairlane": cluster.images.fairlane, "least": str(least)}
    cluster.kubectl("apply", "-f", "-", stdin=render("train", names))
    exit_code = _exit_code(cluster, "train")
    said = cluster.kubectl("-n", "fairlane", "logs", "job/train")
    if exit_code == 0 or exit_code in REFUSED:
        return said, exit_code == 0
    raise CommandError(f"training ended with status {exit_code}:\n{said}")


def _exit_code(cluster: KindCluster, job: str) -> int:
    path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"
    deadline_s = time.monotonic() + TRAIN_S_MAX
    while time.monotonic() < deadline_s:
        words = ["-n", "fairlane", "get", "pods", "-l", f"job-name={job}", "-o", path, "--ignore-not-found"]
        try:
            if code := cluster.kubectl(*words).strip():
                return int(code)
        except CommandError:  # there is no pod yet
            pass
        time.sleep(1.0)
    raise CommandError(f"job {job} did not end within {TRAIN_S_MAX:.0f} s")


def extender_status(cluster: KindCluster) -> dict[str, Any]:
    """The extender's own account of itself; empty while it does not answer."""
    words = [
        "-n",
        "fairlane",
        "exec",
        "deploy/scheduler",
        "-c",
        "extender",
        "--",
        "python3",
        "-c",
        ASK_STATUS,
    ]
    try:
        return dict(json.loads(cluster.kubectl(*words)))
    except (CommandError, ValueError):
        return {}
