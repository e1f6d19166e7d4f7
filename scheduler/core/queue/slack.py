"""Shortest first inside the slack: a policy knob, off by default.

A tag becomes a deadline, the real time at which V reaches it if nothing more
arrives. A job may overtake when serving it first leaves every earlier deadline
feasible: capacity x (deadline - now) - work up to there >= its work. Among
those that may, the shortest goes. `stretch` makes each deadline later by that
part of its distance from the arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from itertools import islice

from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.levels import JobTurn, Path
from scheduler.core.queue.waiting import WaitingRoom


def shortest_inside_slack(
    book: WaitingRoom, barred: Container[Path], held_back: Callable[[GangRecord], bool]
) -> tuple[GangRecord, float] | None:
    """The oldest gang of the job to go next, with its tag; O(active flows) a call."""
    turns = list(islice(book.order.turns(barred), book.settings.depth))
    speed = book.capacity.share_of(book.settings.reference)
    left_s = time_until(book.order.top.clock, [turn.tag for turn in turns], speed)
    best: tuple[float, GangRecord, float] | None = None
    slack = float("inf")
    done = 0.0
    for turn, until_s in zip(turns, left_s, strict=True):
        gang = _first(book, turn, held_back)
        if gang is not None and (best is None or (turn.work <= slack and turn.work < best[0])):
            best = (turn.work, gang, turn.tag)
        done += turn.work
        given_s = until_s + book.settings.stretch * max(0.0, until_s + book.now_s - turn.order[0])
        slack = min(slack, speed * given_s - done)
    return (best[1], best[2]) if best is not None else None


def time_until(clock: FairClock, tags: list[float], speed: float) -> Iterator[float]:
    """Seconds until V reaches each of the rising tags when nothing more arrives and `speed` is delivered.

    Below 0 where V has passed the tag: the job is overdue, and whatever is
    allowed beyond its deadline was allowed since then and not from now on.
    """
    leaving = sorted(
        (clock.meter(key) + flow.waiting_work / flow.weight, flow.weight)
        for key, flow in clock.flows.items()
        if flow.active
    )
    now, all_active = clock.virtual_time, sum(weight for _, weight in leaving)
    virtual, weight, passed_s, gone = now, all_active, 0.0, 0
    for tag in tags:
        while gone < len(leaving) - 1 and leaving[gone][0] < tag:
            passed_s += max(0.0, leaving[gone][0] - virtual) * weight / speed
            virtual = max(virtual, leaving[gone][0])
            weight -= leaving[gone][1]
            gone += 1
        passed_s += max(0.0, tag - virtual) * weight / speed
        virtual = max(virtual, tag)
        yield passed_s - max(0.0, now - tag) * all_active / speed


def _first(book: WaitingRoom, turn: JobTurn, held_back: Callable[[GangRecord], bool]) -> GangRecord | None:
    gangs = (book.gangs[uid] for _, uid in turn.job.gangs.in_order())
    return next((record for record in gangs if not held_back(record)), None)
