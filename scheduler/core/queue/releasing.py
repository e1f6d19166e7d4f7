"""Who is released now: the walk over waiting gangs in the order of their tags.

First of all, gangs that are released already and miss pods are completed. Then
the head is released as long as it fits. When it does not, it gets a
reservation, and those behind it may go first where they do not delay it. The
walk is skipped while nothing was freed and only gangs arrived that do not come
before the reserved one: they alone are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from scheduler.core.queue.actions import Action, ReleaseGang, Report
from scheduler.core.queue.backfill import End, Reservation, earliest_start, may_go_ahead, overdue_end_s
from scheduler.core.queue.book import Book
from scheduler.core.queue.capacity import Placement
from scheduler.core.queue.events import GangPod
from scheduler.core.queue.fair_order import Path
from scheduler.core.queue.gangs import GangRecord, Phase
from scheduler.core.queue.slack import shortest_inside_slack

FORMS_TRIED = 32
"""With no more kinds of gangs than this waiting, each is tried before the walk begins."""


class Candidate(NamedTuple):
    """A waiting gang and its tag."""

    record: GangRecord
    tag: float


def release_what_fits(book: Book, gains_seen: int) -> list[Action]:
    """All releases that are due now; `gains_seen`: the capacity's gains when this was last called."""
    actions = _complete(book)
    actions += _reconsider_infeasible(book)
    arrived, book.arrived = book.arrived, []
    if book.paused or not book.capacity.usable:
        book.look_again = True
        return actions
    if book.look_again or book.capacity.gains != gains_seen or _displaced(book, arrived):
        book.look_again = False
        return actions + _walk(book)
    if book.settings.backfill and book.reservation is not None:
        for uid in arrived:
            record = book.gangs.get(uid)
            if record is not None and record.waits and not _held_back(book, record):
                actions += _backfill(book, Candidate(record, record.tag), book.reservation)
    return actions


def _walk(book: Book) -> list[Action]:
    actions: list[Action] = []
    while (head := _head(book)) is not None:
        if not _anything_fits(book) or (placement := _place(book, head.record)) is None:
            if _reserve(book, head):
                break
            actions += _set_aside(book, head.record)
            continue
        actions.append(book.release(head.record, placement, tag=head.tag, backfilled=False))
    if book.reservation is not None and book.settings.backfill and _anything_fits(book):
        actions += _let_others_ahead(book, book.reservation)
    return actions


def _place(book: Book, record: GangRecord) -> Placement | None:
    return book.capacity.place(record.wanted())


def _head(book: Book) -> Candidate | None:
    """The gang that is next: promoted by hand, reserved already, or first in the order."""
    for uid in list(book.promoted):
        record = book.gangs[uid]
        if record.waits and not _held_back(book, record):
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
        found = shortest_inside_slack(book, _barred(book), lambda record: _held_back(book, record))
        return Candidate(*found) if found is not None else None
    return next(_upcoming(book), None)


def _reserved(book: Book) -> GangRecord | None:
    """The gang with the reservation; a reservation of one that cannot use it now is dropped."""
    record = book.gangs.get(book.reservation.uid) if book.reservation is not None else None
    if record is None or not record.waits or _held_back(book, record) or record.place.path in _barred(book):
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
    _look_up(book, reserved, reservation)
    return book.settings.shortest_first or _before(first, reservation)


def _look_up(book: Book, reserved: GangRecord, reservation: Reservation) -> None:
    reservation.tag = book.order.find(reserved.place, book.settings.depth)[1] - reservation.favour


def _before(candidate: Candidate, reservation: Reservation) -> bool:
    return (candidate.tag, candidate.record.place.order) < (reservation.tag, reservation.order)


def _upcoming(book: Book) -> Iterator[Candidate]:
    """Waiting gangs that may be released, in order, as many as the walk's depth."""
    seen = 0
    for turn in book.order.turns(_barred(book)):
        if seen >= book.settings.depth:
            return
        for uid in turn.job.uids():
            seen += 1
            if seen > book.settings.depth:
                return
            record = book.gangs[uid]
            if not _held_back(book, record):
                yield Candidate(record, turn.tag)


