"""Exporters as Debian has them, on ports of the loopback interface."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.binaries import BinaryError, Program, ensure
from testbed.building import Debian
from testbed.ports import Reservation
from testbed.progress import Progress


@dataclass(frozen=True)
class _Nowhere:
    """Where there is no such Debian package there is no exporter: it is not built for a test."""

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:  # noqa: ARG002
        """Never brings one."""
        raise BinaryError(f"{name} is to be had from Debian only")


def _exporter(name: str, oldest: str) -> Program:
    return Program(name, Debian(name, f"usr/bin/{name}", _Nowhere()), "debian", oldest)


EXPORTERS = {
    one.name: one
    for one in (
        _exporter("prometheus-node-exporter", "1.5"),
        _exporter("prometheus-smokeping-prober", "0.6"),
        _exporter("prometheus-blackbox-exporter", "0.23"),
    )
}


@contextmanager
def running(name: str, *options: str) -> Iterator[str]:
    """The exporter as a process; its address.

    Raises:
        BinaryError: there is none to be had.
    """
    program = ensure([name], Progress(quiet=True), EXPORTERS)[name]
    ports = Reservation()
    address = f"127.0.0.1:{ports.take(1)[0]}"
    process = subprocess.Popen([program, f"--web.listen-address={address}", *options])
    try:
        yield address
    finally:
        process.kill()
        process.wait()
        ports.close()


def may_ping() -> bool:
    """Whether we may send ICMP."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True
