"""`fairlane status`: queue, shares, placement, model, telemetry and training on one screen."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.doctor import CHECKS
from scheduler.cli.gangs import users_table
from scheduler.cli.output import Output, print_json
from scheduler.cli.serving import load_settings
from scheduler.config import ConfigError
from scheduler.edge.diagnosis import ago, diagnose
from scheduler.edge.facts import gather
from scheduler.edge.overview import overview

EXAMPLES = """
Examples:

  fairlane status

  fairlane status -o json | jq .queue

  watch fairlane status --config fairlane.yaml

Exit code: 0 without trouble, 1 with (as `fairlane doctor`, which says what is well too), 2 if the settings
cannot be used.
"""
USERS_SHOWN = 8

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def status(
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people or for machines.")
    ] = Output.TEXT,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
) -> None:
    """Show on one screen the queue, the shares, placing, the model, the telemetry and the last training.

    Each part is asked for what it knows; one that does not answer is said in a sentence.
    """
    logging.getLogger("scheduler").setLevel(logging.ERROR)  # what fails is told as trouble
    settings = load_settings("status", config)
    try:
        facts = asyncio.run(gather(settings))
    except ConfigError as error:
        typer.echo(f"fairlane status: {error}", err=True)
        raise typer.Exit(2) from error
    told = overview(facts, diagnose(facts, CHECKS))
    if output is Output.JSON:
        print_json(told)
    else:
        _print(told)
    if not told["ok"]:
        raise typer.Exit(1)


def _print(told: dict[str, Any]) -> None:
    console = Console(
        highlight=False, emoji=False, width=max(80, min(shutil.get_terminal_size().columns, 120))
    )
    for line in summary_lines(told):
        console.print(line, markup=False)
    if told["shares"]:
        console.print()
        console.print(users_table(told["shares"], USERS_SHOWN))
    for one in told["trouble"]:
        console.print(f"\n[bold red]TROUBLE[/] {one['part']}: ", end="")
        console.print(one["sentence"], markup=False)
        console.print(f"   -> {one['advice']}", markup=False, style="dim")
    if told["ok"]:
        console.print("\nNo trouble.")


def summary_lines(told: dict[str, Any]) -> list[str]:
    """One line for each part, aligned; what is not known says so."""
    parts = {
        "Queue": _queue(told["queue"]),
        "Placing": _placement(told["placement"], told["at_s"]),
        "Model": _model(told["model"]),
        "Telemetry": _telemetry(told["telemetry"]),
        "Training": _training(told["training"], told["at_s"]),
    }
    return [f"{name:<10} {text}" for name, text in parts.items()]


def _queue(queue: dict[str, Any] | None) -> str:
    if queue is None:
        return "not known"
    waits = [f"{queue[name]} {name}" for name in ("waiting", "incomplete", "infeasible") if queue[name]]
    waiting = ", ".join(waits) or "nothing waits"
    longest = f" (longest {_length(queue['longest_wait_s'])})" if queue["longest_wait_s"] else ""
    paused = "; PAUSED" if queue["paused"] else ""
    late = sum((queue["bound_violations"] or {}).values())
    beyond = f"; {late} ended later than the bound" if late else ""
    running = f"{queue['running']} running on {100 * queue['held']:.0f} % of the capacity"
    return f"{queue['queue']}: {waiting}{longest}, {running}{beyond}{paused}"


def _placement(placement: dict[str, Any] | None, now_s: float) -> str:
    if placement is None:
        return "not known"
    if not placement["calls"]:
        return "kube-scheduler has not asked yet"
    asked = f"asked {placement['calls']} times, last {ago(now_s - (placement['last_call_s'] or now_s))}"
    made = placement["tables_made"] or {}
    tables = ", ".join(f"{count} by the {name}" for name, count in made.items() if count) or "none"
    left = f"; {placement['no_opinion']} answers without an opinion" if placement["no_opinion"] else ""
    latency = placement["latency_mean_ms"]
    took = "" if latency is None else f", {latency:.2f} ms each"
    return f"{asked}{took}; tables made: {tables}{left}"


def _model(model: dict[str, Any] | None) -> str:
    if model is None:
        return "none answers; the analytic prior ranks"
    told = f"{model['version']} {'answers' if model['serving'] else 'does not serve'}"
    judged = model["judged"]
    if not judged:
        return f"{told}; no run of it has ended yet"
    inside = f"{100 * judged['inside_interval']:.0f} % inside p10-p90 (80 % is meant)"
    return f"{told}; {judged['judged']:g} runs judged, {inside}"


def _telemetry(telemetry: dict[str, Any] | None) -> str:
    if telemetry is None:
        return "no Prometheus is read"
    if telemetry["failure"]:
        return str(telemetry["failure"])
    age = telemetry["snapshot_age_s"]
    used = "" if age is None else f"; the extender uses a snapshot {age:.0f} s old"
    unknown = f" (not {', '.join(telemetry['unknown'])})" if telemetry["unknown"] else ""
    return f"{telemetry['readings_known']} of {telemetry['readings_offered']} readings known{unknown}{used}"


def _training(training: dict[str, Any] | None, now_s: float) -> str:
    if training is None:
        return "not known"
    published = training["published_s"]
    last = "no model published yet"
    if published is not None:
        last = f"last published {ago(now_s - published)}, from {training['examples']} examples"
    recorded = training["recorded_examples"]
    return last if recorded is None else f"{last}; {recorded} recorded by now"


def _length(seconds: float) -> str:
    return ago(seconds).removesuffix(" ago")
