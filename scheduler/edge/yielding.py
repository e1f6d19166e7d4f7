"""Work that can wait gives way to work that cannot, on a processor that they share."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""Niceness of the session, on kernels that weigh sessions against each other (CONFIG_SCHED_AUTOGROUP)."""

TURN_NS = 500_000
"""Most answers take less, and the turns of others are longer: 0.7 ms at least, mostly 1.4 to 3."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number by machine."""
_RESET_ON_FORK = 1

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


def add_niceness(niceness: int) -> bool:
    """Add `niceness` to this thread's, and to its session's where it leads one; what it starts inherits it.

    Where the kernel groups processes by session (the default of most
    distributions), niceness counts only inside a session: two daemons of
    different sessions get equal shares, however nice one of them is. False
    where a negative one is not allowed: that needs CAP_SYS_NICE.
    """
    try:
        level = os.nice(niceness)
    except PermissionError:
        log.info("a niceness of %d needs CAP_SYS_NICE; the processor is shared as usual", niceness)
        return False
    if os.getsid(0) != os.getpid() or session_niceness() is None:
        return True  # what else is in this session must not be slowed down, or preferred, with us
    try:
        AUTOGROUP.write_text(str(level))
    except OSError as error:
        log.warning("this process competes for the processor like any other: %s: %s", AUTOGROUP, error)
    return True


def take_short_turns() -> bool:
    """Let this thread run as soon as it wakes, in short turns; False where that cannot be asked for.

    Who wakes on a busy processor waits until the others' turns, some ms, are over, unless his own is shorter
    (Linux 6.12 and newer: EEVDF with PREEMPT_SHORT). It needs no right and gives no larger share. Threads and
    processes that are started later take turns as usual, and inherit no negative niceness.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, _RESET_ON_FORK, niceness, 0, TURN_NS, 0, 0)
    refused = ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)
    if refused:
        log.warning("turns on the processor stay as they are: %s", os.strerror(ctypes.get_errno()))
    return not refused
