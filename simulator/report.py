"""A comparison as tables for people and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from simulator.closed_loop import ClosedLoop, Received
from simulator.comparison import Comparison
from simulator.metrics import Measures

Column = tuple[str, Callable[[Measures], str]]

RESPONSE: Sequence[Column] = (
    ("mean", lambda m: _s(m.response_s.mean)),
    ("p50", lambda m: _s(m.response_s.p50)),
    ("p95", lambda m: _s(m.response_s.p95)),
    ("p99", lambda m: _s(m.response_s.p99)),
    ("0-80 %", lambda m: _s(m.response_by_percent_s.get("0-80"))),
    ("80-95 %", lambda m: _s(m.response_by_percent_s.get("80-95"))),
    ("95-100 %", lambda m: _s(m.response_by_percent_s.get("95-100"))),
    ("small", lambda m: _s(m.response_by_work_s.get("0-80"))),
    ("medium", lambda m: _s(m.response_by_work_s.get("80-95"))),
    ("large", lambda m: _s(m.response_by_work_s.get("95-100"))),
    ("slowdown", lambda m: _s(m.slowdown.mean)),
)
FAIRNESS: Sequence[Column] = (
    ("late", lambda m: f"{m.late_uncapped.mean:.3f}"),
    ("largest", lambda m: _s(m.late_uncapped.largest)),
    ("beyond", lambda m: str(m.late_uncapped.beyond)),
    ("late, capped", lambda m: f"{m.late_capped.mean:.3f}"),
    ("largest", lambda m: _s(m.late_capped.largest)),
    ("DVR", lambda m: f"{m.deadlines.dvr:.2f} ({m.deadlines.violations})"),
    ("DSR", lambda m: f"{m.deadlines.dsr:.2f} ({m.deadlines.slacks})"),
    ("Jain", lambda m: f"{m.shares.jain:.3f}"),
    ("share error", lambda m: f"{m.shares.largest_error:.3f}"),
    ("used", lambda m: f"{m.utilisation:.1%}"),
    ("makespan", lambda m: _s(m.makespan_s)),
    ("CPU", lambda m: f"{m.cpu_s:.1f}"),
)


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(comparison: Comparison) -> list[Table]:
    """Response times (seconds), and fairness with use of the cluster; one row a policy."""
    measures = [each.measures for each in comparison.results]
    return [_table("Response time, s", RESPONSE, measures), _table("Fairness and use", FAIRNESS, measures)]


def _table(title: str, columns: Sequence[Column], measures: Sequence[Measures]) -> Table:
    table = Table(title=title)
    table.add_column("policy")
    for name, _ in columns:
        table.add_column(name, justify="right")
    for each in measures:
        table.add_row(each.policy, *(value(each) for _, value in columns))
    return table


def share_table(measures: Measures, most: int = 20) -> Table:
    """Entitled and received share of the users, those entitled to most first."""
    shares = measures.shares
    table = Table(title=f"Shares under {measures.policy} over {shares.contended_s:.0f} s of contention")
    for name in ("user", "entitled", "received"):
        table.add_column(name, justify="left" if name == "user" else "right")
    rows = sorted(zip(shares.entitled, shares.received, shares.users, strict=True), reverse=True)
    for entitled, received, user in rows[:most]:
        table.add_row(user, f"{entitled:.4f}", f"{received:.4f}")
    return table


def notes(comparison: Comparison) -> list[str]:
    """What the reader must know of the figures."""
    measured = comparison.results[0].measures
    lines = list(comparison.setting.workload.notes)
    if measured.left_out:
        lines.append(f"{measured.left_out} jobs need more than the empty cluster has and were left out")
    return lines + [
        f"{each.measures.policy}: {note}" for each in comparison.results for note in each.measures.notes
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything measured, with what is needed to repeat it."""
    setting = comparison.setting
    return {
        "trace": setting.workload.name,
        "jobs": len(setting.workload.jobs),
        "users": len(setting.workload.users),
        "estimates": setting.estimates,
        "seed": setting.seed,
        "weights": dict(setting.weights or {}),
        "notes": notes(comparison),
        "bound_s": comparison.references.bound_s,
        "policies": {each.measures.policy: each.measures.as_dict() for each in comparison.results},
    }


def write_json(comparison: Comparison, path: Path) -> None:
    """The same as a file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n")


def closed_table(results: Sequence[Received]) -> Table:
    """Received share of every closed-loop user under every policy, beside his entitlement."""
    table = Table(title="Share received by users who always wait")
    table.add_column("user")
    table.add_column("entitled", justify="right")
    for each in results:
        table.add_column(each.policy, justify="right")
    first = results[0].shares
    for at, user in enumerate(first.users):
        received = [f"{each.shares.received[at]:.4f}" for each in results]
        table.add_row(user, f"{first.entitled[at]:.4f}", *received)
    return table


def closed_json(setting: ClosedLoop, results: Sequence[Received]) -> dict[str, Any]:
    """The same with the setting."""
    return {
        "slots": setting.slots,
        "horizon_s": setting.horizon_s,
        "outstanding": setting.outstanding,
        "pods": setting.pods,
        "weights": dict(setting.weights),
        "estimates": setting.estimates,
        "seed": setting.seed,
        "policies": {
            each.policy: {
                user: {"entitled": float(entitled), "received": float(received)}
                for user, entitled, received in zip(
                    each.shares.users, each.shares.entitled, each.shares.received, strict=True
                )
            }
            for each in results
        },
    }
