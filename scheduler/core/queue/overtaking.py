"""Who goes ahead of the reserved gang: every event looks only at what can have changed.

Two gangs of one kind (pods of the same shapes) are refused alike. So before
anybody is looked at, each kind is: is there room for it now, and beside the
reserved gang; both counts are kept node by node and touched only where
something changed. A kind that has room only until the reserved gang starts
waits for a gang that is short enough, and the shortest of a kind is known. The
line is walked only when some gang somewhere may go.
"""

from __future__ import annotations

from typing import NamedTuple

from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.backfill import Reservation, may_go_ahead
from scheduler.core.queue.book import Book
from scheduler.core.queue.capacity import Placement
from scheduler.core.queue.line import Candidate, fits_alone, in_line, look_up_tag

KINDS_ASKED = 64
"""With no more kinds of gangs than this waiting, each is asked before the walk begins."""


class Leave(NamedTuple):
    """Whether a kind of gang may go ahead if it ends before the reserved one starts, and if it does not."""

    in_time: bool
    beside: bool


def let_others_ahead(book: Book, reservation: Reservation, newcomer: Candidate | None = None) -> list[Action]:
    """Release those behind the reserved gang that do not delay it, in order; or just see to one newcomer."""
    line = [newcomer] if newcomer is not None else _worth_a_look(book, reservation)
    return [release for one in line if (release := _ahead(book, one, reservation)) is not None]


def _worth_a_look(book: Book, reservation: Reservation) -> list[Candidate]:
    """Those of the line whose kind has leave; when no gang at all has, the line is not walked."""
    if len(book.waiting_forms) <= KINDS_ASKED and not any(
        _some_may(book, form, reservation) for form in book.waiting_forms
    ):
        return []
    leaves: dict[int, Leave] = {}
    found: list[Candidate] = []
    for record, tag in in_line(book):
        leave = leaves.get(record.form) or leaves.setdefault(
            record.form, _leave(book, record.form, reservation)
        )
        if leave.in_time and _may(book, leave, book.lasts_s(record), reservation):
            found.append(Candidate(record, tag))
    return found


def _some_may(book: Book, form: int, reservation: Reservation) -> bool:
    shortest = book.waiting_forms[form].first()
    return shortest is not None and _may(book, _leave(book, form, reservation), shortest[0][0], reservation)


def _may(book: Book, leave: Leave, lasts_s: float, reservation: Reservation) -> bool:
    return leave.beside or (leave.in_time and book.now_s + lasts_s <= reservation.start_s)


def _leave(book: Book, form: int, reservation: Reservation) -> Leave:
    """A necessary condition, and for pods of one shape a sufficient one: room for each shape by itself."""
    if not fits_alone(book, form):
        return Leave(in_time=False, beside=False)
    pods = book.form_pods.get(form, ())
    beside = all(reservation.room_beside(book.capacity, shape) >= number for shape, number in pods)
    return Leave(in_time=True, beside=beside)


def _ahead(book: Book, candidate: Candidate, reservation: Reservation) -> ReleaseGang | None:
    record = candidate.record
    lasts_s = book.lasts_s(record)
    if record.gang.uid == reservation.uid:
        return None
    placement = None
    if _may(book, _leave(book, record.form, reservation), lasts_s, reservation):
        placement = may_go_ahead(book.capacity, record.wanted(), book.now_s + lasts_s, reservation)
    if placement is None:
        return None
    return release_ahead(book, candidate, placement, reservation)


def release_ahead(
    book: Book, candidate: Candidate, placement: Placement, reservation: Reservation
) -> ReleaseGang:
    """A release that leaves the reserved gang where it is, also when it is of the same flow."""
    reserved = book.gangs[reservation.uid]
    same_flow = reserved.waits and candidate.record.place.path[0] == reserved.place.path[0]
    if same_flow:
        look_up_tag(book, reservation)
    before = reservation.tag
    release = book.release(candidate.record, placement, tag=candidate.tag, backfilled=True)
    if same_flow:
        look_up_tag(book, reservation)
        reservation.favour += reservation.tag - before
        reservation.tag = before
    return release
