"""Whose a testbed's folder is: claiming it, and leaving nothing in it or of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

from testbed import remains
from testbed.control import Control, TestbedError
from testbed.layout import read_options

OPTIONS_FILE = "options.json"
"""Written first; tells a testbed's folder from any other."""


def claim(directory: Path) -> int:
    """Make `directory` an empty folder that is ours; the remains of a crashed testbed are removed.

    The claim is a lock on the folder, held by the returned descriptor and by
    whoever inherits it, that is, by the supervisor for the testbed's life.

    Raises:
        TestbedError: a testbed runs there, or the folder holds something else.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(directory, os.O_RDONLY)
    try:
        _lock(folder, directory)
        _clear(directory)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _lock(folder: int, directory: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TestbedError(
            f"a testbed runs in {directory} already: use it, end it with `fairlane testbed down`, "
            "or give another folder with --dir"
        ) from error


def _clear(directory: Path) -> None:
    options = directory / OPTIONS_FILE
    if options.exists():
        remains.kill(read_options(options)[1])
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if any(directory.iterdir()):
        raise TestbedError(f"{directory} is not empty and is not a testbed's folder: give another with --dir")


def end(directory: Path, mark: str, keep_files: bool = False, within_s: float = 30.0) -> None:
    """End the testbed in `directory`, whatever is left of it, and remove its files.

    Raises:
        TestbedError: processes outlived SIGKILL.
    """
    try:
        Control(directory).down(keep_files)
    except TestbedError:
        pass  # no supervisor answers: what it left is found by its mark
    else:
        deadline_s = time.monotonic() + within_s
        while remains.processes(mark) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    if left := remains.kill(mark):
        raise TestbedError(f"processes {', '.join(map(str, left))} of the testbed cannot be ended")
    if not keep_files:
        shutil.rmtree(directory, ignore_errors=True)
