"""Manifests: the committed ones are what the command prints, and settings reach them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from scheduler.admission_settings import AdmissionSettings
from scheduler.cli.admission import app, as_yaml
from scheduler.core.admission.kinds import KNOWN
from scheduler.edge.admission import rules_of
from scheduler.edge.manifests import policy_manifests, webhook_manifests

MANIFESTS = Path(__file__).parents[2] / "manifests"
COMMITTED = {"admission-policies.yaml": "policies", "admission-webhook.yaml": "webhook"}


@pytest.mark.parametrize(("file", "by"), COMMITTED.items())
def test_the_committed_manifests_are_what_the_command_prints(file: str, by: str) -> None:
    """If this fails: fairlane admission manifests --by {policies,webhook} > manifests/FILE."""
    printed = CliRunner().invoke(app, ["manifests", "--by", by])
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == (MANIFESTS / file).read_text()


def test_settings_of_a_file_reach_the_manifests(tmp_path: Path) -> None:
    file = tmp_path / "fairlane.yaml"
    file.write_text("admission: {submitters: [airflow], kinds: [jobsets], failure_policy: Ignore}")
    printed = CliRunner().invoke(app, ["manifests", "--config", str(file)])
    made = list(yaml.safe_load_all(printed.stdout))
    policies = [one for one in made if one["kind"].endswith("Policy")]
    assert {one["spec"]["failurePolicy"] for one in policies} == {"Ignore"}
    assert "fairlane-stamp-jobsets" in {one["metadata"]["name"] for one in made}
    assert '["airflow"]' in printed.stdout


@pytest.mark.parametrize("make", [policy_manifests, webhook_manifests])
def test_excluded_namespaces_are_left_out_everywhere(make: Any) -> None:
    settings = AdmissionSettings(namespace="release", excluded_namespaces=("kube-system", "infra"))
    selectors = []
    for one in make(settings):
        if one["kind"].endswith("Policy"):
            selectors.append(one["spec"]["matchConstraints"]["namespaceSelector"])
        selectors += [hook["namespaceSelector"] for hook in one.get("webhooks", [])]
    assert selectors
    for selector in selectors:
        assert selector["matchExpressions"] == [
            {
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["infra", "kube-system", "release"],
            }
        ]


def test_the_webhook_gets_its_settings_and_no_more_rights_than_it_uses() -> None:
    settings = AdmissionSettings(submitters=("airflow",), image="registry/fairlane:1")
    made = {(one["kind"], one["metadata"]["name"]): one for one in webhook_manifests(settings)}
    container = made["Deployment", "fairlane-admission"]["spec"]["template"]["spec"]["containers"][0]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert json.loads(given["FAIRLANE_ADMISSION__SUBMITTERS"]) == ["airflow"]
    assert container["image"] == "registry/fairlane:1"
    pod = made["Deployment", "fairlane-admission"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}  # a node of Windows could not run it
    rights = made["ClusterRole", "fairlane-admission"]["rules"] + made["Role", "fairlane-admission"]["rules"]
    assert {verb for rule in rights for verb in rule["verbs"]} == {
        "get",
        "list",
        "watch",
        "patch",
        "create",
        "update",
    }
    secrets = [rule for rule in rights if rule["resources"] == ["secrets"] and "create" not in rule["verbs"]]
    assert all(rule["resourceNames"] == [settings.secret] for rule in secrets)


def test_cert_manager_keeps_the_trust_where_certificates_come_from_files() -> None:
    settings = AdmissionSettings(
        certificate_file=Path("/certificates/tls.crt"), key_file=Path("/certificates/tls.key")
    )
    made = webhook_manifests(settings)
    configurations = [one for one in made if "webhooks" in one]
    source = {"cert-manager.io/inject-ca-from": "fairlane-system/fairlane-admission"}
    assert [one["metadata"]["annotations"] for one in configurations] == [source, source]
    pod = next(one for one in made if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/certificates"


def test_a_described_kind_is_stamped_and_its_controller_trusted() -> None:
    kind = {
        "resource": "rollouts",
        "group": "argoproj.io",
        "versions": ["v1alpha1"],
        "templates": ["spec.template"],
        "controllers": ["system:serviceaccount:argo-rollouts:argo-rollouts"],
    }
    settings = AdmissionSettings.model_validate({"kinds": [kind, "jobsets"]})
    rules = rules_of(settings)
    assert "system:serviceaccount:argo-rollouts:argo-rollouts" in rules.trusted
    assert "system:serviceaccount:jobset-system:jobset-controller-manager" in rules.trusted
    text = as_yaml(policy_manifests(settings))
    assert "rollouts" in text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kinds": ["jobset"]}, "'jobset' is not known: describe the kind, or use one of jobsets"),
        (
            {"kinds": [{"resource": "a", "group": "b", "versions": ["v1"], "templates": ["s.a[].b{}.t"]}]},
            "repeats twice",
        ),
        ({"certificate_file": "/x"}, "certificate_file and key_file go together"),
        ({"url": "http://x"}, "must start with https://"),
        ({"settle_s": 1e7}, "settle_s must be at most a sixth of certificate_s"),
        ({"timeout_s": 31}, "less than or equal to 30"),
        ({"failure_policy": "Open"}, "'Fail' or 'Ignore'"),
    ],
)
def test_settings_that_make_no_sense_are_told(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        AdmissionSettings.model_validate(given)


def test_no_controller_is_trusted_whose_kind_is_not_stamped() -> None:
    rules = rules_of(AdmissionSettings())
    assert "system:serviceaccount:jobset-system:jobset-controller-manager" not in rules.trusted
    assert all(
        name.startswith(("system:serviceaccount:kube-system:", "system:kube-controller-manager"))
        for name in rules.trusted
    )


NEWER = re.compile(r"\b(transform(List|Map|MapEntry)|isSemver|format)\(|\b(all|exists|existsOne)\(\w+, \w+,")
"""Of CEL: what API servers of 1.30 do not compile, such as comprehensions over two variables."""


@pytest.mark.parametrize("kinds", [(), tuple(KNOWN)], ids=["of every cluster", "all"])
def test_the_webhooks_conditions_use_no_word_that_the_oldest_cluster_has_not(kinds: tuple[str, ...]) -> None:
    settings = AdmissionSettings.model_validate({"kinds": kinds})
    hooks = [hook for one in webhook_manifests(settings) for hook in one.get("webhooks", [])]
    conditions = [one["expression"] for hook in hooks for one in hook["matchConditions"]]
    assert len(conditions) > 20
    assert [one for one in conditions if NEWER.search(one)] == []
