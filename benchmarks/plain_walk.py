"""The walk as its rule reads: every waiting gang within the depth is tried every time, nothing is remembered.

The product's walk is held against it: the same decisions (tests), for less (benchmark).
"""

from __future__ import annotations

from itertools import islice

from scheduler.core.queue.actions import Action
from scheduler.core.queue.backfill import Reservation, may_go_ahead
from scheduler.core.queue.book import Book
from scheduler.core.queue.line import Candidate, barred, held_back
from scheduler.core.queue.overtaking import release_ahead


def plain_walk(book: Book, reservation: Reservation, newcomer: Candidate | None = None) -> list[Action]:
    """Release those behind the reserved gang that do not delay it, in order; or just see to one newcomer."""
    actions: list[Action] = []
    for candidate in [newcomer] if newcomer is not None else whole_line(book):
        if candidate.record.gang.uid == reservation.uid:
            continue
        end_s = book.now_s + book.lasts_s(candidate.record)
        placement = may_go_ahead(book.capacity, candidate.record.wanted(), end_s, reservation)
        if placement is not None:
            actions.append(release_ahead(book, candidate, placement, reservation))
    return actions


def whole_line(book: Book) -> list[Candidate]:
    """Waiting gangs in order, as many as the walk's depth, without those that may not be released now."""
    every = (
        Candidate(book.gangs[uid], turn.tag)
        for turn in book.order.turns_anew(barred(book))
        for uid in turn.job.gangs.items()
    )
    return [one for one in islice(every, book.settings.depth) if not held_back(book, one.record)]
