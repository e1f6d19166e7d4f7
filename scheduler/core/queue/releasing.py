"""Who is released now: the walk over waiting gangs in the order of their tags.

First of all, gangs that are released already and miss pods are completed. Then
the head is released as long as it fits. When it does not, it gets a
reservation, and those behind it may go first where they do not delay it. The
walk is skipped while nothing was freed and only gangs arrived that do not come
before the reserved one: they alone are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from scheduler.core.queue.actions import Action, Report
from scheduler.core.queue.backfill import End, Reservation, earliest_start, overdue_end_s
from scheduler.core.queue.book import Book
from scheduler.core.queue.capacity import Placement
from scheduler.core.queue.events import GangPod
from scheduler.core.queue.gangs import GangRecord, Phase
from scheduler.core.queue.line import Candidate, barred, fits_alone, held_back, look_up_tag, upcoming
from scheduler.core.queue.overtaking import let_others_ahead
from scheduler.core.queue.scarcity import is_tried, may_go_without_room, without_room_too_long
from scheduler.core.queue.slack import shortest_inside_slack

Overtake = Callable[[Book, Reservation, Candidate | None], list[Action]]
"""Releases gangs behind the reserved one, or sees to one newcomer; see `overtaking`."""


def release_what_fits(book: Book, gains_seen: int, overtake: Overtake = let_others_ahead) -> list[Action]:
    """All releases that are due now; `gains_seen`: the capacity's gains when this was last called."""
    actions = [*_complete(book), *_reconsider_infeasible(book), *book.take_turned_away()]
    actions += _release_waiting(book, gains_seen, overtake)
    while book.turned_away:
        actions += book.take_turned_away()
        if not book.arrived:
            break
        actions += _release_waiting(book, book.capacity.gains, overtake)
    return actions


def _release_waiting(book: Book, gains_seen: int, overtake: Overtake) -> list[Action]:
    actions: list[Action] = []
    arrived, book.arrived = book.arrived, []
    if book.paused or not (book.capacity.usable or may_go_without_room(book)):
        book.look_again = True
        return actions
    if book.look_again or book.capacity.gains != gains_seen or _displaced(book, arrived):
        book.look_again = False
        return actions + _walk(book, overtake)
    if book.settings.backfill and book.reservation is not None:
        for uid in arrived:
            record = book.gangs.get(uid)
            if record is not None and record.waits and not held_back(book, record):
                actions += overtake(book, book.reservation, Candidate(record, record.tag))
    return actions


def _walk(book: Book, overtake: Overtake) -> list[Action]:
    actions: list[Action] = []
    while not _seat_roomless(book) and (head := _head(book)) is not None:
        placement = _place(book, head.record)
        if placement is None and without_room_too_long(book, head.record):
            placement = {}
        if placement is None:
            if book.fits_empty(head.record) and _reserve(book, head, head.record.wanted()):
                break
            actions += _set_aside(book, head.record)
            continue
        actions.append(book.release(head.record, placement, tag=head.tag, backfilled=False))
    if book.reservation is not None and book.settings.backfill:
        actions += overtake(book, book.reservation, None)
    return actions


def _seat_roomless(book: Book) -> bool:
    """Room for gangs that were released without; True when one of them has the reservation now."""
    for uid in list(book.roomless):
        record = book.gangs[uid]
        pods = book.unplaced(record)
        placement = book.capacity.place(pods) if pods else {}
        if placement is not None:
            book.keep_room(pods, placement)
            del book.roomless[uid]
        elif is_tried(book, record) and _reserve(book, Candidate(record, -math.inf), pods):
            return True
    return False


def _place(book: Book, record: GangRecord) -> Placement | None:
    return book.capacity.place(record.wanted()) if fits_alone(book, record.form) else None


def _head(book: Book) -> Candidate | None:
    """The gang that is next: promoted by hand, reserved already, or first in the order."""
    for uid in list(book.promoted):
        record = book.gangs.get(uid)  # after a restart it may not have come yet
        if record is not None and record.waits and not held_back(book, record):
            return Candidate(record, record.tag)
    first = _first(book)
    reserved = _reserved(book)
    if reserved is None or book.reservation is None:
        return first
    if first is not None and _goes_first(book, first, reserved, book.reservation):
        book.reservation.pass_to(first.record.gang.uid, first.tag, first.record.place.order)
        return first
    return Candidate(reserved, book.reservation.tag)


def _first(book: Book) -> Candidate | None:
    """The gang that would be next without a reservation."""
    if book.settings.shortest_first:
        found = shortest_inside_slack(book, barred(book), lambda record: held_back(book, record))
        return Candidate(*found) if found is not None else None
    return next(upcoming(book), None)


