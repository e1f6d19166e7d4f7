"""The scenarios in their order, each run within its own time; what went wrong is told, with logs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from testbed.kind import deploy, release
from testbed.kind.cluster import KindCluster
from testbed.kind.pods import JobError
from testbed.kind.shell import CommandError
from testbed.kind.workloads import chaos, evidence, sharing, spark_jobs, training, untouched, upgrades, walls
from testbed.kind.workloads.figures import JobFigures, Object, job_figures
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Journal, Unmet

FAILURES = (Unmet, JobError, CommandError, KubeError, RecorderError)
"""What fails one scenario, and not the run."""
RECORDED_S_MAX = 15.0
CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way in which jobs come; `run` raises `Unmet` when what it expects does not come about."""

    letter: str
    title: str
    limit_s: float
    run: Callable[[Ground], Awaitable[None]]


@dataclass(slots=True)
class Result:
    """How a scenario went; `failure` is empty where all was as expected."""

    letter: str
    title: str
    limit_s: float
    seconds: float = 0.0
    failure: str = ""
    saw: list[str] = field(default_factory=list)
    jobs: list[JobFigures] = field(default_factory=list)


SCENARIOS = (
    Scenario("a", "spark-submit by two users", 480.0, spark_jobs.submitted),
    Scenario("b", "SparkApplication", 300.0, spark_jobs.operated),
    Scenario("c", "distributed training with GPUs", 420.0, training.run),
    Scenario("d", "a namespace that is left alone", 420.0, untouched.run),
    Scenario("e", "examples by three users with weights", 420.0, sharing.run),
    Scenario("f", "faults", 780.0, chaos.run),
    Scenario("g", "upgrade, rollback, uninstall", 420.0, upgrades.run),
    Scenario("h", "walls between pods", 360.0, walls.run),
)


def chosen(only: str) -> list[Scenario]:
    """The scenarios that `only` names by their letters, e.g. `a,c`; all where it is empty.

    Raises:
        ValueError: a letter that no scenario has.
    """
    letters = [letter.strip() for letter in only.split(",") if letter.strip()]
    known = [one.letter for one in SCENARIOS]
    if unknown := [letter for letter in letters if letter not in known]:
        raise ValueError(f"no scenario {', '.join(unknown)}: there are {', '.join(known)}")
    return [one for one in SCENARIOS if not letters or one.letter in letters]


async def run_all(cluster: KindCluster, wanted: Sequence[Scenario], folder: Path) -> list[Result]:
    """Run the scenarios one after the other on a cluster that is up, with a release of ours on it."""
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube, Journal.follow(kube) as journal:
        results = []
        for one in wanted:
            ground = Ground(cluster, kube, journal, secrets.token_hex(2), one.letter)
            results.append(await _run(one, ground, folder))
        return results


def prepare(cluster: KindCluster) -> None:
    """Surroundings and our release, on a cluster that is up."""
    deploy.surroundings(cluster, gangs=True)
    release.install(cluster)


async def _run(scenario: Scenario, ground: Ground, folder: Path) -> Result:
    result = Result(scenario.letter, scenario.title, scenario.limit_s, saw=ground.saw)
    say, begun_s = ground.cluster.progress.say, time.monotonic()
    say(f"{scenario.letter}. {scenario.title} (at most {scenario.limit_s:.0f} s)")
    try:
        async with asyncio.timeout(scenario.limit_s):
            await scenario.run(ground)
    except TimeoutError:
        result.failure = f"it did not end within {scenario.limit_s:.0f} s"
    except FAILURES as error:
        result.failure = str(error)
    result.seconds = time.monotonic() - begun_s
    if result.failure:
        say(f"{scenario.letter}: FAILED: {result.failure}")
        await evidence.collect(ground, folder / f"workload-{scenario.letter}")
    result.jobs = await _figures(ground)
    await _cleared(ground, result)
    return result


async def _cleared(ground: Ground, result: Result) -> None:
    try:
        await ground.clear()
    except CommandError as error:
        result.failure = result.failure or f"its namespaces stay behind: {error}"


async def _figures(ground: Ground) -> list[JobFigures]:
    """The figures of every job of the scenario, with what was predicted for each pod where it went."""
    found: list[JobFigures] = []
    async with _recorder(ground.cluster) as recorder:
        for namespace in ground.namespaces:
            pods = [life.pod for life in ground.journal.pods(namespace)]
            found += job_figures(namespace, pods, await _predicted(recorder, namespace, pods))
    return found


async def _predicted(recorder: RecorderClient, namespace: str, pods: Sequence[Object]) -> dict[str, float]:
    """Predicted run time of each pod on the node that it got; those without an opinion are left out."""
    found: dict[str, float] = {}
    for pod in pods:
        name = pod["metadata"]["name"]
        try:
            receipt = await recorder.receipt(namespace, name, CANDIDATES)
        except RecorderError:  # nothing is known of a pod that no scheduler of ours saw
            continue
        if receipt.chosen is not None and receipt.chosen_node:
            found[name] = receipt.chosen.p50_s
    return found


@asynccontextmanager
async def _recorder(cluster: KindCluster) -> AsyncIterator[RecorderClient]:
    async with RecorderClient.connect(
        cluster.recorder_url, release.token(cluster), RECORDED_S_MAX
    ) as recorder:
        yield recorder
