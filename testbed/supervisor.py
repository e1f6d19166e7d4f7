"""The process that owns a testbed's processes: starts, watches, stops them, and leaves none behind.

`python -m testbed.supervisor DIRECTORY` runs in a session of its own and is
told what to do over a socket in that folder (control.py), one JSON object a
line. Three cords keep anything from surviving:

- its standard input is a pipe from its owner: at end of file, unless it was
  told to detach, it ends the testbed;
- each child gets SIGKILL from the kernel when the supervisor dies
  (PR_SET_PDEATHSIG), and is the leader of its own process group, which is
  killed with it;
- each child's environment carries the testbed's mark (remains.py), by which
  `down` finds what is left even after a crash of everything else.

What the children say goes through pipes into logs of bounded size (logs.py).
One thread, standard library only: a fork is safe, and it starts at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.edge.waking import woken_within
from testbed import remains
from testbed.logs import BoundedLog, LogPipe
from testbed.ports import Reservation

SOCKET = "control.sock"
REQUEST_BYTES_MAX = 4 * 2**20
PR_SET_PDEATHSIG = 1

Answer = dict[str, Any]


@dataclass
class Child:
    """One process of the testbed and what became of it."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: str
    grace_s: float
    process: subprocess.Popen[bytes] | None = None
    pipe: LogPipe | None = None
    asked_to_end: bool = False
    starts: int = 0
    started_at_s: float = 0.0
    ended_at_s: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def is_running(self) -> bool:
        """True while the process lives."""
        return self.process is not None and self.process.poll() is None

    def state(self) -> str:
        """`running`, `paused`, `stopped` (it was asked to end) or `died` (it was not)."""
        if self.is_running():
            return "paused" if _is_paused(self._pid()) else "running"
        return "stopped" if self.asked_to_end else "died"

    def _pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def describe(self) -> Answer:
        """The public facts; `exit_code` is negative for a signal, as subprocess has it."""
        state = self.state()
        if self.pipe is not None and state in ("stopped", "died"):
            self.pipe.drain()  # who learns of its end finds its last words
        return {
            "name": self.name,
            "state": state,
            "pid": self._pid() if self.is_running() else None,
            "exit_code": None if self.process is None else self.process.poll(),
            "starts": self.starts,
            "started_at_s": self.started_at_s,
            "ended_at_s": self.ended_at_s or None,
            "log": self.log,
        }


