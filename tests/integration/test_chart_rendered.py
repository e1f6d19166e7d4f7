"""The Helm chart, rendered by Helm: what it makes of values, and how it refuses mistakes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from chart_variants import VARIANTS, Object, helm_or_skip, objects_of, pod_of, template_of

from scheduler.admission_settings import AdmissionSettings
from scheduler.config import Settings
from scheduler.edge.manifests import policy_manifests, webhook_manifests
from testbed.binaries import PROMETHEUS_VERSION
from testbed.chart.files import RENDERED, rendered
from testbed.chart.helm import CHART, NAMESPACE, OLDER, Helm, HelmError
from testbed.configuration import PREDICTED

PASSAGES = {
    ("scheduler", "recorder", 8890),
    ("scheduler", "predictor", 8889),
    ("scheduler", "controller", 8891),
    ("controller", "recorder", 8890),
    ("controller", "controller", 8891),
    ("train", "recorder", 8890),
    ("test", "recorder", 8890),
    ("probe", "probe", 8893),
}
"""Which part asks which: decisions, predictions, status, histories, the leader, examples, round trips."""


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted_and_says_what_it_needs(variant: str) -> None:
    pods = [(one["metadata"]["name"], pod) for one in objects_of(variant) if (pod := pod_of(one))]
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
def test_the_settings_can_be_used_by_the_processes(variant: str, tmp_path: Path) -> None:
    objects = objects_of(variant)
    text = next(one for one in objects if one["metadata"]["name"] == "fairlane-settings")["data"][
        "fairlane.yaml"
    ]
    (tmp_path / "fairlane.yaml").write_text(text)
    settings = Settings.load(tmp_path / "fairlane.yaml", {})
    assert settings.admission.controller_user == f"system:serviceaccount:{NAMESPACE}:fairlane-controller"
    services = {one["metadata"]["name"] for one in objects if one["kind"] == "Service"}
    urls = (settings.recorder_url, settings.controller_url, settings.predictor_address)
    assert {url.removeprefix("http://").partition(":")[0] for url in urls} <= services


def test_selectors_find_their_pods_and_services_open_ports() -> None:
    objects = objects_of("everything")
    labels = [template["metadata"]["labels"] for template in _templates(objects).values()]
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            wanted = spec.get("podSelector") or spec["selector"]
            wanted = wanted.get("matchLabels", wanted)
            found = [pod for pod in labels if wanted.items() <= pod.items()]
            assert found or "test" in one["metadata"]["name"], one["metadata"]["name"]


def test_the_network_lets_through_what_the_parts_ask_of_one_another_and_nothing_else() -> None:
    policies = [one for one in objects_of("everything") if one["kind"] == "NetworkPolicy"]
    everybody = {"app.kubernetes.io/name": "fairlane", "app.kubernetes.io/instance": "fairlane"}
    deny = next(one["spec"] for one in policies if one["metadata"]["name"] == "fairlane-deny")
    assert deny == {"podSelector": {"matchLabels": everybody}, "policyTypes": ["Ingress", "Egress"]}
    assert _passages(policies, "egress", "to") == _passages(policies, "ingress", "from") == PASSAGES


def test_with_placement_at_release_the_extender_is_beside_the_controller_and_nobody_else_asks_it() -> None:
    objects = objects_of("placement at release")
    pods = {
        one["metadata"]["name"]: pod
        for one in objects
        if (pod := pod_of(one)) and one["kind"] == "Deployment"
    }
    beside = {
        name: [container["name"] for container in pod["containers"]]
        for name, pod in pods.items()
        if name in ("fairlane-scheduler", "fairlane-controller")
    }
    assert beside == {
        "fairlane-scheduler": ["kube-scheduler"],
        "fairlane-controller": ["controller", "extender"],
    }
    volumes = {volume["name"] for volume in pods["fairlane-controller"]["volumes"]}
    (extender,) = (one for one in pods["fairlane-controller"]["containers"] if one["name"] == "extender")
    assert {mount["name"] for mount in extender["volumeMounts"]} <= volumes
    told = next(one["data"]["scheduler.yaml"] for one in objects if "scheduler.yaml" in one.get("data", {}))
    config = yaml.safe_load(told)
    assert "extenders" not in config
    assert config["clientConnection"]["qps"] >= 500
    assert config["enableContentionProfiling"] is False
    assert config["profiles"][0]["plugins"]["score"]["disabled"] == [{"name": name} for name in PREDICTED]
    assert config["profiles"][0]["plugins"]["score"]["enabled"] == [{"name": "NodeAffinity", "weight": 100}]
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    moved = {("controller" if who == "scheduler" else who, to, port) for who, to, port in PASSAGES}
    assert _passages(policies, "egress", "to") == _passages(policies, "ingress", "from") == moved


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


def test_a_private_registry_serves_every_image() -> None:
    objects = objects_of("air-gapped")
    images = {
        container["image"] for one in objects if (pod := pod_of(one)) for container in pod["containers"]
    }
    assert images == {
        "registry.internal:5000/mirror/fairlane:0.1.0",
        "registry.internal:5000/mirror/kube-scheduler:v1.37.0",
        f"registry.internal:5000/mirror/prom/prometheus:v{PROMETHEUS_VERSION}",
    }


def test_kube_scheduler_is_that_of_the_cluster_also_where_its_version_has_words(helm: Helm) -> None:
    objects = helm.objects({}, ("v1.34.2-gke.1234+x", ()))
    images = {
        container["image"] for one in objects if (pod := pod_of(one)) for container in pod["containers"]
    }
    assert "registry.k8s.io/kube-scheduler:v1.34.2" in images


def test_who_mounts_the_volume_of_one_node_is_together() -> None:
    together = _mounting(objects_of("no Prometheus operator"))
    assert together.keys() == {"fairlane-recorder", "fairlane-predictor", "fairlane-train"}
    for name, pod in together.items():
        terms = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert [term["topologyKey"] for term in terms] == ["kubernetes.io/hostname"], name
    apart = _mounting(objects_of("highly available"))
    assert apart.keys() == {"fairlane-predictor", "fairlane-train"}
    assert all("affinity" not in pod for pod in apart.values())


def _mounting(objects: list[Object]) -> dict[str, Object]:
    pods = {one["metadata"]["name"]: pod for one in objects if (pod := pod_of(one))}
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
    return {one["metadata"]["name"]: template for one in objects if (template := template_of(one))}


@pytest.mark.parametrize(("said", "ends"), [(0, 0), (3, 0), (5, 0), (1, 1), (4, 4)])
def test_a_model_that_is_refused_is_no_failed_job(said: int, ends: int, tmp_path: Path) -> None:
    job = next(one for one in objects_of("no Prometheus operator") if one["kind"] == "CronJob")
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    program = tmp_path / "fairlane"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {said}\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REGISTRY": "s3://models"}
    ran = subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == ends
    assert ran.stdout.split()[:5] == [
        "train",
        "--recorder",
        "http://fairlane-recorder:8890",
        "--registry",
        "s3://models",
    ]


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


def test_the_webhooks_rights_in_the_chart_are_those_that_the_command_prints(helm: Helm) -> None:
    """Which tests/unit/test_chart_rights.py holds against what the webhook asks."""
    made = _roles(helm.objects({"admission": {"by": "webhook"}}))
    assert made == _roles(webhook_manifests(AdmissionSettings()))


def _roles(objects: list[Object]) -> dict[str, list[Object]]:
    roles = [one for one in objects if one["kind"] in ("Role", "ClusterRole")]
    return {one["kind"]: one["rules"] for one in roles if one["metadata"]["name"] == "fairlane-admission"}


def test_the_rendered_manifests_are_those_of_the_chart(helm: Helm) -> None:
    """If this fails: make manifests."""
    assert RENDERED.read_text() == rendered(helm)


def test_the_resource_and_the_volume_stay_unless_asked(helm: Helm) -> None:
    kept = {"CustomResourceDefinition", "PersistentVolumeClaim"}
    assert _kept(objects_of("no Prometheus operator")) == kept
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
        r"recorder.env sets FAIRLANE_TOKEN, which the chart sets",
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
    (
        {"settings": {"prometheus": {"url": "prometheus:9090"}}},
        r"/prometheus/url'?: 'prometheus:9090' does not m",
    ),
    ({"settings": {"sources": ["node-exporter"]}}, r"value must be one of 'blackbox', 'dcgm'"),
    (
        {"commonLabels": {"release": "a"}, "monitoring": {"labels": {"release": "b"}}},
        r"the label release is in monitoring.labels and in commonLabels: leave it out of one",
    ),
    (
        {"controller": {"enabled": False}, "settings": {"controller": {"placement": "hint"}}},
        r"placement is hint, which the controller writes: enable the controller",
    ),
    ({"test": {"namespace": NAMESPACE}}, r"test.namespace is the namespace of the release"),
    (
        {"settings": {"prometheus": {"url": "http://p:9090"}}, "bundledPrometheus": {"enabled": True}},
        r"names a Prometheus, and bundledPrometheus.enabled makes one: leave one of them out",
    ),
    (
        {"settings": {"prometheus": {"bearer_token_file": "/t"}}},
        r"bearer_token_file is given, but settings.prometheus.url is empty: say where Prometheus is",
    ),
    ({"bundledPrometheus": {"storage": {"size": "4GB"}}}, r"/storage/size'?: '4GB' does not match pattern"),
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
