"""The demo in many worlds, on a simulated clock: how good placements are beyond the luck of one seed.

Each seed is a world of its own: other nodes, links, congestion and jobs. In each,
as in `fairlane demo`, runs are collected with exploring placements, a model is
trained on them, and then places jobs whose run time on every node is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.simulated_telemetry import SimulatedTelemetry
from model.dataset import Examples, examples_from
from model.features import NAMES, build
from model.placement import Job, NodeFacts, RunHistory
from model.prior import log_prior
from model.published import PublishedModel
from model.schema import POSITION
from model.snapshot import Floats
from model.splits import Split
from model.train import Options as Training
from model.train import final_model
from scheduler.core.histories import RUNS_USED, summed_up
from scheduler.core.transfers import Transfers
from testbed.demo.comparison import OURS, alternatives
from testbed.demo.evidence import Evidence
from testbed.demo.jobs import CPU_REQUEST, IMAGE, DemoJob, draw
from testbed.demo.stages import EXPLORING, Plan, endless
from testbed.judgement import Choice, Estimate, Judgement, as_table, bootstrap, judge
from testbed.layout import Options
from testbed.nodes import nodes
from testbed.physics.jobs import TICK_S, Run, advance, flows, run_s_on_every_node, spent
from testbed.physics.process import Node, spec_of
from testbed.physics.world import NodeSpec, World

BEGAN_AT_S = 1.7e9
WARM_UP_S, PAUSE_S = 30.0, 30.0
"""Telemetry alone before the first job; and between rounds, where the demo has the other scheduler's turn."""
REGRET_TARGET = 0.05
EMULATED = (
    "Real: features, prior, training, model, windows. Simulated: time, nodes, network, how long jobs run. "
    "A delay stands for scraping, queries and tables; what the model finds fastest is bound at once."
)
Place = Callable[[Floats, Job], int]
"""Position of the node for a job, from its features on every candidate."""


@dataclass(frozen=True, slots=True)
class Found:
    """One world: what each policy was worth there."""

    seed: int
    examples: int
    judgements: tuple[Judgement, ...]

    def to_json(self) -> Mapping[str, Any]:
        """Plain values."""
        return {"seed": self.seed, "examples": self.examples, "policies": as_table(self.judgements)}


@dataclass(slots=True)
class _Running:
    """A job that runs, and what was known of it when it was placed."""

    run: Run
    job: Job
    node: str
    began_s: float
    features: Floats


class SimulatedCluster:
    """Nodes, jobs and telemetry of one world; time passes in `step`."""

    def __init__(self, options: Options) -> None:
        made = [msgspec.convert(one, Node) for one in nodes(options)]
        specs = sorted((spec_of(node) for node in made), key=lambda spec: spec.name)
        self.world = World(options.seed, specs)
        self.workers = [spec.name for spec in specs if not spec.store]
        self.stores = [spec.name for spec in specs if spec.store]
        self.telemetry = SimulatedTelemetry(self.world, options.seed)
        self.now_s = 0.0
        self.running: dict[str, _Running] = {}
        self.ended: list[dict[str, Any]] = []
        """Rows of the table that `fairlane train` reads."""
        self._run_s: dict[str, list[float]] = {}
        self._transfers = Transfers()
        self._placed = 0

    def pass_time(self, seconds: float) -> None:
        """Go on for `seconds`."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.step()

    def drain(self) -> None:
        """Go on until no job runs."""
        while self.running:
            self.step()

    def step(self) -> None:
        """One tick of the world."""
        world, runs = self.world, [one.run for one in self.running.values()]
        state, readers = world.at(self.now_s), flows(runs, len(world.nodes)).readers
        received = advance(world, state, runs, TICK_S)
        computing, job_bytes = spent(runs, received, len(world.nodes))
        self.now_s += TICK_S
        self.telemetry.step(self.now_s, state, computing, job_bytes, readers, TICK_S)
        for one in [one for one in self.running.values() if not one.run.phase]:
            self._end(one)

    def place(self, drawn: DemoJob, choose: Place) -> tuple[Job, Floats, int]:
        """Start a job where `choose` says; the job, its features on every worker, the position chosen."""
        self._placed += 1
        uid = f"job-{self._placed}"
        job = self._job(drawn, uid)
        features = build(job, self.workers, self.telemetry.snapshot, self._facts(), self.now_s)
        chosen = choose(features, job)
        node, index = self.workers[chosen], self.world.index
        self._transfers.begin(uid, node, float(features[chosen, POSITION["link_s"]]), self.now_s)
        run = Run.begin(uid, index[node], index[drawn.spec.data_node], "", drawn.spec)
        self.running[uid] = _Running(run, job, node, self.now_s, features[chosen])
        return job, features, chosen

    def _end(self, one: _Running) -> None:
        del self.running[one.run.uid]
        self._transfers.end(one.run.uid)
        ended_s = self.now_s - one.run.unused_s
        run_s = ended_s - one.began_s
        for key in (f"class {one.job.job_class}", f"user {one.job.user}"):
            self._run_s.setdefault(key, []).append(run_s)
        told = {"run_s": run_s, "ended_at": BEGAN_AT_S + ended_s, "job_class": one.job.job_class}
        told |= {"user": one.job.user, "node": one.node}
        self.ended.append(dict(zip(NAMES, one.features.tolist(), strict=True)) | told)

    def _job(self, drawn: DemoJob, uid: str) -> Job:
        kind = drawn.job_class
        return Job(
            kind.name,
            user=kind.user,
            framework=kind.framework,
            gang=uid,
            cpu=float(CPU_REQUEST),
            memory_bytes=2.0**30,
            input_bytes=float(int(drawn.spec.input_bytes)),
            image=IMAGE,
            data_nodes=(drawn.spec.data_node,),
            class_history=self._history(f"class {kind.name}"),
            user_history=self._history(f"user {kind.user}"),
        )

    def _history(self, key: str) -> RunHistory:
        runs = self._run_s.get(key, [])
        return summed_up(runs[-RUNS_USED:], len(runs))

    def _facts(self) -> Mapping[str, NodeFacts]:
        on: dict[str, list[Job]] = {}
        for one in self.running.values():
            on.setdefault(one.node, []).append(one.job)
        return {spec.name: self._facts_of(spec, on.get(spec.name, [])) for spec in self.world.nodes}

    def _facts_of(self, spec: NodeSpec, residents: Sequence[Job]) -> NodeFacts:
        return NodeFacts(
            zone=spec.site,
            nic_class=spec.nic_class,
            allocatable_cpu=float(spec.cores),
            requested_cpu=sum(job.cpu for job in residents),
            residents=len(residents),
            network_heavy=len(residents),
            receiving_until_s=self._transfers.until_s(spec.name, [job.gang for job in residents]),
            residents_by_framework=Counter(job.framework for job in residents),
        )


def measure(plan: Plan, options: Options) -> Found:
    """Collect, train and place in the world of the plan's seed."""
    at = SimulatedCluster(replace(options, seed=plan.seed))
    at.pass_time(WARM_UP_S)
    collect(at, plan)
    examples = examples_from(pd.DataFrame(at.ended))
    model, blind = (_trained(examples, without) for without in ((), ("network",)))
    evidence = list(_placements(at, plan, model))
    rng = np.random.default_rng(plan.seed)
    ours = judge(OURS, [Choice(one.run_s, one.chosen) for one in evidence], rng)
    others = alternatives(evidence, blind.medians, rng)
    return Found(plan.seed, len(examples.frame), (ours, *others))


