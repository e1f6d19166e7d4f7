"""`fairlane train`: from recorded runs to a judged and published model."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import pandas as pd

    from model.dataset import Examples
    from model.train import Measured, Options

EXIT_FAILED, EXIT_TABLE, EXIT_TOO_FEW, EXIT_SCHEMA, EXIT_NOT_BETTER = 1, 2, 3, 4, 5
RECORDER_TIMEOUT_S = 120.0
NOTES_SHOWN = 20
MANY_FEATURES = 500

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EPILOG = """Exit codes: 0 done, 1 a store or registry is not usable, 2 the table or an option is wrong, 3 too
few examples, 4 examples of another feature schema, 5 no better than the prior or the champion.

Examples:

  fairlane train --store sqlite:///experience.db --registry /var/lib/fairlane/models --out report

  fairlane train --examples runs.csv --evaluate-only --split group:vm_type

  fairlane train --recorder http://recorder:8080 --registry s3://bucket/models --without network
"""


@app.command(epilog=EPILOG)
def train(
    store: Annotated[str | None, typer.Option(help="Experience store, an SQLAlchemy URL.")] = None,
    recorder: Annotated[str | None, typer.Option(help="Recorder's URL; FAIRLANE_TOKEN is its token.")] = None,
    examples: Annotated[Path | None, typer.Option(help="Table of examples, .csv or .parquet.")] = None,
    registry: Annotated[str | None, typer.Option(help="Publish there: a path or an fsspec URL.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.txt, report.json, report.png.")] = None,
    evaluate_only: Annotated[bool, typer.Option("--evaluate-only", help="Measure, publish nothing.")] = False,
    split: Annotated[str, typer.Option(help="time, or group:COLUMN for values never seen.")] = "time",
    without: Annotated[
        list[str] | None, typer.Option(help="Feature group to leave out, e.g. network; repeatable.")
    ] = None,
    least: Annotated[int, typer.Option(help="Completed runs needed at least.", min=20)] = 50,
    keep: Annotated[int, typer.Option(help="Versions kept in the registry.", min=1)] = 10,
    threads: Annotated[int, typer.Option(help="Threads that training may use.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train on recorded runs, judge on the newest of them, and publish what is better.

    The model is judged on runs later than all it was fitted on, beside the prior alone, the champion in
    the registry, and a random split, which is too optimistic and shows by how much. What is no better is
    not published. --examples takes any table as described in docs/examples-table.md.
    """
    from model.dataset import SchemaMismatchError
    from model.reading import ExamplesError
    from model.registry import RegistryError
    from model.train import NotBetterError, TooFewExamplesError

    codes: list[tuple[type[Exception], int]] = [
        (SchemaMismatchError, EXIT_SCHEMA),
        (TooFewExamplesError, EXIT_TOO_FEW),
        (NotBetterError, EXIT_NOT_BETTER),
        (ExamplesError, EXIT_TABLE),
        (RegistryError, EXIT_FAILED),
        (SourceError, EXIT_FAILED),
        (OSError, EXIT_FAILED),
    ]
    try:
        if out is not None:
            _require_folder(out)
        notes: list[str] = []
        options = _options(split, without, least, _threads(threads, notes))
        table, read = _table(store, recorder, examples)
        publish_to = None if evaluate_only else registry
        _run(table, [*read, *notes], options, publish_to, keep, out, as_json)
    except tuple(kind for kind, _ in codes) as error:
        typer.echo(f"fairlane train: {error}", err=True)
        raise typer.Exit(next(code for kind, code in codes if isinstance(error, kind))) from error


class SourceError(Exception):
    """The examples can't be had from where they are."""


def _require_folder(out: Path) -> None:
    """Known before training, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"no folder can be made there: {error}", param_hint="--out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{out} can't be written to", param_hint="--out")


def _threads(wanted: int, notes: list[str]) -> int:
    """As many as there are cores at most: more only get in each other's way."""
    cores = len(os.sched_getaffinity(0))
    if wanted > cores:
        notes.append(f"{cores} threads are used, not {wanted}: there are no more cores")
    return min(wanted, cores)


