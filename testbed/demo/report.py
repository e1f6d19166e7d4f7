"""The demo's result as a table for people, JSON for machines and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from testbed.demo.comparison import DEFAULT, OURS
from testbed.demo.evidence import Evidence
from testbed.judgement import Choice, Judgement, as_table, bootstrap, difference

mpl.use("Agg")
from matplotlib import pyplot as plt

EMULATED = (
    "Real: API server, both kube-schedulers, Prometheus, telemetry, training, predictor, extender. "
    "Emulated: the nodes (KWOK), their network (a model fed by measured matrices, with congestion that "
    "changes) and how long jobs run on it."
)


@dataclass(frozen=True)
class Result:
    """All that the demo found out."""

    seed: int
    commit: str
    examples: int
    ours: Sequence[Evidence]
    default: Sequence[Evidence]
    judgements: Sequence[Judgement]
    fallbacks: Mapping[str, int]
    coverage: float
    took_s: Mapping[str, float]

    def of(self, policy: str) -> Judgement:
        """The judgement of one policy."""
        return next(one for one in self.judgements if one.policy == policy)


def show(result: Result, console: Console) -> None:
    """Print the comparison and what it means."""
    table = Table(title=f"{len(result.ours)} placements judged by the run time on every node")
    for heading in ("policy", "Top-1", "Top-2", "regret", "mean run, s", "n"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for one in result.judgements:
        cells = (one.top1, one.top2, one.regret, one.run_s)
        table.add_row(one.policy, *(str(cell) for cell in cells), str(one.decisions))
    console.print(table)
    for sentence in sentences(result):
        console.print(sentence)


def sentences(result: Result) -> list[str]:
    """The result in words."""
    ours, default = result.of(OURS), result.of(DEFAULT)
    told = {"ours": _mean_ran(result.ours), "default": _mean_ran(result.default)}
    decided = ", ".join(f"{count} by {reason}" for reason, count in result.fallbacks.items())
    return [
        f"Top-1 is {difference(ours, default):+.2f} against the default's; regret {ours.regret.mean:.1%}.",
        f"Jobs took {told['ours']} s from binding to end under ours, {told['default']} s under the default.",
        f"{result.coverage:.0%} of run times lay inside the predicted p10-p90 (80 % is meant).",
        f"Decided: {decided}. Trained on {result.examples} examples. Brackets are 90 % bootstrap intervals.",
        EMULATED,
    ]


def write(result: Result, folder: Path) -> list[Path]:
    """Write `demo.json` and `demo.png` into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / "demo.json", folder / "demo.png"
    data.write_text(json.dumps(as_json(result), indent=2) + "\n")
    draw(result, picture)
    return [data, picture]


def as_json(result: Result) -> Mapping[str, object]:
    """The result for machines."""
    ours, default = result.of(OURS), result.of(DEFAULT)
    return {
        "commit": result.commit,
        "seed": result.seed,
        "emulated": EMULATED,
        "examples": result.examples,
        "policies": as_table(result.judgements),
        "top1_above_default": difference(ours, default),
        "coverage_p10_p90": result.coverage,
        "decided_by": dict(result.fallbacks),
        "completion_s": {"ours": _ran(result.ours), "default": _ran(result.default)},
        "took_s": dict(result.took_s),
        "placements": [_placement(one) for one in (*result.ours, *result.default)],
    }


def draw(result: Result, path: Path) -> None:
    """Top-1, regret and the regret of every decision in one picture."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5))
    names = [one.policy for one in result.judgements]
    positions = np.arange(len(names))
    for axis, field, title in (
        (axes[0], "top1", "fastest node chosen (Top-1)"),
        (axes[1], "regret", "regret"),
    ):
        means = np.array([getattr(one, field).mean for one in result.judgements])
        lows = np.array([getattr(one, field).low for one in result.judgements])
        highs = np.array([getattr(one, field).high for one in result.judgements])
        colours = ["tab:blue" if name == OURS else "lightgrey" for name in names]
        axis.barh(positions, means, xerr=[means - lows, highs - means], color=colours, capsize=3)
        axis.set_yticks(positions, names if axis is axes[0] else [""] * len(names))
        axis.invert_yaxis()
        axis.set_title(title)
    for label, evidence in ((OURS, result.ours), (DEFAULT, result.default)):
        regrets = np.sort([Choice(one.run_s, one.chosen).regret for one in evidence])
        axes[2].step(regrets, np.arange(1, len(regrets) + 1) / len(regrets), label=label, where="post")
    axes[2].set(xlabel="regret of a placement", ylabel="share of placements", title="regret, cumulative")
    axes[2].legend()
    figure.suptitle("Placement on an emulated cluster (90 % bootstrap intervals)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _ran(evidence: Sequence[Evidence]) -> Mapping[str, float]:
    found = bootstrap([one.ran_s for one in evidence if np.isfinite(one.ran_s)], np.random.default_rng(0))
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _mean_ran(evidence: Sequence[Evidence]) -> str:
    found = _ran(evidence)
    return f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _placement(one: Evidence) -> Mapping[str, object]:
    choice = Choice(one.run_s, one.chosen)
    predicted = None if one.times_s is None else dict(zip(one.nodes, one.times_s[1].tolist(), strict=True))
    return {
        "pod": one.name,
        "node": one.node,
        "rank": choice.rank,
        "regret": choice.regret,
        "truth_s": dict(zip(one.nodes, one.run_s.tolist(), strict=True)),
        "standing_s": dict(zip(one.nodes, one.standing_s.tolist(), strict=True)),
        "predicted_s": predicted,
        "reason": one.decision.reason if one.decision is not None else None,
    }
