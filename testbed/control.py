"""The client's side of the supervisor: one request, one answer, over the socket in the testbed's folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import remains
from testbed.supervisor import SOCKET

START_S_MAX = 20.0


class TestbedError(Exception):
    """Something of the testbed could not be started, found or ended; the message says what to do."""

    __test__ = False  # pytest: not a test class


@dataclass(frozen=True, slots=True)
class Spec:
    """One process to run: its command line, further environment, log file and patience at its end.

    `grace_s` is the time between SIGTERM and SIGKILL; 0 kills at once, which
    is right for a server whose data is thrown away.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: tuple[tuple[str, str], ...] = ()
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """What the supervisor knows of one process; `state` is running, paused, stopped or died."""

    name: str
    state: str
    pid: int | None
    exit_code: int | None
    starts: int
    started_at_s: float
    ended_at_s: float | None
    log: Path


class Control:
    """Requests to the supervisor of the testbed in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ports(self, count: int) -> list[int]:
        """Reserve `count` ports for the life of the testbed."""
        return [int(port) for port in self._ask("ports", count=count)]

    def start(self, spec: Spec) -> State:
        """Start a process that is not running."""
        request = {
            "name": spec.name,
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "log": str(spec.log),
            "grace_s": spec.grace_s,
        }
        return _state(self._ask("start", **request))

    def stop(self, name: str, grace_s: float | None = None) -> State:
        """End a process and wait for it; by default with the patience of its specification."""
        return _state(self._ask("stop", name=name, grace_s=grace_s))

    def signal(self, name: str, number: int) -> State:
        """Send a signal to a process and all it started."""
        return _state(self._ask("signal", name=name, number=int(number)))

    def status(self) -> list[State]:
        """All processes that were ever started, in that order."""
        return [_state(one) for one in self._ask("status")]

    def detach(self) -> None:
        """Let the testbed outlive its owner."""
        self._ask("detach")

    def down(self, keep_files: bool) -> None:
        """Ask for the end of everything; returns before it is over."""
        self._ask("down", keep_files=keep_files)

    def is_alive(self) -> bool:
        """True when a supervisor answers."""
        try:
            self._ask("status")
        except TestbedError:
            return False
        return True

    def _ask(self, what: str, **request: object) -> Any:
        try:
            with _connect(self._directory) as connection, connection.makefile("rwb") as stream:
                stream.write(json.dumps({"do": what, **request}).encode() + b"\n")
                stream.flush()
                line = stream.readline()
        except OSError as error:
            raise TestbedError(f"no testbed is running in {self._directory} ({error.strerror})") from error
        if not line:
            raise TestbedError(f"the testbed in {self._directory} is ending")
        answer = json.loads(line)
        if "error" in answer:
            raise TestbedError(answer["error"])
        return answer["ok"]


def launch(directory: Path, mark: str, claim: int) -> subprocess.Popen[bytes]:
    """Start a supervisor for `directory`; it ends with this process unless told to detach.

    It inherits `claim`, the descriptor that holds the lock on the folder.

    Raises:
        TestbedError: it did not come up; its output is in the message.
    """
    log = directory / "supervisor.log"
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "testbed.supervisor", str(directory), mark],
            env={**os.environ, remains.VARIABLE: mark},
            stdin=subprocess.PIPE,  # held open for our lifetime: its end is the end of the testbed
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(claim,),
        )
    deadline_s = time.monotonic() + START_S_MAX
    while not Control(directory).is_alive():
        if supervisor.poll() is not None or time.monotonic() > deadline_s:
            supervisor.kill()
            raise TestbedError(f"the testbed's supervisor did not start: {log.read_text()[-2000:]}")
        time.sleep(0.02)
    return supervisor


def _connect(directory: Path) -> socket.socket:
    folder = os.open(directory, os.O_PATH)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        except OSError:
            connection.close()
            raise
        return connection
    finally:
        os.close(folder)


def _state(answer: dict[str, Any]) -> State:
    return State(**{**answer, "log": Path(answer["log"])})
