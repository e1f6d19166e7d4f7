"""Work that can wait gives way, also where the kernel weighs sessions and not processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.edge.yielding import AUTOGROUP

YIELDS = """
from scheduler.edge.yielding import yield_processor
yield_processor(7)
import os
print(os.nice(0), open("/proc/self/autogroup").read().split()[-1])
"""

pytestmark = pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not group by session")


def nice_levels(own_session: bool) -> list[int]:
    """Niceness of a process that yields, and of its session."""
    command = [sys.executable, "-c", YIELDS]
    told = subprocess.run(
        command, start_new_session=own_session, capture_output=True, text=True, check=True, timeout=60
    )
    return [int(level) for level in told.stdout.split()]


def test_a_daemon_yields_with_its_whole_session() -> None:
    process, session = nice_levels(own_session=True)
    assert process == session
    assert process >= 7


def test_a_process_that_does_not_lead_its_session_slows_nobody_else_down() -> None:
    session_before = int(Path("/proc/self/autogroup").read_text().split()[-1])
    process, session = nice_levels(own_session=False)
    assert process >= 7
    assert session == session_before
