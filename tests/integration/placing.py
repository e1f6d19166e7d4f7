"""A testbed that places pods by a trained model, as an operator sees it from outside."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import yaml

from model.schema import NAMES
from scheduler.edge.kube import KubeClient, Listed
from testbed.cluster import Cluster
from testbed.demo.jobs import CLASSES, DemoJob, manifest

PATH = "/api/v1/namespaces/default/pods"
BURST = 200
AT_ONCE = 10
PER_S = 40.0
BY_MODEL = "none"
"""The reason under which a fresh prediction of the model is counted."""


class _Meta(msgspec.Struct, frozen=True):
    name: str


class _Spec(msgspec.Struct, frozen=True):
    nodeName: str = ""


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec


@dataclass(frozen=True)
class Diagnosis:
    """What `fairlane doctor -o json` said: its exit code, and problems as (part, sentence)."""

    exit_code: int
    problems: list[tuple[str, str]]

    def names(self, cause: str) -> bool:
        return self.exit_code == 1 and any(cause in sentence for _, sentence in self.problems)

    @property
    def is_well(self) -> bool:
        """Nothing is wrong but a gap in some readings: the emulated exporters have gaps, as real ones do."""
        return all(part == "telemetry" for part, _ in self.problems)


class Placing:
    """Submits pods, waits for them, and asks every part how it is."""

    def __init__(self, cluster: Cluster, kube: KubeClient) -> None:
        self.cluster = cluster
        self.kube = kube
        self._numbers = iter(range(10**6))
        self._prefix = f"pod-{int(time.time() * 1000)}"
        self.model_version = json.loads((registry(cluster) / "latest").read_text())["version"]

    async def submit(self) -> str:
        """Create a pod that names our scheduler and ends within a second or two; its name."""
        number = next(self._numbers)
        name, store = f"{self._prefix}-{number:04d}", self.cluster.data_node_names[number % 3]
        job_class = CLASSES[number % len(CLASSES)]
        tiny = replace(job_class.typical, input_bytes=2e7, cpu_s=0.2, rounds=2, data_node=store)
        pod: Any = manifest(DemoJob(job_class, tiny), name, "default", "fairlane", truth=False)
        pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m"}  # so that all 200 fit
        await self.kube.post(PATH, pod)
        return name

    async def burst(self, fault: Callable[[], object]) -> list[str]:
        """Submit 200 pods, with the fault in their middle; their names once each is bound."""
        names: list[str] = []
        while len(names) < BURST:
            if len(names) == BURST // 4:
                injected = asyncio.create_task(asyncio.to_thread(fault))
            names += await asyncio.gather(*(self.submit() for _ in range(AT_ONCE)))
            await asyncio.sleep(AT_ONCE / PER_S)
        await injected
        await self.all_bound(names)
        return names

    async def all_bound(self, names: list[str], within_s: float = 60.0) -> None:
        waiting = set(names)
        async with asyncio.timeout(within_s):
            async for event in self.kube.mirror(PATH, _Pod):
                pods = event.items if isinstance(event, Listed) else (event.item,)
                waiting -= {pod.metadata.name for pod in pods if pod.spec.nodeName}
                if not waiting:
                    return

    async def until(
        self, condition: Callable[[], bool], within_s: float = 60.0, submitting: bool = False
    ) -> None:
        """Wait until the condition holds, meanwhile submitting a pod every now and then if asked to."""
        deadline_s = time.monotonic() + within_s
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline_s, f"not true within {within_s:.0f} s; {self.status()}"
            if submitting:
                await self.submit()
            await asyncio.sleep(0.3)

    async def recovers(self) -> None:
        """Nothing is done but to submit pods: the model places them again, and the doctor is content."""
        before = self.answers(BY_MODEL)
        await self.until(lambda: self.answers(BY_MODEL) >= before + 3, submitting=True)
        name = await self.submit()
        await self.all_bound([name])
        await self.until(lambda: self.model_of(name) == self.model_version)
        for _ in range(8):
            diagnosis = await self.doctor()
            if diagnosis.is_well:
                return
        raise AssertionError(f"the doctor still complains: {diagnosis.problems}")

    async def doctor(self) -> Diagnosis:
        argv = [sys.executable, "-m", "scheduler.cli.main", "doctor", "-o", "json"]
        argv += ["--config", str(self.cluster.settings_file)]
        run = partial(subprocess.run, argv, capture_output=True, text=True, check=False)
        ended = await asyncio.to_thread(run)
        assert ended.stdout.startswith("{"), ended.stdout + ended.stderr
        findings = json.loads(ended.stdout)["findings"]
        problems = [(one["part"], one["sentence"]) for one in findings if one["level"] == "problem"]
        return Diagnosis(ended.returncode, problems)

    def status(self, process: str = "extender") -> dict[str, Any]:
        """/v1/status; empty while there is no answer."""
        try:
            with urllib.request.urlopen(self.cluster.layout.url(process) + "/v1/status", timeout=5) as answer:
                told: dict[str, Any] = json.load(answer)
        except OSError:
            return {}
        return told

    def answers(self, *reasons: str) -> int:
        """Prioritize calls that the extender answered for these reasons since its start."""
        by_reason = self.status().get("answers_by_reason", {})
        return sum(by_reason.get(reason, 0) for reason in reasons)

    def metric(self, process: str, name: str) -> float:
        """A metric without labels, as Prometheus would scrape it."""
        with urllib.request.urlopen(self.cluster.layout.url(process) + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def undecided(self) -> int:
        """How many pods the recorder saw bound without a recorded decision."""
        return int(self.status("recorder").get("rows", {}).get("undecided", 0))

    def model_of(self, name: str) -> str:
        """The model that the recorded decision about a pod came from; empty if there is none (yet)."""
        query = "SELECT model_version FROM decisions WHERE name = ? AND reason = ''"
        return next((str(row[0]) for row in self._stored(query, name)), "")

    def decided(self, names: list[str]) -> int:
        """How many of the pods have a recorded decision."""
        query = "SELECT DISTINCT name FROM decisions WHERE name >= ?"
        return len({row[0] for row in self._stored(query, min(names))} & set(names))

    def bound(self, names: list[str]) -> int:
        """Of how many of the pods the recorder knows where they were bound."""
        query = "SELECT name FROM outcomes WHERE name >= ? AND node IS NOT NULL"
        return len({row[0] for row in self._stored(query, min(names))} & set(names))

    def _stored(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(store_file(self.cluster))) as store:
            return store.execute(query, values).fetchall()


def store_file(cluster: Cluster) -> Path:
    """The SQLite file of the experience store."""
    settings = yaml.safe_load(cluster.settings_file.read_text())
    return Path(settings["recorder"]["store_url"].removeprefix("sqlite:///"))


def registry(cluster: Cluster) -> Path:
    """The folder of the published models."""
    return cluster.layout.file("registry")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one model, trained once for all tests that only need one to be served."""
    folder = tmp_path_factory.mktemp("trained")
    _train(folder / "examples.parquet", folder / "registry")
    return folder / "registry"


