"""The controller's metrics, made from its counts and the queue's state when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scheduler.core.queue.lateness import CAUSES
from scheduler.core.queue.receipts import FlowView
from scheduler.edge.controller import Term
from scheduler.edge.controller_stats import ERROR_EDGES, LATENESS_EDGES, WAIT_EDGES_S, ControllerStats
from scheduler.edge.expected_starts import ExpectedStarts
from scheduler.edge.metrics import counter, counters, cumulated, gauge, histogram

NAME = "fairlane_queue"
LIKELY_FAILURES = ("Forbidden", "Invalid", "retries", "delete")
"""Of opening gates; the API server may have other words."""


class ControllerMetrics(Collector):
    """`term` is there while this replica leads."""

    def __init__(self, stats: ControllerStats, term: Callable[[], Term | None]) -> None:
        self._stats, self._term = stats, term

    def collect(self) -> Iterable[Metric]:
        """All families."""
        term = self._term()
        yield gauge("fairlane_controller_leads", "Whether this replica leads.", term is not None)
        yield from self._counts()
        if term is not None:
            yield from _of_term(term)
            if term.keeper is not None:
                yield from _of_queue(term)

    def _counts(self) -> Iterable[Metric]:
        stats = self._stats
        yield counters(f"{NAME}_events", "Events handled, by kind.", "kind", stats.events)
        yield counter(f"{NAME}_decisions", "Times the core decided.", stats.decisions)
        yield counter(f"{NAME}_deciding_seconds", "Time spent deciding.", stats.deciding_s)
        yield counter(f"{NAME}_releases", "Gangs released.", stats.releases)
        yield counter(f"{NAME}_released_pods", "Pods released.", stats.released_pods)
        yield counter(f"{NAME}_backfills", "Gangs released ahead of their turn.", stats.backfills)
        yield counter(f"{NAME}_settlements", "Gangs that ended and were settled.", stats.settlements)
        yield counter(f"{NAME}_vanished", "Gangs whose end was not seen.", stats.vanished)
        yield counters(f"{NAME}_troubles", "Reports about gangs, by trouble.", "trouble", stats.troubles)
        yield counter(
            f"{NAME}_invariant_failures", "Times the queue contradicted itself.", stats.invariant_failures
        )
        yield counter(f"{NAME}_checkpoints", "Checkpoints written.", stats.checkpoints)
        yield counter(
            f"{NAME}_checkpoint_failures", "Checkpoints not written or not read.", stats.checkpoint_failures
        )
        yield gauge(f"{NAME}_checkpoint_bytes", "Size of the last checkpoint.", stats.checkpoint_bytes)
        yield counter("fairlane_controller_terms", "Times this replica began to lead.", stats.terms)
        yield counter("fairlane_controller_terms_failed", "Terms that ended by a fault.", stats.terms_failed)
        counts = stats.waits_s.counts or [0] * (len(WAIT_EDGES_S) + 1)
        about = "Seconds from arrival to release of gangs that ended."
        yield histogram(f"{NAME}_wait_seconds", about, WAIT_EDGES_S, counts, stats.waits_s.total)
        late = stats.lateness.counts or [0] * (len(LATENESS_EDGES) + 1)
        about = "Lateness of gangs that ended, against the capped fluid reference."
        yield histogram(f"{NAME}_lateness", about, LATENESS_EDGES, late, stats.lateness.total)
        about = "Gangs later than the bound of gangs of one on slots, by cause."
        yield counters(f"{NAME}_bound_violations", about, "cause", stats.violations, CAUSES)
        errors = HistogramMetricFamily(
            f"{NAME}_estimate_error", "Actual over estimated work, or its inverse.", labels=["source"]
        )
        for source, one in stats.errors.items():
            errors.add_metric([source], cumulated(ERROR_EDGES, one.counts), one.total)
        yield errors


def _of_term(term: Term) -> Iterable[Metric]:
    """Counts of this term; they begin anew with the next."""
    patches, told = term.releases.stats, term.announcements.stats
    yield counter(f"{NAME}_patches", "Gates opened.", patches.patched)
    yield counter(f"{NAME}_patch_retries", "Patches tried again.", patches.retried)
    about = "Gates not opened, by reason."
    yield counters(f"{NAME}_patch_failures", about, "reason", patches.failed, LIKELY_FAILURES)
    yield counters(f"{NAME}_announcements", "Conditions and events, by what became of them.", "kind", told)
    yield from _of_expected_starts(term.expected)


def _of_expected_starts(expected: ExpectedStarts) -> Iterable[Metric]:
    about = "Gangs released within p10 to p90 of when they were first told to start, before or after."
    yield counters(f"{NAME}_expected_starts", about, "verdict", expected.verdicts)
    yield counter(f"{NAME}_outlooks", "Times the expected starts were worked out.", expected.outlooks)
    yield counter(f"{NAME}_photographing_seconds", "Time spent on copies for that.", expected.photographing_s)
    yield counter(f"{NAME}_outlook_restarts", "Times its process ended by itself.", expected.restarts)
    if expected.outlook is not None:
        yield gauge(f"{NAME}_outlook_at_seconds", "As of when (unix).", expected.outlook.at_s)
        yield gauge(f"{NAME}_outlook_futures", "Futures that it rests on.", expected.outlook.futures)


def _of_queue(term: Term) -> Iterable[Metric]:
    assert term.keeper is not None
    view = term.keeper.dump()
    yield gauge(f"{NAME}_paused", "Whether releases are held.", view.paused)
    yield gauge(f"{NAME}_usable_share", "Share of the reference that the nodes have.", view.usable)
    yield counter(f"{NAME}_unjudged", "Gangs too many to be compared with the fluid.", term.lateness.unjudged)
    yield gauge(f"{NAME}_held_share", "Share of the reference in use.", view.held)
    states = GaugeMetricFamily(f"{NAME}_gangs", "Gangs by state.", labels=["state"])
    for state in ("waiting", "turned_away", "incomplete", "infeasible", "opening", "running"):
        states.add_metric([state], getattr(view, state))
    yield states
    flows = view.flows
    yield _by_user(f"{NAME}_weight", "Entitlement.", flows, [flow.weight for flow in flows])
    yield _by_user(f"{NAME}_entitled_share", "Share entitled to.", flows, [flow.entitled for flow in flows])
    yield _by_user(f"{NAME}_user_held_share", "Share held now.", flows, [flow.held for flow in flows])
    yield _by_user(f"{NAME}_received_work", "Share-seconds so far.", flows, [flow.received for flow in flows])
    yield _by_user(f"{NAME}_waiting_gangs", "Gangs that wait.", flows, [flow.waiting for flow in flows])
    if (even := jain_index(flows)) is not None:
        yield gauge(f"{NAME}_jain_index", "Of held / entitled of users who wait; 1 is even.", even)


def jain_index(flows: Sequence[FlowView]) -> float | None:
    """(sum of x)^2 / (n sum of x^2), x being held over entitled share of each flow that waits (Jain 1984)."""
    parts = [flow.held / flow.entitled for flow in flows if flow.waiting and flow.entitled > 0]
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares > 0 else None


def _by_user(name: str, text: str, flows: Sequence[FlowView], values: Sequence[float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["user"])
    for flow, value in zip(flows, values, strict=True):
        family.add_metric(["/".join(flow.path)], value)
    return family
