"""Work that can wait gives way, also where the kernel weighs sessions and not processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.edge import yielding
from scheduler.edge.yielding import session_niceness

YIELDS = """
import os
from scheduler.edge.yielding import session_niceness, yield_processor
before = session_niceness()
yield_processor(7)
print(before, os.nice(0), session_niceness())
"""
IN_A_SESSION_OF_ANOTHER = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
)


def levels_told_by(*arguments: str) -> list[int]:
    """Niceness of the session before, of the process, and of the session after, as told in a new session."""
    command = [sys.executable, "-c", *arguments]
    told = subprocess.run(
        command, start_new_session=True, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    if "None" in told:
        pytest.skip("this kernel does not weigh sessions")
    return [int(level) for level in told]


def test_a_daemon_yields_with_its_whole_session() -> None:
    before, process, session = levels_told_by(YIELDS)
    assert process == session
    assert session >= before + 7


def test_a_process_that_does_not_lead_its_session_slows_nobody_else_down() -> None:
    before, process, session = levels_told_by(IN_A_SESSION_OF_ANOTHER, YIELDS)
    assert process >= 7
    assert session == before


def test_where_sessions_have_no_weight_none_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where a process was never in a session with a weight: its file is there and empty."""
    empty = tmp_path / "autogroup"
    empty.touch()
    monkeypatch.setattr(yielding, "AUTOGROUP", empty)
    assert session_niceness() is None
    monkeypatch.setattr(yielding, "AUTOGROUP", tmp_path / "none")
    assert session_niceness() is None


TURNS = """
import ctypes, platform, struct, threading
from scheduler.edge.yielding import take_short_turns

def turn_ns():
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0)
    return struct.unpack("=IIQiIQQQ", attributes.raw)[5]

told = [turn_ns(), int(take_short_turns()), turn_ns()]
later = threading.Thread(target=lambda: told.append(turn_ns()))
later.start()
later.join()
print(*told)
"""


def test_who_is_waited_for_takes_short_turns_and_what_it_starts_does_not() -> None:
    command = [sys.executable, "-c", TURNS]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    usual, granted, short, later = map(int, told)
    if not granted or not usual:
        pytest.skip("this kernel does not tell turns")
    assert short == 500_000 < usual
    assert later == usual
