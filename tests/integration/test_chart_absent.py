"""Values that are not there: taken out with null, or new since the chart that --reuse-values is of."""

from __future__ import annotations

from typing import Any

import pytest
from chart_variants import Object, helm_or_skip, pod_of

from testbed.chart.helm import Helm, HelmError


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


def null_at(path: str) -> Object:
    """Values that take out what is at `path`."""
    value: Any = None
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


# without its ports a rule lets everything out; without these words there was no TLS, and no gate
SILENT = ("networkPolicies.dnsPorts", "networkPolicies.apiServerPorts", "predictor.tls", "admission.by")
BROKEN = (
    *("admission.failurePolicy", "train.leastExamples", "test.gangSize", "priorityClass.value"),
    *("storage.accessMode", "storage.size", "scheduler.extenderWeight", "crds.install"),
)
SECTIONS = (
    *("networkPolicies", "test", "podSecurity", "bundledPrometheus", "storage.postgresql"),
    *("predictor.certManager", "scheduler.kubeScheduler.image"),
)


@pytest.mark.parametrize("path", [*SILENT, *BROKEN, *SECTIONS])
def test_what_nothing_can_stand_in_for_is_asked_for_by_name(path: str, helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(null_at(path))
    told = str(refused.value)
    assert f"{path} is null or missing" in told
    assert "--reset-then-reuse-values" in told


EMPTY: dict[str, Object] = {
    "commonLabels": {},
    "controller.affinity": {},
    "controller.nodeSelector": {},
    "controller.podLabels": {},
    "controller.podAnnotations": {},
    "controller.env": {"controller": {"env": []}},
    "admission.submitters": {},
    "admission.excludedNamespaces": {"admission": {"excludedNamespaces": []}},
    "networkPolicies.clients": {"networkPolicies": {"clients": []}},
}
"""By what is taken out: values that mean the same."""


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_map_or_list_may_be_left_without_a_value(path: str, helm: Helm) -> None:
    secret = {"token": {"existingSecret": "token"}}  # or each rendering has another one
    assert helm.template({**null_at(path), **secret}) == helm.template({**EMPTY[path], **secret})


def test_settings_may_be_left_without_a_value(helm: Helm) -> None:
    assert helm.objects({"settings": None})
    assert helm.objects({"settings": {"prometheus": None}})


def test_null_takes_out_what_may_be_left_to_the_cluster(helm: Helm) -> None:
    values = {"podSecurity": {"userId": None}, "predictor": {"replicas": None, "resources": None}}
    objects = helm.objects(values)
    (predictor,) = (
        one
        for one in objects
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "fairlane-predictor"
    )
    assert predictor["spec"]["replicas"] is None  # an autoscaler's
    pod = pod_of(predictor)
    assert pod is not None
    assert pod["containers"][0]["resources"] == {"requests": {}}
    assert "runAsUser" not in pod["securityContext"]
