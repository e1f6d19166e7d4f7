"""The extender as a process: its parts put together, run, watched and told about."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from model.snapshot import TelemetrySnapshot
from scheduler.config import Settings
from scheduler.core.choices import Choices
from scheduler.core.cluster import Cluster
from scheduler.core.jobs import Descriptions
from scheduler.core.ranking import Exploration
from scheduler.core.types import Fallback, PodFacts
from scheduler.core.wire import Pod
from scheduler.edge.cluster_view import ClusterWatch
from scheduler.edge.decisions import DecisionLog
from scheduler.edge.extender import ExtenderApp
from scheduler.edge.histories import Histories
from scheduler.edge.http_server import listen, new_server
from scheduler.edge.kube import KubeClient
from scheduler.edge.memory import keep_freed_memory
from scheduler.edge.metrics import Scrape, counter, counters, gauge, histogram, labelled
from scheduler.edge.planner import Planner
from scheduler.edge.predictions import PredictionClient
from scheduler.edge.prioritizer import LATENCY_BUCKETS_S, Prioritizer
from scheduler.edge.recorder_client import RecorderClient
from scheduler.edge.score_tables import ScoreTables
from scheduler.edge.short_way import ShortWayProtocol
from scheduler.edge.table_inputs_process import IsolatedInputs
from scheduler.edge.table_maker import TableMaker
from scheduler.edge.telemetry_process import IsolatedPoller
from scheduler.edge.told_beside import told_beside
from scheduler.edge.versioned import VersionedApp
from scheduler.edge.yielding import add_niceness, take_short_turns

SWITCH_INTERVAL_S = 0.0005
"""Feature rows are built in threads; a call must not wait 5 ms (the default) for its turn."""
GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""Pods and nodes are held in structs without cycles; collecting seldom keeps the slowest calls fast."""

log = logging.getLogger(__name__)


