"""A self-managed CA and its certificate in a Secret, renewed step by step by whoever looks after it.

Several may look after the same one: who writes first wins by the resource
version, the others take what he wrote. The Secret itself is made by others,
empty: so the right to create Secrets is not needed here.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from scheduler.certificate_settings import KeptCertificate
from scheduler.edge.certificates import CertificateError, Certificates, Lives, Pair, renewed
from scheduler.edge.kube import KubeClient, KubeError

CONFLICT = 409
RENEWALS_MAX = 5
Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The clock that certificates are held against."""
    return datetime.datetime.now(datetime.UTC)


class CertificateSecret:
    """One Secret with a CA, its key, and a certificate for `names`."""

    def __init__(
        self, kube: KubeClient, settings: KeptCertificate, names: Sequence[str], clock: Clock = utc_now
    ) -> None:
        self._kube = kube
        self._name = settings.secret
        self._path = f"/api/v1/namespaces/{settings.namespace}/secrets/{settings.secret}"
        self._names, self._clock = names, clock
        self._lives = Lives(settings.ca_s, settings.certificate_s, settings.settle_s)

    async def renew(self) -> Certificates:
        """What it holds now, after a step if one was due; one that is still empty is filled.

        Raises:
            CertificateError: it holds something else than ours.
            KubeError: there is no such Secret (status 404), or the API server does not let us.
        """
        for _attempt in range(RENEWALS_MAX):
            secret: dict[str, Any] = msgspec.json.decode(await self._kube.get(self._path))
            current = stored(secret)
            wanted = renewed(current, self._names, self._clock(), self._lives)
            if wanted == current or await self._write(secret, wanted):
                return wanted
        raise CertificateError(f"others kept changing the Secret {self._name}")

    async def _write(self, secret: dict[str, Any], wanted: Certificates) -> bool:
        """Whether nobody else wrote in between."""
        data = {
            "ca.crt": wanted.bundle,
            "ca.key": wanted.authority_key,
            "tls.crt": wanted.serving.certificate,
            "tls.key": wanted.serving.key,
        }
        encoded = {name: base64.b64encode(text).decode() for name, text in data.items()}
        try:
            await self._kube.put(self._path, {**secret, "data": encoded})
        except KubeError as error:
            if error.status == CONFLICT:
                return False
            raise
        return True


def stored(secret: dict[str, Any]) -> Certificates | None:
    """What the Secret holds; None when it was made empty for us to fill.

    Raises:
        CertificateError: it holds something else.
    """
    data = secret.get("data") or {}
    if not data:
        return None
    try:
        ca, ca_key, certificate, key = (
            base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")
        )
    except (KeyError, ValueError) as error:
        name = secret["metadata"]["name"]
        raise CertificateError(f"the Secret {name} is not one of ours ({error}): remove its data") from error
    return Certificates(ca, ca_key, Pair(certificate, key))
