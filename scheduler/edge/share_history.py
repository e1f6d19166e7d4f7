"""What each user held over the last hour, for the page; without a Prometheus it is all there is."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

EVERY_S = 5.0
KEPT = 720
"""One hour."""
USERS_MAX = 200
"""Beyond them, those who held least are left out of a note."""


class ShareHistory:
    """Notes, the oldest of which go when there are too many."""

    def __init__(self) -> None:
        self._notes: deque[tuple[float, dict[str, float]]] = deque(maxlen=KEPT)

    def note(self, now_s: float, held: Mapping[str, float]) -> None:
        """Parts of the reference that users hold at `now_s` (unix seconds)."""
        most = sorted(held.items(), key=lambda item: -item[1])[:USERS_MAX]
        self._notes.append((now_s, {user: part for user, part in most if part > 0}))

    def view(self) -> dict[str, Any]:
        """`at_s`, and for each user what he held at these times."""
        users = sorted({user for _, held in self._notes for user in held})
        return {
            "at_s": [round(at_s, 1) for at_s, _ in self._notes],
            "users": {user: [held.get(user, 0.0) for _, held in self._notes] for user in users},
        }
