"""Results as tables for people, JSON for machines and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.controller import (
    BARE,
    COLD_START_TARGET_S,
    FAIRLANE,
    MEMORY_TARGET_MIB,
    RELEASE_TARGET_PER_S,
    ColdStart,
    ReleaseRate,
)
from benchmarks.latency import Latencies, View
from benchmarks.queue import TARGET_MS, QueueCost, Spent
from benchmarks.rate import OURS, PLAIN, TARGETS, Rate

mpl.use("Agg")
from matplotlib import pyplot as plt

SETTING = (
    "Real: etcd, API server, kube-scheduler, extender, score tables, recorder, predictor with a LightGBM "
    "model. Simulated: the nodes. Generated: the values of their telemetry and the runs it learnt from."
)
SHADES = ("#1f4e79", "#c55a11", "#548235", "#7f6000", "#7030a0", "#595959", "#bf9000")


def as_json(content: dict[str, Any]) -> str:
    """JSON for people who compare two runs: floats with six digits, NaN as null."""
    return json.dumps(_plain(content), indent=1)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def show_latencies(found: Sequence[Latencies], console: Console) -> None:
    """Print one row per cluster size and view, and whether the target is met."""
    table = Table(title="asking the extender, milliseconds a call")
    for heading in (
        "nodes",
        "seen from",
        "calls",
        "p50",
        "p90",
        "p99",
        "max",
        "own side: mean",
        "p99",
        "misses",
    ):
        table.add_column(heading, justify="left" if heading == "seen from" else "right")
    for one in found:
        for view in one.views:
            seen, own = view.latency, view.own
            cells = (seen.p50_ms, seen.p90_ms, seen.p99_ms, seen.max_ms, own.mean_ms)
            table.add_row(
                f"{one.nodes:,}",
                view.name,
                str(seen.calls),
                *(f"{cell:.2f}" for cell in cells),
                f"<= {own.bound_ms(0.99):g}",
                f"{view.misses:.1%}",
            )
        for name, floor in one.floor.items():
            shown = (f"{ms:.2f}" for ms in (floor.p50_ms, floor.p90_ms, floor.p99_ms, floor.max_ms))
            table.add_row(f"{one.nodes:,}", f"{name}: floor", str(floor.calls), *shown, "", "", "")
    console.print(table)
    for one in found:
        console.print(_latency_sentence(one))
    console.print(SETTING)


def _latency_sentence(one: Latencies) -> str:
    verdicts = ", ".join(_seen(view, one) for view in one.views)
    return (
        f"{one.nodes:,} nodes, {one.candidates:,} candidates, {one.request_bytes:,} bytes a request: "
        f"p99 in ms, target {one.target_ms:g}: {verdicts}."
    )


def _seen(view: View, one: Latencies) -> str:
    verdict = _verdict(view.latency.p99_ms <= one.target_ms)
    floor = one.floor.get(view.name)
    beside = f"; floor {floor.p99_ms:.2f}" if floor else ""
    return f"{view.name} {view.latency.p99_ms:.2f} ({verdict}{beside})"


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def show_rate(found: Rate, console: Console) -> None:
    """Print one row per scheduler, and whether the target is met."""
    table = Table(title=f"{found.pods:,} pods released at once on {found.nodes:,} nodes")
    for heading in ("scheduler", "pods/s", "rounds", "ratio", "90 %", "choosing a node, ms", "CPU ms a pod"):
        table.add_column(heading, justify="left" if heading == "scheduler" else "right")
    for arm in found.arms:
        rounds, rates = found.of(arm.name), found.rates(arm.name)
        ratio = found.ratio(arm.name) if found.rates(PLAIN) else None
        cpu = median(one.cpu_ms["kube-scheduler"] for one in rounds)
        table.add_row(
            arm.name,
            f"{median(rates):.0f}",
            " ".join(f"{rate:.0f}" for rate in rates),
            f"{ratio.value:.2f}" if ratio else "",
            f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "",
            f"{median(one.algorithm_ms for one in rounds):.2f}",
            f"{cpu:.1f}",
        )
    console.print(table)
    for sentence in _rate_sentences(found):
        console.print(sentence)


def _rate_sentences(found: Rate) -> list[str]:
    told = [f"{arm.name}: {arm.what}" for arm in found.arms]
    others = median(one.other_cores for one in found.rounds)
    told.append(f"Processes that are no part of the benchmark used {others:.2f} cores meanwhile.")
    if found.of(OURS):
        answers = found.answers(OURS)
        calls = sum(answers.values())
        share = ", ".join(f"{count / calls:.1%} {reason}" for reason, count in answers.items())
        told.append(f"{calls:,} calls answered; by fallback reason: {share} (none: a fresh prediction).")
    for arm in found.arms:
        planned = [one.as_planned for one in found.of(arm.name) if one.as_planned is not None]
        if planned:
            told.append(f"{arm.name}: {min(planned):.1%} of the pods or more went where they were planned.")
    for name, target in TARGETS.items():
        if found.rates(PLAIN) and found.of(name):
            ratio = found.ratio(name).value
            told.append(f"{name}: ratio {ratio:.2f}, target {target}: {_verdict(ratio >= target)}.")
    return [*told, SETTING]


def show_release(found: ReleaseRate, console: Console) -> None:
    """Print one row per way of releasing, and whether the target is met."""
    table = Table(title=f"{found.pods:,} waiting pods of {found.users:,} users released")
    for heading in (
        "by",
        "pods/s",
        "rounds",
        "CPU ms a pod: controller",
        "API server",
        "etcd",
        "other cores",
    ):
        table.add_column(heading, justify="left" if heading == "by" else "right")
    for way in (FAIRLANE, BARE):
        rounds = [one for one in found.opened if one.way == way]
        own = "controller" if way == FAIRLANE else "benchmark"
        cpu = [median(one.cpu_ms_per_pod[name] for one in rounds) for name in (own, "kube-apiserver", "etcd")]
        rates = " ".join(f"{one.rate:.0f}" for one in rounds)
        others = median(one.other_cores for one in rounds)
        table.add_row(way, f"{found.rate(way):.0f}", rates, *(f"{ms:.2f}" for ms in cpu), f"{others:.2f}")
    console.print(table)
    rate = found.rate(FAIRLANE)
    console.print(
        f"{rate:.0f} pods/s, target {RELEASE_TARGET_PER_S:g}: {_verdict(rate >= RELEASE_TARGET_PER_S)}; "
        f"{rate / found.rate(BARE):.2f} of the bare loop, which decides and watches nothing."
    )


def show_cold_start(found: ColdStart, console: Console) -> None:
    """Print what the controller took, and whether the targets are met."""
    table = Table(title=f"A controller started where {found.pods:,} pods of {found.users:,} users wait")
    for heading in (
        "ready, s",
        "first release, s",
        "bare list, s",
        "CPU s",
        "memory, MiB: most",
        "after",
        "children",
    ):
        table.add_column(heading, justify="right")
    memory = (found.memory_mib_most, found.memory_mib_after, found.children_mib_after)
    times = (found.ready_s, found.first_release_s, found.list_s, found.cpu_s)
    table.add_row(*(f"{value:.1f}" for value in times), *(f"{value:.0f}" for value in memory))
    console.print(table)
    met = found.memory_mib_most < MEMORY_TARGET_MIB
    console.print(f"Memory, target below {MEMORY_TARGET_MIB:g} MiB: {_verdict(met)}.")
    met = found.first_release_s < COLD_START_TARGET_S
    console.print(f"Until the first release, target below {COLD_START_TARGET_S:g} s: {_verdict(met)}.")


def show_queue(found: QueueCost, console: Console) -> None:
    """Print one row per size and walk, by kind of event, and whether the target is met."""
    table = Table(title="CPU of the fair queue's core, milliseconds an event: mean (p99)")
    kinds = sorted({kind for one in found.spent for kind in one.events})
    for heading in ("users", "waiting", "walk", "all", *kinds, "released", "went ahead"):
        table.add_column(heading, justify="left" if heading == "walk" else "right")
    for one in found.spent:
        cells = [_mean_and_p99(one, kind) for kind in kinds]
        counts = (f"{len(one.released):,}", f"{one.backfilled:,}")
        size = (f"{one.size.users:,}", f"{one.size.waiting:,}")
        table.add_row(*size, one.walk, f"{one.mean_ms:.2f}", *cells, *counts)
    console.print(table)
    for sentence in _queue_sentences(found):
        console.print(sentence)


def _mean_and_p99(one: Spent, kind: str) -> str:
    taken = one.events.get(kind)
    return f"{taken.mean_ms:.2f} ({taken.p99_ms:.2f})" if taken is not None else ""


def _queue_sentences(found: QueueCost) -> list[str]:
    ours = found.of("fairlane")
    first, last = ours[0], ours[-1]
    slowest = max(taken.mean_ms for one in ours for taken in one.events.values())
    told = [
        f"Slowest kind of event in the mean: {slowest:.2f} ms, target {TARGET_MS:g}: "
        f"{_verdict(slowest < TARGET_MS)}."
    ]
    if found.of("plain walk"):
        told.append("Both walks released the same gangs in the same order.")
    if last is not first:
        times = last.size.users / first.size.users
        told.append(f"{times:g} times as many users cost {last.mean_ms / first.mean_ms:.2f} times as much.")
    return told


def plot_queue(found: QueueCost, path: Path) -> None:
    """Mean CPU time of an event over the number of users, one line per walk and kind of event."""
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for walk, style in (("fairlane", "-"), ("plain walk", "--")):
        spent = found.of(walk)
        for kind, shade in zip(sorted(spent[0].events) if spent else (), SHADES, strict=False):
            means = [one.events[kind].mean_ms for one in spent]
            axis.plot(
                [one.size.users for one in spent],
                means,
                style,
                color=shade,
                marker="o",
                label=f"{walk}: {kind}",
            )
    axis.axhline(TARGET_MS, color="grey", linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="users", ylabel="ms of CPU an event")
    axis.legend(fontsize=7)
    save(figure, path)


def plot_latencies(found: Sequence[Latencies], path: Path) -> None:
    """The share of calls slower than a given time, one panel per cluster size."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.5 * len(found), 3.6), squeeze=False, sharey=True)
    for axis, one in zip(axes[0], found, strict=True):
        for view, shade in zip(one.views, SHADES, strict=False):
            ms = 1000.0 * np.sort(np.asarray(view.durations_s))
            slower = 1.0 - np.arange(len(ms)) / len(ms)
            axis.step(ms, slower, where="post", color=shade, label=view.name)
        axis.axvline(one.target_ms, color="grey", linestyle=":")
        axis.axhline(0.01, color="grey", linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="milliseconds", title=f"{one.nodes:,} nodes")
    axes[0][0].set_ylabel("share of calls slower than that")
    axes[0][0].legend(fontsize=8)
    save(figure, path)


def plot_rate(found: Rate, path: Path) -> None:
    """Every round of every scheduler as a dot, medians as bars."""
    figure, axis = plt.subplots(figsize=(1.6 * len(found.arms) + 1.5, 3.6))
    for place, (arm, shade) in enumerate(zip(found.arms, SHADES, strict=False)):
        rates = found.rates(arm.name)
        axis.hlines(median(rates), place - 0.25, place + 0.25, color=shade, linewidth=3)
        axis.plot(place + np.linspace(-0.15, 0.15, len(rates)), rates, "o", color=shade, alpha=0.6)
    if found.rates(PLAIN):
        for target in TARGETS.values():
            axis.axhline(target * median(found.rates(PLAIN)), color="grey", linestyle=":")
    axis.set_xticks(range(len(found.arms)), [arm.name for arm in found.arms])
    axis.set(ylabel="pods/s", ylim=(0, None), title=f"{found.pods:,} pods on {found.nodes:,} nodes")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure, and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
