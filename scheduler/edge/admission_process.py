"""The admission webhook as a process: certificate, namespaces, the server, and how they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scheduler.config import Settings
from scheduler.edge.admission import AdmissionApp, Namespaces, rules_of
from scheduler.edge.admission_certificates import keeper, serving_context
from scheduler.edge.certificates import CertificateError
from scheduler.edge.http_server import listen, new_server
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.metrics import Scrape, counter, counters, gauge
from scheduler.edge.versioned import VersionedApp

CONNECTIONS_MAX = 4096
"""API servers call in parallel as much as they create; a refused connection would be a refused pod."""

log = logging.getLogger(__name__)


class Admission(Collector):
    """All parts of one webhook. `collect` and `status` only read."""

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        own = settings.admission
        self.context = serving_context()
        self._keeper = keeper(own, self.context, kube)
        self._namespaces = Namespaces(kube)
        self.app = AdmissionApp(
            rules_of(own),
            self._namespaces,
            self.status,
            Scrape("admission", self),
            self.unready,
            max_body_bytes=own.max_body_bytes,
            read_timeout_s=own.read_timeout_s,
        )

    async def prepare(self) -> None:
        """A certificate to serve.

        Raises:
            CertificateError: there is none to be had.
            KubeError: the API server does not let us keep it.
        """
        try:
            await self._keeper.look()
        except (KubeError, CertificateError) as error:
            if not self._keeper.life_s()[1]:
                raise
            log.warning("serving, but not yet trusted by the API server: %s", error)

    async def run(self) -> None:
        """Everything in the background, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._namespaces.run())
            tasks.create_task(self._keeper.run())

    def unready(self) -> str:
        """Why reviews cannot be answered; empty when they can."""
        return "" if self._namespaces.listed else "the API server has not listed namespaces yet"

    def status(self) -> dict[str, Any]:
        """The whole state in plain values."""
        app = self.app
        return {
            "ready": not self.unready(),
            "unready": self.unready(),
            "verdicts": dict(app.verdicts),
            "failed": {str(status): count for status, count in app.failed.items()},
            "last_failure": app.last_failure,
            "last_refusal": app.last_refusal,
            "certificate_ends_s": self._keeper.life_s()[1],
            "certificates_served": self._keeper.changes,
            "certificate_failure": self._keeper.failure,
        }

    def collect(self) -> Iterable[Metric]:
        """Metrics families, read from the counters at this moment."""
        app, name = self.app, "fairlane_admission"
        verdicts = {key: float(count) for key, count in app.verdicts.items()}
        failed = {str(status): float(count) for status, count in app.failed.items()}
        about = "Reviews answered, by verdict."
        yield counters(f"{name}_reviews", about, "verdict", verdicts, ("untouched", "changed", "refused"))
        about = "Requests without a verdict, by status."
        yield counters(f"{name}_failures", about, "status", failed, ("400", "408", "413", "500", "503"))
        yield counter(f"{name}_busy_seconds", "Time spent on verdicts.", app.busy_s)
        begins_s, ends_s = self._keeper.life_s()
        about = "When the certificate in use begins to be valid, seconds since 1970."
        yield gauge(f"{name}_certificate_begins_seconds", about, begins_s)
        about = "When the certificate in use ends, seconds since 1970."
        yield gauge(f"{name}_certificate_ends_seconds", about, ends_s)
        yield gauge(
            f"{name}_certificate_ok", "Whether the last look at it succeeded.", not self._keeper.failure
        )


async def serve(settings: Settings, port_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CertificateError: no certificate can be served.
        KubeError: no usable Kubernetes configuration, or the API server refuses us the Secret.
        OSError: the address cannot be listened on.
    """
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    async with KubeClient.connect(kubeconfig) as kube:
        parts = Admission(settings, kube)
        await parts.prepare()
        listening = listen(settings.admission.host, settings.admission.port)
        server = new_server(
            VersionedApp(parts.app, "webhook"),
            port_file=port_file,
            tls=parts.context,
            connections_max=CONNECTIONS_MAX,
        )
        await server.serve_beside(listening, parts.run())
