"""The Helm chart, rendered by Helm: a real API server takes every object of every variant."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from admission_setup import with_admin
from chart_variants import PARTS, VARIANTS, Object, helm_or_skip, objects_of, pod_of

from scheduler.edge.kube import KubeClient, KubeError
from testbed.chart.helm import NAMESPACE, Helm
from testbed.cluster import Cluster

FOREIGN = {
    "monitoring.coreos.com": {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"},
    "cert-manager.io": {"Certificate": "certificates"},
}
"""Kinds that the testbed does not have: served with a schema that takes anything."""
RESTRICTED = "restricted"
MORE: Object = {"admission": {"by": "webhook"}, "bundledPrometheus": {"enabled": True}}
"""Parts that "everything" cannot have beside its own."""
NEEDED_BY_OTHERS = ("ServiceAccount", "PriorityClass")
"""Made for real: the API server refuses a pod without them, also when it is only tried."""
PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}
PLURALS |= {"MutatingAdmissionPolicy": "mutatingadmissionpolicies"}
PLURALS |= {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
CLUSTER_WIDE = re.compile(r"Cluster|AdmissionPolicy|WebhookConf|CustomResource|PriorityClass|^Namespace$")


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


@pytest.fixture(scope="module")
def served(cluster: Cluster, helm: Helm) -> Iterator[Cluster]:  # noqa: ARG001 - nothing to do without it
    """The shared testbed with the namespaces of the chart, and the kinds of others that it may use."""
    restricted = _namespace(RESTRICTED, {"pod-security.kubernetes.io/enforce": "restricted"})
    mine = [_namespace("fairlane-test"), restricted, *_foreign_kinds()]
    mine.append(_account("default", RESTRICTED))
    asyncio.run(with_admin(cluster, lambda kube: _create([_namespace(NAMESPACE), *mine], kube)))
    yield cluster
    accounts = [_account(f"fairlane-{part}") for part in PARTS]
    asyncio.run(with_admin(cluster, lambda kube: _remove([_class(), *accounts, *mine], kube)))


def _timed(variant: str) -> object:
    """Two variants have all kinds of objects between them; the others take longer than they tell."""
    return variant if variant in ("defaults", "everything") else pytest.param(variant, marks=pytest.mark.long)


async def _create(objects: list[Object], kube: KubeClient) -> None:
    for one in objects:
        try:
            await kube.post(_collection(one), one)
        except KubeError as error:
            if error.status != 409:
                raise


async def _remove(objects: list[Object], kube: KubeClient) -> None:
    for one in objects:
        try:
            await kube.delete(_path(one))
        except KubeError as error:
            if error.status != 404:
                raise


@pytest.mark.parametrize("variant", [_timed(name) for name in VARIANTS])
@pytest.mark.usefixtures("served")
async def test_the_api_server_takes_every_object_of(variant: str, kube: KubeClient) -> None:
    objects = objects_of(variant)
    assert len(objects) > 20
    for one in objects:
        await _try(kube, one)


@pytest.mark.usefixtures("served")
async def test_the_api_server_holds_every_pod_for_restricted(helm: Helm, kube: KubeClient) -> None:
    objects = objects_of("everything") + helm.objects(MORE)
    pods = {one["metadata"]["name"]: pod for one in objects if (pod := pod_of(one))}
    assert len(pods) == len(PARTS)
    path = f"/api/v1/namespaces/{RESTRICTED}/pods?dryRun=All"
    for name, pod in pods.items():
        # made by no controller, in a namespace that enforces the standard, where the accounts are not
        spec = {**pod, "serviceAccountName": "default", "priorityClassName": ""}
        await kube.post(path, {"metadata": {"name": name}, "spec": spec})
    loose = {"containers": [{"name": "main", "image": "none"}]}
    with pytest.raises(KubeError, match="violates PodSecurity"):
        await kube.post(path, {"metadata": {"name": "loose"}, "spec": loose})


async def _try(kube: KubeClient, one: Object) -> None:
    params = {"fieldManager": "helm", "force": "true", "fieldValidation": "Strict"}
    if one["kind"] not in NEEDED_BY_OTHERS:
        params["dryRun"] = "All"
    for attempt in range(50):  # a kind that was just made known is served a moment later
        try:
            await kube.patch(_path(one), one, "application/apply-patch+yaml", params)
            return
        except KubeError as error:
            if error.status != 404 or attempt == 49:
                raise AssertionError(f"{one['kind']} {one['metadata']['name']}: {error}") from error


def _namespace(name: str, labels: Object | None = None) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def _account(name: str, namespace: str = NAMESPACE) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _class() -> Object:
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "fairlane"}}


def _foreign_kinds() -> list[Object]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    made = []
    for group, kinds in FOREIGN.items():
        for kind, plural in kinds.items():
            names = {"kind": kind, "plural": plural, "singular": kind.lower()}
            versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
            spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions}
            head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
            made.append({**head, "metadata": {"name": f"{plural}.{group}"}, "spec": spec})
    return made


def _collection(one: Object) -> str:
    group, kind = one["apiVersion"], one["kind"]
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    if CLUSTER_WIDE.search(kind):
        return f"{base}/{plural}"
    return f"{base}/namespaces/{one['metadata']['namespace']}/{plural}"


def _path(one: Object) -> str:
    return f"{_collection(one)}/{one['metadata']['name']}"
