"""What the chart gives the probe: certificates where they are wanted, and nothing else that is secret."""

from __future__ import annotations

import pytest
import yaml
from chart_variants import Object, helm_or_skip, pod_of

from scheduler.config import Settings
from testbed.chart.helm import Helm, HelmError

FILES = {"ca_file": "ca.crt", "certificate_file": "tls.crt", "key_file": "tls.key"}


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


def rendered(helm: Helm, probe: Object) -> tuple[Settings, Object]:
    """The settings, and the probe's pod."""
    objects = {(one["kind"], one["metadata"]["name"]): one for one in helm.objects({"probe": probe})}
    text = objects["ConfigMap", "fairlane-settings"]["data"]["fairlane.yaml"]
    pod = pod_of(objects["DaemonSet", "fairlane-probe"])
    assert pod is not None
    return Settings.model_validate(yaml.safe_load(text)), pod


def test_probes_speak_tls_with_the_secret_that_is_named(helm: Helm) -> None:
    settings, pod = rendered(helm, {"enabled": True, "certificateSecret": "probes"})
    (secret,) = (one["secret"] for one in pod["volumes"] if "secret" in one)
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    for setting, key in FILES.items():
        file = getattr(settings.probe, setting)
        assert (file.name, mounts[str(file.parent)]) == (key, "certificate")
    assert secret["secretName"] == "probes"
    assert {one["key"] for one in secret["items"]} == set(FILES.values())


def test_without_one_there_is_none(helm: Helm) -> None:
    settings, pod = rendered(helm, {"enabled": True})
    assert settings.probe.ca_file is None
    assert not [one for one in pod["volumes"] if "secret" in one]


def test_a_secret_that_no_probe_would_use_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"probe.certificateSecret is given, but probe.enabled is false"):
        helm.template({"probe": {"certificateSecret": "probes"}})
