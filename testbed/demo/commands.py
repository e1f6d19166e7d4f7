"""`fairlane demo`: the main job end to end on a local cluster."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.layout import Options
from testbed.progress import Progress

LOG_WIDTH = 130
"""Columns of what is printed where there is no terminal."""
app = typer.Typer(rich_markup_mode=None)
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else LOG_WIDTH)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the emulated world and of the job list.")] = 1,
    nodes: Annotated[int, typer.Option(help="Worker nodes.")] = 12,
    sites: Annotated[int, typer.Option(help="Sites that the nodes are spread over.")] = 3,
    collect: Annotated[float, typer.Option(help="Seconds of collecting experience.")] = 250.0,
    rounds: Annotated[int, typer.Option(help="Rounds of the comparison, each under both schedulers.")] = 3,
    jobs: Annotated[int, typer.Option(help="Jobs in a round.")] = 25,
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("reports/demo"),
    directory: Annotated[Path | None, typer.Option("--dir", help="Folder of the cluster.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster's files for inspection.")] = False,
) -> None:
    """Collect experience, train on it, and compare our placements with the default scheduler's.

    \b
    Examples:
      fairlane demo
      fairlane demo --seed 7 --out reports/seed-7
      fairlane demo --collect 60 --rounds 1 --jobs 8     # a quick look
    """
    from testbed.demo import report, stages  # the plotting library takes a second to import

    signal.signal(signal.SIGTERM, _interrupt)
    plan = stages.Plan(seed=seed, collect_s=collect, rounds=rounds, jobs_per_round=jobs)
    options = Options(nodes=nodes, sites=sites, seed=seed, without=("controller",))
    progress, began_s = Progress(console), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with Cluster(options, directory, progress, keep_files=keep) as cluster:
            up_s = time.monotonic() - began_s
            result = stages.Demo(cluster, plan, progress, out, {"up": up_s}).run()
    except TestbedError as error:
        console.print(f"the demo failed: {error}", style="red")
        raise typer.Exit(1) from error
    report.show(result, console)
    written = report.write(result, out)
    console.print(f"{time.monotonic() - began_s:.0f} s in all; written: {', '.join(map(str, written))}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
