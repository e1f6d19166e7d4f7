"""How often gangs start when they were told: expected starts on replayed traces, with and without arrivals.

A load is a ready scenario of the generator or a trace file, on so many slots:
`mixed:16`, `trace.swf.gz:128`. The core runs the replay and the futures; see
`simulator.expected_starts` for what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

from rich.console import Console
from rich.table import Table

from simulator.cluster import Slots
from simulator.comparison import Setting
from simulator.expected_starts import Coverage, Plan, Told, by_horizon, coverage, measure_expected_starts
from simulator.generator import ScenarioError, generate, read_scenario
from simulator.traces import TraceError, read_trace
from simulator.workload import Workload, workload_of_first

AIM = 0.8
"""Of the true starts inside p10 to p90, if the intervals say what they seem to."""
HISTORY = "history"


class LoadError(Exception):
    """A load cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs on so many slots."""

    name: str
    slots: int
    workload: Workload


@dataclass(frozen=True, slots=True)
class Measured:
    """One load with one kind of estimates; `arrivals`: whether the futures had any."""

    load: str
    slots: int
    jobs: int
    estimates: str
    arrivals: bool
    photographs: int
    whole: Coverage
    horizons: dict[float, Coverage]

    def to_json(self) -> dict[str, Any]:
        """Plain values; horizons by their upper edge in seconds, the last as `more`."""
        edges = {f"{edge:g}" if math.isfinite(edge) else "more": one for edge, one in self.horizons.items()}
        told = {name: getattr(self, name) for name in self.__slots__ if name not in ("whole", "horizons")}
        by_wait = {name: asdict(one) for name, one in edges.items()}
        return {**told, **asdict(self.whole), "by_told_wait_s": by_wait}


def loads_of(texts: Sequence[str], first: int, seed: int) -> tuple[list[Load], list[str]]:
    """Loads, and sentences about trace files that are not there.

    Raises:
        LoadError: one cannot be read.
    """
    loads, absent = [], []
    for text in texts:
        name, _, slots = text.rpartition(":")
        if not name or not slots.isdigit() or int(slots) < 1:
            raise LoadError(f"{text!r}: expected a scenario or a trace file with slots, such as mixed:16")
        path = Path(name)
        if path.suffix and not path.exists():
            absent.append(f"{name} is not there: left out")
            continue
        try:
            workload = read_trace(path) if path.suffix else generate(read_scenario(name), seed, name)
        except (TraceError, ScenarioError, OSError) as error:
            raise LoadError(f"{text!r}: {error}") from error
        loads.append(Load(path.name, int(slots), workload_of_first(workload, first) if first else workload))
    return loads, absent


def measure(
    load: Load, estimates: str, plan: Plan, seed: int, say: Callable[[str], None]
) -> tuple[list[Measured], float]:
    """The load with one kind of estimates (a sigma, or `history`), and the CPU seconds that it took.

    Raises:
        LoadError: the load or the estimates cannot be used.
    """
    sigma = sigma_of(estimates)
    told_estimates = f"lognormal:{sigma}" if sigma else "exact"
    setting = Setting(load.workload, lambda: Slots(load.slots), told_estimates, seed)
    plan = Plan(plan.photographs, plan.futures, plan.gangs, sigma)
    begun_s = process_time()
    try:
        told = measure_expected_starts(
            setting, plan, lambda done: say(f"{load.name}, {estimates}: {done} of {plan.photographs}")
        )
    except ValueError as error:
        raise LoadError(f"{load.name}: {error}") from error
    found = [_measured(load, estimates, name == "with", starts) for name, starts in told.items()]
    return found, process_time() - begun_s


def sigma_of(estimates: str) -> float | None:
    """Of the log-normal error; None where nobody estimates and past runs must do.

    Raises:
        LoadError: it is neither a number nor `history`.
    """
    if estimates == HISTORY:
        return None
    try:
        sigma = float(estimates)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < 10:
        raise LoadError(
            f"estimates {estimates!r}: expected the sigma of their error, such as 0.5, or {HISTORY}"
        )
    return sigma


def _measured(load: Load, estimates: str, arrivals: bool, told: Sequence[Told]) -> Measured:
    photographs = len({each.at_s for each in told})
    whole, horizons = coverage(told), dict(by_horizon(told))
    jobs = len(load.workload.jobs)
    return Measured(load.name, load.slots, jobs, estimates, arrivals, photographs, whole, horizons)


def show(found: Sequence[Measured], console: Console) -> None:
    """Print one row per load, kind of estimates and kind of future."""
    table = Table(title="True starts inside p10 to p90 of what was told")
    for heading in ("load", "estimates", "arrivals"):
        table.add_column(heading)
    for heading in (
        "told",
        "inside",
        "before",
        "after",
        "open",
        "p50 off",
        "width",
        "< 1 min",
        "< 10",
        "more",
    ):
        table.add_column(heading, justify="right")
    for one in found:
        whole = one.whole
        parts = (whole.inside, whole.early, whole.late, whole.open, whole.error_part, whole.width_part)
        waits = (_percent(each.inside) for each in one.horizons.values())
        table.add_row(
            f"{one.load}:{one.slots}",
            f"error {one.estimates}" if one.estimates != HISTORY else HISTORY,
            "yes" if one.arrivals else "no",
            f"{whole.told:,}",
            *map(_percent, parts),
            *waits,
        )
    console.print(table)
    console.print(
        f"Aim: {AIM:.0%} inside. Open: p90 beyond what was followed. p50 off, width (p90 - p10): medians, "
        "of the true wait. Last columns: inside, by the wait told (p50)."
    )


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %" if math.isfinite(part) else ""
