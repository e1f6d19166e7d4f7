"""The model server's certificate, from files that somebody renews while it serves."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

log = logging.getLogger("fairlane.predictor")


class ServedCertificate:
    """A certificate and its key in PEM files; looked at again at every new connection.

    Half a change (a key that does not belong to the certificate yet) is told
    and not taken: the one before serves on. Connections that are open keep theirs.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._known: Any = None
        self.changes = 0

    def credentials(self) -> grpc.ServerCredentials:
        """What a gRPC server listens with.

        Raises:
            OSError: the files cannot be read, or do not belong together.
        """
        return grpc.dynamic_ssl_server_credentials(self._read(), self._newer)  # type: ignore[arg-type]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        known = self._stamps()
        certificate, key = self._files
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)  # do they belong together
        pair = (key.read_bytes(), certificate.read_bytes())
        if self._stamps() != known:
            raise OSError("the files are being changed at this moment")
        self._known = known
        return grpc.ssl_server_certificate_configuration([pair])

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC, in a thread of its own; None: the one it has."""
        try:
            if self._stamps() == self._known:
                return None
            found = self._read()
        except OSError as error:  # ssl.SSLError is one
            log.warning("the new certificate is not used: %s", error)
            return None
        self.changes += 1
        log.info("a new certificate is served")
        return found

    def _stamps(self) -> Any:
        return [(at.st_ino, at.st_mtime_ns, at.st_size) for at in (path.stat() for path in self._files)]
