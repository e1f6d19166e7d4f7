"""What a process writes, kept in a file that does not grow without end.

A testbed may stay up for weeks, and a process that makes the same complaint ten
times a second would fill the disk. A file that a process writes by itself
cannot be cut without losing what is written at that moment; so the supervisor
reads a pipe and is the only writer.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

LOG_BYTES_MAX = 16 * 2**20
"""A longer log loses its older half."""
PIECE_BYTES = 64 * 2**10
PIECES_AT_ONCE = 64


class BoundedLog:
    """The newest `limit_bytes` at most of a log, in a file, and a line where older ones were cut off."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES_MAX) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit_bytes = limit_bytes
        self._file = path.open("ab", buffering=0)
        self._size_bytes = self._file.tell()
        self._head_bytes = self._cut_bytes = self._missing_bytes = 0

    def write(self, piece: bytes) -> None:
        """Append, and cut when the log has become too long. What cannot be written is told once it can be."""
        try:
            if self._missing_bytes:
                self._append(f"\n[{self._missing_bytes:,} bytes could not be written here]\n".encode())
                self._missing_bytes = 0
            self._append(piece)
            if self._size_bytes > self._limit_bytes:
                self._cut()
        except OSError:  # the disk is full: the processes must go on, and so must the supervisor
            self._missing_bytes += len(piece)

    def _append(self, piece: bytes) -> None:
        while piece:
            written = self._file.write(piece)
            self._size_bytes += written
            piece = piece[written:]

    def _cut(self) -> None:
        """Put the newer half, from the beginning of a line on, in the place of the whole."""
        kept = self._newer_half()
        cut_bytes = self._cut_bytes + self._size_bytes - self._head_bytes - len(kept)
        head = f"[cut here: {cut_bytes:,} older bytes of this log are gone]\n".encode()
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_bytes(head + kept)
        partial.rename(self._path)  # a reader sees the old log or the new one, never half of one
        self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._cut_bytes, self._head_bytes, self._size_bytes = cut_bytes, len(head), len(head) + len(kept)

    def _newer_half(self) -> bytes:
        with self._path.open("rb") as whole:
            whole.seek(max(self._head_bytes, self._size_bytes - self._limit_bytes // 2))
            kept = whole.read()
        return kept[kept.find(b"\n") + 1 :]


class LogPipe:
    """A pipe into a log, read by the running event loop; its `writing_end` is for one process."""

    def __init__(self, log: BoundedLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._reading_end, self.writing_end = os.pipe()
        os.set_blocking(self._reading_end, False)
        self._loop.add_reader(self._reading_end, self._read)

    def handed_over(self) -> None:
        """The process has the writing end now, or did not start: we must not hold it too."""
        os.close(self.writing_end)

    def drain(self) -> None:
        """Log all that was written until now, as far as it fits into a few pieces."""
        for _ in range(PIECES_AT_ONCE):
            if not self._read():
                return

    def _read(self) -> bool:
        """Log one piece; False when there is none."""
        if self._reading_end < 0:
            return False
        try:
            piece = os.read(self._reading_end, PIECE_BYTES)
        except BlockingIOError:
            return False
        if piece:
            self._log.write(piece)
        else:
            self._loop.remove_reader(self._reading_end)
            os.close(self._reading_end)
            self._reading_end = -1
        return bool(piece)
