"""Work that can wait gives way to work that cannot, on a processor that they share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""Niceness of the session, on kernels that weigh sessions against each other (CONFIG_SCHED_AUTOGROUP)."""

log = logging.getLogger(__name__)


def yield_processor(niceness: int) -> None:
    """Add `niceness` to this process's own, and to its session's where it leads one.

    Where the kernel groups processes by session (the default of most
    distributions), niceness counts only inside a session: two daemons of
    different sessions get equal shares, however nice one of them is.
    """
    level = os.nice(niceness)
    if os.getsid(0) != os.getpid() or not AUTOGROUP.exists():
        return  # others of this session must not be slowed down with us
    try:
        AUTOGROUP.write_text(str(level))
    except OSError as error:
        log.warning("this process competes for the processor like any other: %s: %s", AUTOGROUP, error)
