"""A CA and its certificate are renewed in steps; at each, old trust and new trust meet."""

from __future__ import annotations

import base64
import datetime
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from scheduler.admission_settings import AdmissionSettings
from scheduler.edge.admission_certificates import names, serving_context, trust_patch, use
from scheduler.edge.certificates import (
    CertificateError,
    Certificates,
    Lives,
    Pair,
    is_signed_by,
    load,
    names_of,
    renewed,
)

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LIVES = Lives(ca_s=3000.0, certificate_s=900.0, settle_s=60.0)
HOSTS = ("fairlane.svc", "127.0.0.1")


def at(second: float) -> datetime.datetime:
    return START + datetime.timedelta(seconds=second)


def leaf(current: Certificates) -> x509.Certificate:
    return load(current.serving.certificate)[0]


def is_trusted(serving: Pair, bundle: bytes, now: datetime.datetime, name: str = "fairlane.svc") -> bool:
    """Whether a client that trusts `bundle` accepts the certificate."""
    verifier = PolicyBuilder().store(Store(load(bundle))).time(now)
    try:
        verifier.build_server_verifier(x509.DNSName(name)).verify(load(serving.certificate)[0], [])
    except VerificationError:
        return False
    return True


def test_the_first_certificate_is_trusted_by_its_name_and_nothing_is_due() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    assert is_trusted(first.serving, first.bundle, START)
    assert not is_trusted(first.serving, first.bundle, START, "other.svc")
    assert names_of(leaf(first)) == set(HOSTS)
    assert renewed(first, HOSTS, at(599), LIVES) == first
    use(serving_context(), first.serving)


def test_a_certificate_is_renewed_after_two_thirds_by_the_same_ca() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    second = renewed(first, HOSTS, at(601), LIVES)
    assert second.bundle == first.bundle
    assert second.serving != first.serving
    assert is_trusted(second.serving, first.bundle, at(601))


def test_no_client_that_looks_within_settle_s_ever_meets_a_certificate_it_does_not_trust() -> None:
    """Lives of the CA on: who has a bundle of less than 60 s ago trusts what is served, and vice versa."""
    history: list[tuple[float, Certificates]] = []
    current: Certificates | None = None
    for second in range(0, 8000, 10):
        current = renewed(current, HOSTS, at(second), LIVES)
        history.append((second, current))
        recent = [one for then, one in history if second - 60 < then]
        for seen in recent:
            assert is_trusted(current.serving, seen.bundle, at(second)), f"new certificate, {second}"
            assert is_trusted(seen.serving, current.bundle, at(second)), f"new bundle, {second}"
    assert len({one.bundle for _, one in history}) >= 6  # old; old and new; new: several times
    assert len({one.serving for _, one in history}) >= 10


def test_a_new_ca_first_is_trusted_then_signs_then_stands_alone() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    begun = renewed(replace(first, serving=first.serving), HOSTS, at(2001), LIVES)
    assert len(load(begun.bundle)) == 2
    assert begun.serving == first.serving
    signed = renewed(begun, HOSTS, at(2062), LIVES)
    assert is_signed_by(leaf(signed), load(begun.bundle)[0])
    assert signed.bundle == begun.bundle
    alone = renewed(signed, HOSTS, at(2123), LIVES)
    assert load(alone.bundle) == load(begun.bundle)[:1]


def test_after_a_long_sleep_everything_is_made_anew_at_once() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    late = renewed(first, HOSTS, at(10_000), LIVES)
    assert is_trusted(late.serving, late.bundle, at(10_000))


def test_another_name_makes_another_certificate() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    assert names_of(leaf(renewed(first, ("new.svc",), at(61), LIVES))) == {"new.svc"}


@pytest.mark.parametrize("part", ["bundle", "authority_key"])
def test_what_cannot_be_read_is_told(part: str) -> None:
    first = renewed(None, HOSTS, START, LIVES)
    with pytest.raises(CertificateError, match=r"PEM|cannot be read"):
        renewed(replace(first, **{part: b"nonsense"}), HOSTS, at(601), LIVES)


def test_a_pair_that_does_not_fit_leaves_the_one_in_use() -> None:
    one, other = (renewed(None, HOSTS, START, LIVES).serving for _ in range(2))
    context = serving_context()
    use(context, one)
    with pytest.raises(CertificateError, match="do not belong together"):
        use(context, Pair(other.certificate, one.key))


def test_only_webhooks_that_trust_something_else_are_patched() -> None:
    wanted = base64.b64encode(b"pem").decode()
    hooks = [
        {"name": "a", "clientConfig": {"caBundle": wanted}},
        {"name": "b", "clientConfig": {}},
        {"name": "c", "clientConfig": {"caBundle": "eA=="}},
    ]
    patch = trust_patch({"webhooks": hooks}, b"pem")
    assert [step["path"] for step in patch if step["op"] == "add"] == [
        "/webhooks/1/clientConfig/caBundle",
        "/webhooks/2/clientConfig/caBundle",
    ]
    assert [step["value"] for step in patch if step["op"] == "test"] == ["b", "c"]
    assert trust_patch({"webhooks": hooks[:1]}, b"pem") == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "",
            (
                "fairlane-admission.fairlane-system.svc",
                "fairlane-admission.fairlane-system.svc.cluster.local",
            ),
        ),
        ("https://127.0.0.1:9443", ("127.0.0.1",)),
        ("https://hooks.example.com/a", ("hooks.example.com",)),
        ("https://[::1]:9443", ("::1",)),
        ("https://[::1]", ("::1",)),
    ],
)
def test_the_certificate_is_for_what_the_api_server_calls(url: str, expected: tuple[str, ...]) -> None:
    assert tuple(names(AdmissionSettings(url=url))) == expected
