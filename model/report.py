"""The report of a training: plain values for machines, tables and plots for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from model.dataset import Examples
from model.evaluate import Evaluation, Part
from model.snapshot import Floats
from model.splits import folds_of, undecided
from model.train import Measured, Options

USERS_SHOWN = 15


def as_json(examples: Examples, options: Options, measured: Measured) -> dict[str, Any]:
    """All figures; the caller adds what became of the model."""
    frame = examples.frame
    return {
        "examples": len(frame),
        "excluded": dict(examples.excluded),
        "notes": _notes(examples, options),
        "features": len(examples.features),
        "oldest_example_s": float(frame["ended_at"].min()),
        "newest_example_s": float(frame["ended_at"].max()),
        "job_classes": int(frame["job_class"].nunique()),
        "split": str(options.split),
        "without": list(options.without),
        "model": measured.model.to_json(),
        "prior": measured.prior.to_json(),
        "random_split": measured.optimistic.to_json(),
        "recipes": list(measured.recipes),
    }


def _notes(examples: Examples, options: Options) -> list[str]:
    told = list(examples.notes)
    if n := undecided(examples, folds_of(examples, options.split, options.seed)):
        told.append(
            f"{n} runs of decisions that had ended in part before the judged ones: left out of both sides"
        )
    return told


def tables(measured: Measured, options: Options) -> Iterator[Table]:
    """Tables for a terminal: overall, per duration decile, per user, choices of nodes."""
    yield _overall(measured, options)
    yield _parts("by run time", measured.model.deciles)
    if measured.model.users:
        largest = sorted(measured.model.users, key=lambda user: -user.rows)[:USERS_SHOWN]
        yield _parts(f"by user (the {len(largest)} with most runs)", tuple(largest))
    if measured.model.ranking is not None:
        yield _choices(measured)


def _overall(measured: Measured, options: Options) -> Table:
    table = Table(
        title=escape(f"{measured.model.rows} runs held out, split by {options.split}"), title_justify="left"
    )
    table.add_column("")
    for name in ("median error", "p90 error", "mean |log error|", "within p10..p90"):
        table.add_column(name, justify="right")
    rows = {
        "model": measured.model,
        "prior alone": measured.prior,
        "model, random split (too optimistic)": measured.optimistic,
    }
    for name, found in rows.items():
        table.add_row(name, *_figures(found))
    return table


def _figures(found: Evaluation) -> tuple[str, ...]:
    errors = (found.median_error, found.p90_error, found.mean_log_error)
    return (*(f"{error:.3f}" for error in errors), f"{found.coverage:.0%}")


def _parts(title: str, parts: tuple[Part, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("runs", "median error", "within p10..p90"):
        table.add_column(name, justify="right")
    for part in parts:
        table.add_row(escape(part.name), str(part.rows), f"{part.median_error:.3f}", f"{part.coverage:.0%}")
    return table


def _choices(measured: Measured) -> Table:
    table = Table(title="choice of the node", title_justify="left")
    table.add_column("")
    for name in ("decisions", "candidates", "Top-1", "Top-2", "mean regret"):
        table.add_column(name, justify="right")
    for name, evaluation in (("model", measured.model), ("prior alone", measured.prior)):
        found = evaluation.ranking
        if found is not None:
            shares = (f"{found.top1:.2f}", f"{found.top2:.2f}", f"{found.mean_regret:.1%}")
            table.add_row(name, str(found.decisions), f"{found.candidates:.1f}", *shares)
    return table


def plot(examples: Examples, measured: Measured, path: Path) -> None:
    """Write a PNG: predicted against actual, and error and coverage by run time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_predictions(left, examples.frame["run_s"].to_numpy()[measured.rows], measured.quantiles)
    _draw_errors(middle, measured)
    _draw_coverage(right, measured.model)
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)


def _draw_predictions(axes: Any, actual: Floats, quantiles: Floats) -> None:
    order = np.argsort(quantiles[:, 1])
    axes.fill_between(
        quantiles[order, 1],
        quantiles[order, 0],
        quantiles[order, 2],
        alpha=0.2,
        linewidth=0,
        label="p10 to p90",
    )
    axes.plot(quantiles[:, 1], actual, ".", markersize=3, alpha=0.6, label="runs")
    ends = [actual.min(), actual.max()]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="predicted run time in s", ylabel="actual run time in s")
    axes.legend()


def _draw_errors(axes: Any, measured: Measured) -> None:
    places = np.arange(len(measured.model.deciles))
    for shift, name, evaluation in ((-0.2, "model", measured.model), (0.2, "prior alone", measured.prior)):
        axes.bar(places + shift, [part.median_error for part in evaluation.deciles], 0.4, label=name)
    axes.set(xlabel="tenth of the runs, shortest first", ylabel="median of |predicted / actual - 1|")
    axes.legend()


def _draw_coverage(axes: Any, evaluation: Evaluation) -> None:
    axes.bar(np.arange(len(evaluation.deciles)), [part.coverage for part in evaluation.deciles])
    axes.axhline(0.8, color="black", linewidth=0.8)
    axes.set(
        xlabel="tenth of the runs, shortest first", ylabel="share of runs within p10 to p90", ylim=(0, 1)
    )
