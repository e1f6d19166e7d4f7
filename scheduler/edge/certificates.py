"""A certificate authority of our own and the certificate it signs, renewed in steps that refuse no call.

    CA due       a new CA is added to the bundle; the old one's certificate still serves
    settled      everybody trusts both: the new CA signs the certificate
    settled      everybody serves that: the old CA leaves the bundle

`renewed` is one step; whoever stores the result decides when to look again.
A CA or certificate is due after two thirds of its life; also without its key,
and when it is valid only later: it was made by a clock that was ahead.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = datetime.timedelta(minutes=5)
"""Certificates are valid from before they are made: clocks differ."""
DUE_RATIO = 2 / 3


class CertificateError(ValueError):
    """Stored or given certificates cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long a CA and a certificate live, and how long until every client knows of a change, in seconds."""

    ca_s: float
    certificate_s: float
    settle_s: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Certificates:
    """`bundle`: the CAs to trust, PEM, the newest first; `authority_key`: that of the newest."""

    bundle: bytes
    authority_key: bytes
    serving: Pair


def renewed(
    current: Certificates | None, names: Sequence[str], now: datetime.datetime, lives: Lives
) -> Certificates:
    """The next step from `current` for a server of these DNS names or addresses; `current` if none is due.

    Raises:
        CertificateError: `current` cannot be read.
    """
    if current is None:
        return _begin(names, now, lives)
    authorities, leaf = _read(current)
    newest = authorities[0]
    if is_due(newest, now) or not _signs(current.authority_key, newest):
        return _with_new_authority(current, authorities, names, now, lives)
    signed_by_newest = is_signed_by(leaf, newest)
    is_of_use = _is_valid(leaf, now) and _signs(current.serving.key, leaf)
    if not is_of_use or _settled(newest, now, lives):
        fits = is_of_use and signed_by_newest and names_of(leaf) == set(names)
        if not fits or is_due(leaf, now):
            return replace(current, serving=_issue(current.authority_key, newest, names, now, lives))
    if len(authorities) > 1 and signed_by_newest and _settled(leaf, now, lives):
        return replace(current, bundle=pem(newest))
    return current


def is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether two thirds of its life are over, or it has not begun yet."""
    begun = made_at(certificate)
    over = now >= begun + DUE_RATIO * (certificate.not_valid_after_utc - begun)
    return over or not _is_valid(certificate, now)


def made_at(certificate: x509.Certificate) -> datetime.datetime:
    """When one of our certificates was made."""
    return certificate.not_valid_before_utc + BACKDATED


def life_of(certificate: x509.Certificate) -> tuple[float, float]:
    """When it begins and ends to be valid, seconds since 1970."""
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `authority` signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def names_of(certificate: x509.Certificate) -> set[str]:
    """DNS names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(one) for one in found.get_values_for_type(x509.IPAddress)}
    return {*found.get_values_for_type(x509.DNSName), *addresses}


def load(chain: bytes) -> list[x509.Certificate]:
    """Certificates of a PEM text.

    Raises:
        CertificateError: there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise CertificateError(f"this is no PEM certificate: {error}") from error


def pem(*certificates: x509.Certificate) -> bytes:
    """A PEM text of certificates."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _read(current: Certificates) -> tuple[list[x509.Certificate], x509.Certificate]:
    return load(current.bundle), load(current.serving.certificate)[0]


def _is_valid(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _signs(key: bytes, certificate: x509.Certificate) -> bool:
    """Whether it is this one's key: what another one signs is trusted by nobody."""
    try:
        return _load_key(key).public_key() == certificate.public_key()
    except CertificateError:
        return False


def _settled(certificate: x509.Certificate, now: datetime.datetime, lives: Lives) -> bool:
    return now >= made_at(certificate) + datetime.timedelta(seconds=lives.settle_s)


def _begin(names: Sequence[str], now: datetime.datetime, lives: Lives) -> Certificates:
    key, authority = _authority(now, lives)
    return Certificates(pem(authority), key, _issue(key, authority, names, now, lives))


def _with_new_authority(
    current: Certificates,
    authorities: Sequence[x509.Certificate],
    names: Sequence[str],
    now: datetime.datetime,
    lives: Lives,
) -> Certificates:
    alive = [one for one in authorities if one.not_valid_after_utc > now]
    if not alive:
        return _begin(names, now, lives)
    key, authority = _authority(now, lives)
    return Certificates(pem(authority, *alive), key, current.serving)


def _authority(now: datetime.datetime, lives: Lives) -> tuple[bytes, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = _name(f"fairlane-ca-{serial % 16**8:08x}")
    builder = _builder(name, name, key.public_key(), now, lives.ca_s).serial_number(serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return _key_pem(key), builder.sign(key, hashes.SHA256())


def _issue(
    authority_key: bytes,
    authority: x509.Certificate,
    names: Sequence[str],
    now: datetime.datetime,
    lives: Lives,
) -> Pair:
    signer = _load_key(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(names[0]), authority.subject, key.public_key(), now, lives.certificate_s)
    builder = builder.serial_number(x509.random_serial_number())
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256())
    return Pair(pem(certificate), _key_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life_s: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(seconds=life_s))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"the key of the CA cannot be read: {error}") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise CertificateError("the key of the CA is not one of ours (an elliptic curve)")
    return loaded


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
