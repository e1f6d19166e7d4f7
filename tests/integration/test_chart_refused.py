"""The chart refuses mistakes with a sentence that says what is wrong, or what to set."""

from __future__ import annotations

import pytest
from chart_variants import Object, helm_or_skip

from testbed.chart.helm import NAMESPACE, OLDER, Helm, HelmError


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


ELSEWHERE: Object = {"postgresql": {"existingSecret": "store"}, "registryUrl": "s3://models/fairlane"}
KEY = {"name": "a", "key": "b"}
MINIO = [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}]


def prometheus(**settings: object) -> Object:
    """Values with these settings of a Prometheus that is named."""
    return {"settings": {"prometheus": {"url": "https://p:9090", **settings}}}


WRONG: list[tuple[Object, str]] = [
    (
        {"settings": {"probe": {"transfer_bytes": 30 * 2**20}}},
        r"transfer_bytes \(31457280\) is more than budget_bytes_per_minute \(20971520\), so that nothing",
    ),
    (
        {"settings": {"epoch_s": 120}},
        r"settings.epoch_s \(120\) must be less than settings.extender.max_epoch_age_s \(120\)",
    ),
    (
        {"settings": {"predictor_certificate": {"certificate_s": 3000}}},
        r"settle_s \(600\) must be at most a sixth of certificate_s \(3000\), .* ca_s \(63072000\)",
    ),
    (
        {"settings": {"predictor_certificate": {"ca_s": 3000}}},
        r"at most a sixth of certificate_s \(7776000\), and that at most ca_s \(3000\)",
    ),
    ({"controler": {"replicas": 2}}, r"additional properties 'controler' not allowed"),
    ({"controller": {"replicas": "two"}}, r"/controller/replicas'?: got string, want .*integer"),
    ({"controller": {"replicas": 0}}, r"/controller/replicas'?: minimum: got 0, want 1"),
    (
        {"image": {"digest": "sha256:abc"}},
        r'image.digest is "sha256:abc", but must be sha256: and 64 hexadecimal digits',
    ),
    ({"settings": {"epoch": 3}}, r"/settings'?: additional properties 'epoch' not allowed"),
    ({"settings": {"epoch_s": -1}}, r"settings.epoch_s is -1, but must be above 0\."),
    ({"settings": {"token": "secret"}}, r"/settings'?: additional properties 'token' not allowed"),
    (
        {"admission": {"by": "magic"}},
        r"/admission/by'?: value must be one of 'auto', 'policies', 'webhook', 'none'",
    ),
    ({"admission": {"kinds": ["jobset"]}}, r"/admission/kinds/0'?: value must be one of 'jobsets'"),
    (
        {"train": {"schedule": "at night"}},
        r'train.schedule is "at night", but must be the five fields of cron, such as',
    ),
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
        {"storage": {"accessMode": "ReadWriteMany", "postgresql": {"existingSecret": "store"}}},
        r"name a storageClass that can do that",
    ),
    (
        {"storage": {**ELSEWHERE, "existingClaim": "data"}},
        r"existingClaim is given, but the store is in PostgreSQL and the models are elsewhere",
    ),
    (
        {"storage": {"postgresql": {"caKey": "ca.crt"}}},
        r"postgresql.existingSecret is empty: name the Secret",
    ),
    ({"storage": {"postgresql": {"caKey": "a/b"}}}, r'caKey is "a/b", but must be a key .*, or empty'),
    ({"storage": {"registrySecret": "s3"}}, r"registryUrl is empty: say where the models are published"),
    ({"storage": {"registryUrl": "file:///models"}}, r"a folder of one container that no other one sees"),
    (
        {"storage": ELSEWHERE, "predictor": {"env": MINIO}, "train": {"env": MINIO}},
        r"env has AWS_ENDPOINT_URL=http://minio:9000, but port 9000 is not in networkPolicies.registryPorts",
    ),
    (
        {
            "storage": ELSEWHERE,
            "predictor": {"env": MINIO},
            "networkPolicies": {"registryPorts": [9000]},
        },
        r'name different object stores \("http://minio:9000" and ""\): models would be published where',
    ),
    (
        {"settings": {"prometheus": {"url": "prometheus:9090"}}},
        r'settings.prometheus.url is "prometheus:9090", but must be an http or https URL, such',
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
    (
        {"controller": {"enabled": False}},
        r"admission.by is auto: every pod that opts in would .* wait for ever. Set admission.by=none",
    ),
    (
        {"controller": {"enabled": False}, "admission": {"by": "webhook"}},
        r"admission.by is webhook: every pod",
    ),
    (
        {"controller": {"enabled": False}, "scheduler": {"enabled": False}, "admission": {"by": "none"}},
        r"controller.enabled and scheduler.enabled are both false: nothing would be queued or placed",
    ),
    (
        {"scheduler": {"enabled": False}},
        r"scheduler.enabled is false, so that nothing would ask the predictor .*: set predictor.enabled=",
    ),
    (
        {
            "storage": {"postgresql": {"existingSecret": "store", "caKey": "ca.crt"}},
            "recorder": {"env": [{"name": "PGSSLMODE", "value": "require"}]},
        },
        r"recorder.env sets PGSSLMODE, and storage.postgresql.caKey does: leave one of them out",
    ),
    (
        {"scheduler": {"enabled": False}, "settings": {"controller": {"placement": "hint"}}},
        r"placement is hint, and scheduler.enabled is false: enable the scheduler",
    ),
    (
        {"admission": {"submitters": ["system:anonymous"]}},
        r"admission.submitters has system:anonymous, which is nobody in particular: .* name a user",
    ),
    (
        {"admission": {"excludedNamespaces": ["kube-system", "fairlane-test"]}},
        r"test.namespace is fairlane-test, which is in admission.excludedNamespaces, where nothing is gated",
    ),
    ({"settings": {"prometheus": {"url": "http://p:99999"}}}, r"settings.prometheus.url .* must be an http"),
    ({"settings": {"prometheus": {"proxy": "squid"}}}, r"settings.prometheus.proxy .* must be an http"),
    ({"settings": {"prometheus": {"url": "http://p:web"}}}, r"settings.prometheus.url .* must be an http"),
    (
        {"settings": {"sources": [{"name": "a", "interval": 0, "readings": {"cpu": {"expr": "a"}}}]}},
        r"settings.sources\[0\].interval is 0, but must be above 0",
    ),
    ({"storage": {"size": "10GB"}}, r'storage.size is "10GB", but must be a whole number of Mi, Gi, Ti'),
    ({"storage": {"registryUrl": "models"}}, r"storage.registryUrl .* a URL with its scheme, such as s3://"),
    ({"image": {"tag": "a/b"}}, r'image.tag is "a/b", but must be an image\'s tag'),
    ({"image": {"repository": "Fairlane"}}, r"image.repository .* repository without tag, such as"),
    ({"image": {"repository": "fairlane:1"}}, r"image.repository .* repository without tag, such as"),
    ({"image": {"registry": "https://r"}}, r"image.registry .* registry.internal:5000/mirror, or empty"),
    (
        {"image": {"pullSecrets": ["a", "B_"]}},
        r'image.pullSecrets\[1\] is "B_", but must be an object\'s name',
    ),
    (
        {"scheduler": {"kubeScheduler": {"image": {"digest": "sha512:0"}}}},
        r"scheduler.kubeScheduler.image.digest .* must be sha256:",
    ),
    (
        {"scheduler": {"extenderTimeout": "0.5s"}},
        r'extenderTimeout is "0.5s", but must be a whole number of ms',
    ),
    (
        {"monitoring": {"interval": "1h"}},
        r'monitoring.interval is "1h", but must be a whole number of ms, s or m',
    ),
    ({"monitoring": {"runbooks": "wiki"}}, r"monitoring.runbooks .* must be an http or https URL"),
    (
        {"train": {"resources": {"limits": {"memory": "2 GB"}}}},
        r'train.resources.limits.memory is "2 GB", but must be an amount with its unit',
    ),
    (
        {"recorder": {"env": [{"name": "1A"}]}},
        r'recorder.env\[0\].name is "1A", but must be a variable\'s name',
    ),
    ({"admission": {"submitters": ["a b"]}}, r'admission.submitters\[0\] is "a b", but must be a user as'),
    ({"token": {"key": "a/b"}}, r'token.key is "a/b", but must be a key'),
    ({"storage": {"existingClaim": "My"}}, r"storage.existingClaim .* must be an object's name .*, or empty"),
    ({"test": {"namespace": ""}}, r'test.namespace is "", but must be a namespace\'s name'),
    ({"test": {"namespace": NAMESPACE}}, r"test.namespace is the namespace of the release"),
    ({"scheduler": {"prometheusSecret": "x"}}, r"settings.prometheus.url is empty: say where Prometheus is"),
    (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        r"the label app.kubernetes.io/name is set by the chart",
    ),
    ({"predictor": {"tls": "secret"}}, r"predictor.certificateSecret is empty: name it"),
    ({"predictor": {"tls": "certManager"}}, r"predictor.certManager.issuerName is empty: name it"),
    (
        {"predictor": {"certificateSecret": "a", "certManager": {"issuerName": "b"}}},
        r"are both given: leave one out, or say with predictor.tls which one counts",
    ),
    (
        {"settings": {"prometheus": {"url": "http://p:9090"}}, "bundledPrometheus": {"enabled": True}},
        r"names a Prometheus, and bundledPrometheus.enabled makes one: leave one of them out",
    ),
    (
        {"settings": {"prometheus": {"bearer_token_file": "/t"}}},
        r"bearer_token_file is given, but settings.prometheus.url is empty: say where Prometheus is",
    ),
    (
        {"bundledPrometheus": {"storage": {"size": "4GB"}}},
        r'bundledPrometheus.storage.size is "4GB", but must be a whole number of Mi or Gi',
    ),
    (
        {"train": {"resources": {"limits": {"cpu": "2 cores"}}}},
        r'limits\[cpu\] is "2 cores", but must be an am',
    ),
    ({"commonLabels": {"team": "a b"}}, r'commonLabels\[team\] is "a b", but must be a label\'s value'),
    ({"controller": {"nodeSelector": {"a b": "c"}}}, r'nodeSelector has "a b", but each key must be a name'),
    (
        {"commonAnnotations": {"helm.sh/hook": "test"}},
        r"commonAnnotations has helm.sh/hook, which would change what Helm does with every object",
    ),
    (
        {"monitoring": {"labels": {"app.kubernetes.io/part-of": "x"}}},
        r"set by the chart itself, .* leave it out of monitoring.labels",
    ),
    (
        {"commonLabels": {"grafana_dashboard": "2"}},
        r"the label grafana_dashboard is in monitoring.dashboards.labels and in commonLabels",
    ),
    (
        {"bundledPrometheus": {"podLabels": {"app.kubernetes.io/component": "x"}}},
        r"leave it out of bundledPrometheus.podLabels",
    ),
    (
        {"controller": {"resources": {"requests": {"cpus": "1"}}}},
        r'requests has "cpus", but each key must be cpu, memory, ephemeral-storage, or a device',
    ),
    ({"train": {"resources": {"limits": {"memory": 256}}}}, r"memory is 256, but must be an amount with its"),
    ({"train": {"resources": {"limits": {"memory": "500m"}}}}, r'memory is "500m", but must be an amount'),
    ({"train": {"schedule": "99 99 * * *"}}, r'train.schedule is "99 99 \* \* \*", but must be the five'),
    ({"train": {"schedule": "a b c d e"}}, r"train.schedule .* but must be the five fields of cron"),
    (
        {"networkPolicies": {"clients": [{"ipBlock": {"cidr": "10.0.0.0"}}]}},
        r'clients\[0\].ipBlock.cidr is "10.0.0.0", but must be addresses and how many bits of them count',
    ),
    (
        {"networkPolicies": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}},
        r"an item with ipBlock 10.0.0.0/8 and a selector: make it two items",
    ),
    (
        {"recorder": {"env": [{"name": "A", "value": "", "valueFrom": {"secretKeyRef": KEY}}]}},
        r"recorder.env gives A a value and a valueFrom",
    ),
    (
        {"recorder": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        r"recorder.env names A twice",
    ),
    (
        {"probe": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        r"probe.tolerations has operator Exists with the value b",
    ),
    ({"probe": {"tolerations": [{"effect": "NoSchedule"}]}}, r"probe.tolerations has one without a key"),
    (
        {"probe": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}},
        r"tolerationSeconds, which count with the effect NoExecute only",
    ),
    (prometheus(username="a"), r"username and password_file go together"),
    (
        prometheus(username="a", password_file="/p", bearer_token_file="/t"),
        r"a bearer_token_file and a username: leave one of them out",
    ),
    (prometheus(ca_file="/c", skip_tls_verify=True), r"a ca_file, and skip_tls_verify"),
    (
        prometheus(ca_file="/etc/fairlane/prometheus/ca.crt"),
        r"where scheduler.prometheusSecret is mounted, but that is empty: name the Secret",
    ),
    (
        {"bundledPrometheus": {"enabled": True, "scrapeInterval": "60s"}},
        r"scrapeInterval is 60s, but a rate over settings.prometheus.rate_range_s \(60\) needs two .* to 240",
    ),
    (
        {"bundledPrometheus": {"enabled": True, "storage": {"size": "1Mi"}}},
        r"storage.size is 1Mi, which is too little to begin with: 256Mi is the least",
    ),
    (
        {"settings": {"sources": ["dcgm", {"name": "a", "readings": {"cpu_use": {"expr": "x"}}}]}},
        r"cpu_use of a needs newest or measured_at, or its age would be unknown",
    ),
    (
        {"settings": {"probe": {"transfer_bytes": 2000, "budget_bytes_per_minute": 1000}}},
        r"transfer_bytes \(2000\) is more than budget_bytes_per_minute \(1000\)",
    ),
    ({"storage": {"registryUrl": "https://models/a"}}, r"nothing can be published by HTTP: name a bucket"),
    (
        {"bundledPrometheus": {"enabled": True, "exporters": {"node|.*": 9100}}},
        r'bundledPrometheus.exporters has "node\|\.\*", but its keys must be values of a label',
    ),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG)
