"""`fairlane usage`: what each user asked for and received in a period."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.cli.output import Output, print_json
from scheduler.cli.serving import load_settings
from scheduler.core.quantities import duration_s
from scheduler.edge.controller_client import ControllerClient, ControllerError

EXAMPLES = """
Examples:

  fairlane usage

  fairlane usage --since 7d --user alice

  fairlane usage --since 2026-05-01 -o json
"""
HOUR_S, DAY_S = 3600.0, 86_400.0
LONGEST_S = 1e9
GIB = 2.0**30

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def usage(
    since: Annotated[
        str, typer.Option(help="From when on: 90m, 24h, 7d before now, or a date (UTC) such as 2026-05-01.")
    ] = "24h",
    user: Annotated[str | None, typer.Option(help="Show this user only.")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people or for machines.")
    ] = Output.TEXT,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    controller: Annotated[
        str | None, typer.Option(help="URL of the controller; default: the setting.")
    ] = None,
) -> None:
    """Show per user: jobs, what they requested for how long, their part of all work, waits, and shares.

    A job counts in the hour (after two days: the day) of its end. Received is the user's share of what was
    delivered while something of his waited, and in brackets the share that he was entitled to then. Exit code
    1 when the controller cannot be asked, 2 for a period that cannot be read.
    """
    settings = load_settings("usage", config)
    client = ControllerClient(controller or settings.controller_url, settings.token.get_secret_value())
    try:
        told = client.usage(since_s(since, time.time()), user)
    except ValueError as error:
        typer.echo(f"fairlane usage: --since {since!r}: {error}", err=True)
        raise typer.Exit(2) from error
    except ControllerError as error:
        typer.echo(f"fairlane usage: {error}", err=True)
        raise typer.Exit(1) from error
    if output is Output.JSON:
        print_json(told)
    else:
        _print(told, Console(highlight=False, emoji=False, soft_wrap=True))


def since_s(text: str, now_s: float) -> float:
    """A period before now, or a date, in unix seconds.

    Raises:
        ValueError: it is neither.
    """
    if text.count("-") == 2:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    days, unit = text[:-1], text[-1:]
    period_s = DAY_S * float(days) if unit == "d" else duration_s(text)
    if not 0 < period_s < LONGEST_S:
        raise ValueError(f"it must be above zero and below {LONGEST_S / DAY_S:.0f} days")
    return now_s - period_s


def _print(told: dict[str, Any], console: Console) -> None:
    begin = datetime.fromtimestamp(told["since_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not told["users"]:
        console.print(f"No gang ended and nobody waited since {begin}.")
        return
    table = Table(title=f"Usage since {begin}; in brackets: entitled while waiting", title_justify="left")
    table.add_column("user", no_wrap=True)
    for name in ("jobs", "gangs", "CPU h", "GiB h", "other h", "of all", "wait (most)", "received"):
        table.add_column(name, justify="right")
    for name, one in sorted(told["users"].items(), key=lambda item: -item[1]["work"]):
        amounts = _amounts(one["requested_seconds"])
        counts = (str(one["jobs"]), str(one["gangs"]))
        shares = (_percent(one["work_share"]), _waits(one), _shares(one["while_waiting"]))
        table.add_row(escape(name), *counts, *amounts, *shares)
    console.print(table)
    if told["complete_since_s"] > told["since_s"]:
        first = datetime.fromtimestamp(told["complete_since_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
        console.print(f"Nothing is known from before {first}.")


def _amounts(seconds: dict[str, float]) -> tuple[str, str, str]:
    others = [
        f"{escape(name)} {amount / HOUR_S:.2f}"
        for name, amount in sorted(seconds.items())
        if name not in ("cpu", "memory", "pods")
    ]
    cpu, memory = seconds.get("cpu", 0.0) / HOUR_S, seconds.get("memory", 0.0) / GIB / HOUR_S
    return f"{cpu:.2f}", f"{memory:.2f}", ", ".join(others)


def _waits(one: dict[str, Any]) -> str:
    mean_s, most_s = one["wait_mean_s"], one["wait_most_s"]
    return "" if mean_s is None else f"{mean_s:.0f} s ({most_s:.0f} s)"


def _shares(waiting: dict[str, Any]) -> str:
    received, entitled = waiting["received_share"], waiting["entitled_share"]
    return "" if received is None else f"{_percent(received)} ({_percent(entitled)})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
