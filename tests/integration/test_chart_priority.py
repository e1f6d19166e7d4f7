"""A priority that cannot be changed is refused before anything else of an upgrade was done."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from chart_variants import Object, helm_or_skip

from scheduler.edge.kube import KubeClient
from testbed.chart.helm import CHART, HelmError
from testbed.cluster import Cluster

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
TRY = ("--dry-run=server", "--take-ownership", "--hide-secret")


@pytest.fixture
async def there(kube: KubeClient) -> AsyncIterator[None]:
    """The class that a release with the chart's defaults made."""
    await kube.post(CLASSES, {"metadata": {"name": "fairlane"}, "value": 1000000})
    yield
    await kube.delete(f"{CLASSES}/fairlane")


def tried(cluster: Cluster, values: Object) -> str:
    """What Helm would install, having looked at the cluster."""
    helm = helm_or_skip(cluster.kubeconfig)
    return helm.run("install", "fairlane", str(CHART), "--namespace", "fairlane-system", *TRY, values=values)


@pytest.mark.usefixtures("there")
def test_another_value_than_the_class_has_is_refused_with_a_way_out(cluster: Cluster) -> None:
    with pytest.raises(HelmError, match=r"priorityClass.value is 5, .* there with 1000000, .* name it in"):
        tried(cluster, {"priorityClass": {"value": 5}})


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("values", [{}, {"priorityClass": {"value": 5, "name": "platform"}}])
def test_the_same_value_and_another_class_are_taken(cluster: Cluster, values: Object) -> None:
    assert "kind: Deployment" in tried(cluster, values)


def test_a_first_installation_may_have_any_value(cluster: Cluster) -> None:
    assert "value: 5" in tried(cluster, {"priorityClass": {"value": 5}})
