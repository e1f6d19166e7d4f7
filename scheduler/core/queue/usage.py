"""What each user asked for and received, by hour and then by day: what the usage report is made of.

A gang is booked when it is settled, with all it used, in the hour of its end.
Received against entitled is booked while time passes, and only while the user
waits: entitlement says nothing about somebody who wants no more than he has.
Hours older than `HOURS_S` are put together to days; when there are more than
`ROWS_MOST` rows the oldest days are dropped, and the report says since when it
is complete.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.core.queue.actions import Settled
from scheduler.core.queue.receipts import QueueView

HOUR_S, DAY_S = 3600.0, 86_400.0
HOURS_S = 2 * DAY_S
ROWS_MOST = 20_000
JOBS_KEPT = 20_000
"""Jobs remembered, so that the gangs of one are one job in the report."""
_COUNTS = ("jobs", "gangs", "unseen", "work", "wait_s", "received", "entitled", "delivered", "waiting_s")
STEP_S_MOST = 60.0
"""A longer silence is not booked: nobody knows who waited in it."""


@dataclass(slots=True)
class Usage:
    """One user in one period. Works in share-seconds.

    `resource_seconds`: requested amounts x seconds held, by resource, in base
    units. Of the `waiting_s` seconds in which something of his waited:
    `delivered` is the work that all users held, `received` what he did, and
    `entitled` what he was entitled to of it. `unseen`: gangs whose end was not
    seen; they are booked until they were last seen.
    """

    jobs: int = 0
    gangs: int = 0
    unseen: int = 0
    work: float = 0.0
    wait_s: float = 0.0
    wait_s_most: float = 0.0
    received: float = 0.0
    entitled: float = 0.0
    delivered: float = 0.0
    waiting_s: float = 0.0
    resource_seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: Usage) -> None:
        """Put another period's in."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wait_s_most = max(self.wait_s_most, other.wait_s_most)
        for resource, amount in other.resource_seconds.items():
            self.resource_seconds[resource] = self.resource_seconds.get(resource, 0.0) + amount


_Row = tuple[float, float, str]
"""Begin and length of a period (s), and the user."""


class UsageBook:
    """Feed it what is settled, and views of the queue as time passes; it never goes back in time."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        """What ended before is not in it."""
        self._rows: dict[_Row, Usage] = {}
        self._jobs: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._seen_s = since_s
        self._next_s = since_s

    def settled(self, gang: Settled) -> None:
        """A gang ended."""
        usage = self._row(gang.finished_s, gang.flow)
        usage.gangs += 1
        usage.jobs += self._is_new(gang)
        usage.unseen += gang.vanished
        usage.work += gang.actual_work
        wait_s = max(0.0, gang.released_s - gang.arrived_s)
        usage.wait_s += wait_s
        usage.wait_s_most = max(usage.wait_s_most, wait_s)
        held_s = gang.actual_work / gang.share if gang.share > 0 else 0.0
        for resource, amount in gang.requests.items():
            usage.resource_seconds[resource] = usage.resource_seconds.get(resource, 0.0) + amount * held_s

    def observed(self, view: QueueView, now_s: float) -> None:
        """The queue as it is; it is taken to have been so since this was last called."""
        step_s, self._seen_s = min(now_s - self._seen_s, STEP_S_MOST), max(self._seen_s, now_s)
        if step_s <= 0:
            return
        for flow in view.flows:
            if flow.waiting:
                usage = self._row(now_s, flow.path[-1])
                usage.waiting_s += step_s
                usage.received += flow.held * step_s
                usage.entitled += flow.entitled * view.held * step_s
                usage.delivered += view.held * step_s
        self._put_together(now_s)

    def report(self, since_s: float, user: str | None = None) -> dict[str, Usage]:
        """By user, all periods that end after `since_s` (of one user)."""
        found: dict[str, Usage] = {}
        for (begin_s, length_s, name), usage in self._rows.items():
            if begin_s + length_s > since_s and user in (None, name):
                found.setdefault(name, Usage()).add(usage)
        return found

    def begin_s(self, since_s: float) -> float:
        """From when on a report since then counts: the begin of the period in which it lies."""
        begins = [begin_s for begin_s, length_s, _ in self._rows if begin_s <= since_s < begin_s + length_s]
        return min(begins, default=since_s)

    def export(self) -> dict[str, Any]:
        """Plain values for `revive`."""
        rows = [
            [*key, *(getattr(usage, name) for name in _COUNTS), usage.wait_s_most, usage.resource_seconds]
            for key, usage in self._rows.items()
        ]
        return {"since_s": self.since_s, "seen_s": self._seen_s, "rows": rows}

    @classmethod
    def revive(cls, state: Mapping[str, Any]) -> UsageBook:
        """From an export."""
        book = cls(state["since_s"])
        book._seen_s = state["seen_s"]
        for begin_s, length_s, user, *counts, most_s, seconds in state["rows"]:
            usage = Usage(**dict(zip(_COUNTS, counts, strict=True)))
            usage.wait_s_most, usage.resource_seconds = most_s, dict(seconds)
            book._rows[begin_s, length_s, user] = usage
        return book

    def _row(self, at_s: float, user: str) -> Usage:
        length_s = HOUR_S if at_s > self._seen_s - HOURS_S else DAY_S
        key = (at_s // length_s * length_s, length_s, user)
        return self._rows.setdefault(key, Usage())

    def _is_new(self, gang: Settled) -> bool:
        known = (gang.flow, gang.job) in self._jobs
        self._jobs[gang.flow, gang.job] = None
        if len(self._jobs) > JOBS_KEPT:
            self._jobs.popitem(last=False)
        return not known

    def _put_together(self, now_s: float) -> None:
        if now_s < self._next_s:
            return
        self._next_s = (now_s // HOUR_S + 1.0) * HOUR_S
        old = [key for key in self._rows if key[1] == HOUR_S and key[0] + HOUR_S <= now_s - HOURS_S]
        for begin_s, _, user in old:
            usage = self._rows.pop((begin_s, HOUR_S, user))
            self._rows.setdefault((begin_s // DAY_S * DAY_S, DAY_S, user), Usage()).add(usage)
        while len(self._rows) > ROWS_MOST:
            first_s = min(begin_s + length_s for begin_s, length_s, _ in self._rows)
            self.since_s = max(self.since_s, first_s)
            self._rows = {key: usage for key, usage in self._rows.items() if key[0] + key[1] > first_s}
