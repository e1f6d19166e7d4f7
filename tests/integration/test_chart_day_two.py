"""What a release does to others while its pods come and go, and how what it made is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from chart_variants import Object, objects_of, pod_of

from scheduler.admission_settings import AdmissionSettings
from scheduler.edge.http_server import GRACEFUL_S
from scheduler.edge.manifests import webhook_manifests

ROOT = Path(__file__).parents[2]
KNOWN_S = 5
"""Until API servers and proxies have heard that a pod ends; until then they send it reviews."""
KUBERNETES_DEFAULT_S = 30


def test_a_webhook_that_ends_answers_until_nobody_calls_it_any_more() -> None:
    """One that refused calls meanwhile would have pods refused at every upgrade, or let past the queue."""
    for made in (objects_of("webhook"), webhook_manifests(AdmissionSettings())):
        (pod,) = (
            pod_of(one) or {}
            for one in made
            if one["kind"] == "Deployment" and one["metadata"]["name"] == "fairlane-admission"
        )
        (container,) = pod["containers"]
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        assert int(seconds) >= KNOWN_S
        grace_s = pod.get("terminationGracePeriodSeconds", KUBERNETES_DEFAULT_S)
        assert int(seconds) + GRACEFUL_S < grace_s


def test_the_jobs_of_training_are_found_by_the_labels_of_the_runbook() -> None:
    (cron,) = (one for one in objects_of("everything") if one["kind"] == "CronJob")
    job: Object = cron["spec"]["jobTemplate"]["metadata"]
    page = (ROOT / "docs" / "runbooks" / "FairlaneModelStale.md").read_text()
    asked = "get jobs -l app.kubernetes.io/component=train"
    assert asked in page
    assert job["labels"]["app.kubernetes.io/component"] == "train"
    assert job["labels"] == cron["metadata"]["labels"]


@pytest.mark.parametrize(("variant", "told"), [("defaults", True), ("highly available", False)])
def test_who_is_alone_can_be_asked_why_it_is_not_ready(variant: str, told: bool) -> None:
    """A Service without ready pods refuses connections, and `fairlane doctor` would not learn the reason."""
    made = objects_of(variant)
    services = {one["metadata"]["name"]: one["spec"] for one in made if one["kind"] == "Service"}
    assert services["fairlane-recorder"]["publishNotReadyAddresses"] is True
    assert services["fairlane-controller"].get("publishNotReadyAddresses", False) is told
    replicas = {
        one["metadata"]["name"]: one["spec"]["replicas"] for one in made if one["kind"] == "Deployment"
    }
    assert replicas["fairlane-recorder"] == 1
    assert (replicas["fairlane-controller"] == 1) is told
