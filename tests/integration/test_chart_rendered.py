"""The Helm chart, rendered by Helm: what it makes of values."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from chart_variants import MONITORING, VARIANTS, Object, helm_or_skip, objects_of, pod_of, template_of

from scheduler.admission_settings import AdmissionSettings
from scheduler.config import Settings
from scheduler.edge.facts import queue_only
from scheduler.edge.manifests import policy_manifests, webhook_manifests
from testbed.binaries import PROMETHEUS_VERSION
from testbed.chart.files import RENDERED, rendered
from testbed.chart.helm import CHART, NAMESPACE, NEWEST, Helm
from testbed.configuration import PREDICTED


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted_and_says_what_it_needs(variant: str) -> None:
    pods = [(one["metadata"]["name"], pod) for one in objects_of(variant) if (pod := pod_of(one))]
    assert len(pods) >= 3
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


def test_where_the_cluster_chooses_users_and_has_its_dns_on_another_port(helm: Helm) -> None:
    """As on OpenShift, which refuses pods that name a user outside of their namespace's range."""
    values = {"podSecurity": {"userId": None}, "networkPolicies": {"dnsPorts": [5353]}}
    made = helm.objects(values)
    for one in made:
        if pod := pod_of(one):
            assert pod["securityContext"] == {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            }, one["metadata"]["name"]
    (names,) = (one for one in made if one["metadata"]["name"] == "fairlane-names")
    assert {port["port"] for port in names["spec"]["egress"][0]["ports"]} == {5353}


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
    assert {url.removeprefix("http://").partition(":")[0] for url in urls if url} <= services


@pytest.mark.parametrize("variant", ["defaults", "queue only", "placing only", "placement at release"])
def test_doctor_knows_by_the_settings_whether_only_the_queue_is_wanted(variant: str) -> None:
    made = next(one for one in objects_of(variant) if one["metadata"]["name"] == "fairlane-settings")
    settings = Settings.model_validate(yaml.safe_load(made["data"]["fairlane.yaml"]))
    assert queue_only(settings) == (variant == "queue only")


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


@pytest.mark.parametrize(
    ("verb", "asks"),
    [
        ("filter", {"filterVerb": "filter"}),
        ("prioritize", {"prioritizeVerb": "prioritize", "weight": 7}),
    ],
)
def test_kube_scheduler_asks_for_the_best_node_or_for_scores(helm: Helm, verb: str, asks: Object) -> None:
    objects = helm.objects({"scheduler": {"extenderVerb": verb, "extenderWeight": 7}})
    told = next(one["data"]["scheduler.yaml"] for one in objects if "scheduler.yaml" in one.get("data", {}))
    (extender,) = yaml.safe_load(told)["extenders"]
    verbs = {"filterVerb", "prioritizeVerb", "weight", "bindVerb", "preemptVerb"}
    assert {key: value for key, value in extender.items() if key in verbs} == asks
    assert (extender["ignorable"], extender["nodeCacheCapable"]) == (True, True)


@pytest.mark.parametrize(
    ("cluster", "tag", "named"),
    [("1.30.2", "", False), ("1.37.0-gke.1", "", False), ("1.38.0", "", True), ("1.38.0", "v1.37.2", False)],
)
def test_a_gate_is_set_only_for_a_kube_scheduler_that_knows_it(
    helm: Helm, cluster: str, tag: str, named: bool
) -> None:
    objects = helm.objects({"scheduler": {"kubeScheduler": {"image": {"tag": tag}}}}, (cluster, NEWEST[1]))
    containers = [one for made in objects if (pod := pod_of(made)) for one in pod["containers"]]
    (command,) = (one["command"] for one in containers if one["name"] == "kube-scheduler")
    assert ("--feature-gates=ContextualLogging=false" not in command) == named


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


