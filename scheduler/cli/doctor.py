"""`fairlane doctor`: what works, what is missing, and what to do about it."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.cli.output import Output, print_json
from scheduler.cli.serving import load_settings, with_options
from scheduler.config import ConfigError
from scheduler.edge import (
    diagnosis,
    diagnosis_queue,
    diagnosis_recorder,
    diagnosis_telemetry,
    diagnosis_versions,
)
from scheduler.edge.diagnosis import Check, Finding, Level, diagnose
from scheduler.edge.diagnosis_telemetry import Coverage, coverage
from scheduler.edge.facts import Facts, gather

CHECKS: tuple[Check, ...] = (
    diagnosis.api_server,
    diagnosis_versions.versions,
    diagnosis_telemetry.prometheus,
    diagnosis_telemetry.clocks,
    diagnosis_telemetry.readings,
    diagnosis_telemetry.oddities,
    diagnosis.extender_answers,
    diagnosis.kube_scheduler_calls,
    diagnosis.extender_refusals,
    diagnosis.extender_telemetry,
    diagnosis.predictions,
    diagnosis.extender_predictions,
    diagnosis_recorder.recorder,
    diagnosis_recorder.decisions,
    diagnosis_recorder.predictor_certificate,
    diagnosis_queue.controller,
    diagnosis_queue.queue_faults,
    diagnosis_queue.queue_moves,
    diagnosis_queue.released_pods_are_looked_at,
    diagnosis.unreadable_annotations,
)
"""The whole diagnosis, in the order in which it is read."""

EXAMPLES = """
Examples:

  fairlane doctor --config fairlane.yaml

  fairlane doctor --prometheus-url http://127.0.0.1:9090 --extender-url http://127.0.0.1:8888

  fairlane doctor --config fairlane.yaml -o json | jq '.findings[] | select(.level == "problem")'

Exit code: 0 without problems, 1 with, 2 if the settings cannot be used.
"""
_MARKS = {Level.OK: "[green]ok[/]", Level.NOTE: "[yellow]note[/]", Level.PROBLEM: "[bold red]PROBLEM[/]"}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def doctor(
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people or for machines.")
    ] = Output.TEXT,
    kubeconfig: Annotated[Path | None, typer.Option(help="Instead of the settings'.")] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Instead of the settings'.")] = None,
    extender_url: Annotated[str | None, typer.Option(help="Instead of the settings'.")] = None,
    recorder_url: Annotated[str | None, typer.Option(help="Instead of the settings'.")] = None,
    predictor_address: Annotated[str | None, typer.Option(help="Instead of the settings'.")] = None,
) -> None:
    """Tell what works, what is missing, and what to do about it."""
    logging.getLogger("scheduler").setLevel(logging.ERROR)  # what fails is told in the findings
    settings = load_settings("doctor", config)
    try:
        settings = with_options(
            settings,
            "prometheus",
            {"url": prometheus_url},
            kubeconfig=kubeconfig,
            extender_url=extender_url,
            recorder_url=recorder_url,
            predictor_address=predictor_address,
        )
        facts = asyncio.run(gather(settings))
    except ConfigError as error:
        typer.echo(f"fairlane doctor: {error}", err=True)
        raise typer.Exit(2) from error
    findings = diagnose(facts, CHECKS)
    if output is Output.JSON:
        print_json(as_plain(facts, findings))
    else:
        _print(facts, findings)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


def as_plain(facts: Facts, findings: list[Finding]) -> dict[str, Any]:
    """The diagnosis as plain values; null stands for unknown."""
    return {
        "ok": all(finding.level is not Level.PROBLEM for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "readings": [_plain_row(row) for row in _rows(facts)],
        "epoch_problems": list(facts.snapshot.problems),
    }


def _plain_row(row: Coverage) -> dict[str, Any]:
    values = asdict(row)
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _rows(facts: Facts) -> list[Coverage]:
    return coverage(facts) if facts.snapshot.epoch else []


def _print(facts: Facts, findings: list[Finding]) -> None:
    console = Console(highlight=False, emoji=False)
    if rows := _rows(facts):
        console.print(_readings_table(rows))
    # the table says the same about readings that are all right
    told = [f for f in findings if not (f.level is Level.OK and f.part == "telemetry")]
    for finding in told:
        console.print(f"{_MARKS[finding.level]} {finding.part}: ", end="")
        console.print(finding.sentence, markup=False)
        if finding.advice:
            console.print(f"   -> {finding.advice}", markup=False, style="dim")
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    console.print(f"\n{problems} problem{'s' * (problems != 1)}." if problems else "\nAll is well.")


def _readings_table(rows: list[Coverage]) -> Table:
    table = Table(title="Telemetry", pad_edge=False)
    for name in ("Reading", "Unit", "Known", "Age", "Every", "From"):
        table.add_column(name, no_wrap=name in ("Reading", "From"))  # whole names, also where lines are short
    for row in rows:
        known = f"{row.known}/{row.total} {row.of}"
        style = None if row.known else "yellow"
        table.add_row(
            row.reading,
            row.unit,
            known,
            _s(row.age_s),
            _s(row.interval_s),
            escape(",\n".join(row.sources)),
            style=style,
        )
    return table


def _s(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds:.1f} s"
