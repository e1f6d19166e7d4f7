"""The cluster a benchmark runs on: everything that would disturb the figures is stopped.

Real are etcd, the API server, kube-scheduler and all of Fairlane. Stopped once
the nodes are ready are KWOK and the controller manager (their node leases last
for hours) and the testbed's own schedulers, because each round has one of its
own. Telemetry is generated (readings.py).
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import examples
from benchmarks.jobs import Kind, kinds
from benchmarks.readings import source_settings
from testbed.cluster import Cluster, Process
from testbed.configuration import laid_over
from testbed.control import TestbedError
from testbed.layout import Options
from testbed.progress import Progress

SITES = 3
LEASE_S = 8 * 3600
EPOCH_S = 15.0
OURS = ("recorder", "predictor", "extender")
NOT_NEEDED = ("kube-scheduler", "fairlane-scheduler", "kwok", "kube-controller-manager")
WARM_S_MAX = 240.0


@dataclass
class Setting:
    """A quiet cluster with Fairlane's processes up."""

    cluster: Cluster
    progress: Progress

    @property
    def kinds(self) -> list[Kind]:
        """The recurring jobs, with their input on this cluster's data nodes."""
        return kinds(self.cluster.data_node_names)

    @property
    def ours(self) -> list[Process]:
        """Fairlane's processes."""
        return [self.cluster.process(name) for name in OURS]

    def pause_ours(self) -> None:
        """Stop Fairlane's processes from using any processor time."""
        for process in self.ours:
            process.pause()

    def resume_ours(self) -> None:
        """Let them run again."""
        for process in self.ours:
            process.resume()

    def status(self) -> dict[str, Any]:
        """What the extender says of itself."""
        with urllib.request.urlopen(f"{self.cluster.extender_url}/v1/status", timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def controller_status(self) -> dict[str, Any]:
        """What the controller says of itself; empty while it does not answer."""
        return ask(self.cluster.layout.url("controller") + "/v1/status")

    @contextmanager
    def controller(self, hints: Mapping[str, Any]) -> Iterator[Process]:
        """A controller that leads, and writes placement at release, until the block ends."""
        settings = yaml.safe_load(self.cluster.settings_file.read_text())
        told = laid_over(settings, {"controller": dict(hints)})
        self.cluster.settings_file.write_text(yaml.safe_dump(told, sort_keys=False))
        process = self.cluster.process("controller")
        process.start()
        try:
            self._until(lambda: bool(self.controller_status().get("leads")), "the controller leads")
            yield process
        finally:
            process.stop()

    def wait_released(self, pods: int) -> None:
        """Wait until the controller has opened the gates of so many pods.

        Raises:
            TestbedError: that did not happen in time.
        """
        self._until(lambda: self.controller_status().get("patched", 0) >= pods, f"{pods} pods are released")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WARM_S_MAX
        while not condition():
            if time.monotonic() > deadline_s:
                raise TestbedError(f"it took more than {WARM_S_MAX:.0f} s until {what}")
            time.sleep(0.05)

    def metrics(self) -> str:
        """The extender's metrics."""
        with urllib.request.urlopen(f"{self.cluster.extender_url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def wait_warm(self, pods: int, tables: int = 0) -> dict[str, Any]:
        """Wait until the extender knows `pods` pods, has fresh telemetry and no table left to make.

        Raises:
            TestbedError: that did not happen in time; the message says what was missing.
        """
        deadline_s = time.monotonic() + WARM_S_MAX
        while True:
            told = self.status()
            lacks = _lacks(told, pods, tables)
            if not lacks:
                return told
            if time.monotonic() > deadline_s:
                raise TestbedError(f"the extender is not ready to be measured: {lacks}; it says {told}")
            time.sleep(0.1)

    def programs(self) -> dict[str, Path]:
        """The binaries that the figures depend on."""
        return {
            name: self.cluster.layout.binaries[name] for name in ("etcd", "kube-apiserver", "kube-scheduler")
        }


def ask(url: str, timeout_s: float = 10.0, token: str = "") -> dict[str, Any]:
    """The JSON that a process of ours answers; empty while it does not."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_s
        ) as answer:
            told: dict[str, Any] = json.load(answer)
    except OSError:
        return {}
    return told


def _lacks(told: dict[str, Any], pods: int, tables: int) -> str:
    if told["unready"]:
        return str(told["unready"])
    if told["pods"] != pods:
        return f"{told['pods']} pods are known instead of {pods}"
    if (told["epoch_age_s"] or 0.0) > 3 * EPOCH_S:
        return f"telemetry is {told['epoch_age_s']} s old: {told['telemetry_failure']}"
    if told["predictor_failure"]:
        return str(told["predictor_failure"])
    if told["tables_waiting"] or told["tables"] < tables:
        return f"{told['tables']} tables are made, {told['tables_waiting']} wait"
    return ""


@contextmanager
def setting(nodes: int, registry: Path, progress: Progress) -> Iterator[Setting]:
    """A quiet cluster of `nodes` workers, served by the newest model of `registry`, until the block ends."""
    options = Options(
        nodes=nodes,
        sites=min(SITES, nodes),
        lease_s=LEASE_S,
        without=("prometheus", "physics", "controller", *OURS),
        settings={
            "epoch_s": EPOCH_S,
            "sources": [source_settings()],
            "predictor": {"registry": str(registry)},
            "controller": {"placement": "hint", "expected_core_share": 0.0},
        },
    )
    with Cluster(options, progress=progress) as cluster:
        for name in NOT_NEEDED:
            cluster.process(name).stop()
        start_telemetry(cluster)
        made = Setting(cluster, progress)
        for process in made.ours:
            process.start()
        told = made.wait_warm(pods=0)
        progress.say(f"telemetry of {told['nodes']:,} nodes is in, the extender is ready")
        yield made


def token_of(cluster: Cluster) -> str:
    """What the processes of ours on this cluster share."""
    return str(yaml.safe_load(cluster.settings_file.read_text())["token"])


def start_telemetry(cluster: Cluster) -> None:
    """Answer in Prometheus' place with generated values, and let the settings say so."""
    options, port = cluster.options, cluster.layout.ports["prometheus"]
    arguments = {"nodes": options.nodes, "sites": options.sites, "port": port, "seed": options.seed}
    flags = (f"--{name}={value}" for name, value in arguments.items())
    cluster.run("telemetry-source", sys.executable, "-m", "benchmarks.telemetry_source", *flags)
    settings = yaml.safe_load(cluster.settings_file.read_text())
    told = laid_over(settings, {"prometheus": {"url": cluster.prometheus_url, "timeout_s": 30.0}})
    cluster.settings_file.write_text(yaml.safe_dump(told, sort_keys=False))


@contextmanager
def model(registry: Path | None, work: Path, progress: Progress) -> Iterator[Path]:
    """The registry to serve from: the given one, or one with a model trained now."""
    if registry is None:
        registry = work / "registry"
        with progress.task("training the model that is served"):
            examples.publish(registry, work)
    yield registry
