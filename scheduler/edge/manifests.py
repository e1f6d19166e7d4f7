"""The Kubernetes objects of admission for given settings: policies, or the webhook with all it needs."""

from __future__ import annotations

import json
from typing import Any

from scheduler.admission_settings import AdmissionSettings
from scheduler.core.admission.policies import NAME, policies
from scheduler.core.admission.webhooks import webhook_configurations
from scheduler.edge.admission import rules_of

Object = dict[str, Any]
ACCOUNT = "fairlane-admission"
RBAC = "rbac.authorization.k8s.io"
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def policy_manifests(settings: AdmissionSettings) -> list[Object]:
    """Admission policies and their bindings (Kubernetes 1.36 and newer)."""
    return policies(rules_of(settings), settings.failure_policy)


def webhook_manifests(settings: AdmissionSettings) -> list[Object]:
    """The webhook's configurations, its rights, and the Deployment with its Service.

    With certificates from files, cert-manager is told to keep the configurations' trust, from the
    Certificate that is named like the service and fills the Secret.
    """
    client: Object = {"service": {"name": settings.service, "namespace": settings.namespace, "port": 443}}
    if settings.url:
        client = {"url": settings.url}
    rules = rules_of(settings)
    configurations = webhook_configurations(rules, client, settings.failure_policy, settings.timeout_s)
    if settings.certificate_file is not None:
        for one in configurations:
            source = f"{settings.namespace}/{settings.service}"
            one["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": source}
    return [*_rights(settings), *_workload(settings), *configurations]


def _rights(settings: AdmissionSettings) -> list[Object]:
    configurations = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
    admission = {"apiGroups": ["admissionregistration.k8s.io"], "resources": configurations}
    cluster = [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
        {**admission, "resourceNames": [NAME], "verbs": ["get", "list", "watch", "patch"]},
    ]
    secrets = {"apiGroups": [""], "resources": ["secrets"]}
    own = [
        {**secrets, "verbs": ["create"]},
        {**secrets, "resourceNames": [settings.secret], "verbs": ["get", "update"]},
    ]
    at: Object = {"name": ACCOUNT, "namespace": settings.namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": dict(at)},
        *_granted("ClusterRole", {"name": ACCOUNT}, cluster, at),
        *_granted("Role", dict(at), own, at),
    ]


def _granted(kind: str, metadata: Object, rules: list[Object], account: Object) -> list[Object]:
    """A role, and its binding to the service account."""
    subject = {"kind": "ServiceAccount", **account}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": ACCOUNT},
            "subjects": [subject],
        },
    ]


def _workload(settings: AdmissionSettings) -> list[Object]:
    labels = {"app.kubernetes.io/name": ACCOUNT}
    at: Object = {"name": settings.service, "namespace": settings.namespace}
    service = {"selector": labels, "ports": [{"port": 443, "targetPort": settings.port}]}
    deployment = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": _pod(settings)},
    }
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": at, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": dict(at), "spec": deployment},
    ]


def _pod(settings: AdmissionSettings) -> Object:
    probe = {"httpGet": {"path": "/readyz", "port": settings.port, "scheme": "HTTPS"}, "periodSeconds": 5}
    given = settings.model_dump(mode="json", exclude_defaults=True)
    container: Object = {
        "name": "admission",
        "image": settings.image,
        "args": ["admission"],
        "env": [
            {"name": f"FAIRLANE_ADMISSION__{name.upper()}", "value": _text(value)}
            for name, value in given.items()
        ],
        # API servers go on calling it until they know that it ends: refused calls would be refused pods
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "ports": [{"containerPort": settings.port}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": HARDENED,
    }
    pod: Object = {
        "serviceAccountName": ACCOUNT,
        "nodeSelector": {"kubernetes.io/os": "linux"},  # no node of Windows could run it
        "containers": [container],
    }
    if settings.certificate_file is not None:
        mount = {"name": "certificate", "mountPath": str(settings.certificate_file.parent), "readOnly": True}
        container["volumeMounts"] = [mount]
        pod["volumes"] = [{"name": "certificate", "secret": {"secretName": settings.secret}}]
    return pod


def _text(value: Any) -> str:
    """A setting as the environment carries it: JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
