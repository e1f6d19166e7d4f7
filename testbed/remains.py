"""What a testbed could leave behind, and how it is found: by a mark in the environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

VARIABLE = "FAIRLANE_TESTBED_MARK"


def processes(mark: str) -> list[int]:
    """Processes of this user that were started with the mark, other than this one."""
    wanted = f"{VARIABLE}={mark}".encode()
    return [pid for pid in _own_pids() if pid != os.getpid() and wanted in _environment(pid)]


def kill(mark: str, timeout_s: float = 5.0) -> list[int]:
    """End all that carry the mark; those that outlive `timeout_s` are returned."""
    deadline_s = time.monotonic() + timeout_s
    while (left := processes(mark)) and time.monotonic() < deadline_s:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return left


def _own_pids() -> list[int]:
    own = os.getuid()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == own:
                    found.append(int(entry.name))
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
