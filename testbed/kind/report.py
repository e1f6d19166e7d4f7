"""The comparison's report: a table to read, JSON to keep, a picture to look at."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec
from rich.console import Console
from rich.table import Table

from testbed.judgement import Judgement, as_table
from testbed.kind.comparison import Decision, above_default, compare, coverage, median_error
from testbed.kind.e2e import Outcome
from testbed.kind.images import ROOT, versions
from testbed.kind.shell import CommandError, run

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

WHAT = (
    "Real: kubelets, schedulers, Prometheus, telemetry, training, traffic and jobs. Shaped: the links of the "
    "nodes, which are containers of one machine."
)
GROUPS = {"one-pod transfers": ("transfer",), "gangs, every pair of workers": ("allreduce", "spark")}


def write(folder: Path, outcome: Outcome, facts: Mapping[str, Any]) -> list[Path]:
    """report.txt, report.json, report.png and the examples that were learnt from; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = _groups(outcome.decisions)
    found = {title: compare(some, outcome.blind) for title, some in groups.items()}
    paths = [folder / name for name in ("report.txt", "report.json", "report.png", "examples.parquet")]
    with paths[0].open("w") as file:
        console = Console(file=file, width=118)
        for title, judgements in found.items():
            console.print(_table(f"{title}: {len(groups[title])} decisions", judgements))
            for sentence in _sentences(groups[title]):
                console.print(sentence)
        console.print(WHAT)
    document = {
        "facts": {**_surroundings(), **facts, "examples": len(outcome.examples), "model": outcome.published},
        "judgements": {title: as_table(judgements) for title, judgements in found.items()},
        "above_default": {title: asdict(above_default(some)) for title, some in groups.items()},
        "decisions": [_plain(one) for one in outcome.decisions],
    }
    paths[1].write_text(json.dumps(document, indent=1))
    _plot(paths[2], groups)
    outcome.examples.to_parquet(paths[3])
    return paths


def _groups(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    found = {title: [one for one in decisions if one.kind in kinds] for title, kinds in GROUPS.items()}
    return {title: some for title, some in found.items() if some}


def _table(title: str, judgements: Sequence[Judgement]) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in ("placed by", "Top-1", "regret", "mean run, s", "n"):
        shown.add_column(heading, justify="left" if heading == "placed by" else "right")
    for one in judgements:
        shown.add_row(one.policy, str(one.top1), str(one.regret), str(one.run_s), str(one.decisions))
    return shown


def _sentences(decisions: Sequence[Decision]) -> list[str]:
    margin = above_default(decisions)
    told = "excludes" if margin.low > 0 else "does not exclude"
    lines = [f"Top-1 above the default scheduler's: {margin} (90 % bootstrap interval, which {told} 0)"]
    if any(one.candidates for one in decisions):
        lines.append(
            f"Predicted against measured: median error {median_error(decisions):.1%}, "
            f"p10 to p90 covers {coverage(decisions):.0%}"
        )
    reasons = Counter(one.reason or "fresh prediction" for one in decisions if one.candidates)
    if reasons:
        lines.append("Answers were: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))
    return lines


def _surroundings() -> dict[str, Any]:
    try:
        commit = run(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()
    except CommandError:
        commit = "unknown"
    machine = f"{platform.machine()}, {platform.system()} {platform.release()}"
    return {"commit": commit, "machine": machine, "versions": versions(), "what": WHAT}


def _plain(decision: Decision) -> dict[str, Any]:
    candidates = [msgspec.to_builtins(one) for one in decision.candidates]
    return {
        "kind": decision.kind,
        "name": decision.name,
        "state": {node: asdict(link) for node, link in decision.state.items()},
        "ours": "+".join(decision.ours),
        "default": "+".join(decision.default),
        "seconds": {"+".join(choice): s for choice, s in decision.seconds.items()},
        "regret": {
            "ours": decision.judged(decision.ours).regret,
            "default": decision.judged(decision.default).regret,
        },
        "candidates": candidates,
        "reason": decision.reason,
    }


def _plot(path: Path, groups: Mapping[str, Sequence[Decision]]) -> None:
    rows = max(len(groups), 1)
    figure, axes = plt.subplots(rows, 1, figsize=(10, 3.6 * rows), squeeze=False)
    for axis, (title, some) in zip(axes[:, 0], groups.items(), strict=False):
        for x, decision in enumerate(some):
            times = list(decision.seconds.values())
            axis.plot([x] * len(times), times, "o", color="lightgrey", zorder=1)
            axis.plot(x, decision.seconds[decision.default], "x", color="tab:orange", ms=9, zorder=3)
            axis.plot(x, decision.seconds[decision.ours], "o", color="tab:blue", mfc="none", ms=10, zorder=2)
        axis.set(title=title, xlabel="decision", ylabel="seconds", yscale="log")
    handles = [
        Line2D([], [], ls="", marker="o", color="lightgrey", label="every choice"),
        Line2D([], [], ls="", marker="o", mfc="none", color="tab:blue", label="ours"),
        Line2D([], [], ls="", marker="x", color="tab:orange", label="default scheduler"),
    ]
    axes[0, 0].legend(handles=handles, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
