"""Labels and annotations for every object of the chart are on every object that it makes."""

from __future__ import annotations

import json

import pytest
from chart_variants import EVERYTHING, Object, helm_or_skip, objects_of, pod_of

COMMON: Object = {"commonLabels": {"team": "platform"}, "commonAnnotations": {"contact": "me"}}
MUCH: Object = {**EVERYTHING, **COMMON, "bundledPrometheus": {"enabled": False}}
WEBHOOK: Object = {**COMMON, "admission": {"by": "webhook"}, "bundledPrometheus": {"enabled": True}}


@pytest.mark.parametrize("values", [COMMON, MUCH, WEBHOOK], ids=["defaults", "everything", "webhook"])
def test_what_is_for_every_object_is_on_every_object(values: Object) -> None:
    objects = helm_or_skip().objects(values)
    without = {
        (one["kind"], one["metadata"]["name"])
        for one in objects
        if one["metadata"].get("annotations", {}).get("contact") != "me"
        or one["metadata"]["labels"].get("team") != "platform"
    }
    assert without == set()


LINUX = {"kubernetes.io/os": "linux"}
INFRA: Object = {"nodeSelector": {"pool": "infra"}, "tolerations": [{"key": "infra", "operator": "Exists"}]}


def test_helm_test_goes_where_there_are_nodes_for_it_and_so_does_its_gang() -> None:
    values = {"test": {**INFRA, "resources": {"limits": {"cpu": 1}}, "podLabels": {"cost": "1"}}}
    (pod,) = (one for one in helm_or_skip().objects(values) if one["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["nodeSelector"] == {**INFRA["nodeSelector"], **LINUX}
    assert pod["spec"]["tolerations"] == INFRA["tolerations"]
    (given,) = (word for word in container["args"] if word.startswith("--spec="))
    assert json.loads(given.removeprefix("--spec=")) == INFRA
    assert container["resources"]["limits"] == {"cpu": 1}


@pytest.mark.parametrize("variant", ["everything", "bundled Prometheus, webhook, placement at release"])
def test_no_pod_of_ours_goes_to_a_node_of_windows(variant: str) -> None:
    pods = {one["metadata"]["name"]: pod for one in objects_of(variant) if (pod := pod_of(one)) is not None}
    assert len(pods) >= 7
    assert {name for name, pod in pods.items() if not LINUX.items() <= pod["nodeSelector"].items()} == set()
