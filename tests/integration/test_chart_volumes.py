"""What the cluster has already is looked at: claims that nobody can change, the port of its API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import yaml
from chart_variants import Object, helm_or_skip

from scheduler.edge.kube import KubeClient, KubeError
from testbed.chart.helm import CHART, HelmError
from testbed.cluster import Cluster

RELEASE = "volumes-system"
CLAIMS = f"/api/v1/namespaces/{RELEASE}/persistentvolumeclaims"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
TRY = ("--dry-run=server", "--take-ownership", "--hide-secret")


def claim(name: str, storage: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast"}
    return {"metadata": {"name": name}, "spec": {**spec, "resources": {"requests": {"storage": storage}}}}


@pytest.fixture
async def there(kube: KubeClient) -> AsyncIterator[None]:
    """The claims of a release, one of which an administrator enlarged by hand."""
    try:
        await kube.post("/api/v1/namespaces", {"metadata": {"name": RELEASE}})
    except KubeError as error:
        if error.status != 409:
            raise
    made = [claim("fairlane-data", "20Gi"), claim("fairlane-prometheus", "4Gi")]
    for one in made:
        await kube.post(CLAIMS, one)
    yield
    for one in made:
        path = f"{CLAIMS}/{one['metadata']['name']}"
        await kube.patch(
            path, {"metadata": {"finalizers": None}}
        )  # a testbed has nobody who would take it off
        await kube.delete(path)


def tried(cluster: Cluster, values: Object) -> str:
    """What Helm would install, having looked at the cluster."""
    helm = helm_or_skip(cluster.kubeconfig)
    return helm.run("install", "fairlane", str(CHART), "--namespace", RELEASE, *TRY, values=values)


BUNDLED: Object = {"enabled": True, "storage": {"persistent": True}}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, r"storage.size is 10Gi, but the claim fairlane-data is there with 20Gi, and no volume shrinks"),
        (
            {"storage": {"size": "20G"}},
            r"storage.size is 20G, but the claim fairlane-data is there with 20Gi",
        ),
        (
            {"storage": {"size": "20Gi", "storageClass": "slow"}},
            r'storage.storageClass is slow, but the claim fairlane-data is there with "fast", which ',
        ),
        (
            {"storage": {"size": "20Gi", "storageClass": "fast", "accessMode": "ReadWriteMany"}},
            r"accessMode is ReadWriteMany, .* there with ReadWriteOnce, .* name it in storage.existingClaim",
        ),
        (
            {
                "storage": {"size": "1Ti"},
                "bundledPrometheus": {**BUNDLED, "storage": {**BUNDLED["storage"], "size": "2Gi"}},
            },
            r"bundledPrometheus.storage.size is 2Gi, but the claim fairlane-prometheus is there with 4Gi",
        ),
    ],
)
def test_a_claim_that_is_there_is_not_changed_as_nobody_can(
    cluster: Cluster, values: Object, sentence: str
) -> None:
    with pytest.raises(HelmError, match=sentence):
        tried(cluster, values)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    "values",
    [
        {"storage": {"size": "20Gi"}},
        {"storage": {"size": "30Gi", "storageClass": "fast"}, "bundledPrometheus": BUNDLED},
        {"storage": {"existingClaim": "mine"}},
    ],
)
def test_what_can_be_done_is_done(cluster: Cluster, values: Object) -> None:
    assert "kind: Deployment" in tried(cluster, values)


async def test_the_port_of_this_api_server_is_let_out(cluster: Cluster, kube: KubeClient) -> None:
    """A policy sees that of the endpoint: 8443 on minikube, 16443 on MicroK8s."""
    helm_or_skip()
    one = {
        "metadata": {"name": "kubernetes"},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 8443}],
    }
    await kube.post(SLICES, {**one, "endpoints": [{"addresses": ["10.1.2.3"]}]})
    try:
        told = tried(cluster, {"bundledPrometheus": {"enabled": True}})
    finally:
        await kube.delete(f"{SLICES}/kubernetes")
    rendered = yaml.safe_load_all(told.partition("MANIFEST:")[2].partition("\nNOTES:\n")[0])
    policies = {one["metadata"]["name"]: one for one in rendered if one and one["kind"] == "NetworkPolicy"}
    for part in ("controller", "scheduler", "recorder", "test", "prometheus"):
        rules = policies[f"fairlane-{part}"]["spec"]["egress"]
        anywhere = {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]}
        assert anywhere >= {443, 6443, 8443}, part
