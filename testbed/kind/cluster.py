"""A kind cluster: one control plane and some workers, each in a zone of its own.

With an image registry in reach these are kind's official node images;
without one, images built from Debian packages and Go modules (images.sh).
`up` may be called again: what is there already is kept.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import yaml

from testbed.kind import programs
from testbed.kind.archives import MOUNTED, Archives
from testbed.kind.docker import Docker
from testbed.kind.images import PREFIX, Folders, Images
from testbed.kind.shell import CommandError, run
from testbed.layout import cache_folder
from testbed.progress import Progress

ZONES = ("core", "east", "west", "north", "south")
"""Zone of the control plane, then of the workers in turn."""
POD_SUBNET = "10.244.0.0/16"
PORTS = {"prometheus": 30090, "recorder": 30890}
"""Node ports of the control plane that are published on this machine's loopback."""
CREATE_S_MAX = 420.0
READY_S_MAX = 240


class KindCluster:
    """One cluster by name; usable as a context manager that leaves nothing running."""

    def __init__(
        self,
        name: str = "fairlane",
        workers: int = 3,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self.worker_count = workers
        self.cache = cache or cache_folder() / "kind"
        self.progress = progress or Progress()
        self.kubeconfig = self.cache / name / "kubeconfig"
        self.binaries = self.cache / "bin"
        self.docker = Docker(self.cache, self.binaries, self.progress.say)
        self._kubernetes = self.cache / "kubernetes"
        folders = Folders(self.cache, self.binaries, self._kubernetes)
        self.images = Images(self.docker, folders, self.progress)
        self._archives = Archives(self.docker, self.cache / "archives", self.progress)

    @property
    def control_plane(self) -> str:
        """Name of the control plane's node."""
        return f"{self.name}-control-plane"

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers, as kind gives them."""
        numbers = ["" if n == 1 else str(n) for n in range(1, self.worker_count + 1)]
        return tuple(f"{self.name}-worker{number}" for number in numbers)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, the control plane first."""
        return (self.control_plane, *self.workers)

    @property
    def prometheus_url(self) -> str:
        """Base URL of the cluster's Prometheus on this machine."""
        return f"http://{self._published('prometheus')}"

    @property
    def recorder_url(self) -> str:
        """Base URL of the recorder on this machine."""
        return f"http://{self._published('recorder')}"

    @property
    def is_up(self) -> bool:
        """True when the API server answers and knows exactly these nodes."""
        if not self.kubeconfig.exists():
            return False
        try:
            found = self.kubectl("get", "nodes", "-o", "name", timeout_s=20).split()
        except CommandError:
            return False
        return sorted(found) == sorted(f"node/{node}" for node in self.nodes)

    def __enter__(self) -> KindCluster:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> bool:
        """Make the cluster, or find it as it was left; True when it had to be made.

        Every node is Ready afterwards.
        """
        self.start_engine()
        if not self.images.registry:
            programs.build(self.binaries, "node", self.progress)
            programs.kubernetes(self._kubernetes, self.progress)
        found = self.is_up
        if found:
            self.progress.say(f"cluster {self.name} is up already")
        else:
            self._create()
        self._wait_ready()
        self._label_nodes()
        return not found

    def down(self) -> None:
        """Delete the cluster, and stop the engine where it is our own and nobody else's cluster needs it."""
        others = ""
        if self._exists() and not self.docker.answers:
            self.docker.start()  # only an engine can take its containers away
        if self.docker.answers and (self.binaries / "kind").exists():
            self._kind("delete", "cluster", "--name", self.name)
            self.progress.say(f"cluster {self.name} deleted")
            others = self._kind("get", "clusters", "-q").strip()
        if not others:
            self.docker.stop()
        shutil.rmtree(self.kubeconfig.parent, ignore_errors=True)

    def _exists(self) -> bool:
        """True when a cluster was begun and not taken down."""
        return self.kubeconfig.parent.exists()

    def kubectl(self, *words: str, stdin: str | None = None, timeout_s: float = 300.0) -> str:
        """Standard output of `kubectl WORDS` on this cluster."""
        command = [str(self._kubectl), "--kubeconfig", str(self.kubeconfig), *words]
        return run(command, stdin=stdin, timeout_s=timeout_s)

    def on_node(self, node: str, script: str, stdin: str | None = None) -> str:
        """Standard output of a shell script inside the node's container, as root."""
        options = ["exec", "-i", node] if stdin is not None else ["exec", node]
        return self.docker.run(*options, "sh", "-ec", script, stdin=stdin, timeout_s=120)

    def load(self, everywhere: Sequence[str], control_plane: Sequence[str] = ()) -> None:
        """Put images of the engine into the nodes' stores, where they are missing."""
        missing = {}
        for node in self.nodes:
            wanted = [*everywhere, *(control_plane if node == self.control_plane else ())]
            if absent := [image for image in wanted if not self._has(node, image)]:
                missing[node] = absent
        self._archives.load(missing)

    def start_engine(self) -> None:
        """Make sure a container engine answers: whichever does, else our own."""
        self.docker.install()
        programs.build(self.binaries, "kind", self.progress)
        self.docker.start()
        self.docker.weigh()

    def _create(self) -> None:
        self._kind("delete", "cluster", "--name", self.name)
        image = self.images.node
        folder = self.kubeconfig.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._archives.folder.mkdir(parents=True, exist_ok=True)
        config = folder / "kind.yaml"
        config.write_text(yaml.safe_dump(self._config(local=image is not None), sort_keys=False))
        words = ["--config", str(config), "--wait", "180s", *(["--image", image] if image else [])]
        with self.progress.task(
            f"creating the cluster: 1 control plane, {self.worker_count} workers"
        ) as task:
            self._kind("create", "cluster", "--name", self.name, *words)
        self.progress.say(f"cluster {self.name} created in {task.elapsed_s:.0f} s")

    def _config(self, local: bool) -> dict[str, object]:
        ports = [
            {"containerPort": port, "hostPort": _free_port(), "listenAddress": "127.0.0.1"}
            for port in PORTS.values()
        ]
        archives = {"hostPath": str(self._archives.folder), "containerPath": MOUNTED, "readOnly": True}
        patches = ["kind: KubeletConfiguration\nfailCgroupV1: false\n"]
        if local:
            patches.append(f"kind: ClusterConfiguration\nimageRepository: {PREFIX}\n")
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            # nftables: a kube-proxy image of ours needs only nft, no iptables extensions
            "networking": {
                "kubeProxyMode": "nftables",
                "apiServerAddress": "127.0.0.1",
                "podSubnet": POD_SUBNET,
            },
            "kubeadmConfigPatches": patches,
            "nodes": [
                {"role": "control-plane", "extraPortMappings": ports, "extraMounts": [archives]},
                *[{"role": "worker", "extraMounts": [archives]} for _ in self.workers],
            ],
        }

    def _wait_ready(self) -> None:
        with self.progress.task("waiting for the nodes and cluster DNS") as task:
            wait = ["wait", f"--timeout={READY_S_MAX}s"]
            self.kubectl(*wait, "--for=condition=Ready", "node", "--all")
            self.kubectl(*wait, "-n", "kube-system", "--for=condition=Available", "deploy/coredns")
        self.progress.say(f"all nodes ready ({task.elapsed_s:.0f} s)")

    def _label_nodes(self) -> None:
        for number, node in enumerate(self.nodes):
            zone = ZONES[number % len(ZONES)]
            self.kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}", "--overwrite")

    @cached_property
    def _kubectl(self) -> Path:
        return programs.kubectl(self.progress)

    def _published(self, name: str) -> str:
        return self.docker.run("port", self.control_plane, f"{PORTS[name]}/tcp").split()[0]

    def _has(self, node: str, image: str) -> bool:
        name = image if "/" in image else f"docker.io/library/{image}"
        listed = self.docker.run("exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q", f"name=={name}")
        return bool(listed.strip())

    def _kind(self, *words: str) -> str:
        env = {**self.docker.env, "KUBECONFIG": str(self.kubeconfig)}
        return run([self.binaries / "kind", *words], env=env, timeout_s=CREATE_S_MAX)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
