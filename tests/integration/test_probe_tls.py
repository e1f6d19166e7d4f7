"""Mutual TLS in place of a token, and peers from DNS, over real sockets."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scheduler.config import ConfigError, ProbeSettings
from scheduler.edge.probe import Probe
from scheduler.edge.probe_client import Peer
from scheduler.edge.probe_peers import from_dns, from_file

pytestmark = pytest.mark.integration
FAST = {
    "host": "127.0.0.1",
    "port": 0,
    "samples": 2,
    "sample_gap_s": 0,
    "transfer_bytes": 4096,
    "timeout_s": 5,
}
KEY = tuple[ec.EllipticCurvePrivateKey, x509.Name]


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(folder: Path, who: str, authority: KEY | None = None) -> KEY:
    """Writes who.crt and who.key, signed by `authority` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer, issuer = authority or (key, name(who))
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, name(who), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(
        now + datetime.timedelta(1)
    )
    builder = builder.add_extension(x509.BasicConstraints(authority is None, None), critical=True)
    made = builder.sign(signer, hashes.SHA256())
    (folder / f"{who}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{who}.key").write_bytes(private)
    return key, name(who)


def with_certificate(folder: Path, who: str, authority: str = "ca") -> ProbeSettings:
    files = {"ca_file": f"{authority}.crt", "certificate_file": f"{who}.crt", "key_file": f"{who}.key"}
    return ProbeSettings.model_validate({**FAST, **{k: folder / v for k, v in files.items()}})


@asynccontextmanager
async def running(
    settings: ProbeSettings, node: str, peers: Sequence[Peer] = (), token: str = ""
) -> AsyncIterator[Probe]:
    async def listed() -> Sequence[Peer]:
        return peers

    probe = Probe(settings, node, token, listed)
    await probe.start()
    try:
        yield probe
    finally:
        await probe._server.close()


async def measured(asking: Probe) -> Probe:
    await asking.refresh()
    await asking.round()
    return asking


async def test_certificates_of_one_authority_are_enough(tmp_path: Path) -> None:
    authority = certificate(tmp_path, "ca")
    for who in "ab":
        certificate(tmp_path, who, authority)
    async with running(with_certificate(tmp_path, "b"), "b") as b:
        peers = [Peer("b", "127.0.0.1", b.port)]
        async with running(with_certificate(tmp_path, "a"), "a", peers) as a:
            result = (await measured(a)).state().results["b"]
    assert result.loss_ratio == 0.0
    assert result.rtt_s > 0
    assert result.throughput_bytes_per_s > 0


async def test_a_certificate_of_another_authority_measures_nothing(tmp_path: Path) -> None:
    certificate(tmp_path, "b", certificate(tmp_path, "ca"))
    certificate(tmp_path, "a", certificate(tmp_path, "other"))
    async with running(with_certificate(tmp_path, "b"), "b") as b:
        peers = [Peer("b", "127.0.0.1", b.port)]
        async with running(with_certificate(tmp_path, "a", "other"), "a", peers) as a:
            state = (await measured(a)).state()
            assert b.state().received_bytes == 0
    assert state.results.get("b") is None
    assert state.skipped == {("b", "tls"): 1}


async def test_files_that_change_are_taken_while_it_runs(tmp_path: Path) -> None:
    """Who knows only the new authority measures a probe that began with the old one, and the other way."""
    certificate(tmp_path, "b", certificate(tmp_path, "ca"))
    async with running(with_certificate(tmp_path, "b"), "b") as b:
        certificate(tmp_path, "b", certificate(tmp_path, "ca"))
        (tmp_path / "b.key").write_text("half a change")
        await b.round()
        authority = certificate(tmp_path, "ca")
        for who in "abc":
            certificate(tmp_path, who, authority)
        async with running(with_certificate(tmp_path, "a"), "a", [Peer("b", "127.0.0.1", b.port)]) as a:
            assert (await measured(a)).state().skipped == {("b", "tls"): 1}
            await b.round()
            assert set((await measured(a)).state().results) == {"b"}
            b._rotation.update([Peer("a", "127.0.0.1", a.port)])
            await b.round()
            assert set(b.state().results) == {"a"}


async def test_without_a_certificate_the_server_tells_nothing(tmp_path: Path) -> None:
    certificate(tmp_path, "b", certificate(tmp_path, "ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with running(with_certificate(tmp_path, "b"), "b") as b:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await one_byte_from(b.port, context)


async def one_byte_from(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"x" * 400)
    return await reader.readexactly(1)


def test_certificates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificates cannot be used"):
        Probe(with_certificate(tmp_path, "absent"), "a", "", lambda: None)  # type: ignore[arg-type,return-value]


async def test_a_probe_found_by_dns_tells_its_name_and_is_no_peer_of_itself() -> None:
    settings = ProbeSettings.model_validate(FAST)
    async with running(settings, "b", token="t") as b:
        for node, expected in (("a", {"b"}), ("b", set())):
            probe = Probe(settings, node, "t", from_dns("127.0.0.1", b.port))
            assert set((await measured(probe)).state().results) == expected
            assert set(probe.state().skipped) == set()


async def test_a_list_that_cannot_be_read_leaves_the_peers_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_text("b 127.0.0.1:9 # discard\n\n")
    probe = Probe(ProbeSettings.model_validate(FAST), "a", "t", from_file(path, 8893))
    await probe.refresh()
    path.write_text("only-one-word\n")
    await probe.refresh()
    assert (probe.state().peers, probe.state().refresh_failures) == (1, 1)


async def test_a_dead_peer_is_loss_one_within_its_time_limits() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = ProbeSettings.model_validate({**FAST, "timeout_s": 0.2})
        peers = [Peer("b", "127.0.0.1", silent.getsockname()[1])]
        async with running(settings, "a", peers, token="t") as probe:
            result = (await measured(probe)).state().results["b"]
    assert result.loss_ratio == 1.0
    assert result.transfer_bytes == 0
