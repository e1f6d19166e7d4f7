"""The demo from beginning to end: collect, train, compare."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from model.dataset import examples_from
from model.published import PublishedModel
from model.splits import Split
from model.train import Options, final_model
from scheduler.edge.predictions import PredictionClient, PredictionError
from scheduler.edge.store import ExperienceStore
from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.demo import comparison
from testbed.demo.evidence import gather
from testbed.demo.jobs import DemoJob, draw
from testbed.demo.report import Result
from testbed.demo.submission import submitter
from testbed.progress import Progress

NAMESPACE = "demo"
EXPLORING: dict[str, float | str] = {"rate": 0.6, "scope": "all"}
"""While collecting, most placements are drawn from all nodes alike, the others follow the prior."""
PREDICTING: dict[str, float | str] = {"rate": 0.0}
SWAP_S_MAX = 60.0
WARM_UP_JOBS, WARM_UP_PACE_S = 24, 0.4
"""Jobs placed before the comparison: a scheduler that just started has no score tables yet."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    seed: int = 1
    collect_s: float = 250.0
    in_flight: int = 16
    rounds: int = 3
    jobs_per_round: int = 25
    pace_s: float = 1.0


@dataclass
class Demo:
    """One run on a cluster that is up."""

    cluster: Cluster
    plan: Plan
    progress: Progress
    reports: Path
    took_s: dict[str, float] = field(default_factory=dict)

    def run(self) -> Result:
        """All stages; what they found."""
        stages = (("collect", self.collect), ("train", self.train), ("compare", self.compare))
        for name, stage in stages:
            began_s = time.monotonic()
            stage()
            self.took_s[name] = time.monotonic() - began_s
        return self.judge()

    def collect(self) -> None:
        """Run jobs with exploring placements, so that there is something to learn from."""
        self._switch_exploration(EXPLORING)
        asyncio.run(self._collect())

    async def _collect(self) -> None:
        plan = self.plan
        jobs = endless(np.random.default_rng(plan.seed), self.cluster.data_node_names)
        async with submitter(str(self.cluster.kubeconfig), NAMESPACE) as pods:
            with self.progress.task("collecting experience", int(plan.collect_s), "seconds") as task:
                await pods.keep_busy(jobs, plan.in_flight, plan.collect_s, task)
            self.progress.say(f"{pods.ended} jobs ended while exploring")

    def train(self) -> None:
        """Train the model that is served, by the command that users have."""
        self._learned = ExperienceStore(self._store_url).examples()
        self.progress.say(f"training on {len(self._learned)} completed runs")
        self._train()
        self._switch_exploration(PREDICTING)
        asyncio.run(self._await_model())

    def _train(self) -> None:
        command = [sys.executable, "-m", "scheduler.cli.main", "train", "--store", self._store_url]
        command += [
            "--registry",
            self._settings()["predictor"]["registry"],
            "--out",
            str(self.reports / "train"),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        output = ended.stdout + ended.stderr
        (self.reports / "train.log").write_text(output)
        if ended.returncode:
            raise TestbedError(f"`fairlane train` ended with code {ended.returncode}:\n{output[-2000:]}")

    def _blind(self) -> PublishedModel:
        """A model of the examples that ours was trained on, but without the network features."""
        examples = examples_from(self._learned)
        return final_model(examples, Options(Split("time"), ("network",)), time.time(), {})

    def compare(self) -> None:
        """The same job list under ours and under the default scheduler, turn by turn."""
        self._ours: list[str] = []
        self._default: list[str] = []
        asyncio.run(self._compare())

    async def _compare(self) -> None:
        plan = self.plan
        rng = np.random.default_rng(plan.seed + 1000)
        stores = self.cluster.data_node_names
        async with submitter(str(self.cluster.kubeconfig), NAMESPACE) as pods:
            warm_up = draw(rng, WARM_UP_JOBS, stores)
            await pods.at_pace(warm_up, "warm-up", "fairlane", WARM_UP_PACE_S)
            with self.progress.task("comparing schedulers", 2 * plan.rounds, "rounds") as task:
                for number in range(plan.rounds):
                    jobs = draw(rng, plan.jobs_per_round, stores)
                    arms = [("ours", "fairlane", self._ours), ("default", "default-scheduler", self._default)]
                    for turn, (arm, scheduler, names) in enumerate(arms[:: 1 if number % 2 == 0 else -1]):
                        names.extend(await pods.at_pace(jobs, f"{arm}-{number}", scheduler, plan.pace_s))
                        task.advance(2 * number + turn + 1)

    def judge(self) -> Result:
        """Put decisions, ground truths and outcomes together."""
        time.sleep(2.0)  # the last batch of decisions is on its way to the recorder
        store, truths = ExperienceStore(self._store_url), self.cluster.layout.file("truth.jsonl")
        ours = gather(store, truths, NAMESPACE, self._ours)
        default = gather(store, truths, NAMESPACE, self._default)
        blind = self._blind()
        judgements = comparison.compare(ours, default, blind=blind.medians)
        return Result(
            seed=self.plan.seed,
            commit=commit(),
            examples=len(self._learned),
            ours=ours,
            default=default,
            judgements=judgements,
            fallbacks=comparison.fallbacks(ours),
            coverage=comparison.coverage(ours),
            took_s=self.took_s,
        )

    @property
    def _store_url(self) -> str:
        return str(self._settings()["recorder"]["store_url"])

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = yaml.safe_load(self.cluster.settings_file.read_text())
        return settings

    def _switch_exploration(self, exploration: dict[str, float | str]) -> None:
        settings = self._settings()
        settings["exploration"] = exploration
        self.cluster.settings_file.write_text(yaml.safe_dump(settings, sort_keys=False))
        self.cluster.process("extender").restart()

    async def _await_model(self) -> None:
        """Wait until the predictor has swapped in the model that was just trained."""
        deadline_s, version = time.monotonic() + SWAP_S_MAX, ""
        settings = self._settings()
        async with PredictionClient(settings["predictor_address"], token=settings["token"]) as predictor:
            while not version:
                try:
                    version = (await predictor.current_model()).version
                except PredictionError as error:
                    if time.monotonic() > deadline_s:
                        raise TestbedError(f"the predictor has no model yet: {error}") from error
                    await asyncio.sleep(0.5)
        self.progress.say(f"the predictor serves model {version}")


def commit() -> str:
    """The commit of this tree; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def endless(rng: np.random.Generator, stores: list[str]) -> Iterator[DemoJob]:
    """Jobs for as long as they are wanted, each class equally often."""
    for _ in itertools.count():
        yield from draw(rng, 40, stores)
