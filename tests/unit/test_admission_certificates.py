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


def test_what_cannot_be_read_is_told() -> None:
    first = renewed(None, HOSTS, START, LIVES)
    with pytest.raises(CertificateError, match=r"PEM"):
        renewed(replace(first, bundle=b"nonsense"), HOSTS, START, LIVES)


@pytest.mark.parametrize(
    "key",
    # named, since the workers that share the tests out compare their names, and a key is random
    [
        pytest.param(b"nonsense", id="nonsense"),
        pytest.param(renewed(None, HOSTS, START, LIVES).authority_key, id="another authority's"),
    ],
)
def test_a_ca_whose_key_was_lost_is_replaced_before_it_has_to_sign(key: bytes) -> None:
    """What it would sign nobody would trust; and what is served is trusted all the while."""
    first = renewed(None, HOSTS, START, LIVES)
    current = replace(first, authority_key=key)
    for second in range(0, 1200, 10):
        before, current = current, renewed(current, HOSTS, at(second), LIVES)
        assert is_trusted(current.serving, current.bundle, at(second)), second
        assert is_trusted(current.serving, before.bundle, at(second)), second
    assert current.serving != first.serving
    assert load(first.bundle)[0] not in load(current.bundle)


@pytest.mark.parametrize("key", [b"", renewed(None, HOSTS, START, LIVES).serving.key], ids=["none", "other"])
def test_a_certificate_whose_key_was_lost_is_made_anew_at_once(key: bytes) -> None:
    """Nobody can serve it, so it has nothing to wait for."""
    first = renewed(None, HOSTS, START, LIVES)
    second = renewed(replace(first, serving=replace(first.serving, key=key)), HOSTS, at(1), LIVES)
    use(serving_context(), second.serving)
    assert is_trusted(second.serving, first.bundle, at(1))
    assert renewed(second, HOSTS, at(2), LIVES) == second


def test_what_was_made_by_a_clock_that_was_ahead_is_made_anew() -> None:
    """Nobody trusts it before it is valid, and that would take as long as the clock was ahead."""
    ahead = renewed(None, HOSTS, at(86_400), LIVES)
    assert not is_trusted(ahead.serving, ahead.bundle, START)
    current = ahead
    for _look in range(2):
        current = renewed(current, HOSTS, START, LIVES)
    assert is_trusted(current.serving, current.bundle, START)
    for second in range(0, 200, 10):
        current = renewed(current, HOSTS, at(second), LIVES)
    assert load(ahead.bundle)[0] not in load(current.bundle)


def test_a_clock_that_is_behind_for_a_while_takes_no_trust_from_others() -> None:
    """Who looks next with the right time trusts, and is trusted, through all of it."""
    first = renewed(None, HOSTS, at(3_600), LIVES)
    behind = renewed(first, HOSTS, START, LIVES)
    assert load(first.bundle)[0] in load(behind.bundle)
    assert is_trusted(first.serving, behind.bundle, at(3_601))


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