def collect(at: SimulatedCluster, plan: Plan) -> None:
    """Keep jobs running for a while; most nodes are drawn, the others are the prior's best."""
    rng = np.random.default_rng(plan.seed)
    jobs = endless(rng, at.stores)

    def explore(features: Floats, _job: Job) -> int:
        if rng.random() < float(EXPLORING["rate"]):
            return int(rng.integers(len(features)))
        return int(np.argmin(log_prior(features)))

    until_s = at.now_s + plan.collect_s
    while at.now_s < until_s:
        while len(at.running) < plan.in_flight:
            at.place(next(jobs), explore)
        at.step()
    at.drain()


def summary(found: Sequence[Found]) -> list[tuple[str, Estimate, Estimate, float]]:
    """Of each policy the means of Top-1 and regret over the worlds, with intervals, and the worst regret."""
    rng, rows = np.random.default_rng(0), []
    for judged in zip(*(one.judgements for one in found), strict=True):
        top1, regret = ([getattr(one, name).mean for one in judged] for name in ("top1", "regret"))
        rows.append((judged[0].policy, bootstrap(top1, rng), bootstrap(regret, rng), max(regret)))
    return rows


def to_json(found: Sequence[Found]) -> Mapping[str, Any]:
    """Plain values."""
    means = [
        {"policy": policy, "top1": asdict(top1), "regret": asdict(regret), "worst_regret": worst}
        for policy, top1, regret, worst in summary(found)
    ]
    return {"emulated": EMULATED, "over_worlds": means, "worlds": [one.to_json() for one in found]}


def show(found: Sequence[Found], console: Console) -> None:
    """Print what each policy was worth."""
    table = Table(title=f"{len(found)} worlds, {found[0].judgements[0].decisions} placements in each")
    for heading in ("policy", "Top-1", "regret", "worst world"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for policy, top1, regret, worst in summary(found):
        table.add_row(policy, str(top1), str(regret), f"{worst:.3f}")
    console.print(table)
    reached = sum(one.judgements[0].regret.mean <= REGRET_TARGET for one in found)
    console.print(f"Regret is at most {REGRET_TARGET:.0%} in {reached} of {len(found)} worlds.")
    console.print("Brackets are 90 % bootstrap intervals over the worlds.", EMULATED)


def _placements(at: SimulatedCluster, plan: Plan, model: PublishedModel) -> Iterator[Evidence]:
    """Jobs placed by the model, one by one, with their run time on every worker."""
    rng = np.random.default_rng(plan.seed + 1000)
    for _round in range(plan.rounds):
        at.drain()
        at.pass_time(PAUSE_S)
        for drawn in draw(rng, plan.jobs_per_round, at.stores):
            others = [one.run for one in at.running.values()]
            job, features, chosen = at.place(drawn, partial(_fastest, model, at.workers))
            truth = partial(run_s_on_every_node, at.world, drawn.spec, at.now_s, others)
            run_s, standing_s = truth(), truth(standing_still=True)
            yield Evidence(
                job.gang,
                at.workers[chosen],
                tuple(at.workers),
                np.array([run_s[node] for node in at.workers]),
                np.array([standing_s[node] for node in at.workers]),
                features=features,
                job_class=job.job_class,
            )
            at.pass_time(plan.pace_s)


def _fastest(model: PublishedModel, workers: Sequence[str], features: Floats, job: Job) -> int:
    return int(np.argmin(model.medians(features, job.job_class, workers)))


def _trained(examples: Examples, without: tuple[str, ...]) -> PublishedModel:
    return final_model(examples, Training(Split("time"), without), BEGAN_AT_S, {})
