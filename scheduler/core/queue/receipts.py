"""Why a gang waits, in a sentence; who has what share; how that compares with what he is entitled to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from scheduler.core.queue.book import Book
from scheduler.core.queue.events import Estimate
from scheduler.core.queue.fluid import FluidJob
from scheduler.core.queue.gangs import GangRecord, Phase
from scheduler.core.queue.levels import Path
from scheduler.core.queue.waiting import too_many


@dataclass(frozen=True, slots=True)
class FlowView:
    """A flow: `entitled` share among the active, share `held` now, work `received` (share-seconds) so far.

    `lead` is the work charged ahead of V (below 0: credit).
    """

    path: Path
    weight: float
    entitled: float
    held: float
    received: float
    lead: float
    waiting: int
    waiting_work: float
    running: int


@dataclass(frozen=True, slots=True)
class QueueView:
    """The queue as a whole. `usable`: share of the reference that its nodes have.

    `reserved`: uid and time of the reservation, if there is one.
    """

    name: str
    virtual_time: float
    paused: bool
    flows: tuple[FlowView, ...]
    waiting: int
    incomplete: int
    infeasible: int
    opening: int
    running: int
    held: float
    usable: float
    reserved: tuple[str, float] | None
    turned_away: int = 0


@dataclass(frozen=True, slots=True)
class GangReceipt:
    """One gang: where it is, its place in the order (0: beyond the walk's depth), why it waits.

    `expected_start_s` is known for the reserved gang only; NaN for others.
    `entitled` and `received` are its flow's, as in `FlowView`. What a released
    one was charged (share-seconds), when, and whether ahead of its turn.
    """

    uid: str
    path: Path
    phase: Phase
    position: int
    tag: float
    share: float
    work: float
    estimate: Estimate
    expected_start_s: float
    entitled: float
    received: float
    why: str
    pods: tuple[str, ...]
    arrived_s: float = math.nan
    released_s: float = math.nan
    charged_work: float = math.nan
    backfilled: bool = False


def view(book: Book) -> QueueView:
    """The state for people and metrics; O(gangs)."""
    counts = dict.fromkeys(Phase, 0)
    running: dict[Path, int] = {}
    used = _used(book)
    for record in book.gangs.values():
        counts[record.phase] += 1
        if record.released:
            path = record.place.path
            running[path] = running.get(path, 0) + 1
    paths = sorted({*running, *book.waiting_of, *book.received})
    reserved = (book.reservation.uid, book.reservation.start_s) if book.reservation is not None else None
    return QueueView(
        book.settings.name,
        book.order.top.clock.virtual_time,
        book.paused,
        tuple(_flow_view(book, path, running.get(path, 0), used.get(path, 0.0)) for path in paths),
        counts[Phase.WAITING],
        counts[Phase.INCOMPLETE],
        counts[Phase.INFEASIBLE],
        counts[Phase.OPENING],
        counts[Phase.RUNNING],
        book.order.top.held,
        book.capacity.share_of(book.settings.reference),
        reserved,
        counts[Phase.TURNED_AWAY],
    )


def explain(book: Book, uid: str) -> GangReceipt | None:
    """The receipt of one gang; None when it is not known."""
    record = book.gangs.get(uid)
    if record is None:
        return None
    position, tag = (0, record.tag)
    if record.waits:
        position, tag = book.order.find(record.place, book.settings.depth)
    path = record.place.path
    running = [one for one in book.gangs.values() if one.released and one.place.path == path]
    used = sum(one.used_until(book.now_s) for one in running)
    return _receipt(book, record, position, tag, {path: used})


def demand(book: Book, uid: str) -> FluidJob | None:
    """A gang as the fluid reference sees it: it can use no more than its own share."""
    record = book.gangs.get(uid)
    if record is None or not (record.waits or record.released):
        return None
    place = record.place
    weight = book.weight_of(place.path)
    return FluidJob(uid, place.path[-1], place.arrived_s, place.work, record.share, weight)


def idle_share(book: Book) -> float:
    """Share of the reference that no pod of ours holds although gangs wait; 0 when none waits."""
    if not book.waiting_of:
        return 0.0
    return max(0.0, book.capacity.share_of(book.settings.reference) - book.order.top.held)


def listing(book: Book, flow: str | None, limit: int) -> list[GangReceipt]:
    """Gangs of a flow (None: of all): `limit` that wait, in order, then `limit` others; O(gangs)."""
    used = _used(book)
    found: list[GangReceipt] = []
    position = 0
    for turn in book.order.turns():
        for (_, uid), _ in turn.job.gangs.in_order():
            position += 1
            record = book.gangs[uid]
            if flow in (None, record.place.path[-1]):
                found.append(_receipt(book, record, position, turn.tag, used))
        if len(found) >= limit:
            break
    del found[limit:]
    others = (one for one in book.gangs.values() if not one.waits and flow in (None, one.place.path[-1]))
    return found + [_receipt(book, one, 0, one.tag, used) for one in islice(others, limit)]


def _receipt(
    book: Book, record: GangRecord, position: int, tag: float, used: Mapping[Path, float]
) -> GangReceipt:
    reservation, path = book.reservation, record.place.path
    reserved = reservation is not None and reservation.uid == record.gang.uid
    return GangReceipt(
        record.gang.uid,
        path,
        record.phase,
        position,
        tag,
        record.share,
        record.place.work,
        record.estimate,
        reservation.start_s if reservation is not None and reserved else math.nan,
        entitled(book, path),
        book.received.get(path, 0.0) + used.get(path, 0.0),
        why(book, record, position),
        tuple(pod.uid for pod in record.gang.pods),
        record.gang.arrived_s,
        record.released_s if record.released else math.nan,
        record.charged_work if record.released else math.nan,
        record.backfilled,
    )


def _used(book: Book) -> dict[Path, float]:
    """Work that the released gangs of each flow have used so far."""
    used: dict[Path, float] = {}
    for record in book.gangs.values():
        if record.released:
            path = record.place.path
            used[path] = used.get(path, 0.0) + record.used_until(book.now_s)
    return used


def entitled(book: Book, path: Path) -> float:
    """The share a flow would get now if everybody active used his: weight over weights, level by level."""
    share, level = 1.0, book.order.top
    for depth, key in enumerate(path):
        weight = book.weight_of(path[: depth + 1])
        flow = level.clock.flows.get(key)
        others = level.clock.active_weight - (weight if flow is not None and flow.active else 0.0)
        share *= weight / (weight + max(0.0, others))
        below = level.below.get(key)
        if below is None:
            break
        level = below
    return share


def why(book: Book, record: GangRecord, position: int) -> str:
    """One sentence: what has to happen before this gang starts."""
    if record.phase is Phase.RUNNING:
        return f"it has run for {max(0.0, book.now_s - (record.started_s or book.now_s)):.0f} s"
    if record.phase is Phase.OPENING:
        missing = len(record.pods.keys() - record.started.keys() - record.ended)
        yet = ", for there is no room" if record.gang.uid in book.roomless else ""
        return f"it is released; {missing} of its {len(record.pods)} pods have no node yet{yet}"
    if record.phase is Phase.INCOMPLETE:
        return f"{len(record.gang.pods)} of its {max(record.gang.size, 1)} pods are there"
    if record.phase is Phase.INFEASIBLE:
        return "it does not fit the queue's nodes even when nothing else runs"
    if record.phase is Phase.TURNED_AWAY:
        return too_many(book.settings.max_waiting_per_flow)
    return _why_waiting(book, record, position)


def _why_waiting(book: Book, record: GangRecord, position: int) -> str:
    if book.paused or not (book.capacity.usable or book.settings.release_head_after_s < math.inf):
        return "the queue is paused" if book.paused else "the queue has no node that is ready"
    return _why_held_back(book, record) or _why_in_line(book, record, position)


def _why_held_back(book: Book, record: GangRecord) -> str:
    if record.retry_s > book.now_s:
        if not record.failures:
            return "it does not fit the nodes there are now"
        wait_s = record.retry_s - book.now_s
        return f"its release failed {record.failures} times; the next try is in {wait_s:.0f} s"
    hold = book.holds.get(book.hold_key(record.gang)) if book.holds else None
    if hold is not None and hold.uid != record.gang.uid:
        return f"kube-scheduler finds no node for {hold.uid}, which is of the same kind: {hold.reason}"
    if book.occupied.get(record.place.path, 0.0) >= book.settings.max_share_while_others_wait:
        return "its user holds as much as one may while others wait"
    return ""


def _why_in_line(book: Book, record: GangRecord, position: int) -> str:
    reservation = book.reservation
    if reservation is not None and reservation.uid == record.gang.uid:
        return _why_reserved(book, reservation.start_s)
    if position == 0:
        return f"more than {book.settings.depth} gangs go before it"
    if position == 1:
        return "it is first in line, and there is no room for it yet"
    before = "1 gang goes" if position == 2 else f"{position - 1} gangs go"
    return f"{before} before it, and there is no room that it could use without delaying the next"


def _why_reserved(book: Book, start_s: float) -> str:
    wait_s = max(0.0, start_s - book.now_s)
    return (
        f"it is next and has a reservation: room is expected in {wait_s:.0f} s; what can still delay it are "
        "jobs that outlast their prediction, a newcomer with a smaller tag, and lost nodes"
    )


def _flow_view(book: Book, path: Path, running: int, used: float) -> FlowView:
    level = book.order.level(path[:-1]) or book.order.top
    below = book.order.level(path)
    flow = level.clock.flows.get(path[-1])
    weight = book.weight_of(path)
    meter, virtual_time = level.clock.meter(path[-1]), level.clock.virtual_time
    return FlowView(
        path,
        weight,
        entitled(book, path),
        below.held if below is not None else 0.0,
        book.received.get(path, 0.0) + used,
        (meter - virtual_time) * weight if flow is not None else 0.0,
        flow.waiting if flow is not None else 0,
        flow.waiting_work if flow is not None else 0.0,
        running,
    )
