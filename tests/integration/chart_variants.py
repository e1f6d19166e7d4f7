"""The chart's values in variants, and small ways to look at what Helm makes of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.admission.kinds import KNOWN
from testbed.chart.helm import NEWEST, OLDER, Helm

Object = dict[str, Any]
MONITORING = ("monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule")
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
EVERYTHING["predictor"] = {"replicas": 2, "certificateSecret": "predictor-certificate"}
BUNDLED: Object = {"bundledPrometheus": {"enabled": True}, "probe": {"enabled": True}}
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
    "predictor with cert-manager": (
        {"predictor": {"certManager": {"issuerName": "ca", "issuerKind": "ClusterIssuer"}}},
        NEWEST,
        (),
    ),
    "predictor without TLS": ({"predictor": {"tls": "none"}}, NEWEST, ()),
    "PostgreSQL": ({"storage": {"postgresql": {"existingSecret": "store"}}}, NEWEST, ()),
    "no volume": (
        {
            "predictor": {"replicas": 2},
            "storage": {
                "postgresql": {"existingSecret": "store", "caKey": "ca.crt"},
                "registryUrl": "s3://models/fairlane",
                "registrySecret": "models",
            },
        },
        NEWEST,
        (),
    ),
    "queue only": (
        {"scheduler": {"enabled": False}, "predictor": {"enabled": False}, "train": {"enabled": False}},
        NEWEST,
        MONITORING,
    ),
    "placing only": ({"controller": {"enabled": False}, "admission": {"by": "none"}}, NEWEST, MONITORING),
    "air-gapped": (
        {"image": {"registry": "registry.internal:5000/mirror"}, "bundledPrometheus": {"enabled": True}},
        NEWEST,
        (),
    ),
    "bundled Prometheus": (BUNDLED, NEWEST, MONITORING),
    "bundled Prometheus, webhook, placement at release": (
        {
            **BUNDLED,
            "admission": {"by": "webhook"},
            "settings": {"controller": {"placement": "hint"}},
            "bundledPrometheus": {"enabled": True, "storage": {"persistent": True, "storageClass": "fast"}},
        },
        NEWEST,
        MONITORING,
    ),
    "everything": (EVERYTHING, NEWEST, MONITORING),
    "placement at release": (
        {**EVERYTHING, "settings": {**EVERYTHING["settings"], "controller": {"placement": "hint"}}},
        NEWEST,
        MONITORING,
    ),
}
"""By name: values, the cluster, and what that serves besides."""
PARTS = (
    "scheduler",
    "controller",
    "recorder",
    "predictor",
    "train",
    "probe",
    "prometheus",
    "admission",
    "test",
)


def helm_or_skip(kubeconfig: Path | None = None) -> Helm:
    """Helm; the test is skipped where there is none, because building it takes minutes."""
    program = Helm.found()
    if program is None:
        pytest.skip("helm is not built: `fairlane testbed programs helm` builds it, then this test runs")
    return Helm(program, kubeconfig)


@cache
def objects_of(variant: str) -> list[Object]:
    """What Helm makes of a variant; rendered once a run, so not to be changed."""
    values, cluster, apis = VARIANTS[variant]
    return helm_or_skip().objects(values, cluster, apis)


def template_of(one: Object) -> Object | None:
    spec = one.get("spec") or {}
    found: Object | None = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return found if one["kind"] != "CustomResourceDefinition" else None


def pod_of(one: Object) -> Object | None:
    """The specification of the pods that an object makes, or is."""
    template = one if one["kind"] == "Pod" else template_of(one)
    return template["spec"] if template else None
