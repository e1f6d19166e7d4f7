"""The predictor's metrics, made from its status and its certificate when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scheduler.edge.metrics import counter, gauge, labelled

NAME = "fairlane_predictor"


class PredictorMetrics(Collector):
    """`status` as of model.serve.PredictorServer; `certificate` is the file that it serves, if any.

    `stale_after_s`: how long after its training a model counts as old.
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], stale_after_s: float, certificate: Path | None = None
    ) -> None:
        self._status, self._stale_after_s, self._certificate = status, stale_after_s, certificate

    def collect(self) -> Iterable[Metric]:
        """All families; without a model there is no time of training."""
        told = self._status()
        yield gauge(f"{NAME}_serving", "Whether a model answers.", not told["unready"])
        yield gauge(f"{NAME}_registry_ok", "Whether the newest version could be read.", not told["problem"])
        about = "How long after its training a model counts as old (predictor.stale_after_days)."
        yield gauge(f"{NAME}_model_stale_after_seconds", about, self._stale_after_s)
        yield counter(f"{NAME}_predictions", "Requests answered with predictions.", told["predictions"])
        yield counter(f"{NAME}_predicting_seconds", "Time from request to answer.", told["predicting_s"])
        if told["model_version"]:
            yield labelled(f"{NAME}_model", "The model that answers.", {"version": told["model_version"]})
            yield gauge(
                f"{NAME}_model_trained_at_seconds", "When it was trained (unix).", told["trained_at_s"]
            )
            yield gauge(f"{NAME}_model_examples", "Runs that it was trained on.", told["examples"])
        if self._certificate is not None:
            yield from _certificate_metrics(self._certificate)


def _certificate_metrics(file: Path) -> Iterable[Metric]:
    """Whoever renews it: when it ends. 0 of one that cannot be read, which is as good as none."""
    from scheduler.edge.certificates import CertificateError, life_of, load  # a start needs none of it

    try:
        begins_s, ends_s = life_of(load(file.read_bytes())[0])
    except (OSError, CertificateError):
        begins_s = ends_s = 0.0
    about = "When the certificate that is served begins to be valid, seconds since 1970."
    yield gauge(f"{NAME}_served_certificate_begins_seconds", about, begins_s)
    about = "When the certificate that is served ends, seconds since 1970."
    yield gauge(f"{NAME}_served_certificate_ends_seconds", about, ends_s)
