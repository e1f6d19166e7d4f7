"""Mutual TLS between probes, from files that somebody renews while they run."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from scheduler.config import ConfigError, ProbeSettings

Stamps = list[tuple[int, int, int]]
Files = tuple[Path, Path, Path]

log = logging.getLogger(__name__)


class ProbeTls:
    """Contexts for both directions; None without files. `renew` makes new ones when the files changed.

    `server` is listened with once; at each handshake it hands over to the newest. Half a change (a key that
    does not belong to the certificate yet) is told and not taken.
    """

    def __init__(self, settings: ProbeSettings) -> None:
        """Raises ConfigError when the files cannot be used."""
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None
        self._files: Files | None = None
        self._known: Stamps = []
        if settings.ca_file is None or settings.certificate_file is None or settings.key_file is None:
            return
        self._files = settings.ca_file, settings.certificate_file, settings.key_file
        try:
            self.server = self._newest = self._take(self._files)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"the probe's certificates cannot be used: {error}") from error
        self.server.sni_callback = self._hand_over

    def renew(self) -> None:
        """Look at the files; new connections use what they hold now."""
        if self._files is None:
            return
        try:
            if _stamps(self._files) != self._known:
                self._newest = self._take(self._files)
                log.info("new certificates are used")
        except OSError as error:
            log.warning("the new certificates are not used: %s", error)

    def _take(self, files: Files) -> ssl.SSLContext:
        known = _stamps(files)
        server = _context(ssl.PROTOCOL_TLS_SERVER, files)
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT, files)
        self._known = known
        return server

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _stamps(files: Files) -> Stamps:
    return [(at.st_ino, at.st_mtime_ns, at.st_size) for at in (path.stat() for path in files)]


def _context(protocol: int, files: Files) -> ssl.SSLContext:
    authority, certificate, key = files
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # peers are known by address; the authority signs probes only
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context
