"""A fault of the webhook is counted, so that FairlaneWebhookFailing hears of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.admission_settings import AdmissionSettings
from scheduler.config import Settings
from scheduler.edge.admission import AdmissionApp, rules_of
from scheduler.edge.admission_process import Admission

REVIEW = {"request": {"uid": "1", "namespace": "team", "operation": "CREATE", "object": {}}}


def app_that_fails() -> AdmissionApp:
    async def labels(_namespace: str) -> dict[str, str]:
        raise RuntimeError("a bug")

    namespaces: Any = SimpleNamespace(labels=labels)
    rules = rules_of(AdmissionSettings())
    return AdmissionApp(rules, namespaces, dict, bytes, str, max_body_bytes=10_000, read_timeout_s=1.0)


async def test_a_fault_is_counted_and_told() -> None:
    app = app_that_fails()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(REVIEW).encode()}

    async def send(_message: Any) -> None:
        raise AssertionError("the server answers 500 by itself")

    scope = {"type": "http", "method": "POST", "path": "/mutate", "headers": []}
    with pytest.raises(RuntimeError, match="a bug"):
        await app(scope, receive, send)
    assert app.failed[500] == 1
    assert "RuntimeError: a bug" in app.last_failure


def test_there_is_a_series_of_faults_before_the_first() -> None:
    """Prometheus sees no increase in a series that begins at 1."""
    webhook = Admission(Settings(), SimpleNamespace())  # type: ignore[arg-type]
    family = next(one for one in webhook.collect() if one.name == "fairlane_admission_failures")
    assert ("500", 0.0) in {(sample.labels["status"], sample.value) for sample in family.samples}
