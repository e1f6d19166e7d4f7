"""Child processes that do what would make the answers of their parent wait."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.context import SpawnProcess

from scheduler.edge.yielding import add_niceness
from scheduler.structured_logs import set_up_logs

SPAWN = multiprocessing.get_context("spawn")
"""A fork would copy the locks of the event loop's threads in whatever state they are."""
_STOP_S = 10.0


def become_child(niceness: int, log_format: str) -> None:
    """What every child does first: it yields, and leaves it to the parent when to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides; its end closes the pipe
    os.setsid()  # a session of its own, whose niceness counts beside other processes too
    add_niceness(niceness)
    set_up_logs(log_format)


def end(child: SpawnProcess) -> None:
    """Wait until the child is gone, and make sure that it is."""
    child.join(_STOP_S)
    if child.is_alive():
        child.kill()
        child.join()
