"""The predictor's metrics, made from its status when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scheduler.edge.metrics import counter, gauge, labelled

NAME = "fairlane_predictor"


class PredictorMetrics(Collector):
    """`status` as of model.serve.PredictorServer."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """All families; without a model there is no time of training."""
        told = self._status()
        yield gauge(f"{NAME}_serving", "Whether a model answers.", not told["unready"])
        yield gauge(f"{NAME}_registry_ok", "Whether the newest version could be read.", not told["problem"])
        yield counter(f"{NAME}_predictions", "Requests answered with predictions.", told["predictions"])
        yield counter(f"{NAME}_predicting_seconds", "Time from request to answer.", told["predicting_s"])
        if told["model_version"]:
            yield labelled(f"{NAME}_model", "The model that answers.", {"version": told["model_version"]})
            yield gauge(
                f"{NAME}_model_trained_at_seconds", "When it was trained (unix).", told["trained_at_s"]
            )
            yield gauge(f"{NAME}_model_examples", "Runs that it was trained on.", told["examples"])
