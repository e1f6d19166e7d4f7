"""Keys, certificates, tokens and kubeconfigs of a testbed's API server."""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)
CLUSTER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
CLUSTER_ADDRESSES = ("127.0.0.1", "10.0.0.1")

USERS: dict[str, tuple[str, str]] = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "prometheus": ("prometheus", ""),
    **{name: (f"fairlane-{name}", "") for name in ("extender", "recorder", "controller", "doctor")},
}
"""Kubeconfig name -> user and group. Those without a name of Kubernetes' own may do what rbac.yaml says."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that signs the API server's certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write_credentials(directory: Path, server_url: str) -> None:
    """Write ca.crt, apiserver.crt/key, sa.key/pub, tokens.csv and USER.kubeconfig into `directory`."""
    authority = _authority()
    _write_certificate(directory / "ca.crt", authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(directory / "apiserver.key", key)
    _write_certificate(directory / "apiserver.crt", _server_certificate(authority, key))
    _write_service_account_keys(directory)
    tokens = {name: secrets.token_hex(16) for name in USERS}
    _write_secret(directory / "tokens.csv", _token_table(tokens))
    for name, token in tokens.items():
        config = kubeconfig(server_url, directory / "ca.crt", USERS[name][0], token)
        _write_secret(directory / f"{name}.kubeconfig", json.dumps(config, indent=1))


def kubeconfig(server_url: str, ca_file: Path, user: str, token: str) -> dict[str, object]:
    """A kubeconfig (JSON is YAML) for one user with a bearer token."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fairlane",
        "clusters": [
            {"name": "fairlane", "cluster": {"server": server_url, "certificate-authority": str(ca_file)}}
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "fairlane", "context": {"cluster": "fairlane", "user": user}}],
    }


def _token_table(tokens: dict[str, str]) -> str:
    rows = []
    for name, token in tokens.items():
        user, group = USERS[name]
        rows.append(f"{token},{user},{user}" + (f',"{group}"' if group else ""))
    return "\n".join(rows) + "\n"


def _authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlane-testbed")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, name, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Authority(key, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()))


def _server_certificate(authority: Authority, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in CLUSTER_NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in CLUSTER_ADDRESSES]
    builder = _builder(name, authority.certificate.subject, key.public_key())
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(usage, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _write_service_account_keys(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(directory / "sa.key", key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "sa.pub").write_bytes(public)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    _write_secret(path, pem.decode())


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
