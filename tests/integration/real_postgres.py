"""A PostgreSQL server of one's own, from the binaries that the system package brings."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.ports import Reservation

ROOT = Path("/usr/lib/postgresql")


def binaries() -> Path | None:
    """Folder of the newest server installed; None without one."""
    found = sorted(ROOT.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """URL of an empty database that goes when the block ends."""
    folder = binaries()
    assert folder is not None
    directory = Path(tempfile.mkdtemp(prefix="fairlane-postgres-"))
    # the server refuses to run as root, so then it runs as the package's own user
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
    ports = Reservation()
    try:
        port = ports.take(1)[0]
        _run(
            [folder / "initdb", "-D", directory / "data", "-A", "trust", "-U", "fairlane", "--no-sync"], user
        )
        server = _start(folder, directory, port, user)
        try:
            _await(folder, port, user)
            yield f"postgresql://fairlane@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients that are still connected
            server.wait(timeout=20)
    finally:
        ports.close()
        shutil.rmtree(directory, ignore_errors=True)


def _start(folder: Path, directory: Path, port: int, user: str | None) -> subprocess.Popen[bytes]:
    command = [folder / "postgres", "-D", directory / "data", "-p", str(port), "-h", "127.0.0.1"]
    command += ["-k", directory, "-F", "-c", "logging_collector=off"]
    return subprocess.Popen(command, user=user, cwd="/", stderr=subprocess.DEVNULL)


def _run(command: list[Path | str], user: str | None) -> None:
    subprocess.run(command, user=user, cwd="/", check=True, capture_output=True)


def _await(folder: Path, port: int, user: str | None) -> None:
    ready = [folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
    deadline_s = time.monotonic() + 60
    while subprocess.run(ready, user=user, cwd="/", check=False).returncode:
        assert time.monotonic() < deadline_s, "PostgreSQL does not start"
        time.sleep(0.1)
