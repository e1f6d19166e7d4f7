"""Memory that is needed again in a moment is not given back in between.

The feature rows of 5,000 nodes are 4 MiB, and a table is made of several
such arrays that live for milliseconds. The C library gives blocks of that size
back to the kernel at once, and takes new ones page by page: one request to the
predictor took 6 ms to put together, of which 5 were spent on fresh pages.
"""

from __future__ import annotations

import ctypes
import platform

KEPT_BYTES = 64 * 2**20
"""Freed memory at the end of the heap that stays with the process."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20
"""Larger blocks go back at once; more is not allowed."""


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, for the next array; False where it is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    kept = (set_option(_MMAP_THRESHOLD, _LARGEST_KEPT), set_option(_TRIM_THRESHOLD, KEPT_BYTES))
    return all(kept)