def publish(trained: Path, registry: Path) -> None:
    """Put the model into another registry, as training does: that it is the newest is said last."""
    newest = "latest"
    shutil.copytree(trained, registry, dirs_exist_ok=True, ignore=shutil.ignore_patterns(newest))
    shutil.copy(trained / newest, registry / f"{newest}.new")
    (registry / f"{newest}.new").rename(registry / newest)


def _train(examples: Path, registry: Path) -> None:
    """Publish a model of jobs that take the longer the busier the node and the slower the link are."""
    _examples(np.random.default_rng(1), 160).to_parquet(examples)
    argv = ["train", "--examples", str(examples), "--registry", str(registry)]
    command = [sys.executable, "-m", "scheduler.cli.main", *argv]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _examples(rng: np.random.Generator, count: int) -> pd.DataFrame:
    table = pd.DataFrame(np.nan, index=range(count), columns=list(NAMES))
    table["cpu_use"] = rng.uniform(0, 1, count)
    table["rtt_data_mean"] = rng.uniform(0.0005, 0.05, count)
    table["throughput_data_mean"] = rng.uniform(5e7, 1e9, count)
    noise = rng.normal(0, 0.1, count)
    log_s = 20 * table["rtt_data_mean"] + table["cpu_use"] - table["throughput_data_mean"] / 1e9 + noise
    table["run_s"] = np.exp(log_s)
    table["ended_at"] = 1.7e9 + np.arange(count)
    table["job_class"] = [CLASSES[row % len(CLASSES)].name for row in range(count)]
    return table
