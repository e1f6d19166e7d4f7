"""`fairlane e2e`: placements compared on a kind cluster with real jobs over links that really differ."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from testbed.kind.cluster import KindCluster
from testbed.kind.pods import JobError
from testbed.kind.runtime import why_none
from testbed.kind.shell import CommandError
from testbed.progress import Phases

NO_RUNTIME = 77
"""Exit code where no container engine can be had; test runners take 77 for "skipped"."""

EXAMPLES = """
Examples:

  fairlane e2e

  fairlane e2e --check && fairlane e2e --smoke

  fairlane e2e --smoke --keep

  fairlane e2e --seed 7 --report reports/kind-7

Exit codes: 0 the report is written, 1 an error, 77 no container runtime can be had (what is missing is said).
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
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether a container runtime can be had.")
    ] = False,
) -> None:
    """Compare our placements with the default scheduler's on a kind cluster (1 control plane, 3 workers).

    Jobs are real transfers, all-reduce trainings and Spark shuffles; links are shaped per node and differ.
    The truth is the same job on every choice there is, under the same state of the links.
    A cluster that is up already is used, and stays.
    """
    cluster = KindCluster()
    if missing := why_none(cluster.docker):
        typer.echo(f"fairlane e2e: no container runtime can be had: {missing}", err=True)
        raise typer.Exit(NO_RUNTIME)
    if check:
        typer.echo("a container runtime can be had")
        return
    _end_in_order_when_told_to()
    try:
        _compare(cluster, smoke, seed, folder, keep)
    except (CommandError, JobError) as error:
        typer.echo(f"fairlane e2e: {error}", err=True)
        raise typer.Exit(1) from error


def _compare(cluster: KindCluster, smoke: bool, seed: int, folder: Path, keep: bool) -> None:
    from testbed.kind import report  # the plotting library takes a second to import
    from testbed.kind.e2e import FULL, SMOKE, EndToEnd

    started_s, plan, phase = time.monotonic(), SMOKE if smoke else FULL, Phases()
    facts: dict[str, object] = {"seed": seed, "plan": asdict(plan), "phases_s": phase.seconds}
    run, made = EndToEnd(cluster, plan, seed, phase), True
    try:
        with phase("cluster"):
            made = cluster.up()
        outcome = asyncio.run(run.run())
    except BaseException as error:
        if len(run.so_far.examples):  # they took many minutes
            report.write(folder, run.so_far, {**facts, "ended_early": repr(error)})
            typer.echo(f"fairlane e2e: ended early; {folder} tells what was known by then", err=True)
        raise
    finally:
        if made and not keep:
            with phase("down"):
                cluster.down()
        cluster.progress.say(f"time went to: {phase.sentence()}")
    if not outcome.decisions:
        raise JobError("no decision could be measured")
    facts["minutes"] = round((time.monotonic() - started_s) / 60, 1)
    paths = report.write(folder, outcome, facts)
    console = Console(highlight=False)
    console.print(paths[0].read_text())
    console.print(f"{facts['minutes']} minutes; " + ", ".join(str(path) for path in paths))


def _end_in_order_when_told_to() -> None:
    """SIGTERM and SIGINT take the cluster down; a shell makes its background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
