"""Work that can wait gives way to work that cannot, on a processor that they share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""Niceness of the session, on kernels that weigh sessions against each other (CONFIG_SCHED_AUTOGROUP)."""

log = logging.getLogger(__name__)


def session_niceness() -> int | None:
    """Niceness of this process's session; None where it has no weight of its own.

    The file is not there where the kernel does not group by session, and empty
    for a process that stems from init without a session of its own between.
    """
    try:
        fields = AUTOGROUP.read_text().split()
    except OSError:
        return None
    return int(fields[-1]) if fields else None


def yield_processor(niceness: int) -> None:
    """Add `niceness` to this process's own, and to its session's where it leads one.

    Where the kernel groups processes by session (the default of most
    distributions), niceness counts only inside a session: two daemons of
    different sessions get equal shares, however nice one of them is.
    """
    level = os.nice(niceness)
    if os.getsid(0) != os.getpid() or session_niceness() is None:
        return  # others of this session must not be slowed down with us
    try:
        AUTOGROUP.write_text(str(level))
    except OSError as error:
        log.warning("this process competes for the processor like any other: %s: %s", AUTOGROUP, error)
