"""What a kubelet does, on simulated nodes: exec, logs, port-forward, containers that run to their end.

It is for a release whose processes run on this machine. kubectl, the API server and KWOK's kubelet interface
are real: `kubectl exec deploy/fairlane-scheduler -c extender -- fairlane doctor` goes all the way, and the
command runs here, with the environment that the container would have.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from scheduler.edge.kube import MERGE_PATCH, KubeClient, KubeError
from testbed.cluster import Cluster
from testbed.configuration import stages_file
from testbed.credentials import kubeconfig
from testbed.ports import Reservation

Object = dict[str, Any]
NOTHING_MANAGED = "fairlane.dev/simulated-by=nobody"
ENDING = ("test", "train")
"""Components whose pods run to their end."""


@dataclass(frozen=True)
class Container:
    """How a container of the release is met on this machine."""

    process: str
    environment: Mapping[str, str]
    ports: Mapping[int, int] = field(default_factory=dict)


class Kubelet:
    """The kubelet of all nodes, for the pods of one namespace.

    `instead`: addresses and folders of the cluster, and what is here in their place.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        containers: Mapping[str, Container],
        instead: Mapping[str, str],
    ) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._containers, self._instead = containers, instead
        self._path = next(iter(containers.values())).environment["PATH"]
        self._folder = cluster.directory / "kubelet"
        self._folder.mkdir(exist_ok=True)
        self._seen: set[str] = set()

    def log(self, container: str) -> Path:
        """Where kubectl finds what a container said."""
        return self._folder / f"{container}.log"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Serve kubectl, and run what runs to its end."""
        for name in self._containers:
            self.log(name).touch()
        ports = Reservation()
        (port,) = ports.take(1)
        asyncio.run(self._point_nodes_at(port))
        settings = self._folder / "kwok.yaml"
        settings.write_text(yaml.safe_dump_all(self._settings()))
        self._cluster.run(
            "kubelet",
            str(self._cluster.layout.binaries["kwok"]),
            f"--kubeconfig={self._cluster.kubeconfig}",
            f"--config={settings}",
            f"--config={stages_file()}",  # it will not start without any
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={NOTHING_MANAGED}",
            f"--server-address=127.0.0.1:{port}",
            env={"PATH": self._path},
        )
        self._await_answers(port)
        stop = threading.Event()
        runner = threading.Thread(target=lambda: asyncio.run(self._run_what_ends(stop)))
        runner.start()
        try:
            yield
        finally:
            stop.set()
            runner.join()
            self._cluster.process("kubelet").stop()
            ports.close()

    def refresh_logs(self) -> None:
        """Write what the processes said as a container runtime writes it."""
        for name, one in self._containers.items():
            if one.process:
                said = self._cluster.process(one.process).log_tail(2000).splitlines()
                self.write_log(name, said)

    def write_log(self, container: str, lines: list[str]) -> None:
        """Write lines as a container runtime does."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.log(container).write_text("".join(f"{now} stdout F {line}\n" for line in lines))

    def _await_answers(self, port: int) -> None:
        deadline_s = time.monotonic() + 30
        while True:
            self._cluster.process("kubelet").check()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
            except OSError:
                assert time.monotonic() < deadline_s, self._cluster.process("kubelet").log_tail()
                time.sleep(0.2)

    def _settings(self) -> list[Object]:
        execs = [
            {
                "containers": [name],
                "local": {
                    "envs": [{"name": key, "value": value} for key, value in one.environment.items()],
                    "workDir": str(self._folder),
                },
            }
            for name, one in self._containers.items()
        ]
        logs = [{"containers": [name], "logsFile": str(self.log(name))} for name in self._containers]
        forwards = [
            {"ports": [there], "target": {"address": "127.0.0.1", "port": here}}
            for one in self._containers.values()
            for there, here in one.ports.items()
        ]
        return [
            self._object("ClusterExec", {"execs": execs}),
            self._object("ClusterLogs", {"logs": logs}),
            self._object("ClusterPortForward", {"forwards": forwards}),
        ]

    def _object(self, kind: str, spec: Object) -> Object:
        selector = {"matchNamespaces": [self._namespace]}
        head = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": kind, "metadata": {"name": "release"}}
        return {**head, "spec": {"selector": selector, **spec}}

    async def _point_nodes_at(self, port: int) -> None:
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        async with KubeClient.connect(str(self._cluster.kubeconfig)) as kube:
            for name in [*self._cluster.worker_names, *self._cluster.data_node_names]:
                await kube.patch(f"/api/v1/nodes/{name}/status", {"status": status}, MERGE_PATCH)

    async def _run_what_ends(self, stop: threading.Event) -> None:
        pods = f"/api/v1/namespaces/{self._namespace}/pods"
        among = f"app.kubernetes.io/component in ({','.join(ENDING)})"
        async with KubeClient.connect(str(self._cluster.kubeconfig)) as kube:
            while not stop.is_set():
                for pod in json.loads(await kube.get(pods, {"labelSelector": among}))["items"]:
                    uid = pod["metadata"]["uid"]
                    if pod["status"].get("phase") == "Running" and uid not in self._seen:
                        self._seen.add(uid)
                        await self._run(kube, pod)
                await asyncio.sleep(0.3)

    async def _run(self, kube: KubeClient, pod: Object) -> None:
        """Run the container of a pod, and tell its end."""
        (container,) = pod["spec"]["containers"]
        name = container["name"]
        words = [*(container.get("command") or ["fairlane"]), *container.get("args", [])]
        given = {one["name"]: self._here(one["value"]) for one in container["env"] if "value" in one}
        environment = {**os.environ, **given, **self._containers[name].environment}
        if pod["spec"].get("automountServiceAccountToken", True):
            environment["KUBECONFIG"] = str(await self._account(kube, pod["spec"]["serviceAccountName"]))
        ended = await asyncio.to_thread(
            subprocess.run,
            [self._here(word) for word in words],
            env=environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        self.write_log(name, ended.stdout.splitlines())
        state = {"terminated": {"exitCode": ended.returncode, "reason": "Completed"}}
        told = [
            {**one, "ready": False, "started": False, "state": state}
            for one in pod["status"]["containerStatuses"]
        ]
        status = {"phase": "Failed" if ended.returncode else "Succeeded", "containerStatuses": told}
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}/status"
        try:
            await kube.patch(path, {"status": status}, MERGE_PATCH)
        except KubeError as error:
            if error.status != 404:
                raise

    async def _account(self, kube: KubeClient, name: str) -> Path:
        """A token of the pod's service account, as a kubelet mounts one."""
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{name}/token"
        made = json.loads(await kube.post(path, {"spec": {"expirationSeconds": 3600}}))
        layout = self._cluster.layout
        content = kubeconfig(
            layout.url("apiserver", "https"), layout.file("ca.crt"), name, made["status"]["token"]
        )
        file = self._folder / f"{name}.kube"
        file.write_text(json.dumps(content))
        return file

    def _here(self, word: str) -> str:
        for there, here in self._instead.items():
            word = word.replace(there, here)
        return word
