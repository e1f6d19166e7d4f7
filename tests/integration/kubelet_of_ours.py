"""A node whose kubelet gives out logs and runs commands, and on it pods for the processes of a testbed.

The kubelet is KWOK's: the API server asks it for the logs of a container and lets it run a command as it
does any kubelet; the logs are those of the testbed's processes, and commands are run on this machine,
where they listen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster

Object = dict[str, Any]
NAMESPACE, NODE = "fairlane-system", "kubelet-of-ours"
RESOURCE = "kwok.x-k8s.io/v1alpha1"
PARTS = {
    "extender": ("scheduler", "metrics", "extender_metrics"),
    "controller": ("controller", "http", "controller"),
    "recorder": ("recorder", "http", "recorder"),
    "predictor": ("predictor", "metrics", "predictor_metrics"),
}
"""Containers, their component, and the port at which they tell of themselves."""


@contextmanager
def kubelet(cluster: Cluster, folder: Path) -> Iterator[int]:
    """Serve as one; the port. A container's log is the file that `write_log` wrote."""
    port = cluster.control.ports(1)[0]
    programs = folder / "programs"
    programs.mkdir()
    text = f"#!{sys.executable}\nfrom scheduler.cli.main import main\nmain()\n"
    (programs / "fairlane").write_text(text)
    (programs / "fairlane").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "FAIRLANE_CONFIG": str(cluster.settings_file),
    }
    envs = [{"name": name, "value": value} for name, value in environment.items()]
    logs = [{"containers": [one], "logsFile": str(folder / f"{one}.log")} for one in PARTS]
    config = [
        {"apiVersion": RESOURCE, "kind": "ClusterExec", "spec": {"execs": [{"local": {"envs": envs}}]}},
        {"apiVersion": RESOURCE, "kind": "ClusterLogs", "spec": {"logs": logs}},
    ]
    for one in config:
        one["metadata"] = {"name": "ours"}
    (folder / "kubelet.yaml").write_text(yaml.safe_dump_all(config))
    flags = {
        "kubeconfig": cluster.kubeconfig,
        "config": folder / "kubelet.yaml",
        "manage-nodes-with-label-selector": "fairlane.dev/managed-by-nobody=true",
        "server-address": f"127.0.0.1:{port}",
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    process = cluster.run("kubelet-of-ours", str(cluster.layout.binaries["kwok"]), *words)
    try:
        yield port
    finally:
        process.stop()


def write_log(folder: Path, container: str, lines: list[str]) -> None:
    """As container runtimes write them."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    (folder / f"{container}.log").write_text("".join(f"{now} stdout F {line}\n" for line in lines))


def node(port: int) -> Object:
    """A node that is reached at this port; nothing is placed there."""
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "capacity": {"cpu": "64", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}],
    }
    taint = {"key": "kubelet-of-ours", "value": "true", "effect": "NoSchedule"}
    meta = {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta,
        "spec": {"taints": [taint]},
        "status": status,
    }


def pod(name: str, component: str, containers: list[Object]) -> Object:
    """A pod as the chart makes it, bound already."""
    labels = {"app.kubernetes.io/name": "fairlane", "app.kubernetes.io/component": component}
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    spec = {"nodeName": NODE, "containers": containers, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def container(cluster: Cluster, name: str, port_name: str, port: str) -> Object:
    """One of a part whose process listens at a port of the testbed."""
    ports = [{"name": port_name, "containerPort": cluster.layout.ports[port]}]
    return {"name": name, "image": "none", "ports": ports}


async def remove(kube: KubeClient, pods: list[str]) -> None:
    """Take pods and node away."""
    for name in pods:
        await kube.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", {"gracePeriodSeconds": "0"})
    await kube.delete(f"/api/v1/nodes/{NODE}")
