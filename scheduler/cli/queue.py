"""`fairlane queue`: who waits, why, and who has what share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.cli.gangs import start_from_now, users_table
from scheduler.cli.output import Output, print_json
from scheduler.cli.serving import load_settings
from scheduler.edge.controller_client import ControllerClient, ControllerError

EXAMPLES = """
Examples:

  fairlane queue

  fairlane queue --user alice

  fairlane queue -o json --controller http://fairlane-controller:8891
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def queue(
    user: Annotated[str | None, typer.Option(help="Show this user's gangs only.")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people or for machines.")
    ] = Output.TEXT,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Waiting gangs shown, the next first.")] = 50,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    controller: Annotated[
        str | None, typer.Option(help="URL of the controller; default: the setting.")
    ] = None,
) -> None:
    """Show the users with their shares, and the gangs with their places and why they wait.

    Exit code 1 when the controller cannot be asked.
    """
    settings = load_settings("queue", config)
    client = ControllerClient(controller or settings.controller_url, settings.token.get_secret_value())
    try:
        told = client.queue(user, limit)
    except ControllerError as error:
        typer.echo(f"fairlane queue: {error}", err=True)
        raise typer.Exit(1) from error
    if output is Output.JSON:
        print_json(told)
    else:
        _print(told, limit)


def _print(told: dict[str, Any], limit: int) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    if told["paused"]:
        console.print("The queue is paused: nothing is released.")
    for complaint in told["complaints"]:
        console.print(f"FairQueue: {complaint}", markup=False)
    console.print(users_table(told["flows"]))
    waiting = [gang for gang in told["gangs"] if gang["state"] not in ("running", "opening")]
    if waiting:
        console.print(_gangs(waiting, told["waiting"], limit))
        if failure := told["expected_starts"]["failure"]:
            console.print(f"Expected starts are not worked out: {failure}.", markup=False)
        for source in _sources(waiting[:limit]):
            console.print(source, markup=False)
    else:
        console.print("Nothing waits.")


def _gangs(gangs: list[dict[str, Any]], waiting: int, limit: int) -> Table:
    shown = min(limit, len(gangs))
    table = Table(title=f"Gangs that wait ({shown} of {max(waiting, len(gangs))})", title_justify="left")
    for name, justify in (("", "right"), ("gang", "left"), ("user", "left"), ("pods", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("expected to take", "expected start"):
        table.add_column(name, justify="right")
    table.add_column("why it waits")
    for gang in gangs[:limit]:
        pods = gang["pods"]
        name = pods[0] if len(pods) == 1 else gang["uid"]
        table.add_row(
            str(gang["position"] or ""),
            escape(name),
            escape(gang["user"]),
            str(len(pods)),
            _took(gang["estimate"]),
            start_from_now(gang["expected_start"], time.time()),
            escape(gang["why"]),
        )
    return table


def _took(estimate: dict[str, Any]) -> str:
    return f"{estimate['p50_s']:.0f} s ({estimate['source']})"


def _sources(gangs: list[dict[str, Any]]) -> list[str]:
    starts = [gang["expected_start"] for gang in gangs if gang["expected_start"] is not None]
    by = dict.fromkeys(f"{one['futures'] or ''} {one['source']}".strip() for one in starts)
    return [f"Expected starts by {each}; in brackets the middle 80 %." for each in by]
