"""Whoever takes the time must not wait for a processor himself, or he records that as another's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def run_in_real_time() -> bool:
    """Run before all ordinary processes, with every thread started from now on; False where refused."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except OSError:
        return False
    return True


@contextmanager
def real_time() -> Iterator[bool]:
    """The same for this thread until the block ends; yields whether it was allowed."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    allowed = run_in_real_time()
    try:
        yield allowed
    finally:
        if allowed:
            os.sched_setscheduler(0, *before)
