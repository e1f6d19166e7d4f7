"""The line of waiting gangs: in order, without those that may not be released now."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from scheduler.core.queue.backfill import Reservation
from scheduler.core.queue.book import Book
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.levels import Path


class Candidate(NamedTuple):
    """A waiting gang and its tag."""

    record: GangRecord
    tag: float


def upcoming(book: Book) -> Iterator[Candidate]:
    """Waiting gangs that may be released, in order, as many as the walk's depth."""
    return (Candidate(record, tag) for record, tag in in_line(book))


def in_line(book: Book) -> Iterator[tuple[GangRecord, float]]:
    """The same as plain pairs, for whoever looks at many and takes few."""
    left, gangs, now_s, holds = book.settings.depth, book.gangs, book.now_s, book.holds
    for turn in book.order.turns(barred(book)):
        for uid in turn.job.gangs.items():
            record = gangs[uid]
            if record.retry_s <= now_s and not (holds and held_back(book, record)):
                yield record, turn.tag
            left -= 1
            if not left:
                return


def held_back(book: Book, record: GangRecord) -> bool:
    """True for a gang whose release failed just now, or whose like kube-scheduler could not place."""
    if record.retry_s > book.now_s:
        return True
    if not book.holds:
        return False
    hold = book.holds.get(book.hold_key(record.gang))
    return hold is not None and hold.uid != record.gang.uid


def barred(book: Book) -> set[Path]:
    """Flows that hold as much as one may while others wait."""
    limit = book.settings.max_share_while_others_wait
    if limit == math.inf or len(book.waiting_of) < 2:
        return set()
    return {path for path, share in book.occupied.items() if share >= limit}


def fits_alone(book: Book, form: int) -> bool:
    """True when there is room for the pods of each shape of this form, were they alone."""
    return all(book.capacity.room_for(shape) >= number for shape, number in book.form_pods.get(form, ()))


def look_up_tag(book: Book, reservation: Reservation) -> None:
    """Note the tag that the reserved gang has now; one that is released already goes before all others."""
    record = book.gangs[reservation.uid]
    if record.waits:
        reservation.tag = book.order.find(record.place, book.settings.depth)[1] - reservation.favour