def test_a_mistake_is_refused_with_a_sentence(values: Object, sentence: str, helm: Helm) -> None:
    with pytest.raises(HelmError, match=sentence) as refused:
        helm.template(values)
    assert "pattern" not in str(refused.value)
    assert "exclusiveMinimum" not in str(refused.value)


RIGHT: list[Object] = [
    {"commonLabels": {"team": "", "example.org/team": "A.b_c"}},
    {"train": {"schedule": "*/5 0-6,22 1,15 jan-MAR mon"}},
    {"train": {"schedule": "@weekly"}},
    {"train": {"resources": {"requests": {"memory": None}, "limits": {"memory": 268435456}}}},
    {"train": {"resources": {"limits": {"memory": "1.5Gi", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"}}}},
    {"probe": {"tolerations": [{"operator": "Exists"}, {"key": "a"}, {"key": "b", "value": "c"}]}},
    {"probe": {"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 3}]}},
    {"networkPolicies": {"clients": [{"ipBlock": {"cidr": "fd00::/8"}}, {"podSelector": {}}]}},
    {"settings": {"sources": ["dcgm", {"name": "a", "newest": "m", "readings": {"cpu_use": {"expr": "x"}}}]}},
    {
        "bundledPrometheus": {"enabled": True, "scrapeInterval": "60s", "storage": {"size": "256Mi"}},
        "settings": {"prometheus": {"rate_range_s": 120}},
    },
    prometheus(bearer_token_file="/var/run/secrets/kubernetes.io/serviceaccount/token"),
]


@pytest.mark.parametrize("values", RIGHT)
def test_what_looks_like_a_mistake_and_is_none_is_taken(values: Object, helm: Helm) -> None:
    assert helm.objects(values)


def test_policies_are_refused_where_the_cluster_has_none(helm: Helm) -> None:
    with pytest.raises(
        HelmError, match=r"this cluster is v?1\.33\.4 and policies that change objects need 1\.36"
    ):
        helm.template({"admission": {"by": "policies"}}, OLDER)
