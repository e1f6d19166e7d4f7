"""What Helm says after an installation: what is installed, what to do next, what an uninstall leaves."""

from __future__ import annotations

import pytest
from chart_variants import VARIANTS, Object, helm_or_skip

from testbed.chart.helm import CHART, NAMESPACE, Helm


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


def notes(helm: Helm, values: Object) -> str:
    """In one line."""
    words = ("install", "fairlane", str(CHART), "--namespace", NAMESPACE, "--dry-run=client")
    return " ".join(helm.run(*words, values=values).partition("\nNOTES:\n")[2].split("\n"))


NOTED = {
    "no telemetry": "There is no telemetry yet",
    "no admission": "Admission is not installed, so nobody waits for his turn",
    "no queue": "There is no queue: whoever names the scheduler fairlane is placed at once",
    "no scheduler": "There is no scheduler named fairlane",
    "label": "kubectl label namespace TEAM fairlane.dev/enabled=true",
    "by name": "spec.schedulerName: fairlane      ",
    "by queue": "or on a pod: annotation fairlane.dev/queue-name: default",
    "doctor": "exec deploy/fairlane-scheduler -c extender -- fairlane doctor",
    "doctor beside the controller": "exec deploy/fairlane-controller -c extender -- fairlane doctor",
    "doctor of the queue": "exec deploy/fairlane-controller -c controller -- fairlane doctor",
    "gates stay": "gates on the pods that wait: docs/install.md says",
}
PROMETHEUS: Object = {"settings": {"prometheus": {"url": "http://p:9090"}}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, {"no telemetry", "label", "doctor", "gates stay"}),
        (PROMETHEUS, {"label", "doctor", "gates stay"}),
        ({"admission": {"by": "none"}}, {"no telemetry", "no admission", "label", "doctor", "gates stay"}),
        (
            VARIANTS["queue only"][0],
            {"no scheduler", "label", "by queue", "gates stay", "doctor of the queue"},
        ),
        (VARIANTS["placing only"][0], {"no telemetry", "no queue", "by name", "doctor"}),
        (
            {"settings": {**PROMETHEUS["settings"], "controller": {"placement": "hint"}}},
            {"label", "doctor beside the controller", "gates stay"},
        ),
    ],
)
def test_the_notes_tell_what_is_installed_and_what_to_do_next(
    values: Object, told: set[str], helm: Helm
) -> None:
    said = notes(helm, values)
    assert f"Fairlane 0.1.0 is installed in {NAMESPACE}" in said
    assert f"helm test fairlane --namespace {NAMESPACE} --logs" in said
    assert {name for name, words in NOTED.items() if words in said} == told


NOTHING_KEPT: Object = {"crds": {"keep": False}, "storage": {"keep": False}}


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({}, "FairQueue objects, the volume, gates on the pods that wait:"),
        ({"crds": {"keep": False}}, "leaves the volume, gates on"),
        ({"storage": {"keep": False}}, "leaves FairQueue objects, gates on"),
        ({**NOTHING_KEPT, "storage": {"existingClaim": "data"}}, "leaves the volume, gates on"),
        (VARIANTS["no volume"][0], "leaves FairQueue objects, gates on"),
        ({**NOTHING_KEPT, **VARIANTS["placing only"][0]}, ""),
    ],
)
def test_the_notes_tell_what_an_uninstall_leaves(values: Object, left: str, helm: Helm) -> None:
    said = notes(helm, values)
    assert left in said
    assert ("helm uninstall" in said) == bool(left)


def test_the_notes_name_no_test_that_is_not_there(helm: Helm) -> None:
    assert "helm test" not in notes(helm, {"test": {"enabled": False}})
