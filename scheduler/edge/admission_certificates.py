"""Keeps the webhook's certificate fresh, and the API server's trust in it.

Self-managed: CA and certificate live in a Secret that all replicas share; who
renews wins by its resource version, the others take what he wrote. The CAs are
written into both webhook configurations, again whenever somebody overwrites
them. Given by files: these are read again when they change.

A certificate is put into the server's TLS context in place: calls under way
keep theirs, new connections get the new one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from scheduler.admission_settings import AdmissionSettings
from scheduler.core.admission.policies import API, NAME
from scheduler.edge.certificate_secret import CONFLICT, CertificateSecret
from scheduler.edge.certificates import CertificateError, Certificates, Pair, life_of, load
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from scheduler.edge.waking import woken_within

CONFIGURATIONS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
NOT_FOUND = 404

log = logging.getLogger(__name__)


def serving_context() -> ssl.SSLContext:
    """A TLS context for a server; its certificate is put in by `use`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def use(context: ssl.SSLContext, pair: Pair) -> None:
    """Serve this certificate from the next connection on.

    Raises:
        CertificateError: certificate and key cannot be read or do not belong together.
    """
    load(pair.certificate)
    with os.fdopen(
        os.memfd_create("certificate"), "wb"
    ) as both:  # only files can be loaded, and no disk sees it
        both.write(pair.certificate + b"\n" + pair.key)
        both.flush()
        path = f"/proc/self/fd/{both.fileno()}"
        try:
            serving_context().load_cert_chain(path)  # one that fails would leave half of it in the context
        except ssl.SSLError as error:
            raise CertificateError(f"certificate and key do not belong together: {error}") from error
        context.load_cert_chain(path)


class _Keeper:
    """What both ways have in common: the context, the pair in it, looking again."""

    def __init__(self, context: ssl.SSLContext, check_s: float) -> None:
        self._context = context
        self._check_s = check_s
        self._used: Pair | None = None
        self._wake = asyncio.Event()
        self.failure = ""
        self.changes = 0

    async def look(self) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Look again and again; a failure is told, and the certificate in use stays."""
        while True:
            await woken_within(self._wake, self._check_s)
            self._wake.clear()
            try:
                await self.look()
                self.failure = ""
            except (CertificateError, KubeError, OSError) as error:
                self.failure = str(error)
                log.warning("the webhook's certificate: %s; again in %g s", error, self._check_s)

    def life_s(self) -> tuple[float, float]:
        """When the certificate in use begins and ends, seconds since 1970; 0 without one."""
        return life_of(load(self._used.certificate)[0]) if self._used else (0.0, 0.0)

    def _serve(self, pair: Pair) -> None:
        if pair != self._used:
            use(self._context, pair)
            self._used = pair
            self.changes += 1
            log.info("serving a certificate that ends at %s", load(pair.certificate)[0].not_valid_after_utc)


class FileKeeper(_Keeper):
    """A certificate that somebody else renews in files."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path, check_s: float) -> None:
        super().__init__(context, check_s)
        self._files = (certificate, key)

    async def look(self) -> None:
        """Take the files as they are now; half a change is refused, and taken at the next look."""
        certificate, key = (path.read_bytes() for path in self._files)
        self._serve(Pair(certificate, key))


class SecretKeeper(_Keeper):
    """A certificate that we renew ourselves."""

    def __init__(self, context: ssl.SSLContext, kube: KubeClient, settings: AdmissionSettings) -> None:
        super().__init__(context, settings.check_s)
        self._kube = kube
        self._settings = settings
        self._secret = CertificateSecret(kube, settings, names(settings))

    async def look(self) -> None:
        """Renew what is due, serve it, and see that both configurations trust it."""
        current = await self._renew()
        if self._used is None:
            self._serve(current.serving)
        await self._tell(current.bundle)  # trusted first, then served
        self._serve(current.serving)

    async def run(self) -> None:
        """Look again and again, and at once when a configuration changes."""
        async with asyncio.TaskGroup() as tasks:
            for plural in CONFIGURATIONS:
                tasks.create_task(self._follow(plural))
            await super().run()

    async def _follow(self, plural: str) -> None:
        params = {"fieldSelector": f"metadata.name={NAME}"}
        async for _event in self._kube.mirror(f"/apis/{API}/{plural}", dict[str, Any], params):
            self._wake.set()

    async def _renew(self) -> Certificates:
        """One step for us or for another replica; who is late takes what the other wrote."""
        try:
            return await self._secret.renew()
        except KubeError as error:
            if error.status != NOT_FOUND:
                raise
        await self._make()
        return await self._secret.renew()

    async def _make(self) -> None:
        """The Secret, empty; another replica may have been faster."""
        settings = self._settings
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": settings.secret}}
        try:
            await self._kube.post(f"/api/v1/namespaces/{settings.namespace}/secrets", made)
        except KubeError as error:
            if error.status != CONFLICT:
                raise

    async def _tell(self, bundle: bytes) -> None:
        for plural in CONFIGURATIONS:
            path = f"/apis/{API}/{plural}/{NAME}"
            found = msgspec.json.decode(await self._kube.get(path))
            if patch := trust_patch(found, bundle):
                await self._kube.patch(path, patch, JSON_PATCH)


def trust_patch(configuration: dict[str, Any], bundle: bytes) -> list[dict[str, Any]]:
    """A patch that makes every webhook of a configuration trust `bundle`; empty when all do."""
    wanted = base64.b64encode(bundle).decode()
    patch: list[dict[str, Any]] = []
    for index, hook in enumerate(configuration.get("webhooks") or []):
        if hook["clientConfig"].get("caBundle") != wanted:
            at = f"/webhooks/{index}"
            patch.append({"op": "test", "path": f"{at}/name", "value": hook["name"]})
            patch.append({"op": "add", "path": f"{at}/clientConfig/caBundle", "value": wanted})
    return patch


def names(settings: AdmissionSettings) -> Sequence[str]:
    """What the API server calls the webhook."""
    service = f"{settings.service}.{settings.namespace}.svc"
    if not settings.url:
        return (service, f"{service}.cluster.local")
    return (urlsplit(settings.url).hostname or settings.url,)


def keeper(
    settings: AdmissionSettings, context: ssl.SSLContext, kube: KubeClient
) -> FileKeeper | SecretKeeper:
    """The keeper that the settings ask for."""
    if settings.certificate_file is not None and settings.key_file is not None:
        return FileKeeper(context, settings.certificate_file, settings.key_file, settings.check_s)
    return SecretKeeper(context, kube, settings)
