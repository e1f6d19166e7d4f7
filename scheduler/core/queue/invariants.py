"""What must hold after every event, by name; a full check is O(everything)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

from scheduler.core.queue.actions import Trouble
from scheduler.core.queue.book import Book
from scheduler.core.queue.fair_clock import Flow
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.levels import JobTurn, Level, Path
from scheduler.core.queue.resources import TOLERANCE, take

CLOSE = 1e-6
"""Relative difference of two sums of the same floats in different orders."""
_SHORT_S = 1e-6


class InvariantBroken(AssertionError):
    """The queue's state contradicts itself; the text begins with the property's name."""


def check(book: Book) -> None:
    """Raise `InvariantBroken` for the first property that does not hold."""
    _never_over_capacity(book)
    _room_is_added_up(book)
    _one_charge_per_uid(book)
    _waiting_is_added_up(book)
    _nobody_is_turned_away_for_nothing(book)
    _heads_are_known(book)
    _fifo_among_equal_tags(book)
    _kept_front_is_the_line(book)
    _no_gang_half_open_too_long(book)
    _who_has_no_room_is_released(book)
    _virtual_time_never_decreases(book)
    _ledger_is_work_received(book)
    _held_is_added_up(book)


def _fail(name: str, what: str) -> None:
    raise InvariantBroken(f"{name}: {what}")


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _never_over_capacity(book: Book) -> None:
    for name, room in book.capacity.rooms().items():
        if room.crowded or not book.capacity.is_usable(room.node) or room.node is None:
            continue
        for resource, free in room.free.items():
            if free < -TOLERANCE * (1.0 + room.node.allocatable.get(resource, 0.0)):
                _fail("never over capacity", f"{-free} too much {resource} on {name}")


def _room_is_added_up(book: Book) -> None:
    for name, room in book.capacity.rooms().items():
        if room.node is None or not book.capacity.is_usable(room.node):
            continue
        free = room.without_ours()
        for requests in room.pods.values():
            take(free, requests)
        for resource, amount in free.items():
            if not math.isclose(
                amount, room.free[resource], rel_tol=CLOSE, abs_tol=CLOSE * (1 + abs(amount))
            ):
                _fail("free room is added up", f"{resource} on {name}: {room.free[resource]}, not {amount}")


def _one_charge_per_uid(book: Book) -> None:
    owed = {uid: (one.place, one.charged_work) for uid, one in book.restored.items()}
    for uid, record in book.gangs.items():
        if record.released:
            if uid in owed:
                _fail("one charge per uid", f"{uid} is restored and released")
            owed[uid] = (record.place, record.charged_work)
    expected: dict[tuple[Path, object], dict[str, float]] = {}
    for uid, (place, work) in owed.items():
        keys: tuple[Hashable, ...] = (*place.path, place.job)
        for depth, key in enumerate(keys):
            expected.setdefault((place.path[:depth], key), {})[uid] = work
    for path, key, flow in _flows(book):
        wanted = expected.pop((path, key), {})
        found = {uid: charge.work for uid, charge in flow.charges.items()}
        if found.keys() != wanted.keys() or not all(_close(found[uid], wanted[uid]) for uid in found):
            _fail("one charge per uid", f"{path} {key}: charged {found}, released {wanted}")
    if expected:
        _fail("one charge per uid", f"released but not charged: {expected}")


def _waiting_is_added_up(book: Book) -> None:
    waiting = {uid for uid, record in book.gangs.items() if record.waits}
    queued: list[str] = []
    for path, level in book.order.levels():
        for key, job in level.jobs.items():
            uids = [uid for _, uid in job.gangs.in_order()]
            queued += uids
            work = math.fsum(book.gangs[uid].place.work for uid in uids)
            flow = level.clock.flows[key]
            if not _close(job.work, work) or not _close(flow.waiting_work, work) or flow.waiting != len(uids):
                _fail(
                    "waiting work is added up", f"{path} {key}: {job.work}, {flow.waiting_work}, not {work}"
                )
        _check_weights(level)
    if len(queued) != len(waiting) or set(queued) != waiting:
        _fail("every waiting gang is in the order once", f"{sorted(waiting ^ set(queued))}")


def _nobody_is_turned_away_for_nothing(book: Book) -> None:
    away = {uid for uid, record in book.gangs.items() if record.phase is Phase.TURNED_AWAY}
    kept = {uid for uids in book.turned_away.values() for uid in uids.items()}
    if away != kept:
        _fail("who is turned away is remembered", f"{sorted(away ^ kept)}")
    for path in book.turned_away:
        if book.has_place(path):
            _fail("nobody is turned away for nothing", f"{path} has {book.waiting_of.get(path, 0)} waiting")


def _heads_are_known(book: Book) -> None:
    """Where the lag limit draws a flow inside a group along, the group's head may change with time alone."""
    first: dict[object, JobTurn] = {}
    for turn in book.order.turns_anew():
        first.setdefault(turn.flow, turn)
    for key, turn in first.items():
        flow = book.order.top.clock.flows[key]
        below = book.order.top.below[str(key)].clock
        if not below.draws and not (_close(flow.head_work, turn.work) and flow.head_order == turn.order):
            _fail("a flow's tag is its first job's", f"{key}: {flow.head_work}, not {turn.work}")


