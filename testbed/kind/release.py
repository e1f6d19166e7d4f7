"""Fairlane in a kind cluster: a release of the chart, as anywhere else, with values for this cluster."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from testbed.binaries import ensure
from testbed.chart.helm import CHART, NAMESPACE, Helm, HelmError
from testbed.kind import deploy
from testbed.kind.cluster import KindCluster
from testbed.kind.jobs import NAMESPACE as JOBS
from testbed.kind.shell import CommandError

RELEASE = "fairlane"
SECRET = "fairlane-shared"
CLAIM = "fairlane-data-here"
PATIENCE = ["--wait", "--timeout", "280s"]
TRAIN_S_MAX = 300.0
LEAST_EXAMPLES = 50
NEVER = "0 0 30 2 *"
"""The thirtieth of February: training is started by hand."""
SETTINGS: dict[str, Any] = {
    "prometheus": {"url": "http://prometheus.monitoring:9090", "rate_range_s": 10.0},
    "sources": ["node_exporter", "fairlane_probe"],
    "epoch_s": 3.0,
    "predictor": {"reload_s": 2.0},
    "probe": {
        "interval_s": 5.0,
        "samples": 4,
        # 256 KiB over 20 ms is slow start alone and would tell nothing of a link's rate
        "transfer_bytes": 768 * 1024,
        "budget_bytes_per_minute": 40 * 2**20,
        "peers_refresh_s": 20.0,
    },
}
"""Settings of the release: links change within a minute, so readings are frequent."""
EXPLORE = [
    {"name": "FAIRLANE_EXPLORATION__RATE", "value": "1.0"},
    {"name": "FAIRLANE_EXPLORATION__SCOPE", "value": "all"},
]
"""Environment of an extender that chooses nodes at random, so that the model sees the bad ones too.

Settings would do the same, but their change starts every pod of the release anew.
"""
OPERATED_KINDS = ["jobsets", "pytorchjobs", "sparkapplications"]
"""Kinds of operators that jobs of the workloads come as."""
ON_CONTROL_PLANE = ("scheduler", "controller", "recorder", "predictor", "train")
ASK_STATUS = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:8888/v1/status", timeout=5).read().decode())
"""


def install(
    cluster: KindCluster,
    explore: bool = False,
    least_examples: int = LEAST_EXAMPLES,
    chart: Path = CHART,
    other: Mapping[str, Any] | None = None,
) -> None:
    """Install the release, or upgrade it to these values; every pod of it is ready afterwards.

    `chart` is another version of the chart, `other` are values that replace these.
    `explore`: our scheduler chooses at random. Raises `CommandError` with what Helm said.
    """
    images = cluster.images
    cluster.load([images.fairlane])
    # the pods run without rights and share this folder
    cluster.on_node(cluster.control_plane, "install -d -o 65532 -g 65532 /var/lib/fairlane")
    deploy.apply(cluster, "release", {"claim": CLAIM, "namespace": NAMESPACE})
    cluster.kubectl("apply", "-f", "-", stdin=_secret(token(cluster)))
    with cluster.progress.task("installing the chart") as task:
        words = ["upgrade", "--install", RELEASE, str(chart), *PATIENCE]
        _helm(cluster, *words, values={**values(cluster, explore, least_examples), **(other or {})})
    cluster.progress.say(f"the chart is installed, and every pod ready ({task.elapsed_s:.0f} s)")


def roll_back(cluster: KindCluster) -> None:
    """Back to the revision before; every pod of it is ready afterwards. Raises `CommandError`."""
    with cluster.progress.task("rolling the chart back"):
        _helm(cluster, "rollback", RELEASE, *PATIENCE)


def remove(cluster: KindCluster) -> None:
    """Uninstall the release; claim, secret, queues and their kind stay. Raises `CommandError`."""
    with cluster.progress.task("uninstalling the chart"):
        _helm(cluster, "uninstall", RELEASE, "--wait", "--timeout", "180s")


def try_it(cluster: KindCluster) -> str:
    """`helm test`: a gang goes through gate, queue, scheduler and recorder; what the trial said."""
    with cluster.progress.task("helm test"):
        told = _helm(cluster, "test", RELEASE, "--logs", "--timeout", "280s")
    return told.partition("POD LOGS:")[2].strip()