class Extender(Collector):
    """All parts of one extender. `collect` and `status` only read."""

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        predictor: PredictionClient | None,
        recorder: RecorderClient | None,
    ) -> None:
        own = settings.extender
        self._max_epoch_age_s = own.max_epoch_age_s
        self.cluster = Cluster()
        self.histories, new_id = Histories(recorder, time.time), _ids()
        descriptions = Descriptions()
        self.tables = ScoreTables(own.max_tables, own.table_idle_s)
        self.inputs = IsolatedInputs(settings, self.cluster, predictor)
        self.maker = TableMaker(
            self.tables,
            self.cluster,
            self._snapshot,
            self.histories,
            self.inputs,
            own,
            time.time,
            new_id,
            predicts=predictor is not None,
        )
        self.choices = Choices(self.cluster)
        self.watch = ClusterWatch(
            kube, self.cluster, descriptions, self.choices, self._on_pod, self._on_unasked
        )
        self.poller = IsolatedPoller(settings, self.watch.identities)
        self.decisions = DecisionLog(
            recorder, own.decision_buffer, own.decision_batch, own.flush_s, own.hold_s
        )
        self.prioritizer = Prioritizer(
            self.cluster,
            descriptions,
            self.tables,
            self.maker,
            self.decisions,
            self._snapshot,
            max_listed=own.max_listed,
            max_epoch_age_s=own.max_epoch_age_s,
            exploration=_exploration(settings),
            clock=time.time,
            draw=random.Random().random,
            new_id=new_id,
        )
        self.metrics = Scrape("extender", self)
        self.app = ExtenderApp(
            self.prioritizer,
            Planner(self.cluster, self.prioritizer),
            self.status,
            self.metrics,
            self.unready,
            prefix=own.prefix,
            max_body_bytes=own.max_body_bytes,
            read_timeout_s=own.read_timeout_s,
        )

    async def run(self) -> None:
        """Everything in the background, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watch.run())
            await self.watch.synced.wait()
            gc.collect()
            gc.freeze()  # what is here now stays; it need not be looked through again
            self.poller.start()
            try:
                tasks.create_task(self.maker.run())
                await self.decisions.run()
            finally:
                await loop.run_in_executor(None, self.poller.stop)
                await loop.run_in_executor(None, self.inputs.stop)

    def unready(self) -> str:
        """Why there can be no opinions yet; empty when there can."""
        if not self.watch.synced.is_set():
            return "the API server has not listed nodes and pods yet"
        if self._snapshot().is_empty():
            return "there is no telemetry yet: " + (self.poller.stats.failure or "nothing was read")
        age_s = self._age_s(self._snapshot()) or 0.0
        if age_s > self._max_epoch_age_s:
            why = self.poller.stats.failure or "no newer one comes"
            return f"the telemetry is {age_s:.0f} s old: {why}"
        return ""

    def status(self) -> dict[str, Any]:
        """The whole state in plain values, for `fairlane doctor`."""
        calls, maker, log_stats = self.prioritizer.stats, self.maker.stats, self.decisions.stats
        advised = self.prioritizer.advised
        snapshot = self._snapshot()
        return {
            "ready": not self.unready(),
            "unready": self.unready(),
            "calls": calls.calls,
            "last_call_s": calls.last_call_s or None,
            "answers_by_reason": {_reason(name): count for name, count in calls.reasons.items()},
            "explored": calls.explored,
            "planned": advised.calls,
            "last_plan_s": advised.last_call_s or None,
            "plans_by_reason": {_reason(name): count for name, count in advised.reasons.items()},
            "latency_mean_ms": 1000.0 * calls.latency_sum_s / calls.calls if calls.calls else None,
            "choices_unasked": self.choices.count,
            "last_choice_unasked_s": self.choices.last_s or None,
            "host": socket.gethostname(),
            "refused": {str(status): count for status, count in self.app.refused.items()},
            "last_refusal": self.app.last_refusal,
            "epoch": snapshot.epoch,
            "epoch_age_s": self._age_s(snapshot),
            "telemetry_failure": self.poller.stats.failure,
            "telemetry_problems": list(snapshot.problems),
            "nodes": len(self.cluster.facts),
            "pods": self.cluster.pods,
            "tables": len(self.tables),
            "tables_waiting": self.maker.waiting,
            "model_version": maker.model_version,
            "predictor_failure": maker.failure,
            "predictor_failures": maker.predictor_failures,
            "tables_failure": self.inputs.failure,
            "tables_made": {"model": maker.made_by_model, "prior": maker.made_by_prior},
            "decisions": {
                "waiting": len(self.decisions),
                "sent": log_stats.sent,
                "dropped": log_stats.dropped,
                "refused": log_stats.refused,
                "unwritten": log_stats.unwritten,
            },
            "recorder_failure": log_stats.failure,
            "history_failure": self.histories.failure,
            "unreadable_annotations": dict(self.watch.complaints),
            "last_unreadable_annotation": self.watch.last_complaint,
        }

    def collect(self) -> Iterable[Metric]:
        """Metrics families, read from the counters at this moment."""
        yield from self._call_metrics()
        yield from self._table_metrics()
        yield from self._decision_metrics()

    def _call_metrics(self) -> Iterable[Metric]:
        stats, name = self.prioritizer.stats, "fairlane_extender"
        by_reason = {_reason(reason): float(count) for reason, count in stats.reasons.items()}
        about = "Prioritize calls answered, by fallback reason."
        yield counters(f"{name}_calls", about, "reason", by_reason, map(_reason, Fallback))
        yield histogram(
            f"{name}_latency_seconds",
            "Time from a complete request to its answer.",
            LATENCY_BUCKETS_S,
            stats.latency_counts,
            stats.latency_sum_s,
        )
        planned = {
            _reason(reason): float(count) for reason, count in self.prioritizer.advised.reasons.items()
        }
        about = "Pods planned at release, by fallback reason."
        yield counters(f"{name}_plans", about, "reason", planned, map(_reason, Fallback))
        about = "Pods of ours bound by others' choice, though several nodes could have had them."
        yield counter(f"{name}_choices_unasked", about, self.choices.count)
        yield counter(f"{name}_misses", "Calls that found no table.", stats.reasons[Fallback.MISS])
        yield counter(f"{name}_explored", "Answers that put another node first to learn.", stats.explored)
        refused = {str(status): float(count) for status, count in self.app.refused.items()}
        yield counters(f"{name}_refused", "Requests refused, by HTTP status.", "status", refused)
        complaints = {text: float(count) for text, count in self.watch.complaints.items()}
        yield counters(
            f"{name}_unreadable_annotations", "Annotations not understood.", "annotation", complaints
        )

    def _table_metrics(self) -> Iterable[Metric]:
        stats, name = self.maker.stats, "fairlane_extender"
        snapshot = self._snapshot()
        yield gauge(f"{name}_epoch", "Number of the telemetry snapshot in use.", snapshot.epoch)
        age_s = self._age_s(snapshot)
        if age_s is not None:
            yield gauge(f"{name}_epoch_age_seconds", "Age of the telemetry snapshot in use.", age_s)
        about = "Age beyond which a telemetry snapshot is not used (extender.max_epoch_age_s)."
        yield gauge(f"{name}_epoch_age_max_seconds", about, self._max_epoch_age_s)
        yield counter(
            f"{name}_telemetry_failures", "Polls that brought no snapshot.", self.poller.stats.failures
        )
        yield gauge(f"{name}_score_tables", "Score tables in use.", len(self.tables))
        yield gauge(f"{name}_score_tables_waiting", "Score tables still to be made.", self.maker.waiting)
        made = {"model": float(stats.made_by_model), "prior": float(stats.made_by_prior)}
        yield counters(f"{name}_score_tables_made", "Score tables made, by what answered.", "by", made)
        yield counter(
            f"{name}_predictor_failures", "Predictions that brought no answer.", stats.predictor_failures
        )
        yield labelled(f"{name}_model", "The model that answered last.", {"version": stats.model_version})

    def _decision_metrics(self) -> Iterable[Metric]:
        stats, name = self.decisions.stats, "fairlane_extender_decisions"
        yield gauge(f"{name}_waiting", "Decisions not recorded yet.", len(self.decisions))
        yield counter(f"{name}_recorded", "Decisions the recorder stored.", stats.sent)
        lost = {
            "buffer_full": float(stats.dropped),
            "refused": float(stats.refused),
            "internal_error": float(stats.unwritten),
        }
        yield counters(f"{name}_lost", "Decisions that will never be recorded.", "cause", lost)

    def _on_pod(self, pod: PodFacts) -> None:
        self.maker.on_pod(pod)
        self.prioritizer.prepare(pod)

    def _on_unasked(self, pod: Pod) -> None:
        asked_s = max(self.prioritizer.stats.last_call_s, self.prioritizer.advised.last_call_s)
        self.choices.bound(pod, asked_s, time.time())

    def _snapshot(self) -> TelemetrySnapshot:
        return self.poller.snapshot

    @staticmethod
    def _age_s(snapshot: TelemetrySnapshot) -> float | None:
        return round(time.time() - snapshot.taken_at_s, 3) if snapshot.epoch else None


def _reason(reason: str) -> str:
    return reason or "none"


def _ids() -> Callable[[], str]:
    """Makes ids that no other process makes: one random number for all, and counting."""
    mine, numbers = uuid.uuid4().hex, itertools.count()
    return lambda: f"{mine}-{next(numbers):x}"


def _exploration(settings: Settings) -> Exploration:
    given = settings.exploration
    return Exploration(given.rate, given.temperature, given.max_regret, given.scope == "all")


@asynccontextmanager
async def extender(settings: Settings) -> AsyncIterator[Extender]:
    """An extender with its connections open."""
    async with AsyncExitStack() as stack:
        kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
        kube = await stack.enter_async_context(KubeClient.connect(kubeconfig))
        predictor = recorder = None
        if settings.predictor_address:
            client = PredictionClient.to(settings, settings.extender.predict_timeout_s)
            predictor = await stack.enter_async_context(client)
        if settings.recorder_url:
            token = settings.token.get_secret_value()
            recorder = await stack.enter_async_context(RecorderClient.connect(settings.recorder_url, token))
        yield Extender(settings, kube, predictor, recorder)


async def serve(settings: Settings, port_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        KubeError: no usable Kubernetes configuration.
        OSError: the address cannot be listened on.
    """
    own = settings.extender
    if take_short_turns():  # kube-scheduler waits for the answer
        add_niceness(own.niceness)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    listening = listen(own.host, own.port)
    async with (
        extender(settings) as parts,
        told_beside(own.metrics_host, own.metrics_port, parts.status, parts.metrics, parts.unready),
    ):
        protocol = partial(ShortWayProtocol, parts.app.short_way)
        server = new_server(
            VersionedApp(parts.app, "extender"), own.keep_alive_s, port_file, protocol=protocol
        )
        await server.serve_beside(listening, parts.run())