def _held_back(book: Book, record: GangRecord) -> bool:
    """True for a gang whose release failed just now, or whose like kube-scheduler could not place."""
    if record.retry_s > book.now_s:
        return True
    if not book.holds:
        return False
    hold = book.holds.get(book.hold_key(record.gang))
    return hold is not None and hold.uid != record.gang.uid


def _barred(book: Book) -> set[Path]:
    """Flows that hold as much as one may while others wait."""
    limit = book.settings.max_share_while_others_wait
    if limit == math.inf or len(book.waiting_of) < 2:
        return set()
    return {path for path, share in book.occupied.items() if share >= limit}


def _anything_fits(book: Book) -> bool:
    """False when no kind of gang that waits has room for even one of each of its pods."""
    if len(book.waiting_forms) > FORMS_TRIED:
        return True
    return any(_fits_alone(book, form) for form in book.waiting_forms)


def _fits_alone(book: Book, form: int) -> bool:
    """True when there is room for the pods of each shape of this form, were they alone."""
    return all(book.capacity.room_for(shape) >= number for shape, number in book.form_pods.get(form, ()))


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
    reserved = book.gangs.get(reservation.uid)
    if reserved is None or newcomer is reserved:
        return True
    if newcomer.place.path[0] == reserved.place.path[0]:
        _look_up(book, reserved, reservation)
    if newcomer.place.path == reserved.place.path and newcomer.place.job == reserved.place.job:
        first = next(_upcoming(book), None)
        return first is not None and first.record is not reserved and _before(first, reservation)
    return _before(Candidate(newcomer, newcomer.tag), reservation)


def _reserve(book: Book, head: Candidate) -> bool:
    """Give the head the earliest time at which it will fit; False when there is none."""
    held = book.reservation
    changes = book.capacity.node_changes
    uid = head.record.gang.uid
    if held is not None and held.uid == uid and held.start_s > book.now_s and held.node_changes == changes:
        return True
    pods = head.record.wanted()
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
    book.doubt(record)
    if book.feasible(record):
        record.retry_s = book.now_s + 1.0
        return []
    book.part(record)
    return book.join(record)


def _let_others_ahead(book: Book, reservation: Reservation) -> list[Action]:
    actions: list[Action] = []
    possible = {form for form in book.waiting_forms if _fits_alone(book, form)}
    if not possible:
        return []
    for candidate in [one for one in _upcoming(book) if one.record.form in possible]:
        if candidate.record.gang.uid != reservation.uid:
            actions += _backfill(book, candidate, reservation)
    return actions


def _backfill(book: Book, candidate: Candidate, reservation: Reservation) -> list[Action]:
    record = candidate.record
    end_s = book.now_s + record.estimate.p90_s
    kind = (record.form, end_s <= reservation.start_s)
    if reservation.refused.get(kind) == book.capacity.gains:
        return []
    placement = may_go_ahead(book.capacity, record.wanted(), end_s, reservation)
    if placement is None:
        # Nothing was freed since and releases only take room: its like would be refused as well.
        reservation.refused[kind] = book.capacity.gains
        return []
    return [_release_ahead(book, candidate, placement, reservation)]


def _release_ahead(
    book: Book, candidate: Candidate, placement: Placement, reservation: Reservation
) -> ReleaseGang:
    """A release that leaves the reserved gang where it is, also when it is of the same flow."""
    reserved = book.gangs[reservation.uid]
    same_flow = candidate.record.place.path[0] == reserved.place.path[0]
    if same_flow:
        _look_up(book, reserved, reservation)
    before = reservation.tag
    release = book.release(candidate.record, placement, tag=candidate.tag, backfilled=True)
    if same_flow:
        _look_up(book, reserved, reservation)
        reservation.favour += reservation.tag - before
        reservation.tag = before
    return release


def _complete(book: Book) -> list[Action]:
    """Open what is missing of gangs that are released already."""
    actions: list[Action] = []
    for uid in list(book.missing):
        record = book.gangs[uid]
        pods = record.missing()
        if pods and record.retry_s <= book.now_s:
            placement = _room_for(book, pods)
            if placement is not None:
                for pod in pods:
                    book.capacity.put(pod.uid, placement[pod.uid], pod.shape.requests)
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
