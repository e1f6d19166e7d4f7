"""Work that can wait gives way, also where the kernel weighs sessions and not processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.edge import yielding
from scheduler.edge.yielding import session_niceness

YIELDS = """
import os
from scheduler.edge.yielding import add_niceness, session_niceness
before = session_niceness()
add_niceness(7)
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


GOES_FIRST = """
import os, sys, threading
from scheduler.edge.yielding import add_niceness, session_niceness, take_short_turns

if sys.argv[1] == "nobody":
    os.setuid(65534)
granted, before = take_short_turns(), os.nice(0)
told = [int(granted), before, session_niceness(), int(add_niceness(-10)), os.nice(0), session_niceness()]
later = threading.Thread(target=lambda: told.append(os.nice(0)))
later.start()
later.join()
child = os.fork()
if child == 0:
    os._exit(20 + os.nice(0))
print(*told, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) - 20)
"""


def told_of_going_first(user: str) -> list[str]:
    command = [sys.executable, "-c", GOES_FIRST, user]
    return subprocess.run(
        command, start_new_session=True, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go first")
def test_who_is_waited_for_goes_first_where_it_may_and_what_it_starts_does_not() -> None:
    granted, before, session, allowed, process, session_after, thread, child = told_of_going_first("root")
    if granted == "0" or session == "None":
        pytest.skip("this kernel grants no short turns, or does not weigh sessions")
    assert allowed == "1"
    assert int(process) == int(session_after) == int(before) - 10
    assert int(thread) == int(child) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_who_may_not_go_first_goes_on_as_before() -> None:
    _granted, before, session, allowed, process, session_after, thread, child = told_of_going_first("nobody")
    assert allowed == "0"
    assert (process, session_after) == (before, session)
    assert thread == child == before
