"""Runs a command and, when it fails, says what it said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL_LINES = 15


class CommandError(RuntimeError):
    """A command ended with a non-zero status or ran past its time."""


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> str:
    """Standard output of `command`; raises `CommandError` with the last lines it wrote."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not installed or not in PATH") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{_short(words)}: no end after {timeout_s:.0f} s") from error
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()[-TAIL_LINES:]
        raise CommandError("\n".join([f"{_short(words)} ended with status {done.returncode}:", *said]))
    return done.stdout


def succeeds(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> bool:
    """True when `command` ends with status 0 in time."""
    try:
        run(command, env=env, timeout_s=timeout_s)
    except CommandError:
        return False
    return True


def _short(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 120 else line[:117] + "..."