def _table(
    store: str | None, recorder: str | None, examples: Path | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table, and notes about how it was read."""
    from model.reading import read_table

    given = [source for source in (store, recorder, examples) if source is not None]
    if len(given) != 1:
        raise typer.BadParameter("give one of --store, --recorder and --examples")
    if store is not None:
        return _from_store(store), ()
    if recorder is not None:
        return asyncio.run(_from_recorder(recorder)), ()
    assert examples is not None
    return read_table(examples)


def _from_store(url: str) -> pd.DataFrame:
    from scheduler.edge.store import ExperienceStore, StoreError

    try:
        with closing(ExperienceStore(url)) as store:
            store.check()
            return store.examples()
    except StoreError as error:
        raise SourceError(str(error)) from error


async def _from_recorder(url: str) -> pd.DataFrame:
    import pandas as pd

    from scheduler.edge.recorder_client import RecorderClient, RecorderError

    token = os.environ.get("FAIRLANE_TOKEN", "").strip()
    try:
        async with RecorderClient.connect(url, token, RECORDER_TIMEOUT_S) as client:
            return pd.read_parquet(io.BytesIO(await client.examples()))
    except (RecorderError, ValueError) as error:
        raise SourceError(f"no examples from {url}: {error}") from error


def _options(split: str, without: list[str] | None, least: int, threads: int) -> Options:
    from model.schema import columns_of
    from model.splits import Split
    from model.train import Options

    try:
        columns_of(without or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--without") from error
    return Options(Split.parse(split), tuple(without or ()), least, estimator={"threads": threads})


def _run(
    table: pd.DataFrame,
    notes: list[str],
    options: Options,
    registry: str | None,
    keep: int,
    out: Path | None,
    as_json: bool,
) -> None:
    from model.dataset import examples_from
    from model.registry import Registry
    from model.report import as_json as report_of
    from model.train import measure, require_publishable

    examples = examples_from(table, notes)
    _warn_of_width(len(examples.features))
    store = None if registry is None else Registry(registry, keep)
    if store is not None:
        require_publishable(examples)
        store.require_writable()
    with _progress(hidden=as_json) as told:
        measured = measure(examples, options, told)
    report = report_of(examples, options, measured) | {
        "published": None,
        "refused": None,
        "gate": "not asked",
    }
    try:
        if store is not None:
            report |= _published(examples, options, measured, store, report)
    except ValueError as error:
        report["refused"] = str(error)
        raise
    finally:
        _tell(examples, options, measured, report, out, as_json)


def _warn_of_width(features: int) -> None:
    """Said before the wait, and where no terminal shows a bar too."""
    if features >= MANY_FEATURES:
        typer.echo(
            f"fairlane train: {features} features: nearly all time goes into growing trees, in proportion to "
            "them (3,000 features of 400 runs took a core two minutes); columns that can't matter are better "
            "left out",
            err=True,
        )


def _published(
    examples: Examples, options: Options, measured: Measured, registry: Any, report: dict[str, Any]
) -> dict[str, Any]:
    from model.train import compare, final_model

    current = registry.newest_usable()
    gate = compare(measured, None if current is None else current.model, examples)
    metrics = {name: report[name] for name in ("model", "prior", "random_split", "split", "recipes")}
    model = registry.publish(final_model(examples, options, time.time(), metrics))
    return {"published": model.info.version, "gate": gate}


def _tell(
    examples: Examples,
    options: Options,
    measured: Measured,
    report: dict[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    from model.report import plot

    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print(Console(), examples, options, measured, report)
    if out is None:
        return
    (out / "report.json").write_text(json.dumps(report, indent=1))
    with (out / "report.txt").open("w") as file:
        _print(Console(file=file, width=110), examples, options, measured, report)
    plot(examples, measured, out / "report.png")


def _print(
    console: Console, examples: Examples, options: Options, measured: Measured, report: dict[str, Any]
) -> None:
    from model.report import tables

    left_out = ", ".join(f"{n} {why}" for why, n in examples.excluded.items())
    lines = [
        f"{report['examples']} completed runs of {report['job_classes']} job classes"
        + (f"; left out as cut short: {left_out}" if left_out else ""),
        *(f"note: {note}" for note in report["notes"][:NOTES_SHOWN]),
    ]
    if (more := len(report["notes"]) - NOTES_SHOWN) > 0:
        lines.append(f"{more} more notes are in the JSON report (--json, --out)")
    for line in lines:  # names from the data may look like markup
        console.print(line, markup=False)
    for table in tables(measured, options):
        console.print(table)
    if report["refused"]:
        console.print(f"not published: {report['refused']}", markup=False)
    elif report["published"]:
        console.print(f"published {report['published']} ({report['gate']})", markup=False)


@contextmanager
def _progress(hidden: bool) -> Iterator[Any]:
    """A bar on standard error; nothing where it is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what, done, steps: bar.update(task, description=what, completed=done, total=steps)
