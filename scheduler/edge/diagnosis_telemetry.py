"""What the facts say about telemetry: which readings there are, for whom, and what to install. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.snapshot import NODE_READINGS, PAIR_READINGS, PairReadings, Reading
from scheduler.config import Source
from scheduler.edge.diagnosis import Finding, Findings, Level
from scheduler.edge.facts import Facts, queue_only
from scheduler.edge.readings import ReadingReport
from scheduler.edge.sources import load_sources
from scheduler.settings_section import without_password

ESSENTIAL = ("cpu_use", "memory_available", "network_receive", "network_transmit", "rtt")
"""Without these the model is close to blind; the others refine."""
ESSENTIAL_EITHER = ("throughput", "transfer_time")
"""One of these tells what a link can carry; RTT does not."""
_SHOWN_NODES = 5
_PAIRS = frozenset(reading.name for reading in PAIR_READINGS)


@dataclass(frozen=True, slots=True)
class Coverage:
    """For how many nodes or pairs one reading is known."""

    reading: str
    unit: str
    of: str
    """`nodes` or `pairs`."""
    known: int
    total: int
    age_s: float
    interval_s: float
    sources: tuple[str, ...]
    missing_nodes: tuple[str, ...]


def coverage(facts: Facts) -> list[Coverage]:
    """One row per reading that a configured source offers."""
    offered = {report.reading for report in facts.reports}
    return [
        _covered(facts, reading) for reading in (*NODE_READINGS, *PAIR_READINGS) if reading.name in offered
    ]


def prometheus(facts: Facts) -> Findings:
    """Whether Prometheus answers at all, where somebody reads it."""
    url = facts.settings.prometheus.url
    if queue_only(facts.settings):
        return
    if not url:
        yield Finding(
            "Prometheus",
            Level.PROBLEM,
            "No Prometheus is configured, so every reading is unknown.",
            "Set prometheus.url in the settings (in the chart settings.prometheus.url, or"
            " bundledPrometheus.enabled=true for a small one of our own), or ask `fairlane doctor"
            " --prometheus-url URL`.",
        )
    elif facts.poll.failure:
        yield Finding("Prometheus", Level.PROBLEM, facts.poll.failure, _advice_for(facts.poll.failure))
    else:
        shown = without_password(url)
        took_ms = 1000 * facts.poll.last_duration_s
        yield Finding(
            "Prometheus", Level.OK, f"Prometheus at {shown} answers; all readings took {took_ms:.0f} ms."
        )


def _advice_for(failure: str) -> str:
    if "no answer within" in failure:
        return (
            "Prometheus is overloaded or the network is slow: raise prometheus.timeout_s or give it more CPU."
        )
    if "401" in failure or "403" in failure:
        return "Give prometheus.bearer_token_file, or username and password_file."
    if "certificate" in failure.lower():
        return "Give prometheus.ca_file: the PEM bundle of the authority that signed its certificate."
    return "Check that Prometheus runs and that prometheus.url is its address as seen from here."


def clocks(facts: Facts) -> Findings:
    """Clocks that differ make ages wrong."""
    for problem in facts.snapshot.problems:
        if "clock" in problem:
            yield Finding("Prometheus", Level.PROBLEM, problem, "Run NTP or chrony on both machines.")


def readings(facts: Facts) -> Findings:
    """What is known for how many nodes and pairs, and how to know more."""
    unread = queue_only(facts.settings) or not facts.settings.prometheus.url
    if facts.poll.failure or unread or not facts.nodes:
        return
    rows = coverage(facts)
    known = {row.reading for row in rows if row.known}
    yield from _about_rows(facts, rows)
    for name in ESSENTIAL:
        if name not in {row.reading for row in rows}:
            advice = "Add a source that delivers it (docs/telemetry.md)."
            yield Finding("telemetry", Level.PROBLEM, f"No configured source offers {name}.", advice)
    if not known & set(ESSENTIAL_EITHER) and len(facts.nodes) > 1:
        yield Finding(
            "telemetry",
            Level.PROBLEM,
            "What a link can carry is not known for any pair (neither throughput nor transfer_time).",
            "Run `fairlane probe` on every node; pings alone do not tell it.",
        )


def _about_rows(facts: Facts, rows: Sequence[Coverage]) -> Findings:
    """One sentence for each reading that is all right, one for all that lack the same for the same reason."""
    lacking: dict[tuple[int, str, tuple[str, ...], str], list[str]] = {}
    for row in rows:
        if row.known and not row.missing_nodes:
            sentence = (
                f"{row.reading} is known for {row.known} of {row.total} {row.of}, {row.age_s:.0f} s old."
            )
            yield Finding("telemetry", Level.OK, sentence)
        elif row.of == "nodes" or len(facts.nodes) > 1:
            counted = f"{row.known} of {row.total} {row.of}" if row.known else f"any of the {row.of}"
            key = (row.known, counted, row.missing_nodes, _remedy(facts, row))
            lacking.setdefault(key, []).append(row.reading)
    for (known, counted, nodes, advice), names in lacking.items():
        verb = "is" if len(names) == 1 else "are"
        told = (
            f"{verb} known for {counted}; not for {_some(nodes)}"
            if known
            else f"{verb} not known for {counted}"
        )
        tolerated = known and len(nodes) <= facts.settings.missing_nodes_ratio * len(facts.nodes)
        level = Level.PROBLEM if set(names) & set(ESSENTIAL) and not tolerated else Level.NOTE
        yield Finding("telemetry", level, f"{', '.join(names)} {told}.", advice)


def _remedy(facts: Facts, row: Coverage) -> str:
    """What to do about a reading that is missing, from the first source that explains it."""
    sources = {source.name: source for source in load_sources(facts.settings)}
    reports = [report for report in facts.reports if report.reading == row.reading]
    for explain in (_error, _strangers, _range_too_short, _stale, _impossible):
        for report in reports:
            if advice := explain(facts, report, sources[report.source]):
                return advice
    if row.known:
        return (
            f"{' and '.join(row.sources)} tells it for the others: does it run on these nodes, is it scraped?"
        )
    offering = [report.source for report in reports]
    there = {report.source for report in facts.reports if report.known}
    if set(offering) <= there:
        return f"{' and '.join(offering)} is read but does not tell it: is that part of it switched on?"
    return " Or: ".join(sources[name].install for name in offering if sources[name].install)


def _error(_facts: Facts, report: ReadingReport, source: Source) -> str:
    return f"The query of {source.name} failed: {report.error}." if report.error else ""


def _strangers(_facts: Facts, report: ReadingReport, source: Source) -> str:
    if not report.strangers:
        return ""
    count = f"{report.strangers} of {report.series} series of {source.name} name no node of the cluster"
    return f"{count}, e.g. {report.example}. {source.relabel}"


def _range_too_short(facts: Facts, report: ReadingReport, source: Source) -> str:
    range_s = facts.settings.prometheus.rate_range_s
    intervals = (each.interval_s for each in facts.reports if each.source == source.name)
    interval_s = max((each for each in intervals if each > 0), default=0.0)
    if "$ra" not in source.readings[report.reading].expr or range_s >= 2 * interval_s:
        return ""
    return (
        f"A rate needs two scrapes, but prometheus.rate_range_s is {range_s:g} s and {source.name} is"
        f" measured every {interval_s:.0f} s: set it to {4 * interval_s:.0f}."
    )


def _stale(facts: Facts, report: ReadingReport, source: Source) -> str:
    if not report.stale:
        return ""
    scrapes, least_s = facts.settings.stale_after_scrapes, facts.settings.stale_at_least_s
    return (
        f"{report.stale} series of {source.name} are older than {scrapes:g} intervals of"
        f" {report.interval_s:.0f} s (and than {least_s:g} s): its exporter hangs or is not scraped,"
        " or the node's clock is wrong."
    )


def _impossible(_facts: Facts, report: ReadingReport, source: Source) -> str:
    if not report.impossible:
        return ""
    return f"{report.impossible} series of {source.name} have an impossible value; look at its output."


def oddities(facts: Facts) -> Findings:
    """What is read all the same, but should be put in order."""
    for source in dict.fromkeys(report.source for report in facts.reports):
        mine = [report for report in facts.reports if report.source == source]
        twice, strange = max(mine, key=lambda r: r.duplicates), max(mine, key=lambda r: r.strangers)
        if twice.duplicates:
            yield Finding(
                "telemetry",
                Level.NOTE,
                f"{twice.duplicates} series of {source} repeat a node or pair (seen in {twice.reading});"
                " the freshest of them counts.",
                "Scrape each exporter once, or drop the other job's series by a relabel rule.",
            )
        if strange.strangers and strange.known:
            yield Finding(
                "telemetry",
                Level.NOTE,
                f"{strange.strangers} series of {source} name no node of the cluster,"
                f" e.g. {strange.example}.",
                "Nothing to do if those machines do not belong to the cluster.",
            )


def _covered(facts: Facts, reading: Reading) -> Coverage:
    reports = [report for report in facts.reports if report.reading == reading.name]
    sources = tuple(report.source for report in reports if report.known)
    interval_s = next((r.interval_s for r in reports if math.isfinite(r.interval_s)), math.nan)
    nodes = facts.snapshot.nodes
    if reading.name in _PAIRS:
        pairs = facts.snapshot.pair_readings[reading.name]
        known, total, ages = len(pairs.value), len(nodes) * (len(nodes) - 1), pairs.age_s
        missing = _unpaired(nodes, pairs)
    else:
        values = facts.snapshot.node_readings[reading.name]
        finite = np.isfinite(values)
        known, total, ages = int(finite.sum()), len(nodes), facts.snapshot.node_age_s[reading.name][finite]
        missing = tuple(node for node, there in zip(nodes, finite.tolist(), strict=True) if not there)
    age_s = float(np.median(ages)) if len(ages) else math.nan
    of = "pairs" if reading.name in _PAIRS else "nodes"
    return Coverage(reading.name, reading.unit, of, known, total, age_s, interval_s, sources, missing)


def _unpaired(nodes: Sequence[str], pairs: PairReadings) -> tuple[str, ...]:
    """Nodes that take part in no measured pair."""
    seen = set(pairs.source.tolist()) | set(pairs.destination.tolist())
    return tuple(node for i, node in enumerate(nodes) if i not in seen) if len(nodes) > 1 else ()


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NODES])
    return shown if len(names) <= _SHOWN_NODES else f"{shown} and {len(names) - _SHOWN_NODES} more"
