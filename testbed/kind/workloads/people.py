"""Users of the cluster, each with a certificate that the cluster signed, and a namespace of his own."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from testbed.kind.cluster import KindCluster
from testbed.kind.shell import CommandError
from testbed.kind.workloads.figures import Object

SIGNED_S_MAX = 30.0
RIGHTS = "fairlane-e2e-user"
"""ClusterRole beside `edit`: the kinds of the operators that are stood in for."""
OPERATED = ("sparkoperator.k8s.io", "kubeflow.org", "jobset.x-k8s.io")


@dataclass(frozen=True, slots=True)
class Person:
    """A user: his kubeconfig, key and certificate as files, and the namespace where he may do things."""

    name: str
    namespace: str
    kubeconfig: Path
    key: Path
    certificate: Path


def person(cluster: KindCluster, name: str, namespace: str) -> Person:
    """Make the user, with a namespace, and a service account `spark` in it that may make pods."""
    folder = cluster.kubeconfig.parent / "people" / namespace
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Person(name, namespace, folder / "kubeconfig", folder / "tls.key", folder / "tls.crt")
    key = rsa.generate_private_key(65537, 2048)  # of RSA: Spark's client takes no other without being told
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    made.certificate.write_text(_signed(cluster, name, namespace, key))
    _write_kubeconfig(cluster, made)
    _apply(cluster, _home(made))
    return made


def _signed(cluster: KindCluster, name: str, request: str, key: rsa.RSAPrivateKey) -> str:
    """The certificate that the cluster's own authority signs for the user."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = asked.public_bytes(serialization.Encoding.PEM)
    _apply(
        cluster,
        [
            {
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"name": request},
                "spec": {
                    "request": base64.b64encode(pem).decode(),
                    "signerName": "kubernetes.io/kube-apiserver-client",
                    "usages": ["client auth"],
                },
            }
        ],
    )
    cluster.kubectl("certificate", "approve", request)
    deadline_s = time.monotonic() + SIGNED_S_MAX
    while time.monotonic() < deadline_s:
        if signed := cluster.kubectl("get", "csr", request, "-o", "jsonpath={.status.certificate}"):
            cluster.kubectl("delete", "csr", request)
            return base64.b64decode(signed).decode()
        time.sleep(0.3)
    raise CommandError(f"the cluster did not sign the certificate of {name} within {SIGNED_S_MAX:.0f} s")


def _write_kubeconfig(cluster: KindCluster, one: Person) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    user = {"client-certificate": str(one.certificate), "client-key": str(one.key)}
    config["users"] = [{"name": one.name, "user": user}]
    context = {"cluster": config["clusters"][0]["name"], "user": one.name, "namespace": one.namespace}
    config["contexts"] = [{"name": one.name, "context": context}]
    config["current-context"] = one.name
    one.kubeconfig.touch(mode=0o600)
    one.kubeconfig.write_text(yaml.safe_dump(config))


def _home(one: Person) -> list[Object]:
    """The namespace, and who may do what in it."""
    rbac = "rbac.authorization.k8s.io"
    user = {"apiGroup": rbac, "kind": "User", "name": one.name}
    spark = {"kind": "ServiceAccount", "name": "spark", "namespace": one.namespace}

    def binding(role: str, subjects: list[Object]) -> Object:
        return {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"may-{role}", "namespace": one.namespace},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }

    own = {"apiGroups": list(OPERATED), "resources": ["*"], "verbs": ["*"]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": one.namespace}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "spark", "namespace": one.namespace},
        },
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": RIGHTS}, "rules": [own]},
        binding("edit", [user, spark]),
        binding(RIGHTS, [user]),
    ]


def _apply(cluster: KindCluster, objects: list[Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("apply", "-f", "-", stdin=text)
