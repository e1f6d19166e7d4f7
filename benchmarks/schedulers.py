"""The kube-schedulers that are compared: one process per round, by itself on the cluster."""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from testbed.cluster import Cluster, Process
from testbed.configuration import EXTENDER_PREFIX, SCHEDULER_ENVIRONMENT, SCHEDULER_FLAGS, scheduler_config
from testbed.control import TestbedError
from testbed.layout import Verb
from testbed.readiness import answers

READY_S_MAX = 60.0
PLAIN_SCHEDULER = "default-scheduler"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to schedule.

    `extender_url` is where kube-scheduler's calls go; empty: there is no extender.
    `scores_all` is Fairlane's percentageOfNodesToScore of 100 instead of
    kube-scheduler's own sample. `scheduler_name` is what pods call it.
    """

    name: str
    what: str
    extender_url: str = ""
    scores_all: bool = True
    verb: Verb = "filter"
    """What the extender is asked."""
    ours: bool = False
    """Fairlane's processes run; they are paused for the others."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Pods are released by Fairlane's controller, with their placement, before the scheduler is let go: the
    controller's settings for that; none: pods have no gate."""
    scheduler_name: str = PLAIN_SCHEDULER


def config_of(arm: Arm, cluster: Cluster, timeout_s: float | None = None) -> dict[str, Any]:
    """Its KubeSchedulerConfiguration; ours and plain are the testbed's own, to the letter."""
    options = replace(cluster.options, extender_verb=arm.verb)
    config = scheduler_config(options, cluster.layout, ours=arm.scores_all, hints=bool(arm.hints))
    if not arm.scores_all:
        return config
    config["profiles"][0]["schedulerName"] = arm.scheduler_name
    extenders = config.pop("extenders", [])
    if arm.extender_url:
        config["extenders"] = extenders
        extenders[0]["urlPrefix"] = arm.extender_url + EXTENDER_PREFIX
        if timeout_s is not None:
            extenders[0]["httpTimeout"] = f"{round(1000 * timeout_s)}ms"
    return config


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A running kube-scheduler."""

    arm: Arm
    process: Process
    _port: int
    _token: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid or 0

    async def metrics(self) -> str:
        """What it says on /metrics."""
        return await asyncio.to_thread(self._metrics)

    def _metrics(self) -> str:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self._port}/metrics", headers={"Authorization": f"Bearer {self._token}"}
        )
        # it made its own certificate, on loopback
        with urllib.request.urlopen(request, timeout=10, context=ssl._create_unverified_context()) as answer:
            return str(answer.read().decode())


@asynccontextmanager
async def running(arm: Arm, cluster: Cluster, timeout_s: float | None = None) -> AsyncIterator[Scheduler]:
    """A kube-scheduler of this kind, ready; it is gone when the block ends."""
    scheduler = await asyncio.to_thread(_start, arm, cluster, timeout_s)
    try:
        yield scheduler
    finally:
        await asyncio.to_thread(scheduler.process.stop)


def _start(arm: Arm, cluster: Cluster, timeout_s: float | None) -> Scheduler:
    layout, name = cluster.layout, f"bench-{arm.name}"
    config, port = layout.file(f"{name}.yaml"), cluster.control.ports(1)[0]
    config.write_text(yaml.safe_dump(config_of(arm, cluster, timeout_s), sort_keys=False))
    kubeconfig = layout.file("scheduler.kubeconfig")
    flags: dict[str, object] = {
        "config": config,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "secure-port": port,
        "bind-address": "127.0.0.1",
        "cert-dir": layout.file(f"{name}-certificates"),
    }
    flags |= SCHEDULER_FLAGS if arm.scores_all else {}
    binary = str(layout.binaries["kube-scheduler"])
    arguments = (f"--{flag}={value}" for flag, value in flags.items())
    process = cluster.run(name, binary, *arguments, env=SCHEDULER_ENVIRONMENT if arm.scores_all else None)
    _wait_ready(process, port)
    token = layout.file("prometheus.token").read_text().strip()
    return Scheduler(arm, process, port, token)


def _wait_ready(process: Process, port: int) -> None:
    deadline_s = time.monotonic() + READY_S_MAX
    while not answers(f"https://127.0.0.1:{port}/readyz"):
        process.check()
        if time.monotonic() > deadline_s:
            raise TestbedError(
                f"{process.name} is not ready after {READY_S_MAX:.0f} s:\n{process.log_tail()}"
            )
        time.sleep(0.05)