def _check_weights(level: Level) -> None:
    flows = level.clock.flows.values()
    active = [flow for flow in flows if (flow.waiting and not flow.drawn) or _ahead(level, flow)]
    if any(not flow.active for flow in active):
        _fail("who waits or is ahead is active", f"{active}")
    weight = math.fsum(flow.weight for flow in flows if flow.active)
    if not _close(weight, level.clock.active_weight):
        _fail("active weights are added up", f"{level.clock.active_weight}, not {weight}")


def _ahead(level: Level, flow: Flow) -> bool:
    return not flow.waiting and level.clock.virtual_time < flow.meter


def _fifo_among_equal_tags(book: Book) -> None:
    before: tuple[float, tuple[object, ...]] | None = None
    tiers = book.settings.grouped or any(job[0] for job in _tiers(book))
    for turn in book.order.turns():
        if tiers:
            tolerance = CLOSE * (1 + abs(turn.tag))
            if before is not None and turn.tag < before[0] - tolerance:
                _fail("release order is the order of tags", f"{turn.tag} after {before[0]}")
        elif before is not None and (turn.tag, turn.order) < before:
            _fail("FIFO among equal tags", f"{(turn.tag, turn.order)} after {before}")
        before = (turn.tag, turn.order)
        keys = [key for key, _ in turn.job.gangs.in_order()]
        if keys != sorted(keys) or turn.order < keys[0]:
            _fail("FIFO among equal tags", f"gangs of a job out of order: {keys}")


def _kept_front_is_the_line(book: Book) -> None:
    kept, anew = (
        [(turn.tag, turn.order, turn.flow, turn.work) for turn in turns]
        for turns in (book.order.turns(), book.order.turns_anew())
    )
    if kept != anew:
        _fail("the front that is kept is the line", f"{kept}, not {anew}")


def _tiers(book: Book) -> Iterable[tuple[int, str]]:
    return (record.place.job for record in book.gangs.values() if record.waits)


def _no_gang_half_open_too_long(book: Book) -> None:
    for uid, record in book.gangs.items():
        if Trouble.HALF_OPEN in record.reported:
            continue
        if book.now_s > record.half_open_until_s(book.settings.half_open_timeout_s) + _SHORT_S:
            since_s = record.half_open_since_s
            _fail("no gang half open longer than its timeout", f"{uid} since {since_s}, now {book.now_s}")


def _who_has_no_room_is_released(book: Book) -> None:
    for uid in book.roomless:
        if uid not in book.gangs or not book.gangs[uid].released:
            _fail("who has no room is released", uid)
    for uid in book.no_room_since_s:
        if uid in book.gangs and book.gangs[uid].released:
            _fail("who waits for room is not released", uid)


def _virtual_time_never_decreases(book: Book) -> None:
    virtual_time = book.order.top.clock.virtual_time
    if not virtual_time >= book.highest_virtual_time:
        _fail("V never decreases", f"{virtual_time} after {book.highest_virtual_time}")
    book.highest_virtual_time = virtual_time


def _ledger_is_work_received(book: Book) -> None:
    for path, key, flow in _flows(book):
        if not flow.charges and not _close(flow.ledger, flow.received):
            _fail("ledger equals work received", f"{path} {key}: {flow.ledger}, received {flow.received}")


def _held_is_added_up(book: Book) -> None:
    held: dict[Path, float] = {}
    for record in book.gangs.values():
        for depth in range(len(record.place.path) + 1):
            path = record.place.path[:depth]
            held[path] = held.get(path, 0.0) + record.held_share
    for path, level in book.order.levels():
        if not _close(level.held, held.get(path, 0.0)):
            _fail("held shares are added up", f"{path}: {level.held}, not {held.get(path, 0.0)}")


def _flows(book: Book) -> Iterable[tuple[Path, object, Flow]]:
    for path, level in book.order.levels():
        for key, flow in level.clock.flows.items():
            yield path, key, flow
