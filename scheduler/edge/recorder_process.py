"""The recorder as a process: follows pods, takes decisions, keeps the store, and tells how that goes.

It also looks after the predictor's certificate, where Fairlane keeps that itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scheduler.config import ConfigError, Settings
from scheduler.core.outcomes import Outcome, OutcomeTracker
from scheduler.core.unseen import UnseenPods
from scheduler.core.wire import Pod
from scheduler.edge.cluster_view import PODS_PATH
from scheduler.edge.http_server import is_loopback, listen, new_server
from scheduler.edge.judgement import ERROR_EDGES, Judgement, ModelRecord
from scheduler.edge.kube import Changed, KubeClient, Listed
from scheduler.edge.memory import keep_freed_memory
from scheduler.edge.metrics import Scrape, counter, counters, cumulated, gauge
from scheduler.edge.predictor_certificate import PredictorCertificateKeeper
from scheduler.edge.recorder import RecorderApi
from scheduler.edge.store import ExperienceStore, StoreAwayError, StoreError
from scheduler.edge.store_writer import StoreWriter, silence
from scheduler.edge.versioned import VersionedApp
from scheduler.edge.yielding import add_niceness

COUNT_S = 5.0
"""How often rows are counted for status and metrics, but see `COUNT_SHARE`."""
COUNT_SHARE = 0.02
"""Counting takes at most this share of the time: it looks through whole tables."""
CHECK_S = 5.0
RECALL_S = 1.0

log = logging.getLogger(__name__)


class Recorder(Collector):
    """All parts of one recorder. `collect` and `status` only read."""

    def __init__(self, settings: Settings, kube: KubeClient, store: ExperienceStore) -> None:
        own = settings.recorder
        self._kube = kube
        self._store = store
        self._listed = False
        self._rows: dict[str, int] = {}
        self._unreadable = ""
        self._asked_s: float | None = None
        kept = settings.predictor_certificate
        self._certificate = PredictorCertificateKeeper(kube, kept) if kept.secret else None
        self.tracker = OutcomeTracker()
        self.unseen = UnseenPods()
        self.judgement = Judgement()
        self.writer = StoreWriter(
            store, self.judgement, time.time, keep_rows=own.keep_rows, keep_days=own.keep_days
        )
        api = RecorderApi(
            store,
            self.writer,
            self.status,
            Scrape("recorder", self),
            self.unready,
            token=settings.token.get_secret_value(),
            max_body_bytes=own.max_body_bytes,
        )
        self.app = api.app()

    async def run(self) -> None:
        """Everything in the background, until cancelled."""
        known = self._store.is_open
        if known:
            self.tracker.expect(await asyncio.to_thread(self._store.unfinished))
        async with asyncio.TaskGroup() as tasks:
            if not known:
                tasks.create_task(self._recall())
            tasks.create_task(self.writer.run())
            tasks.create_task(self._check_store())
            tasks.create_task(self._count_rows())
            if self._certificate is not None:
                tasks.create_task(self._certificate.run())
            await self._follow_pods()

    async def _follow_pods(self) -> None:
        async for event in self._kube.mirror(PODS_PATH, Pod):
            now_s = time.time()
            match event:
                case Listed(items):
                    self.writer.owe(self.tracker.observe_all(items, now_s))
                    self.unseen.observe_all(items)
                    self._listed = True
                case Changed("DELETED", pod):
                    self.writer.owe(self.tracker.deleted(pod, now_s))
                    self.unseen.deleted(pod)
                case Changed(_, pod):
                    self.writer.owe(self.tracker.observe(pod, now_s))
                    self.unseen.observe(pod)

    async def _recall(self) -> None:
        """A store that was away at the start: what it has unfinished, once it is there.

        Pods are followed meanwhile. What is owed of one is newer than what the store has, and what was
        written since stays, for the end that was stored first stays.
        """
        unfinished: list[Outcome] | None = None
        while unfinished is None:
            await asyncio.sleep(RECALL_S)
            if self._store.is_open and self._listed:
                with contextlib.suppress(StoreError):
                    unfinished = await asyncio.to_thread(self._store.unfinished)
        new = [outcome for outcome in unfinished if not self.writer.owes(outcome.pod_uid)]
        self.writer.owe(self.tracker.recall(new))

    async def _check_store(self) -> None:
        """Whether it answers, also while there is nothing to write."""
        while True:
            self._asked_s = time.monotonic()
            try:
                if self._store.is_open:
                    await asyncio.to_thread(self._store.check)
                self._unreadable = ""
            except StoreError as error:
                self._unreadable = str(error)
            self._asked_s = None
            await asyncio.sleep(CHECK_S)

    async def _count_rows(self) -> None:
        while True:
            begun_s = time.monotonic()
            with contextlib.suppress(StoreError):  # `_check_store` says the same
                self._rows = await asyncio.to_thread(self._store.counts)
            took_s = time.monotonic() - begun_s
            await asyncio.sleep(max(COUNT_S, took_s / COUNT_SHARE))

    def unready(self) -> str:
        """Why nothing can be recorded; empty when it can."""
        if not self._listed:
            return "the API server has not listed pods yet"
        return self.store_failure

    @property
    def store_failure(self) -> str:
        """Why the store cannot be used, by the last write or the last reading; empty when it can."""
        return self.writer.failure or self._unreadable or silence(self._asked_s)

    def status(self) -> dict[str, Any]:
        """The whole state in plain values, for `fairlane doctor`."""
        stats = self.writer.stats
        return {
            "ready": not self.unready(),
            "unready": self.unready(),
            "rows": self._rows,
            "pods_followed": len(self.tracker),
            "decisions_stored": stats.decisions,
            "outcomes_stored": stats.outcomes,
            "outcomes_waiting": self.writer.owed,
            "outcomes_dropped": stats.dropped,
            "store_failures": stats.failures,
            "store_failure": self.store_failure,
            "ended": {state: count for state, count in stats.ended.items() if state},
            "predictions": {name: _told(record) for name, record in self.judgement.models.items()},
            "predictor_certificate": self._certificate.status() if self._certificate else None,
        }

    def collect(self) -> Iterable[Metric]:
        """Metrics families, read from the counters at this moment."""
        stats, name = self.writer.stats, "fairlane_recorder"
        yield counter(f"{name}_decisions", "Decisions stored.", stats.decisions)
        yield counter(f"{name}_outcomes", "Changes of pods stored.", stats.outcomes)
        about = "Pods of our scheduler that were seen being bound."
        yield counter(f"{name}_bindings", about, self.tracker.bindings)
        about = "Pods of our scheduler that could be placed and that no kube-scheduler has looked at."
        yield gauge(f"{name}_pods_unseen", about, len(self.unseen))
        yield gauge(f"{name}_outcomes_waiting", "Changes of pods not stored yet.", self.writer.owed)
        yield counter(f"{name}_outcomes_dropped", "Changes of pods given up.", stats.dropped)
        yield counter(f"{name}_store_failures", "Writes that failed and were tried again.", stats.failures)
        yield gauge(f"{name}_store_writable", "Whether the store answers.", not self.store_failure)
        undecided = self._rows.get("undecided", 0)
        yield gauge(f"{name}_pods_undecided", "Pods of ours bound without a recorded decision.", undecided)
        about = "Runs that a model can be trained on."
        yield gauge(f"{name}_examples", about, self._rows.get("examples", 0))
        yield counter(f"{name}_pruned_rows", "Rows deleted by retention.", stats.pruned)
        ended = {state: float(count) for state, count in stats.ended.items() if state}
        yield counters(f"{name}_pods_ended", "Pods of ours that ended, by end state.", "state", ended)
        yield from self._prediction_metrics()
        if self._certificate is not None:
            yield from self._certificate.collect()

    def _prediction_metrics(self) -> Iterable[Metric]:
        errors = HistogramMetricFamily(
            "fairlane_prediction_error",
            "|log(run time / predicted)| of pods that ended, by model.",
            labels=["model"],
        )
        inside: dict[str, float] = {}
        for model, record in self.judgement.models.items():
            errors.add_metric([model], cumulated(ERROR_EDGES, record.counts), record.error_sum)
            inside[model] = record.inside
        yield errors
        yield counters(
            "fairlane_prediction_inside_interval",
            "Runs that ended inside the predicted p10-p90 interval, by model.",
            "model",
            inside,
        )


def _told(record: ModelRecord) -> dict[str, float]:
    return {
        "judged": record.judged,
        "mean_abs_log_error": record.error_sum / record.judged,
        "mean_log_error": record.signed_sum / record.judged,
        "inside_interval": record.inside / record.judged,
    }


@asynccontextmanager
async def recorder(settings: Settings) -> AsyncIterator[Recorder]:
    """A recorder with its store and its connection open."""
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    store = ExperienceStore(settings.recorder.store_url)
    try:
        try:
            await asyncio.to_thread(store.open)
        except StoreAwayError:
            if not store.on_server:
                raise
        async with KubeClient.connect(kubeconfig) as kube:
            yield Recorder(settings, kube, store)
    finally:
        store.close()


async def serve(settings: Settings, port_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: others could reach it and there is no token.
        KubeError: no usable Kubernetes configuration.
        StoreError: the store cannot be opened, nor will be; for a server that is away it waits.
        OSError: the address cannot be listened on.
    """
    if not settings.token.get_secret_value() and not is_loopback(settings.recorder.host):
        raise ConfigError(
            f"others could write into the store on {settings.recorder.host}: "
            f"set FAIRLANE_TOKEN, or listen on 127.0.0.1"
        )
    add_niceness(settings.recorder.niceness)
    keep_freed_memory()
    listening = listen(settings.recorder.host, settings.recorder.port)
    async with recorder(settings) as parts:
        server = new_server(VersionedApp(parts.app, "recorder"), port_file=port_file)
        await server.serve_beside(listening, parts.run())
