"""`fairlane e2e`: placements compared on a kind cluster with real jobs over links that really differ."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from testbed.kind import report
from testbed.kind.cluster import KindCluster
from testbed.kind.e2e import FULL, SMOKE, EndToEnd
from testbed.kind.pods import JobError
from testbed.kind.shell import CommandError

EXAMPLES = """
Examples:

  fairlane e2e

  fairlane e2e --smoke --keep

  fairlane e2e --seed 7 --report reports/kind-7
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
) -> None:
    """Compare our placements with the default scheduler's on a kind cluster (1 control plane, 3 workers).

    Jobs are real transfers, all-reduce trainings and Spark shuffles; links are shaped per node and differ.
    The truth is the same job on every choice there is, under the same state of the links.
    """
    cluster = KindCluster()
    started_s = time.monotonic()
    plan = SMOKE if smoke else FULL
    try:
        cluster.up()
        outcome = asyncio.run(EndToEnd(cluster, plan, seed).run())
    except (CommandError, JobError) as error:
        typer.echo(f"fairlane e2e: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        if not keep:
            cluster.down()
    if not outcome.decisions:
        typer.echo("fairlane e2e: no decision could be measured", err=True)
        raise typer.Exit(1)
    facts = {"seed": seed, "plan": asdict(plan), "minutes": round((time.monotonic() - started_s) / 60, 1)}
    paths = report.write(folder, outcome, facts)
    console = Console(highlight=False)
    console.print(paths[0].read_text())
    console.print(f"{facts['minutes']} minutes; " + ", ".join(str(path) for path in paths))
