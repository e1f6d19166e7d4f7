"""`fairlane e2e`: placements compared on a kind cluster over links that differ, and real workloads on it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from testbed.kind.cluster import KindCluster
from testbed.kind.pods import JobError
from testbed.kind.runtime import why_none
from testbed.kind.shell import CommandError
from testbed.progress import Phases

if TYPE_CHECKING:
    from testbed.kind.workloads.scenarios import Scenario

NO_RUNTIME = 77
"""Exit code where no container engine can be had; test runners take 77 for "skipped"."""

EXAMPLES = """
Examples:

  fairlane e2e

  fairlane e2e --check && fairlane e2e --smoke

  fairlane e2e --smoke --keep

  fairlane e2e --seed 7 --report reports/kind-7

  fairlane e2e --workloads --only a,c,f

Exit codes: 0 the report is written and every workload passed, 1 an error or a failed workload,
77 no container runtime can be had (what is missing is said).
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def e2e(
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Few decisions, no gangs: does it work at all?")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the link states, sizes and order.")] = 1,
    folder: Annotated[Path, typer.Option("--report", help="Folder for the report.")] = Path("reports/kind"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running afterwards.")] = False,
    workloads: Annotated[
        bool, typer.Option("--workloads", help="Only the workloads a to h, without the comparison.")
    ] = False,
    only: Annotated[str, typer.Option(help="Of the workloads only these, e.g. a,c,f.")] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether a container runtime can be had.")
    ] = False,
) -> None:
    """Compare our placements with the default scheduler's on a kind cluster, then run real workloads on it.

    The comparison: jobs are real transfers, all-reduce trainings and Spark shuffles; links are shaped per
    node and differ; the truth is the same job on every choice there is, under the same state of the links.
    The workloads: spark-submit, SparkApplication, distributed training, a namespace that has not opted in,
    three users with weights, and faults; each with a verdict, and figures of every job.
    The cluster has 1 control plane and 3 workers; one that is up already is used, and stays.
    """
    cluster = KindCluster()
    wanted = [] if check else _wanted(smoke, workloads, only)
    if missing := why_none(cluster.docker):
        typer.echo(f"fairlane e2e: no container runtime can be had: {missing}", err=True)
        raise typer.Exit(NO_RUNTIME)
    if check:
        typer.echo("a container runtime can be had")
        return
    _end_in_order_when_told_to()
    made, phase = True, Phases()
    try:
        with phase("cluster"):
            made = cluster.up()
        if not workloads:
            _compare(cluster, smoke, seed, folder, phase)
            phase = Phases()
        well = not wanted or _work(cluster, wanted, folder, phase)
    except (CommandError, JobError) as error:
        typer.echo(f"fairlane e2e: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        if made and not keep:
            cluster.down()
    if not well:
        raise typer.Exit(1)


def _wanted(smoke: bool, workloads: bool, only: str) -> list[Scenario]:
    """The workloads to run; raises `typer.BadParameter`."""
    from testbed.kind.workloads.scenarios import chosen  # imports clients that take a second

    if smoke and (workloads or only):
        raise typer.BadParameter("--smoke is of the comparison, which --workloads leaves out")
    if only and not workloads:
        raise typer.BadParameter("--only chooses among the workloads: say --workloads too")
    try:
        return [] if smoke else chosen(only)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _compare(cluster: KindCluster, smoke: bool, seed: int, folder: Path, phase: Phases) -> None:
    from testbed.kind import report  # the plotting library takes a second to import
    from testbed.kind.e2e import FULL, SMOKE, EndToEnd

    plan = SMOKE if smoke else FULL
    facts: dict[str, object] = {"seed": seed, "plan": asdict(plan), "phases_s": phase.seconds}
    run = EndToEnd(cluster, plan, seed, phase)
    try:
        outcome = asyncio.run(run.run())
    except BaseException as error:
        if len(run.so_far.examples):  # they took many minutes
            report.write(folder, run.so_far, {**facts, "ended_early": repr(error)})
            typer.echo(f"fairlane e2e: ended early; {folder} tells what was known by then", err=True)
        raise
    finally:
        cluster.progress.say(f"time went to: {phase.sentence()}")
    if not outcome.decisions:
        raise JobError("no decision could be measured")
    facts["minutes"] = _minutes(phase)
    _print(report.write(folder, outcome, facts), phase)


def _work(cluster: KindCluster, wanted: Sequence[Scenario], folder: Path, phase: Phases) -> bool:
    """Run the workloads and print their table; False when one failed."""
    from testbed.kind.workloads import report
    from testbed.kind.workloads.scenarios import prepare, run_all

    with phase("install"):
        prepare(cluster)
    with phase("workloads"):
        results = asyncio.run(run_all(cluster, wanted, folder))
    cluster.progress.say(f"time went to: {phase.sentence()}")
    _print(report.write(folder, results, {"minutes": _minutes(phase), "phases_s": phase.seconds}), phase)
    for one in results:
        if one.failure:
            typer.echo(f"fairlane e2e: {one.letter}. {one.title}: {one.failure}", err=True)
    return not any(one.failure for one in results)


def _minutes(phase: Phases) -> float:
    return round(sum(phase.seconds.values()) / 60, 1)


def _print(paths: Sequence[Path], phase: Phases) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(paths[0].read_text(), markup=False)
    console.print(f"{_minutes(phase)} minutes; " + ", ".join(str(path) for path in paths))


def _end_in_order_when_told_to() -> None:
    """SIGTERM and SIGINT take the cluster down; a shell makes its background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
