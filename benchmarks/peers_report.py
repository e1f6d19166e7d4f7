"""What `bench peers` found, as a table, sentences and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from benchmarks.live_jobs import FAIRLANE
from benchmarks.peer_figures import BEST, DEFAULT, ORACLE, SIMULATED, Figures, Ran
from benchmarks.peer_loads import SLOTS, Target
from benchmarks.peers import SPREAD, Found
from benchmarks.report import SHADES, save

SETTING = (
    "Real: etcd, API server, job controller, kube-scheduler, controller, recorder. Simulated: the nodes, and "
    "how long pods run. Times are from a watch, from the creation of a Job to the end of its last pod."
)
KNOWN = {
    DEFAULT: "nothing is known or asked of run times",
    FAIRLANE: "run times from runs that ended before",
    ORACLE: "every pod says its exact run time",
}
HEADINGS = (
    "",
    "mean, s",
    "p50, s",
    "p95, s",
    "late",
    "most",
    "used",
    "Jain",
    "real - simulated, s",
    "share off",
)


def show(found: Found, console: Console) -> None:
    """Print a real row and the simulator's for each arm, then sentences."""
    jobs, scored = found.load.workload.jobs, found.ran[0].real.jobs
    part = "" if scored == len(jobs) else f"; the {scored} jobs of {', '.join(found.load.scored)} count"
    table = Table(title=f"{found.load.name}: {len(jobs)} Jobs on {SLOTS} slots{part}")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left")
    for ran in found.ran:
        between = (f"{ran.slower_s:+.2f} (p50 {ran.slower_p50_s:+.2f})", _part(ran.share_off))
        table.add_row(ran.arm, *_cells(ran.real), *between)
        table.add_row(f"  simulated {SIMULATED[ran.arm]}", *_cells(ran.simulated), "", "", style="dim")
    table.add_row(f"simulated {BEST}", *_cells(found.ran[-1].best), "", "", style="dim")
    console.print(table)
    for sentence in sentences(found):
        console.print(sentence)
    console.print(SETTING)


def _cells(one: Figures) -> tuple[str, ...]:
    numbers = (f"{value:.2f}" for value in (one.mean_s, one.p50_s, one.p95_s))
    return (*numbers, f"{one.late:.3f}", f"{one.late_most:.1f}", f"{one.used:.0%}", _part(one.jain))


def _part(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def sentences(found: Found) -> Iterator[str]:
    """Verdicts, what the estimates were, and what real pods cost."""
    target = found.load.target
    for ran in found.ran:
        if ran.arm == DEFAULT:
            continue
        first, second = ran.real.mean_s, getattr(ran.real, target.second)
        met = first <= target.mean_s and second <= target.second_most
        verdict = ("met" if met else "missed") if found.whole else "not judged: this is a part"
        seen = f"mean {first:.2f} s, {_second(target, second)}"
        yield f"{ran.arm}: {seen}; target {_wanted(target)}: {verdict}."
    for ran in found.ran:
        yield _of_estimates(found, ran)
        costs = ran.costs
        gate = "" if ran.arm == DEFAULT else f"open gate to binding {costs.bind_s:.2f} s, "
        yield (
            f"{ran.arm}, medians of pods: {gate}binding to running {costs.start_s:.2f} s, a slot "
            f"held {costs.held_over_s:.2f} s longer than the run; Jobs created at most "
            f"{costs.late_submission_s:.2f} s late."
        )


def _of_estimates(found: Found, ran: Ran) -> str:
    if ran.told is None:
        return f"{ran.arm}: {KNOWN[ran.arm]}."
    sources = ", ".join(f"{count} by {source}" for source, count in ran.told.sources.items())
    how = ""
    if ran.arm == FAIRLANE and found.earlier:
        how = f" ({found.earlier} of each class, log-normally spread by {SPREAD:g} around the run to come)"
    return (
        f"{ran.arm}: {KNOWN[ran.arm]}{how}; estimates {sources}; off by a factor of {ran.told.factor:.2f} in "
        f"the median, {ran.told.factor_p90:.2f} at p90. The simulated row was told the same."
    )


def _second(target: Target, value: float) -> str:
    return f"p95 {value:.2f} s" if target.second == "p95_s" else f"lateness {value:.3f}"


def _wanted(target: Target) -> str:
    return f"{target.mean_s:g} s, {target.second_most:g}{' s' if target.second == 'p95_s' else ''}"


def plot(found: Found, path: Path) -> None:
    """Responses as distributions: a line for each arm, dashed what the simulator says."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    for ran, shade in zip(found.ran, SHADES, strict=False):
        for place, style in enumerate(("-", "--")):
            ordered = np.sort([pair[place] for pair in ran.responses_s])
            part = np.arange(1, len(ordered) + 1) / len(ordered)
            label = ran.arm if style == "-" else f"simulated {SIMULATED[ran.arm]}"
            axis.step(ordered, part, where="post", color=shade, linestyle=style, label=label)
    axis.set(
        xscale="log", ylim=(0, 1), xlabel="response, s", ylabel="part of the jobs", title=found.load.name
    )
    axis.legend(fontsize=8)
    save(figure, path)