def values(cluster: KindCluster, explore: bool, least_examples: int) -> dict[str, Any]:
    """Values of the release: our images, this cluster's volume, and everything on the control plane."""
    repository, tag = cluster.images.fairlane.rsplit(":", 1)
    here = {
        "nodeSelector": {"kubernetes.io/hostname": cluster.control_plane},
        "tolerations": [{"operator": "Exists"}],
        # each node reports the cores of the whole machine
        "resources": {"requests": {"cpu": "20m", "memory": "100Mi"}},
    }
    found: dict[str, Any] = {name: dict(here) for name in ON_CONTROL_PLANE}
    scheduler = cluster.images.scheduler.rsplit(":", 1)[0]
    found["scheduler"] |= {"kubeScheduler": {"image": {"repository": scheduler}}, "env": EXPLORE * explore}
    found["train"] |= {"schedule": NEVER, "leastExamples": least_examples}
    return found | {
        "image": {"repository": repository, "tag": tag},
        "token": {"existingSecret": SECRET},
        "settings": SETTINGS,
        "probe": {"enabled": True, "tolerations": [{"operator": "Exists"}]},
        "storage": {"existingClaim": CLAIM},
        # the recorder is asked from this machine too; it asks for the token
        "networkPolicies": {"clients": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
        # what is compared is who goes where: nobody waits in the queue for that
        "admission": {"excludedNamespaces": ["kube-system", JOBS], "kinds": OPERATED_KINDS},
    }


def token(cluster: KindCluster) -> str:
    """The secret that our components in this cluster share; made at the first call."""
    file = cluster.kubeconfig.with_name("token")
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def train(cluster: KindCluster) -> tuple[str, bool]:
    """Run the chart's training on what the recorder has; what it said, and whether it published.

    That a model is refused, for few examples or for being no better than the
    prior, is a result too: the prior goes on answering. Any other end raises
    `CommandError`.
    """
    cluster.kubectl("-n", NAMESPACE, "delete", "job", "train", "--ignore-not-found", "--wait")
    cluster.kubectl("-n", NAMESPACE, "create", "job", "train", "--from=cronjob/fairlane-train")
    exit_code = _exit_code(cluster, "train")
    said = cluster.kubectl("-n", NAMESPACE, "logs", "job/train")
    if exit_code:
        raise CommandError(f"training ended with status {exit_code}:\n{said}")
    return said, re.search(r"^published ", said, re.MULTILINE) is not None


def extender_status(cluster: KindCluster) -> Mapping[str, Any]:
    """The extender's own account of itself; empty while it does not answer."""
    words = ["exec", "deploy/fairlane-scheduler", "-c", "extender", "--", "python3", "-c", ASK_STATUS]
    try:
        return dict(json.loads(cluster.kubectl("-n", NAMESPACE, *words)))
    except (CommandError, ValueError):
        return {}


def _helm(cluster: KindCluster, *words: str, values: Mapping[str, Any] | None = None) -> str:
    helm = Helm(ensure(["helm"], cluster.progress)["helm"], cluster.kubeconfig)
    try:
        return helm.run(*words, "--namespace", NAMESPACE, values=values)
    except HelmError as error:
        raise CommandError(f"helm {words[0]}: {error}\n{_unready(cluster)}") from error


def _unready(cluster: KindCluster) -> str:
    """The pods of the release, and what those that are not ready said last."""
    lines = [cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide")]
    for pod in cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").split():
        ready = "jsonpath={.status.containerStatuses[*].ready}"
        if "false" in cluster.kubectl("-n", NAMESPACE, "get", pod, "-o", ready):
            words = ["logs", pod, "--all-containers", "--tail=15", "--ignore-errors"]
            lines.append(f"{pod}:\n{cluster.kubectl('-n', NAMESPACE, *words)}")
    return "\n".join(lines)


def _secret(text: str) -> str:
    metadata = {"name": SECRET, "namespace": NAMESPACE}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": text}}
    )


def _exit_code(cluster: KindCluster, job: str) -> int:
    path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"
    deadline_s = time.monotonic() + TRAIN_S_MAX
    while time.monotonic() < deadline_s:
        words = ["-n", NAMESPACE, "get", "pods", "-l", f"job-name={job}", "-o", path, "--ignore-not-found"]
        try:
            if code := cluster.kubectl(*words).strip():
                return int(code)
        except CommandError:  # there is no pod yet
            pass
        time.sleep(1.0)
    raise CommandError(f"job {job} did not end within {TRAIN_S_MAX:.0f} s")
