"""`fairlane explain`: why a pod was placed where it is; why a gang waits, or was released when it was."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.schema import FEATURES, NAMES, SCHEMA_VERSION
from model.snapshot import Floats
from scheduler.cli.gangs import gang_lines
from scheduler.cli.output import Output, print_json
from scheduler.cli.serving import load_settings
from scheduler.config import Settings
from scheduler.core.receipts import (
    Candidate,
    Receipt,
    mattered,
    receipt_of,
    seconds,
    sentence,
    what_happened,
    which_telemetry,
    why_fallback,
)
from scheduler.edge.controller_client import ControllerClient, ControllerError
from scheduler.edge.predictions import PredictionClient, PredictionError
from scheduler.edge.recorder_client import RecorderClient, RecorderError
from scheduler.edge.store_error import StoreError

EXAMPLES = """
Examples:

  fairlane explain pod/default/etl-driver

  fairlane explain pod/team-a/train-0 -o json

  fairlane explain pod/default/etl-driver --store sqlite:///experience.db

  fairlane explain gang default/etl-driver
"""
KINDS = {"pod": "pod", "pods": "pod", "po": "pod", "gang": "gang"}
UNITS = {feature.name: feature.unit for feature in FEATURES}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class NotExplained(Exception):
    """There is no receipt; the message says why and what to do."""


@app.command(epilog=EXAMPLES)
def explain(
    what: Annotated[
        str, typer.Argument(metavar="KIND/NAMESPACE/NAME", help="What to explain: a pod, or a gang.")
    ],
    of: Annotated[
        str, typer.Argument(metavar="[NAMESPACE/NAME]", help="Its name, where only the kind came before.")
    ] = "",
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people or for machines.")
    ] = Output.TEXT,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    recorder: Annotated[str | None, typer.Option(help="URL of the recorder; default: the setting.")] = None,
    store: Annotated[str | None, typer.Option(help="Read this store instead of asking the recorder.")] = None,
    predictor: Annotated[
        str | None, typer.Option(help="host:port of the predictor, for the readings that mattered.")
    ] = None,
    controller: Annotated[
        str | None, typer.Option(help="URL of the controller, for gangs; default: the setting.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Candidates listed, best first.")] = 10,
) -> None:
    """Explain a placement: candidates with predicted times, scores, what mattered, and how it went.

    Of a gang (by its name, or that of one of its pods): its place in the queue, why it waits and when it is
    expected to start, or what it was charged when it was released.
    Exit code 1 when nothing is known of it, 2 for a mistake in the call.
    """
    settings = load_settings("explain", config)
    kind, namespace, name = _named(f"{what}/{of}" if of else what)
    if kind == "gang":
        _explain_gang(settings, controller, namespace, name, output)
        return
    url, address = recorder or settings.recorder_url, predictor or settings.predictor_address
    try:
        receipt = _from_store(store, namespace, name, limit) if store else None
        receipt = receipt or asyncio.run(_from_recorder(url, settings, namespace, name, limit))
        receipt = asyncio.run(_with_contributions(receipt, address, settings))
    except (NotExplained, RecorderError, StoreError) as error:
        typer.echo(f"fairlane explain: {error}", err=True)
        raise typer.Exit(1) from error
    if output is Output.JSON:
        print_json(_as_plain(receipt))
    else:
        _print(receipt, f"{namespace}/{name}", limit)


def _named(what: str) -> tuple[str, str, str]:
    kind, _, rest = what.partition("/")
    namespace, slash, name = rest.partition("/")
    if kind not in KINDS or not (namespace and slash and name) or "/" in name:
        typer.echo(
            f"fairlane explain: name a pod as pod/NAMESPACE/NAME (or gang/NAMESPACE/NAME), not {what!r}",
            err=True,
        )
        raise typer.Exit(2)
    return KINDS[kind], namespace, name


def _explain_gang(
    settings: Settings, controller: str | None, namespace: str, name: str, output: Output
) -> None:
    client = ControllerClient(controller or settings.controller_url, settings.token.get_secret_value())
    try:
        told = client.gang_named(namespace, name)
    except ControllerError as error:
        typer.echo(f"fairlane explain: {error}", err=True)
        raise typer.Exit(1) from error
    if output is Output.JSON:
        print_json(told)
        return
    for line in gang_lines(told, f"{namespace}/{name}", time.time()):
        Console(highlight=False, emoji=False, soft_wrap=True).print(line, markup=False)


def _from_store(url: str, namespace: str, name: str, limit: int) -> Receipt:
    from scheduler.edge.store import ExperienceStore  # half of the command's start, and seldom asked for

    store = ExperienceStore(url)
    try:
        store.check()
        found = store.placement(namespace, name)
    finally:
        store.close()
    if found.outcome is None and found.decision is None:
        raise NotExplained(_unknown(namespace, name))
    return receipt_of(found.outcome, found.decision, found.table, limit)


async def _from_recorder(url: str, settings: Settings, namespace: str, name: str, limit: int) -> Receipt:
    if not url:
        raise NotExplained(
            "set recorder_url (or FAIRLANE_RECORDER_URL), or pass --recorder or --store; with a release of"
            " the chart run it as `kubectl fairlane`"
        )
    async with RecorderClient.connect(url, settings.token.get_secret_value()) as recorder:
        try:
            return await recorder.receipt(namespace, name, limit)
        except RecorderError as error:
            if error.status == 404:
                raise NotExplained(_unknown(namespace, name)) from error
            raise


def _unknown(namespace: str, name: str) -> str:
    return (
        f"nothing is recorded of pod {namespace}/{name}: it never asked for schedulerName fairlane, "
        f"its record is older than the retention, or the name is wrong"
    )


async def _with_contributions(receipt: Receipt, address: str, settings: Settings) -> Receipt:
    """The receipt with what each reading of the chosen node did, or why that is not known."""
    chosen, decision = receipt.chosen, receipt.decision
    if chosen is None or decision is None:
        return receipt
    if not address:
        return _without(receipt, "no predictor is set: pass --predictor or set predictor_address")
    if decision.schema_version != SCHEMA_VERSION or tuple(chosen.features) != NAMES:
        return _without(receipt, "the decision was made with another set of features")
    row = _row(chosen)
    try:
        async with PredictionClient.to(settings, 5.0, address) as predictor:
            answer = await predictor.predict(
                [chosen.node], row[None, :], decision.job_class, contributions=True
            )
    except PredictionError as error:
        return _without(receipt, str(error))
    if answer.contributions is None:
        return _without(receipt, "the predictor told no contributions")
    note = ""
    if answer.model_version != decision.model_version:
        told = decision.model_version or "the analytic prior"
        note = f"told by model {answer.model_version}; the decision was made by {told}"
    found = mattered(NAMES, row, answer.contributions[0])
    return msgspec.structs.replace(receipt, mattered=found, mattered_note=note)


def _without(receipt: Receipt, why: str) -> Receipt:
    return msgspec.structs.replace(receipt, mattered_note=f"which readings mattered is not known: {why}")


def _row(candidate: Candidate) -> Floats:
    values = [np.nan if candidate.features[name] is None else candidate.features[name] for name in NAMES]
    return np.array(values, dtype=np.float64)


def _as_plain(receipt: Receipt) -> Any:
    told = msgspec.to_builtins(receipt)
    told |= {"sentence": sentence(receipt), "result": what_happened(receipt.outcome, receipt.chosen)}
    return msgspec.json.decode(msgspec.json.encode(told))  # in JSON there is no NaN


def _print(receipt: Receipt, pod: str, limit: int) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    console.print(sentence(receipt), markup=False)
    if result := what_happened(receipt.outcome, receipt.chosen):
        console.print(result, markup=False)
    if receipt.candidates:
        console.print(_candidates(receipt, pod, limit))
    for line in _facts(receipt):
        console.print(line, markup=False)
    if receipt.mattered:
        console.print(_readings(receipt))


def _candidates(receipt: Receipt, pod: str, limit: int) -> Table:
    decision = receipt.decision
    total = decision.candidates if decision is not None else len(receipt.candidates)
    shown = min(limit, len(receipt.candidates))
    title = escape(f"Candidates of {pod} ({shown} of {total})")
    table = Table(title=title, title_justify="left")
    table.add_column("node")
    for name in ("predicted", "p10", "p90", "score"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in receipt.candidates:
        times = (seconds(value) for value in (one.p50_s, one.p10_s, one.p90_s))
        table.add_row(escape(one.node), *times, str(one.score), _mark(receipt, one.node))
    return table


def _mark(receipt: Receipt, node: str) -> str:
    recommended = receipt.decision.recommended if receipt.decision is not None else ""
    marks = ["chosen"] if node == receipt.chosen_node else []
    marks += ["recommended"] if node == recommended != receipt.chosen_node else []
    return ", ".join(marks)


def _facts(receipt: Receipt) -> list[str]:
    decision, lines = receipt.decision, []
    if decision is not None:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(decision.at_s))
        how = " at its release, written as preferred node affinity" if decision.at_release else ""
        lines.append(f"Decided {when} in {decision.latency_ms:.2f} ms{how}.")
        lines.append(f"Model: {decision.model_version or 'the analytic prior'}.")
        lines.append(f"Telemetry: {which_telemetry(decision)}.")
        if decision.reason:
            lines.append(f"Fallback: {decision.reason} ({why_fallback(decision.reason)}).")
    lines += [f"Note: {note}." for note in (receipt.note, receipt.mattered_note) if note]
    return lines


def _readings(receipt: Receipt) -> Table:
    chosen = receipt.chosen
    node = chosen.node if chosen is not None else ""
    table = Table(title=escape(f"Readings of {node} that mattered"), title_justify="left")
    table.add_column("reading")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("effect on time", justify="right")
    for one in receipt.mattered:
        value = "unknown" if one.value is None else f"{one.value:.4g}"
        table.add_row(one.feature, value, UNITS.get(one.feature, ""), f"x {one.factor:.2f}")
    return table