def _reserved(book: Book) -> GangRecord | None:
    """The gang with the reservation; a reservation of one that cannot use it now is dropped."""
    record = book.gangs.get(book.reservation.uid) if book.reservation is not None else None
    if record is None or not record.waits or held_back(book, record) or record.place.path in barred(book):
        book.reservation = None
        return None
    return record


def _goes_first(book: Book, first: Candidate, reserved: GangRecord, reservation: Reservation) -> bool:
    """True when the first in the order is of the kind of the reserved gang: the room kept serves it as well.

    Between gangs of different kinds the reservation stays: room would be
    drained for one and used by the other, in turn.
    """
    if first.record is reserved:
        reservation.tag = first.tag - reservation.favour
        return False
    if first.record.form != reserved.form:
        return False
    look_up_tag(book, reservation)
    return book.settings.shortest_first or _before(first, reservation)


def _before(candidate: Candidate, reservation: Reservation) -> bool:
    return (candidate.tag, candidate.record.place.order) < (reservation.tag, reservation.order)


def _displaced(book: Book, arrived: list[str]) -> bool:
    """True when there is no reservation to respect, or one that just arrived took it from its gang."""
    if book.reservation is None:
        return bool(arrived)
    for uid in arrived:
        record = book.gangs.get(uid)
        if record is not None and record.waits and _displaces(book, record, book.reservation):
            book.reservation = None
            return True
    return False


def _displaces(book: Book, newcomer: GangRecord, reservation: Reservation) -> bool:
    """True for one that goes before the reserved gang, or puts it behind others by enlarging its job."""
    reserved = book.gangs[reservation.uid]
    if newcomer.place.path[0] == reserved.place.path[0]:
        look_up_tag(book, reservation)
    if newcomer.place.path == reserved.place.path and newcomer.place.job == reserved.place.job:
        first = next(upcoming(book), None)
        return first is not None and first.record is not reserved and _before(first, reservation)
    return _before(Candidate(newcomer, newcomer.tag), reservation)


def _reserve(book: Book, head: Candidate, pods: list[GangPod]) -> bool:
    """Give the head the earliest time at which its pods will fit; False when there is none."""
    held = book.reservation
    changes = book.capacity.node_changes
    uid = head.record.gang.uid
    if held is not None and held.uid == uid and held.start_s > book.now_s and held.node_changes == changes:
        return True
    start = earliest_start(book.capacity, pods, _ends(book), book.now_s)
    if start is None:
        return False
    favour = held.favour if held is not None and held.uid == uid else 0.0
    book.reservation = Reservation(
        uid, head.tag, head.record.place.order, start[0], start[1], changes, favour
    )
    return True


def _ends(book: Book) -> Iterator[End]:
    """Expected ends (p90) of what is released, in order; what outlived its p90 is given some more time."""
    while (first := book.ends.first()) is not None and first[0][0] <= book.now_s:
        record = book.gangs[first[1]]
        began_s = record.released_s if record.started_s is None else record.started_s
        book.ends.put(first[1], (overdue_end_s(began_s, book.now_s),))
    for (end_s,), uid in book.ends.in_order():
        yield End(end_s, [pod.uid for pod in book.gangs[uid].wanted()])


def _set_aside(book: Book, record: GangRecord) -> list[Report]:
    """The head fits at no time: it is infeasible, or must wait until something that is not ours changes."""
    if book.fits_empty(record):
        book.doubt(record)
    if book.feasible(record):
        record.retry_s = book.now_s + 1.0
        return []
    book.part(record)
    return book.join(record)


def _complete(book: Book) -> list[Action]:
    """Open what is missing of gangs that are released already."""
    actions: list[Action] = []
    for uid in list(book.missing):
        record = book.gangs[uid]
        pods = record.missing()
        if pods and record.retry_s <= book.now_s:
            placement = _room_for(book, pods)
            if placement is None and uid in book.roomless and may_go_without_room(book):
                placement = {}
            if placement is not None:
                book.keep_room(pods, placement)
                actions.append(book.open(record, pods, placement, completing=True))
    return actions


def _room_for(book: Book, pods: list[GangPod]) -> Placement | None:
    """Where missing pods are kept room for already, or fit now."""
    kept = {pod.uid: node for pod in pods if (node := book.capacity.node_of(pod.uid))}
    others = [pod for pod in pods if pod.uid not in kept]
    found = book.capacity.place(others) if others else {}
    return None if found is None else {**kept, **found}


def _reconsider_infeasible(book: Book) -> list[Report]:
    """Gangs that did not fit the empty queue are tried again when the queue has grown."""
    reports: list[Report] = []
    if book.infeasible and book.nodes_seen != book.capacity.node_changes:
        book.nodes_seen = book.capacity.node_changes
        for uid in list(book.infeasible):
            record = book.gangs[uid]
            if book.feasible(record):
                book.infeasible.pop(uid)
                record.phase = Phase.INCOMPLETE
                reports += book.join(record)
    return reports