class Supervisor:
    """Children by name, and the requests that may be made about them."""

    def __init__(self, directory: Path, mark: str) -> None:
        self._directory = directory
        self._mark = mark
        self._children: dict[str, Child] = {}
        self._logs: dict[str, BoundedLog] = {}
        self._ports = Reservation()
        self._detached = False
        self._keep_files = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to end or abandoned by the owner; then leave nothing."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(ending, self._over.set)
        loop.add_reader(sys.stdin.fileno(), self._owner_ended)
        server = await asyncio.start_unix_server(
            self._serve, sock=_listen(self._directory), limit=REQUEST_BYTES_MAX
        )
        try:
            await self._over.wait()
        finally:
            server.close()
            await self._end_all()
            self._ports.close()
            self._remove_files()

    def _owner_ended(self) -> None:
        if os.read(sys.stdin.fileno(), 4096):
            return
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        if not self._detached:
            self._over.set()

    def _reap(self) -> None:
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None and not child.ended.is_set():
                child.ended_at_s = time.time()
                child.ended.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # the peer's trouble, not ours
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            act = getattr(self, f"do_{request.pop('do')}")
            return {"ok": await act(**request)}
        except (ValueError, KeyError, TypeError, AttributeError, OSError, LookupError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def do_ports(self, count: int) -> list[int]:
        """Reserve `count` ports for the life of the testbed."""
        return self._ports.take(count)

    async def do_start(
        self, name: str, argv: list[str], env: dict[str, str], log: str, grace_s: float
    ) -> Answer:
        """Start a new child, or one that has ended, by this command line."""
        before = self._children.get(name)
        if before is not None and before.is_running():
            raise ValueError(f"{name} is running already, as process {before.describe()['pid']}")
        child = Child(name, argv, env, log, grace_s, starts=before.starts if before else 0)
        self._children[name] = child
        self._spawn(child)
        return child.describe()

    async def do_stop(self, name: str, grace_s: float | None = None) -> Answer:
        """End a child: SIGTERM, and SIGKILL after `grace_s`; 0 kills at once."""
        child = self._child(name)
        await self._end(child, child.grace_s if grace_s is None else grace_s)
        return child.describe()

    async def do_signal(self, name: str, number: int) -> Answer:
        """Send a signal to a child's process group; a child it ends counts as died."""
        child = self._child(name)
        if not child.is_running():
            raise ValueError(f"{name} is not running")
        _signal_group(child, number)
        return child.describe()

    async def do_status(self) -> list[Answer]:
        """All children, in the order they were first started."""
        return [child.describe() for child in self._children.values()]

    async def do_detach(self) -> bool:
        """Live on when the owner ends."""
        self._detached = True
        return True

    async def do_down(self, keep_files: bool = False) -> bool:
        """End everything after this answer."""
        self._keep_files = keep_files
        asyncio.get_running_loop().call_soon(self._over.set)
        return True

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise LookupError(f"no process {name!r}; there are: {', '.join(self._children)}")
        return self._children[name]

    def _spawn(self, child: Child) -> None:
        supervisor_pid = os.getpid()
        pipe = LogPipe(self._log(child.log))
        try:
            child.process = subprocess.Popen(
                child.argv,
                cwd=self._directory,
                env={**os.environ, **child.env, remains.VARIABLE: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=pipe.writing_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _die_with(supervisor_pid),  # noqa: PLW1509 - one thread
            )
        finally:
            pipe.handed_over()
        child.pipe = pipe
        child.asked_to_end = False
        child.starts += 1
        child.started_at_s, child.ended_at_s = time.time(), 0.0
        child.ended.clear()

    def _log(self, path: str) -> BoundedLog:
        """The log at `path`: one for all that write there, a process and those that it leaves behind."""
        if path not in self._logs:
            self._logs[path] = BoundedLog(Path(path))
        return self._logs[path]

    async def _end(self, child: Child, grace_s: float) -> None:
        if not child.is_running():
            return
        child.asked_to_end = True
        _signal_group(child, signal.SIGCONT)  # a paused process would not see SIGTERM
        if grace_s > 0:
            _signal_group(child, signal.SIGTERM)
            await woken_within(child.ended, grace_s)
        _signal_group(child, signal.SIGKILL)  # the group: what the child itself started ends too
        await child.ended.wait()

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end(child, child.grace_s) for child in self._children.values()))
        remains.kill(self._mark)
        for child in self._children.values():
            child.describe()  # reads its last words, for a folder that is kept

    def _remove_files(self) -> None:
        if self._keep_files:
            (self._directory / SOCKET).unlink(missing_ok=True)
        else:
            shutil.rmtree(self._directory, ignore_errors=True)


def _signal_group(child: Child, number: int) -> None:
    if child.process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, number)


def _is_paused(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with(parent_pid: int) -> None:
    """In the new child: ask the kernel to end us with the parent, and end if it is gone already."""
    _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def _listen(directory: Path) -> socket.socket:
    """A listening socket in `directory`, reached by a short path: addresses end at 108 bytes."""
    folder = os.open(directory, os.O_PATH)
    try:
        (directory / SOCKET).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        listening.listen()
        return listening
    finally:
        os.close(folder)


def main() -> None:
    """Entry point; the mark comes as the second argument."""
    asyncio.run(Supervisor(Path(sys.argv[1]), sys.argv[2]).run())


if __name__ == "__main__":
    main()