@pytest.mark.parametrize(
    ("variant", "secret"),
    [
        ("defaults", "fairlane-predictor-certificates"),
        ("predictor with cert-manager", "fairlane-predictor-tls"),
        ("everything", "predictor-certificate"),
        ("placement at release", "predictor-certificate"),
        ("predictor without TLS", ""),
    ],
)
def test_the_predictor_gets_its_key_and_who_asks_it_gets_the_ca_only(variant: str, secret: str) -> None:
    mounted = {
        (one["metadata"]["name"], item["key"], volume["secret"].get("optional", False))
        for one in objects_of(variant)
        if (pod := pod_of(one))
        for volume in pod["volumes"]
        if volume["name"] == "certificate" and volume["secret"]["secretName"] == secret
        for item in volume["secret"]["items"]
    }
    asks = "fairlane-controller" if variant == "placement at release" else "fairlane-scheduler"
    keys = {("fairlane-predictor", "tls.crt", False), ("fairlane-predictor", "tls.key", False)}
    assert mounted == (keys | {(asks, "ca.crt", True)} if secret else set())


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_where_fairlane_keeps_the_predictors_ca_may_the_recorder_touch_a_secret(variant: str) -> None:
    name = "fairlane-predictor-certificates"
    kept = [one for one in objects_of(variant) if one["metadata"]["name"] == name]
    assert [(one["kind"], "data" in one) for one in kept] in ([], [("Secret", False)])
    rules = [
        rule
        for one in objects_of(variant)
        if one["kind"] == "Role" and one["metadata"]["name"] == "fairlane-recorder"
        for rule in one["rules"]
    ]
    right = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "update"]}
    assert rules == [right] * len(kept)
    told = next(one for one in objects_of(variant) if one["metadata"]["name"] == "fairlane-settings")
    settings = yaml.safe_load(told["data"]["fairlane.yaml"])
    assert settings.get("predictor_certificate", {}).get("secret", "") == (name if kept else "")


