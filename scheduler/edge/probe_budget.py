"""How many bytes may still pass in this minute. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class ByteBudget:
    """At most `limit_bytes` in any 60 seconds (a sliding window; a bucket would let twice that pass)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._spent: deque[tuple[float, int]] = deque()
        self._sum_bytes = 0

    def left(self, now_s: float) -> int:
        """Bytes that may pass at `now_s`."""
        while self._spent and self._spent[0][0] <= now_s - WINDOW_S:
            self._sum_bytes -= self._spent.popleft()[1]
        return self._limit_bytes - self._sum_bytes

    def spend(self, size_bytes: int, now_s: float) -> bool:
        """Take `size_bytes` if they are left; whether they were."""
        if size_bytes > self.left(now_s):
            return False
        self._spent.append((now_s, size_bytes))
        self._sum_bytes += size_bytes
        return True
