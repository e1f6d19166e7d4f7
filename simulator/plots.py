"""Pictures of a comparison: response and lateness as distributions, shares over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simulator.comparison import Comparison, Result
from simulator.metrics import late_by
from simulator.shares import intervals, users_of
from simulator.state import Floats

USERS_SHOWN = 10
COLUMNS = 600


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """`response.png`, `lateness.png`, and `shares-POLICY.png` of each policy.

    Raises:
        OSError: the folder cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_responses(comparison, folder), _latenesses(comparison, folder)]
    return drawn + [_shares(result, folder) for result in comparison.results]


def _responses(comparison: Comparison, folder: Path) -> Path:
    series = [(each.measures.policy, each.schedule.response_s) for each in comparison.results]
    return _distributions(series, "response time [s]", folder / "response.png", log=True)


def _latenesses(comparison: Comparison, folder: Path) -> Path:
    known = comparison.references
    series = [
        (each.measures.policy, late_by(each.schedule.finish_s, known.capped_s, known.submitted_s))
        for each in comparison.results
    ]
    return _distributions(series, "lateness against the capped fluid finish", folder / "lateness.png")


def _distributions(
    series: Sequence[tuple[str, Floats]], label: str, path: Path, *, log: bool = False
) -> Path:
    """Cumulative distributions of all policies in one picture."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, values in series:
        axes.step(np.sort(values), np.arange(1, len(values) + 1) / len(values), where="post", label=name)
    axes.set(xlabel=label, ylabel="part of the jobs", ylim=(0, 1))
    axes.set_xscale("log" if log else "symlog")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _shares(result: Result, folder: Path) -> Path:
    """What users held over time, stacked; the users of least work are one band."""
    from matplotlib import pyplot as plt

    times, held = _binned(result)
    users = users_of(result.schedule)
    largest = np.argsort(held.sum(axis=1))[::-1][:USERS_SHOWN]
    others = np.delete(held, largest, axis=0).sum(axis=0)
    bands = [*held[largest], *([others] if len(users) > USERS_SHOWN else [])]
    names = [users[at] for at in largest] + (["others"] if len(users) > USERS_SHOWN else [])
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    axes.stackplot(times, bands, labels=names, step="post")
    axes.set(xlabel="time [s]", ylabel="share held", title=result.measures.policy, ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    path = folder / f"shares-{result.measures.policy}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _binned(result: Result) -> tuple[Floats, Floats]:
    """Mean share by user in equal bins of time: begins of the bins, and users x bins."""
    end_s = float(result.schedule.end_s.max())
    edges = np.linspace(0.0, end_s, COLUMNS + 1)
    held = np.zeros((len(users_of(result.schedule)), COLUMNS))
    for part in intervals(result.schedule):
        middle = part.begin_s + part.length_s / 2
        at = np.minimum(np.searchsorted(edges, middle, side="right") - 1, COLUMNS - 1)
        for user, row in enumerate(part.held * part.length_s):
            held[user] += np.bincount(at, weights=row, minlength=COLUMNS)
    return edges[:-1], held / (end_s / COLUMNS)
