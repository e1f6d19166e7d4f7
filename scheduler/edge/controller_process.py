"""The controller as a process: stands for election, keeps the queue while it leads, tells how that goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.routing import Route

from model.address import place_of
from scheduler.config import ConfigError, Settings
from scheduler.edge.checkpoints import Checkpoints
from scheduler.edge.controller import REQUEST_PART, Term
from scheduler.edge.controller_api import ControllerApi
from scheduler.edge.controller_metrics import ControllerMetrics
from scheduler.edge.controller_stats import ControllerStats
from scheduler.edge.estimates import Estimates
from scheduler.edge.http_server import is_loopback, listen, new_server
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.lease import Campaign, LeaderLease, Timing
from scheduler.edge.metrics import Scrape
from scheduler.edge.recorder_client import RecorderClient
from scheduler.edge.release import NotLeading
from scheduler.edge.share_history import EVERY_S, ShareHistory
from scheduler.edge.versioned import VersionedApp

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAUSE_S_MAX = 30.0
"""Between two terms of which the first ended by a fault."""

log = logging.getLogger(__name__)


class Controller:
    """One replica. `run` until cancelled; the rest reads."""

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        campaign: Campaign,
        recorder: RecorderClient | None,
        identity: str,
        more: Sequence[Route] = (),
    ) -> None:
        self._recorder = recorder
        self._shares = ShareHistory()
        self._own, self._kube, self._campaign = settings.controller, kube, campaign
        self._planner_url = settings.extender_url if settings.controller.placement == "hint" else ""
        self.identity = identity
        self.stats = ControllerStats()
        self.term: Term | None = None
        self.failure = ""
        api = ControllerApi(
            lambda: self.term,
            self._leader_url,
            self.status,
            Scrape("controller", ControllerMetrics(self.stats, lambda: self.term)),
            self.unready,
            self._shares,
            recorder,
            more,
            token=settings.token.get_secret_value(),
        )
        self.app = api.app()

    async def run(self) -> None:
        """One term after another, until cancelled; after a fault a new one is begun, after a pause."""
        failures = 0
        while True:
            await self._campaign.won()
            try:
                await self._lead()
                failures = 0
            except NotLeading as error:
                log.warning("leading ended: %s", error)
            except (ExceptionGroup, KubeError) as error:
                failures += 1
                self.stats.terms_failed += 1
                self.failure = _innermost(error)
                log.error(
                    "the queue's term ended by a fault and is begun anew: %s", self.failure, exc_info=error
                )
            await asyncio.sleep(min(PAUSE_S_MAX, 0.5 * 2 ** min(failures, 7)) * random.uniform(0.5, 1.0))

    async def _lead(self) -> None:
        """Keep the queue until the lease is lost."""
        checkpoints = Checkpoints(
            self._kube,
            namespace_of(self._own.namespace),
            self._own.name,
            self.identity,
            self._campaign.holds,
            request_s=REQUEST_PART * self._own.lease_s,
        )
        self.term = Term(
            self._own,
            self._kube,
            checkpoints,
            self._campaign.holds,
            self.stats,
            Estimates(self._recorder),
            planner_url=self._planner_url,
        )
        self.stats.terms += 1
        noting = asyncio.create_task(self._note_shares(self.term))
        leading = asyncio.create_task(self.term.run())
        losing = asyncio.create_task(self._campaign.lost())
        try:
            await asyncio.wait({leading, losing}, return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                await leading
        finally:
            self.term = None
            for task in (noting, losing, leading):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, NotLeading, ExceptionGroup, KubeError):
                    await task

    async def _note_shares(self, term: Term) -> None:
        while True:
            if term.keeper is not None:
                held = {flow.path[-1]: flow.held for flow in term.keeper.dump().flows}
                self._shares.note(time.time(), held)
            await asyncio.sleep(EVERY_S)

    def unready(self) -> str:
        """Why neither this replica nor another one that it knows of can answer for the queue."""
        if self.term is not None:
            return self.term.unready
        lease = self._campaign.lease
        if lease is None or not lease.leader:
            return "no replica leads yet" + (f": {lease.failure}" if lease and lease.failure else "")
        return "" if lease.leader != self.identity else "the queue is being rebuilt"

    def status(self) -> dict[str, Any]:
        """The whole state in plain values."""
        lease, term, stats = self._campaign.lease, self.term, self.stats
        told: dict[str, Any] = {
            "identity": self.identity,
            "leads": term is not None and self._campaign.holds(),
            "leader": lease.leader if lease else "",
            "leader_url": self._leader_url(),
            "lease_failure": lease.failure if lease else "",
            "unready": self.unready(),
            "last_fault": self.failure,
            "terms": stats.terms,
            "terms_failed": stats.terms_failed,
            "events": dict(stats.events),
            "decisions": stats.decisions,
            "deciding_s": stats.deciding_s,
            "slowest_decision_s": stats.slowest_decision_s,
            "releases": stats.releases,
            "released_pods": stats.released_pods,
            "backfills": stats.backfills,
            "settlements": stats.settlements,
            "vanished": stats.vanished,
            "troubles": dict(stats.troubles),
            "checkpoints": stats.checkpoints,
            "checkpoint_bytes": stats.checkpoint_bytes,
            "checkpoint_failures": stats.checkpoint_failures,
            "bound_violations": dict(stats.violations),
            "invariant_failures": stats.invariant_failures,
            "broken_invariant": stats.broken_invariant,
        }
        if term is not None:
            patches = term.releases.stats
            told |= {"patched": patches.patched, "patch_retries": patches.retried}
            told |= {"patch_failures": dict(patches.failed), "announcements": dict(term.announcements.stats)}
            told |= {"hints": _hints(term)}
            told |= {"expected_starts": term.expected.status()}
            told |= {"paused": term.paused, "complaints": list(term.complaints)}
        return told

    def _leader_url(self) -> str:
        return self._campaign.lease.leader_url if self._campaign.lease else ""


def _hints(term: Term) -> dict[str, Any] | None:
    """What came of placement at release; None where that is not written."""
    stats = term.hints.stats
    if not term.hints.wanted:
        return None
    return {
        "pods_hinted": stats.hinted,
        "pods_without": dict(stats.unhinted),
        "refused": term.releases.stats.hints_refused,
        "nominations_refused": term.releases.stats.nominations_refused,
        "requests": stats.requests,
        "failures": stats.failures,
        "failure": stats.failure,
    }


@asynccontextmanager
async def controller(
    settings: Settings, url: Callable[[], str], more: Sequence[Route] = ()
) -> AsyncIterator[Controller]:
    """A replica with its connections open, standing for election; it serves `more` beside its API."""
    own = settings.controller
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    identity = f"{socket.gethostname()}-{os.getpid()}-{random.randrange(16**6):06x}"
    timing = Timing(own.lease_s, 0.6 * own.lease_s, 0.15 * own.lease_s, 0.2 * own.lease_s)
    namespace = namespace_of(own.namespace)

    def lease_of(kube: KubeClient) -> LeaderLease:
        return LeaderLease(kube, namespace, own.name, identity, timing, url)

    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeClient.connect(kubeconfig, parallel=own.parallel))
        recorder = None
        if settings.recorder_url:
            token = settings.token.get_secret_value()
            recorder = await stack.enter_async_context(RecorderClient.connect(settings.recorder_url, token))
        campaign = await stack.enter_async_context(Campaign(kubeconfig, lease_of, timing.every_s))
        yield Controller(settings, kube, campaign, recorder, identity, more)


def own_address(host: str) -> str:
    """Where other replicas reach one that listens on `host`: its own address, of IPv4 if it has one.

    Raises:
        OSError: the machine's own name leads nowhere.
    """
    if is_loopback(host):
        return host
    known = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return min(((family == socket.AF_INET6, str(at[0])) for family, _, _, _, at in known))[1]


def namespace_of(configured: str) -> str:
    """Where the Lease and the checkpoint are: as configured, else the pod's own, else `default`."""
    if configured:
        return configured
    with contextlib.suppress(OSError):
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    return "default"


async def serve(settings: Settings, port_file: Path | None = None, more: Sequence[Route] = ()) -> None:
    """Serve, and `more` beside it, until SIGTERM or SIGINT.

    Then the lease is given up, so that another replica goes on at once.

    Raises:
        ConfigError: others could reach it and there is no token.
        KubeError: no usable Kubernetes configuration.
        OSError: the address cannot be listened on.
    """
    own = settings.controller
    if not settings.token.get_secret_value() and not is_loopback(own.host):
        raise ConfigError(
            f"others could pause the queue on {own.host}: set FAIRLANE_TOKEN, or listen on 127.0.0.1"
        )
    listening = listen(own.host, own.port)
    port = listening.getsockname()[1]
    url = own.url or f"http://{place_of(own_address(own.host), port)}"
    async with controller(settings, lambda: url, more) as parts:
        server = new_server(VersionedApp(parts.app, "controller"), port_file=port_file)
        await server.serve_beside(listening, parts.run())


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
