"""How soon a gated pod's turn is: the position in the queue that its condition carries.

The controller writes it, the extender reads it: tables are made ahead for those who are next.
"""

from __future__ import annotations

import re

from scheduler.core.wire import PodStatus

QUEUED = "fairlane.dev/Queued"
"""The pod condition that tells how its gang stands in the queue."""
_POSITION = re.compile(r"position (\d{1,9}): ")


def position_words(position: int) -> str:
    """How the condition's message begins; empty for a gang without a position (0)."""
    return f"position {position}: " if position else ""


def turn_of(status: PodStatus) -> int:
    """The position told last; 0 when none is: nothing was written yet, or our queue does not hold the pod."""
    for condition in status.conditions or ():
        if condition.type == QUEUED and condition.status == "True":
            told = _POSITION.match(condition.message or "")
            return int(told[1]) if told else 0
    return 0
