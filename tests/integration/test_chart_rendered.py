"""The Helm chart, rendered by Helm: every variant is accepted by a real API server, every mistake refused.

Helm is used where it is there already (`fairlane testbed programs helm` builds
it): building it takes minutes, so these tests are skipped without it.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from admission_setup import with_admin

from scheduler.admission_settings import AdmissionSettings
from scheduler.config import Settings
from scheduler.core.admission.kinds import KNOWN
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.manifests import policy_manifests, webhook_manifests
from testbed.chart.files import RENDERED, rendered
from testbed.chart.helm import CHART, NAMESPACE, NEWEST, OLDER, Helm, HelmError
from testbed.cluster import Cluster

Object = dict[str, Any]
MONITORING = ("monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule")
FOREIGN = {
    "monitoring.coreos.com": {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"},
    "cert-manager.io": {"Certificate": "certificates"},
}
"""Kinds that the testbed does not have: served with a schema that takes anything."""
HA: Object = {
    "scheduler": {"replicas": 2},
    "controller": {"replicas": 3},
    "predictor": {"replicas": 2},
    "storage": {
        "accessMode": "ReadWriteMany",
        "storageClass": "shared",
        "postgresql": {"existingSecret": "store"},
    },
}
EVERYTHING: Object = {
    **HA,
    "image": {"digest": "sha256:" + "a" * 64, "pullSecrets": ["pull"]},
    "commonLabels": {"team": "platform"},
    "commonAnnotations": {"contact": "platform@example.org"},
    "settings": {
        "prometheus": {"url": "https://prometheus.monitoring:9090", "ca_file": "/etc/fairlane/prometheus/ca"}
    },
    "probe": {"enabled": True, "tolerations": [{"operator": "Exists"}]},
    "admission": {"kinds": list(KNOWN), "submitters": ["system:serviceaccount:airflow:worker"]},
    "monitoring": {"labels": {"release": "kube-prometheus-stack"}},
}
EVERYTHING["scheduler"] = {
    "replicas": 2,
    "prometheusSecret": "prometheus-access",
    "podLabels": {"cost": "1"},
    "podAnnotations": {"note": "x"},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "nodeSelector": {"pool": "infra"},
    "affinity": {"nodeAffinity": {}},
}
VARIANTS: dict[str, tuple[Object, Any, tuple[str, ...]]] = {
    "defaults": ({}, NEWEST, MONITORING),
    "no Prometheus operator": ({}, NEWEST, ()),
    "highly available": (HA, NEWEST, MONITORING),
    "webhook": ({"admission": {"by": "webhook", "kinds": ["jobsets"]}}, NEWEST, ()),
    "webhook with cert-manager": (
        {"admission": {"webhook": {"certManager": {"issuerName": "ca"}}}},
        OLDER,
        (),
    ),
    "PostgreSQL": ({"storage": {"postgresql": {"existingSecret": "store"}}}, NEWEST, ()),
    "no volume": (
        {"storage": {"postgresql": {"existingSecret": "store"}, "registryUrl": "s3://models/fairlane"}},
        NEWEST,
        (),
    ),
    "air-gapped": ({"image": {"registry": "registry.internal:5000/mirror"}}, NEWEST, ()),
    "everything": (EVERYTHING, NEWEST, MONITORING),
}
PARTS = ("scheduler", "controller", "recorder", "predictor", "train", "probe", "admission", "test")
PASSAGES = {
    ("scheduler", "recorder", 8890),
    ("scheduler", "predictor", 8889),
    ("controller", "recorder", 8890),
    ("controller", "controller", 8891),
    ("train", "recorder", 8890),
    ("test", "recorder", 8890),
    ("probe", "probe", 8893),
}
"""Which part asks which: decisions, histories, predictions, requests to the leader, examples, round trips."""
RESTRICTED = "restricted"
NEEDED_BY_OTHERS = ("ServiceAccount", "PriorityClass")
"""Made for real: the API server refuses a pod without them, also when it is only tried."""
PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}
PLURALS |= {"MutatingAdmissionPolicy": "mutatingadmissionpolicies"}
PLURALS |= {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
CLUSTER_WIDE = re.compile(r"Cluster|AdmissionPolicy|WebhookConf|CustomResource|PriorityClass|^Namespace$")


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    program = Helm.found()
    if program is None:
        pytest.skip("helm is not built: `fairlane testbed programs helm` builds it, then this test runs")
    return Helm(program)


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


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("served")
async def test_the_api_server_takes_every_object_of(variant: str, helm: Helm, kube: KubeClient) -> None:
    values, cluster, apis = VARIANTS[variant]
    objects = helm.objects(values, cluster, apis)
    assert len(objects) > 25
    for one in objects:
        await _try(kube, one)


@pytest.mark.usefixtures("served")
async def test_the_api_server_holds_every_pod_for_restricted(helm: Helm, kube: KubeClient) -> None:
    values, cluster, apis = VARIANTS["everything"]
    objects = helm.objects(values, cluster, apis) + helm.objects({"admission": {"by": "webhook"}})
    pods = {one["metadata"]["name"]: pod for one in objects if (pod := _pod(one))}
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted_and_says_what_it_needs(variant: str, helm: Helm) -> None:
    values, cluster, apis = VARIANTS[variant]
    pods = [
        (one["metadata"]["name"], pod) for one in helm.objects(values, cluster, apis) if (pod := _pod(one))
    ]
    assert len(pods) >= 5
    for name, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["priorityClassName"] == "fairlane", name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }, name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_settings_can_be_used_by_the_processes(variant: str, helm: Helm, tmp_path: Any) -> None:
    values, cluster, apis = VARIANTS[variant]
    objects = helm.objects(values, cluster, apis)
    text = next(one for one in objects if one["metadata"]["name"] == "fairlane-settings")["data"][
        "fairlane.yaml"
    ]
    (tmp_path / "fairlane.yaml").write_text(text)
    settings = Settings.load(tmp_path / "fairlane.yaml", {})
    assert settings.admission.controller_user == f"system:serviceaccount:{NAMESPACE}:fairlane-controller"
    services = {one["metadata"]["name"] for one in objects if one["kind"] == "Service"}
    urls = (settings.recorder_url, settings.controller_url, settings.predictor_address)
    assert {url.removeprefix("http://").partition(":")[0] for url in urls} <= services


def test_selectors_find_their_pods_and_services_open_ports(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING, NEWEST, MONITORING)
    labels = [template["metadata"]["labels"] for template in _templates(objects).values()]
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            wanted = spec.get("podSelector") or spec["selector"]
            wanted = wanted.get("matchLabels", wanted)
            found = [pod for pod in labels if wanted.items() <= pod.items()]
            assert found or "test" in one["metadata"]["name"], one["metadata"]["name"]


def test_the_network_lets_through_what_the_parts_ask_of_one_another_and_nothing_else(helm: Helm) -> None:
    policies = [one for one in helm.objects(EVERYTHING) if one["kind"] == "NetworkPolicy"]
    everybody = {"app.kubernetes.io/name": "fairlane", "app.kubernetes.io/instance": "fairlane"}
    deny = next(one["spec"] for one in policies if one["metadata"]["name"] == "fairlane-deny")
    assert deny == {"podSelector": {"matchLabels": everybody}, "policyTypes": ["Ingress", "Egress"]}
    assert _passages(policies, "egress", "to") == _passages(policies, "ingress", "from") == PASSAGES


def _passages(policies: list[Object], direction: str, peers: str) -> set[tuple[str, str, int]]:
    """Caller, called and port, as the policies of the one or the other say it."""
    label = "app.kubernetes.io/component"
    found = set()
    for policy in policies:
        own = policy["spec"]["podSelector"]["matchLabels"].get(label, "")
        for rule in policy["spec"].get(direction, ()):
            for peer in rule.get(peers, ()):
                if other := peer.get("podSelector", {}).get("matchLabels", {}).get(label):
                    pair = (own, other) if direction == "egress" else (other, own)
                    found |= {(*pair, port["port"]) for port in rule["ports"]}
    return found


def test_a_private_registry_serves_every_image(helm: Helm) -> None:
    objects = helm.objects({"image": {"registry": "registry.internal:5000/mirror"}})
    images = {container["image"] for one in objects if (pod := _pod(one)) for container in pod["containers"]}
    assert images == {
        "registry.internal:5000/mirror/fairlane:0.1.0",
        "registry.internal:5000/mirror/kube-scheduler:v1.37.0",
    }


def test_kube_scheduler_is_that_of_the_cluster_also_where_its_version_has_words(helm: Helm) -> None:
    objects = helm.objects({}, ("v1.34.2-gke.1234+x", ()))
    images = {container["image"] for one in objects if (pod := _pod(one)) for container in pod["containers"]}
    assert "registry.k8s.io/kube-scheduler:v1.34.2" in images


def test_who_mounts_the_volume_of_one_node_is_together(helm: Helm) -> None:
    together = _mounting(helm.objects({}))
    assert together.keys() == {"fairlane-recorder", "fairlane-predictor", "fairlane-train"}
    for name, pod in together.items():
        terms = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert [term["topologyKey"] for term in terms] == ["kubernetes.io/hostname"], name
    apart = _mounting(helm.objects(HA))
    assert apart.keys() == {"fairlane-predictor", "fairlane-train"}
    assert all("affinity" not in pod for pod in apart.values())


def _mounting(objects: list[Object]) -> dict[str, Object]:
    pods = {one["metadata"]["name"]: pod for one in objects if (pod := _pod(one))}
    return {
        name: pod for name, pod in pods.items() if any("persistentVolumeClaim" in v for v in pod["volumes"])
    }


def test_a_change_of_settings_restarts_the_pods_and_nothing_else_does(helm: Helm) -> None:
    before, same = (_checksums(helm.objects({"storage": {"size": size}})) for size in ("10Gi", "20Gi"))
    after = _checksums(helm.objects({"settings": {"epoch_s": 30}}))
    assert before == same
    assert all(before[name] != after[name] for name in before)


def _checksums(objects: list[Object]) -> dict[str, str]:
    templates = _templates(objects).items()
    return {name: template["metadata"]["annotations"]["checksum/settings"] for name, template in templates}


def _templates(objects: list[Object]) -> dict[str, Object]:
    """Pod templates, by the name of what makes pods of them."""
    return {one["metadata"]["name"]: template for one in objects if (template := _template(one))}


@pytest.mark.parametrize("kinds", [[], ["jobsets"], ["sparkapplications", "mpijobs", "rayjobs"]])
def test_admission_in_the_chart_is_what_the_command_prints(kinds: list[str], helm: Helm) -> None:
    settings = AdmissionSettings.model_validate({"kinds": kinds, "submitters": ["airflow"], "timeout_s": 7})
    values = {"admission": {"kinds": kinds, "submitters": ["airflow"], "webhook": {"timeoutSeconds": 7}}}
    assert _admission(helm.objects(values)) == _admission(policy_manifests(settings))
    values["admission"]["by"] = "webhook"
    assert _admission(helm.objects(values)) == _admission(webhook_manifests(settings))


def _admission(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """Policies, bindings and configurations without their metadata; the order of webhooks means nothing."""
    kept = [one for one in objects if one["apiVersion"].startswith("admissionregistration")]
    for one in kept:
        one.get("webhooks", []).sort(key=lambda hook: hook["name"])
    return {(one["kind"], one["metadata"]["name"]): {**one, "metadata": None} for one in kept}


def test_the_rendered_manifests_are_those_of_the_chart(helm: Helm) -> None:
    """If this fails: make manifests."""
    assert RENDERED.read_text() == rendered(helm)


def test_the_resource_and_the_volume_stay_unless_asked(helm: Helm) -> None:
    assert _kept(helm.objects({})) == {"CustomResourceDefinition", "PersistentVolumeClaim"}
    assert _kept(helm.objects({"crds": {"keep": False}, "storage": {"keep": False}})) == set()


def _kept(objects: list[Object]) -> set[str]:
    annotations = {one["kind"]: one["metadata"].get("annotations", {}) for one in objects}
    return {kind for kind, told in annotations.items() if told.get("helm.sh/resource-policy") == "keep"}


def test_helm_lints_it(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values={})


WRONG: list[tuple[Object, str]] = [
    ({"controler": {"replicas": 2}}, r"additional properties 'controler' not allowed"),
    ({"controller": {"replicas": "two"}}, r"/controller/replicas'?: got string, want integer"),
    ({"controller": {"replicas": 0}}, r"/controller/replicas'?: minimum: got 0, want 1"),
    ({"image": {"digest": "sha256:abc"}}, r"/image/digest'?: 'sha256:abc' does not match pattern"),
    ({"settings": {"epoch": 3}}, r"/settings'?: additional properties 'epoch' not allowed"),
    ({"settings": {"epoch_s": -1}}, r"/settings/epoch_s'?: exclusiveMinimum: got -1, want 0"),
    ({"settings": {"token": "secret"}}, r"/settings'?: additional properties 'token' not allowed"),
    (
        {"admission": {"by": "magic"}},
        r"/admission/by'?: value must be one of 'auto', 'policies', 'webhook', 'none'",
    ),
    ({"admission": {"kinds": ["jobset"]}}, r"/admission/kinds/0'?: value must be one of 'jobsets'"),
    ({"train": {"schedule": "at night"}}, r"/train/schedule'?: 'at night' does not match pattern"),
    ({"scheduler": {"resources": {"request": {}}}}, r"additional properties 'request' not allowed"),
    (
        {"recorder": {"env": [{"name": "FAIRLANE_TOKEN", "value": "x"}]}},
        r"/recorder/env/0/name'?: 'not' failed",
    ),
    (
        {"networkPolicies": {"prometheusPorts": [99999]}},
        r"/prometheusPorts/0'?: maximum: got 99,?999, want 65,?535",
    ),
    (
        {"predictor": {"replicas": 2}},
        r"predictor.replicas is 2, but the models are on a volume that one node can",
    ),
    ({"storage": {"accessMode": "ReadWriteMany"}}, r"name a storageClass that can do that"),
    ({"test": {"namespace": NAMESPACE}}, r"test.namespace is the namespace of the release"),
    ({"scheduler": {"prometheusSecret": "x"}}, r"settings.prometheus.url is empty: say where Prometheus is"),
    (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        r"the label app.kubernetes.io/name is set by the chart",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG)
def test_a_mistake_is_refused_with_a_sentence(values: Object, sentence: str, helm: Helm) -> None:
    with pytest.raises(HelmError, match=sentence):
        helm.template(values)


def test_policies_are_refused_where_the_cluster_has_none(helm: Helm) -> None:
    with pytest.raises(
        HelmError, match=r"this cluster is v?1\.33\.4 and policies that change objects need 1\.36"
    ):
        helm.template({"admission": {"by": "policies"}}, OLDER)


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


def _template(one: Object) -> Object | None:
    spec = one.get("spec") or {}
    found: Object | None = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return found if one["kind"] != "CustomResourceDefinition" else None


def _pod(one: Object) -> Object | None:
    """The specification of the pods that an object makes, or is."""
    template = one if one["kind"] == "Pod" else _template(one)
    return template["spec"] if template else None


def test_prometheus_understands_every_alert(cluster: Cluster) -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert len(rules) >= 8
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        query = urllib.parse.urlencode({"query": rule["expr"]})
        with urllib.request.urlopen(f"{cluster.prometheus_url}/api/v1/query?{query}", timeout=30) as answer:
            assert answer.status == 200, rule["alert"]
