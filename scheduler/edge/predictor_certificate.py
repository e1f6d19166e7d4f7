"""Looks after the predictor's certificate: a CA of our own in a Secret, renewed before anything ends.

The recorder does this, because it always runs, once, and talks to the API
server anyway. Predictor and extender only mount their part of the Secret, and
need no rights; both take changes while they run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric

from scheduler.certificate_settings import PredictorCertificate
from scheduler.edge.certificate_secret import CertificateSecret
from scheduler.edge.certificates import CertificateError, Certificates, life_of, load
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.metrics import gauge

AFTER_FAILURE_S = 5.0
"""Another look soon: of a release that was just installed, rights may be known a moment later."""

log = logging.getLogger(__name__)


class PredictorCertificateKeeper:
    """Keeps the Secret of the predictor's certificate. `status` and `collect` only read."""

    def __init__(self, kube: KubeClient, settings: PredictorCertificate) -> None:
        self._secret = CertificateSecret(kube, settings, settings.names)
        self._check_s = settings.check_s
        self._held: Certificates | None = None
        self.failure = ""

    async def run(self) -> None:
        """Look again and again; a failure is told, and what is there stays."""
        while True:
            await self.look()
            await asyncio.sleep(min(self._check_s, AFTER_FAILURE_S) if self.failure else self._check_s)

    async def look(self) -> None:
        """One step of renewal, if one is due."""
        try:
            held = await self._secret.renew()
            self.failure = ""
        except (CertificateError, KubeError, OSError) as error:
            if str(error) != self.failure:  # looked at again soon: told once
                log.warning("the predictor's certificate: %s", error)
            self.failure = str(error)
            return
        if held != self._held:
            ends = load(held.serving.certificate)[0].not_valid_after_utc
            log.info("the predictor's certificate ends at %s", ends)
        self._held = held

    def life_s(self) -> tuple[float, float]:
        """When that of certificate and newest CA which ends first begins and ends, seconds since 1970;
        0 while none is known.
        """
        if self._held is None:
            return 0.0, 0.0
        both = load(self._held.serving.certificate)[0], load(self._held.bundle)[0]
        return life_of(min(both, key=lambda one: one.not_valid_after_utc))

    def status(self) -> dict[str, Any]:
        """The state in plain values."""
        return {"ends_s": self.life_s()[1], "failure": self.failure}

    def collect(self) -> Iterable[Metric]:
        """Metrics families, as of this moment."""
        name = "fairlane_predictor_certificate"
        begins_s, ends_s = self.life_s()
        about = "When the predictor's certificate that we keep begins to be valid, seconds since 1970."
        yield gauge(f"{name}_begins_seconds", about, begins_s)
        about = "When the predictor's certificate that we keep ends, seconds since 1970."
        yield gauge(f"{name}_ends_seconds", about, ends_s)
        yield gauge(f"{name}_ok", "Whether the last look at it succeeded.", not self.failure)
