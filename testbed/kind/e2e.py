"""The main job end to end on a kind cluster: collect, train, then compare placements under held links.

1. Links change on a seeded schedule; transfers and gangs go through our scheduler, which explores.
2. `fairlane train` in the cluster makes a model of what was recorded.
3. For each decision the links are set to a state of another seed and stay so: ours and the default
   scheduler choose, and the job runs on every choice there is.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle

import pandas as pd

from model.dataset import examples_from
from model.splits import Split
from model.train import Options, TooFewExamplesError, enough, final_model
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from testbed.judgement import Predict
from testbed.kind import deploy, release
from testbed.kind.cluster import KindCluster
from testbed.kind.comparison import Choice, Decision
from testbed.kind.jobs import NAMESPACE, OURS, AllReduce, Place
from testbed.kind.links import Links, State, schedule
from testbed.kind.pods import JobError, Pods
from testbed.kind.runs import Runs, data_sources, transfer_bytes
from testbed.kind.shell import CommandError
from testbed.kind.spark import Shuffle
from testbed.progress import Phases

READY_S_MAX = 90.0
RECEIPT_S_MAX = 10.0
RECORDER_TIMEOUT_S = 30.0
RETRY_S = 2.0
LOST_MAX = 4
"""So many decisions lost one after the other end the run: something is wrong with the cluster."""
FAILURES = (JobError, KubeError, CommandError, RecorderError)
"""What costs one job or one decision, not the whole run."""


GangRun = Callable[[Runs, str], Awaitable[tuple[Choice, float]]]


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    collect_states: int
    """So many, and up to twice as many where too few transfers have ended to train on."""
    collect_window_s: float
    settle_s: float
    """From a change of the links until telemetry has seen it: the three newest measurements of the probe."""
    transfers: int
    collect_gangs: int
    allreduces: int
    shuffles: int
    in_flight: int = 4
    collect_s: tuple[float, float] = (1.0, 8.0)
    """Transfers that are collected are to take between these on the middle one of the links."""
    transfer_s: float = 8.0
    """A transfer that is decided takes about this long on the middle one of the links."""
    least_examples: int = 50
    parameters: int = 400_000
    steps: int = 8
    rows: int = 100_000


FULL = Plan(
    collect_states=10,
    collect_window_s=26.0,
    settle_s=17.0,
    transfers=31,
    collect_gangs=3,
    allreduces=3,
    shuffles=1,
)
SMOKE = Plan(
    collect_states=4,
    collect_window_s=18.0,
    settle_s=17.0,
    transfers=4,
    collect_gangs=0,
    allreduces=0,
    shuffles=0,
    in_flight=5,
    collect_s=(0.4, 2.5),
    transfer_s=4.0,
    least_examples=40,  # the newest quarter is judged on, which takes ten
)


@dataclass(frozen=True)
class Outcome:
    """What was found out: decisions, a model without network features, what was learnt from."""

    decisions: list[Decision]
    blind: Predict | None
    examples: pd.DataFrame
    published: bool


def gang_places(states: int, gangs: int) -> list[int]:
    """After which of the collected states a gang is run: spread evenly.

    Training judges a model on the newest runs; were all gangs among these, it
    would be judged on kinds of jobs that it has never seen.
    """
    return [(number + 1) * states // (gangs + 1) - 1 for number in range(gangs)]


class EndToEnd:
    """One run of the comparison on a cluster that is up."""

    def __init__(self, cluster: KindCluster, plan: Plan, seed: int, phase: Phases) -> None:
        self._cluster = cluster
        self._phase = phase
        self._plan = plan
        self._seed = seed
        self._say = cluster.progress.say
        self._links = Links(cluster)
        self._random = random.Random(seed)
        self._so_far = Outcome([], None, pd.DataFrame(), False)

    async def run(self) -> Outcome:
        """All steps; the links are as before afterwards."""
        try:
            with self._phase("install"):
                await asyncio.to_thread(self._prepare)
            return await self._steps()
        finally:
            await asyncio.to_thread(self._links.remove)

    @property
    def so_far(self) -> Outcome:
        """What is known already, also while the run goes on or has failed."""
        return self._so_far

    async def _steps(self) -> Outcome:
        with self._phase("install"):
            await self._ready()
        with self._phase("collect"):
            async with self._runs() as runs:
                await self._collect(runs)
        with self._phase("train"):
            table = await self._examples()
            self._so_far = replace(self._so_far, examples=table)
            published = await asyncio.to_thread(self._train)
            self._so_far = replace(self._so_far, published=published)
        with self._phase("install"):
            await asyncio.to_thread(self._install, explore=False)
            await self._ready()
        with self._phase("compare"):
            async with self._runs() as runs:
                await self._compare(runs, self._so_far.decisions)
        with self._phase("train"):
            blind = await asyncio.to_thread(self._without_network, table)
        return replace(self._so_far, blind=blind)

    @asynccontextmanager
    async def _runs(self) -> AsyncIterator[Runs]:
        async with (
            KubeClient.connect(str(self._cluster.kubeconfig)) as kube,
            Pods.follow(kube, NAMESPACE) as pods,
        ):
            await pods.delete_all()
            yield Runs(self._cluster, pods, await data_sources(kube))
            await pods.delete_all()

    def _prepare(self) -> None:
        deploy.surroundings(self._cluster, self._with_gangs())
        self._install(explore=True)
        for line in release.try_it(self._cluster).splitlines():
            self._say(f"helm test: {line}")
        self._links.install()
        self._say("links are shaped from now on")

    def _install(self, explore: bool) -> None:
        """While collecting, nodes are chosen at random, so that the model sees the bad ones too."""
        release.install(self._cluster, explore, self._plan.least_examples)

    def _with_gangs(self) -> bool:
        return bool(self._plan.collect_gangs or self._plan.allreduces or self._plan.shuffles)

    async def _collect(self, runs: Runs) -> None:
        states, plan = schedule(self._seed, self._cluster.workers), self._plan
        gangs = dict(
            zip(gang_places(plan.collect_states, plan.collect_gangs), self._gang_jobs(), strict=False)
        )
        collected = 0
        for number in range(2 * plan.collect_states):
            # on a busy machine fewer jobs end in a window, and without enough of them there is no model
            if number >= plan.collect_states and collected >= plan.least_examples:
                break
            state = await self._next(runs, states)
            collected += (count := await self._transfers_for(runs, state, plan.collect_window_s))
            self._say(f"collected state {number + 1} of {plan.collect_states}: {count} transfers")
            if number in gangs:
                await self._collect_gang(runs, *gangs[number])

    async def _collect_gang(self, runs: Runs, kind: str, run: GangRun) -> None:
        try:
            nodes, seconds = await run(runs, runs.name(f"collect-{kind}"))
            self._say(f"collected a {kind} gang on {', '.join(nodes)}: {seconds:.1f} s")
        except FAILURES as error:
            self._say(f"not collected: {error}")

    async def _next(self, runs: Runs, states: Iterator[State]) -> State:
        """The next state of the links, once telemetry has seen it and the pods of the last one are gone."""
        state = next(states)
        await asyncio.to_thread(self._links.apply, state)
        await asyncio.gather(asyncio.sleep(self._plan.settle_s), runs.clear())
        return state

    async def _transfers_for(self, runs: Runs, state: State, window_s: float) -> int:
        """Transfers of many sizes, a few at a time, for `window_s`; how many ended well."""
        ends_s = time.monotonic() + window_s
        shortest_s, longest_s = self._plan.collect_s

        async def one_after_the_other() -> int:
            done = 0
            while time.monotonic() < ends_s:
                # a long transfer that begins late would hold everything up after the window
                most_s = min(longest_s, max(shortest_s, ends_s - time.monotonic()))
                target_s = self._random.uniform(shortest_s, most_s)
                job = runs.transfer(transfer_bytes(state, self._random, target_s))
                try:
                    await runs.one(job, runs.name("collect"), Place(OURS))
                    done += 1
                except FAILURES as error:
                    self._say(f"not collected: {error}")
                    await asyncio.sleep(RETRY_S)
            return done

        return sum(await asyncio.gather(*(one_after_the_other() for _ in range(self._plan.in_flight))))

    def _gang_jobs(self) -> Iterator[tuple[str, GangRun]]:
        """Both kinds in turn, without end."""
        return cycle(
            [
                ("allreduce", lambda runs, name: runs.allreduce(self._allreduce(), name, [Place(OURS)] * 2)),
                ("spark", lambda runs, name: runs.shuffle(self._shuffle(), name, OURS)),
            ]
        )

    def _allreduce(self) -> AllReduce:
        plan, images = self._plan, self._cluster.images
        return AllReduce(images.allreduce, self._cluster.control_plane, plan.parameters, plan.steps)

    def _shuffle(self) -> Shuffle:
        return Shuffle(self._cluster.images.spark, self._cluster.control_plane, self._plan.rows)

    def _train(self) -> bool:
        with self._cluster.progress.task("training in the cluster"):
            said, published = release.train(self._cluster)
        for line in said.splitlines():
            self._say(f"train: {line}")
        if not published:
            self._say("no model was published: the analytic prior answers")
        return published

    async def _ready(self) -> None:
        deadline_s = time.monotonic() + READY_S_MAX
        while not (status := await asyncio.to_thread(release.extender_status, self._cluster)).get("ready"):
            if time.monotonic() > deadline_s:
                raise JobError(f"the extender is not ready: {status.get('unready')}")
            await asyncio.sleep(2.0)

    async def _compare(self, runs: Runs, decisions: list[Decision]) -> None:
        states = schedule(self._seed + 1000, self._cluster.workers)
        state = await self._next(runs, states)
        await runs.warm_up(runs.transfer(transfer_bytes(state, self._random, 1.0)))
        plan, lost = self._plan, 0
        todo = (
            [self._transfer] * plan.transfers + [self._gang] * plan.allreduces + [self._spark] * plan.shuffles
        )
        for number, decide in enumerate(todo, 1):
            try:
                decisions.append(await decide(runs, await self._next(runs, states)))
                lost = 0
                self._tell(decisions[-1], number, len(todo))
            except FAILURES as error:
                lost += 1
                self._say(f"decision {number} of {len(todo)} is lost: {error}")
                if lost == LOST_MAX:
                    raise JobError(f"{lost} decisions in a row were lost; the last one: {error}") from error

    async def _transfer(self, runs: Runs, state: State) -> Decision:
        job = runs.transfer(transfer_bytes(state, self._random, self._plan.transfer_s))
        return await self._with_receipt(await runs.transfer_decision(job, state))

    async def _gang(self, runs: Runs, state: State) -> Decision:
        return await runs.allreduce_decision(self._allreduce(), state)

    async def _spark(self, runs: Runs, state: State) -> Decision:
        return await runs.shuffle_decision(self._shuffle(), state)

    def _tell(self, decision: Decision, number: int, count: int) -> None:
        times = ", ".join(
            f"{'+'.join(_short(n) for n in choice)} {s:.1f}" for choice, s in sorted(decision.seconds.items())
        )
        ours, default = ("+".join(map(_short, c)) for c in (decision.ours, decision.default))
        self._say(
            f"decision {number} of {count}, {decision.kind}: ours {ours}, default {default}; seconds: {times}"
        )

    async def _with_receipt(self, decision: Decision) -> Decision:
        """The decision with what our extender was recorded to know of the candidates."""
        deadline_s = time.monotonic() + RECEIPT_S_MAX
        async with self._recorder() as recorder:
            while True:
                receipt = await recorder.receipt(NAMESPACE, decision.name, limit=100)
                if (known := receipt.decision) is not None:
                    candidates = receipt.candidates
                    return replace(
                        decision, candidates=candidates, job_class=known.job_class, reason=known.reason
                    )
                if time.monotonic() > deadline_s:
                    return replace(decision, reason="no decision recorded")
                await asyncio.sleep(0.5)

    def _recorder(self) -> AbstractAsyncContextManager[RecorderClient]:
        cluster = self._cluster
        return RecorderClient.connect(cluster.recorder_url, release.token(cluster), RECORDER_TIMEOUT_S)

    async def _examples(self) -> pd.DataFrame:
        async with self._recorder() as recorder:
            table = pd.read_parquet(io.BytesIO(await recorder.examples()))
        if table.empty:
            raise JobError("none of the collected jobs was recorded: see the logs of extender and recorder")
        return table

    def _without_network(self, table: pd.DataFrame) -> Predict | None:
        """The model of the same examples that is told nothing about the network."""
        options = Options(Split("time"), ("network",), self._plan.least_examples)
        try:
            enough(examples := examples_from(table), options)
        except TooFewExamplesError as error:
            self._say(f"no model without network features: {error}")
            return None
        blind = final_model(examples, options, time.time(), {})
        return blind.medians


def _short(node: str) -> str:
    return node.rsplit("-", 1)[-1]
