"""What the sub-commands of `fairlane bench` share: a folder, results as JSON, errors as sentences."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.eta import LoadError
from benchmarks.examples import TrainingError
from benchmarks.queue import DifferenceError
from testbed.control import TestbedError
from testbed.progress import Progress

RESULTS = Path("benchmarks/results")
Out = Annotated[Path, typer.Option("--out", help="Folder for the results, JSON and a picture.")]
Json = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def tell(content: dict[str, Any], path: Path, output: str) -> None:
    """Write the results to PATH.json; print them too if `output` is json."""
    from benchmarks.report import as_json

    text = as_json(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".json")
    file.write_text(text + "\n")
    if output == "json":
        typer.echo(text)
    typer.echo(f"written to {file}", err=True)


def console() -> Console:
    """Where tables are printed."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = 130  # a file or a pipe has no width of its own
    return made


@contextmanager
def work() -> Iterator[tuple[Path, Progress]]:
    """A folder for the time of the benchmark, and where it says how far it is."""
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as folder:
        yield Path(folder), Progress()


@contextmanager
def explained() -> Iterator[None]:
    """Errors of the testbed, of training and of a benchmark itself are sentences, not tracebacks."""
    try:
        yield
    except (TestbedError, TrainingError, DifferenceError, LoadError) as error:
        typer.echo(f"fairlane bench: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