def test_what_cert_manager_signs_is_for_the_name_that_is_asked(helm: Helm) -> None:
    objects = objects_of("predictor with cert-manager")
    (made,) = (one["spec"] for one in objects if one["kind"] == "Certificate")
    assert made["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "ca"}
    told = next(one for one in objects if one["metadata"]["name"] == "fairlane-settings")
    address = yaml.safe_load(told["data"]["fairlane.yaml"])["predictor_address"]
    assert address.partition(":")[0] in made["dnsNames"]
    own = helm.objects({})
    told = next(one for one in own if one["metadata"]["name"] == "fairlane-settings")
    assert yaml.safe_load(told["data"]["fairlane.yaml"])["predictor_certificate"]["names"] == made["dnsNames"]


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
    """And the namespace of helm test: its removal takes time, and another install would meet it half gone."""
    kept = {"CustomResourceDefinition", "PersistentVolumeClaim", "Namespace"}
    assert _kept(objects_of("no Prometheus operator")) == kept
    assert _kept(helm.objects({"crds": {"keep": False}, "storage": {"keep": False}})) == {"Namespace"}
    assert (
        _kept(helm.objects({"crds": {"keep": False}, "storage": {"keep": False}, "test": {"enabled": False}}))
        == set()
    )


def _kept(objects: list[Object]) -> set[str]:
    annotations = {one["kind"]: one["metadata"].get("annotations", {}) for one in objects}
    return {kind for kind, told in annotations.items() if told.get("helm.sh/resource-policy") == "keep"}


def test_helm_lints_it(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values={})


PLACES = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
SPREAD = {"fairlane-scheduler", "fairlane-controller", "fairlane-predictor", "fairlane-admission"}
INTERRUPTED = {*SPREAD, "fairlane-recorder"}
"""All that serve; probes are on every node, and training is a Job."""


def test_replicas_are_spread_over_nodes_and_zones(helm: Helm) -> None:
    objects = objects_of("everything") + helm.objects({"admission": {"by": "webhook"}})
    spread = {}
    for name, template in _templates(objects).items():
        own = {key: value for key, value in template["metadata"]["labels"].items() if key in SELECTED}
        if constraints := template["spec"].get("topologySpreadConstraints"):
            spread[name] = constraints
            assert constraints == [_even(place, own) for place in PLACES], name
    assert spread.keys() == SPREAD


SELECTED = tuple(f"app.kubernetes.io/{key}" for key in ("name", "instance", "component"))


def _even(place: str, labels: Object) -> Object:
    never_waiting = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
    return {**never_waiting, "topologyKey": place, "labelSelector": {"matchLabels": labels}}


def test_one_replica_at_a_time_is_evicted_and_a_drain_never_stops(helm: Helm) -> None:
    objects = objects_of("everything") + helm.objects({"admission": {"by": "webhook"}})
    budgets = {
        one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "PodDisruptionBudget"
    }
    assert budgets.keys() == INTERRUPTED
    for name, spec in budgets.items():
        assert spec == {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {
                "matchLabels": dict(
                    zip(SELECTED, ("fairlane", "fairlane", name.removeprefix("fairlane-")), strict=True)
                )
            },
        }
    without = helm.objects({"podDisruptionBudgets": {"enabled": False}})
    assert "PodDisruptionBudget" not in {one["kind"] for one in without}


@pytest.mark.parametrize("registry", ["", "registry.internal:5000/mirror"])
def test_a_digest_wins_over_the_tag_in_both_images(registry: str, helm: Helm) -> None:
    ours, theirs = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    scheduler = {"image": {"tag": "v1.37.0", "digest": theirs}}
    image = {"registry": registry, "tag": "0.1.0", "digest": ours}
    objects = helm.objects({"image": image, "scheduler": {"kubeScheduler": scheduler}})
    pods = [pod for one in objects if (pod := pod_of(one))]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    bases = [f"{registry}/{name}" if registry else name for name in ("fairlane", "kube-scheduler")]
    wanted = {f"{bases[0]}@{ours}", f"{bases[1] if registry else 'registry.k8s.io/kube-scheduler'}@{theirs}"}
    assert images == wanted
    tried = next(pod for one in objects if one["kind"] == "Pod" and (pod := pod_of(one)))
    assert f"--image={bases[0]}@{ours}" in tried["containers"][0]["args"]


TRIED_WITHOUT = {"defaults": [], "queue only": ["--without=scheduler"], "placing only": ["--without=queue"]}


@pytest.mark.parametrize("variant", TRIED_WITHOUT)
def test_helm_test_tries_what_is_installed(variant: str) -> None:
    (tried,) = (pod for one in objects_of(variant) if one["kind"] == "Pod" and (pod := pod_of(one)))
    args = tried["containers"][0]["args"]
    assert [word for word in args if word.startswith("--without")] == TRIED_WITHOUT[variant]


ASKED_OF = {
    "admission": "admission",
    "controller": "controller",
    "queue": "controller",
    "extender": "scheduler",
    "predictor": "predictor",
    "recorder": "recorder",
    "prediction": "recorder",
}
"""By the word after fairlane_ in a metric, whose ServiceMonitor brings it."""


@pytest.mark.parametrize("variant", ["defaults", "queue only", "placing only", "placement at release"])
def test_an_alert_is_about_what_is_installed_and_scraped(variant: str) -> None:
    objects = objects_of(variant)
    scraped = {
        one["metadata"]["name"].removeprefix("fairlane-")
        for one in objects
        if one["kind"] == "ServiceMonitor"
    }
    rules = _rules(objects)
    for name, rule in rules.items():
        words = re.findall(r"fairlane_([a-z]+)_", rule["expr"])
        assert words, name
        assert {ASKED_OF[word] for word in words} <= scraped, name
    assert ("FairlaneNotCalled" in rules) == ("scheduler" in scraped)
    assert ("FairlaneQueueNotLed" in rules) == ("controller" in scraped)
    assert ("FairlanePredictionsOff" in rules) == ("scheduler" in scraped)


def test_nobody_is_told_of_old_telemetry_or_models_where_there_is_to_be_none(helm: Helm) -> None:
    told = _rules(helm.objects({"train": {"enabled": False}}, api_versions=MONITORING))
    assert {"FairlaneModelStale", "FairlaneTelemetryOld", "FairlaneWebhookDown"}.isdisjoint(told)
    values = {"settings": {"prometheus": {"url": "http://p:9090"}}, "admission": {"by": "webhook"}}
    told = _rules(helm.objects(values, api_versions=MONITORING))
    assert {"FairlaneModelStale", "FairlaneTelemetryOld", "FairlaneWebhookDown"} <= told.keys()


def _rules(objects: list[Object]) -> dict[str, Object]:
    (one,) = (one for one in objects if one["kind"] == "PrometheusRule")
    return {rule["alert"]: rule for rule in one["spec"]["groups"][0]["rules"]}
