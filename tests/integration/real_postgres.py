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

from testbed.credentials import write_credentials
from testbed.ports import Reservation

ROOT = Path("/usr/lib/postgresql")


def binaries() -> Path | None:
    """Folder of the newest server installed; None without one."""
    found = sorted(ROOT.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """URL of an empty database that goes when the block ends."""
    with postgres_server() as server:
        yield server.url


@contextmanager
def postgres_server(*settings: str) -> Iterator[PostgresServer]:
    """A running server with an empty database, with `settings` (name=value) besides."""
    # the server refuses to run as root, so then it runs as the package's own user
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="fairlane-postgres-"))
    if user is not None:
        shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
    ports = Reservation()
    try:
        server = PostgresServer(directory, ports.take(1)[0], user, settings)
        try:
            yield server
        finally:
            server.stop()
    finally:
        ports.close()
        shutil.rmtree(directory, ignore_errors=True)


class PostgresServer:
    """A server on a port that stays its own; everybody is let in without a password."""

    def __init__(self, directory: Path, port: int, user: str | None, settings: tuple[str, ...]) -> None:
        folder = binaries()
        assert folder is not None
        self.data = directory / "data"
        self.url = f"postgresql://fairlane@127.0.0.1:{port}/postgres"
        self._binaries, self._port, self._user = folder, port, user
        self._options = [word for one in ("fsync=off", *settings) for word in ("-c", one)]
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "fairlane", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._binaries / "postgres", "-D", self.data, "-p", str(self._port), "-h", "127.0.0.1"]
        command += ["-k", self.data.parent, "-c", "logging_collector=off", *self._options]
        self._process = subprocess.Popen(command, user=self._user, cwd="/", stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline_s, "PostgreSQL does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        """Cut all connections and end; SIGTERM would wait for clients that are still connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=20)
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections stay open, and nothing is answered."""
        assert self._process is not None
        listed = ["ps", "-o", "pid=", "--ppid", str(self._process.pid)]
        children = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        processes = [self._process.pid, *map(int, children)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)

    def ask(self, *statements: str) -> None:
        """Run SQL as the superuser."""
        words = [word for one in statements for word in ("-c", one)]
        self._run("psql", "-d", self.url, *words)

    def let_in(self, *lines: str) -> None:
        """Put rules before those of pg_hba.conf."""
        rules = self.data / "pg_hba.conf"
        rules.write_text("".join(f"{line}\n" for line in lines) + rules.read_text())
        self.ask("SELECT pg_reload_conf()")

    def speak_tls(self) -> Path:
        """Offer TLS from now on; the CA that the certificate for 127.0.0.1 is from."""
        write_credentials(self.data, "https://127.0.0.1")
        for name in ("ca.crt", "apiserver.crt", "apiserver.key"):
            self.own(self.data / name)
        files = {"ssl_cert_file": "apiserver.crt", "ssl_key_file": "apiserver.key"}
        self.ask(*(f"ALTER SYSTEM SET {name} = '{file}'" for name, file in files.items()))
        self.ask("ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
        return self.data / "ca.crt"

    def own(self, path: Path) -> None:
        """Give a file or folder to the user that the server runs as."""
        if self._user is not None:
            shutil.chown(path, self._user, pwd.getpwnam(self._user).pw_gid)

    def _run(self, program: str, *words: Path | str) -> None:
        command = [self._binaries / program, *words]
        home = {**os.environ, "HOME": str(self.data.parent)}  # psql looks there for certificates of its own
        subprocess.run(command, user=self._user, cwd="/", check=True, capture_output=True, env=home)

    def _answers(self) -> bool:
        ready = [self._binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(self._port), "-q"]
        return subprocess.run(ready, user=self._user, cwd="/", check=False).returncode == 0
