"""What each event about a gang does to the book.

Events may be late, doubled or out of order: each step first looks whether it
still says anything new. Pods are only ever added by a newer view of a released
gang; that they are gone is said by their end.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scheduler.core.queue.actions import Action, Trouble
from scheduler.core.queue.book import Book
from scheduler.core.queue.events import (
    Gang,
    GangArrived,
    GangChanged,
    GangEnded,
    GangFound,
    GangPod,
    GangStarted,
    GangWithdrawn,
    Listed,
    PodEnded,
    PodStarted,
    ReleaseDone,
    ReleaseFailed,
    ReleaseHalfFailed,
    Unschedulable,
)
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.waiting import Hold

LONGEST_RETRY_S = 30.0
IN_DOUBT_S = 10.0
"""A release that shows no effect after this time is asked for again; opening an open gate harms nobody."""


def arrived(book: Book, event: GangArrived | GangChanged) -> list[Action]:
    """A gang with closed gates: new, changed, or the same once more."""
    gang = event.gang
    record = book.gangs.get(gang.uid)
    if record is None:
        if _is_over(book, gang):
            return []
        book.dig_up(gang)
        actions = book.join(book.learn(gang))
        book.refund_unreleased(gang.uid)
        return [*actions]
    record.seen_s = book.now_s
    if record.released:
        _doubt_release(book, record)
        return _grown(book, record, gang)
    if record.gang == gang:
        return []
    return _replaced(book, record, gang)


def withdrawn(book: Book, event: GangWithdrawn) -> list[Action]:
    """A gang is gone without an end."""
    record = book.gangs.get(event.uid)
    if record is None:
        return []
    if not record.released:
        book.forget(record)
        return []
    at_s = book.now_s if event.at_s is None else event.at_s
    return [book.settle(record, at_s, vanished=True)]


def found(book: Book, event: GangFound) -> list[Action]:
    """A gang whose gates are open: known, restored from a checkpoint, or released behind our back."""
    gang, record = _without_buried(book, event), book.gangs.get(event.gang.uid)
    if record is None:
        if _is_over(book, event.gang):
            return []
        record = book.resume(gang) or book.learn(gang)
    actions = _grown(book, record, gang) if record.released else []
    if not record.released:
        book.adopt(record, event.released_s, event.charged_work)
    record.seen_s = book.now_s
    _open_as_found(book, record, event)
    for pod in record.gang.pods:
        if pod.uid in event.nodes:
            at_s = book.now_s if event.started_s is None else event.started_s
            book.start(record, pod, event.nodes[pod.uid], at_s)
    if book.unplaced(record) and Trouble.NOT_STARTED not in record.reported:
        book.roomless[record.gang.uid] = None
    book.set_deadline(record)
    return actions


def listed(book: Book, event: Listed) -> list[Action]:
    """Gangs that a full list does not name are gone, those that ran at the last time they were seen."""
    actions: list[Action] = []
    for uid in [uid for uid in book.gangs if uid not in event.present]:
        record = book.gangs[uid]
        if record.released:
            actions.append(book.settle(record, max(record.seen_s, book.watched_s), vanished=True))
        else:
            book.forget(record)
    return [*actions, *book.end_of_revival()]


def release_done(book: Book, event: ReleaseDone) -> list[Action]:
    """Gates are open."""
    record = book.gangs.get(event.uid)
    if record is not None and record.released:
        record.open.update(uid for uid in event.pods if uid in record.pods)
        if len(record.open | record.ended) >= len(record.pods):
            record.half_open_since_s = None
            record.failures = 0
            book.missing.pop(event.uid, None)
        book.set_deadline(record)
    return []


def release_failed(book: Book, event: ReleaseFailed) -> list[Action]:
    """No gate was opened: the charge is taken back and the gang waits again, a little later each time."""
    record = book.gangs.get(event.uid)
    if record is None or not record.released:
        return []
    if record.open or record.started:
        return _closed_still(book, record)
    failures = record.failures + 1
    actions: list[Action] = [*book.take_back(record)]
    again = book.gangs[event.uid]
    again.failures, again.retry_s = failures, book.now_s + _pause_s(failures)
    sentence = f"its gates could not be opened ({event.reason}); it waits again"
    return [*actions, *book.tell(again, Trouble.RELEASE_FAILED, sentence)]


def release_half_failed(book: Book, event: ReleaseHalfFailed) -> list[Action]:
    """Some gates are open: the rest is opened before anything else is released."""
    record = book.gangs.get(event.uid)
    if record is None or not record.released:
        return []
    record.open.update(uid for uid in event.released if uid in record.pods)
    if not (record.open or record.started):
        return release_failed(book, ReleaseFailed(event.uid, event.reason))
    return _closed_still(book, record)


def _closed_still(book: Book, record: GangRecord) -> list[Action]:
    """Gates of a gang that is open in part are asked for again, a little later each time."""
    still_closed = record.pods.keys() - record.open - record.started.keys() - record.ended
    if still_closed:
        record.asked -= still_closed
        record.failures += 1
        record.retry_s = book.now_s + _pause_s(record.failures)
        book.missing[record.gang.uid] = None
        if record.half_open_since_s is None:
            record.half_open_since_s = book.now_s
    book.set_deadline(record)
    return []


def pod_started(book: Book, event: PodStarted) -> list[Action]:
    """A pod is bound; a gang that waits here was released by somebody else and is charged now."""
    record = _charged(book, event.uid)
    if record is not None and event.pod in record.pods:
        book.start(record, record.pods[event.pod], event.node, _at(book, event.at_s))
        _started(book, record)
    return []


def gang_started(book: Book, event: GangStarted) -> list[Action]:
    """All pods are bound."""
    record = _charged(book, event.uid)
    if record is not None:
        for uid, pod in record.pods.items():
            node = event.nodes.get(uid) or book.capacity.node_of(uid)
            book.start(record, pod, node, _at(book, event.at_s))
        _started(book, record)
    return []


def pod_ended(book: Book, event: PodEnded) -> list[Action]:
    """A pod is over; with the last one the gang is."""
    record = book.gangs.get(event.uid)
    if record is None or not record.released or event.pod not in record.pods:
        return []
    record.seen_s = book.now_s
    _catch_up(book, record, record.pods[event.pod], event.started_s)
    book.stop(record, record.pods[event.pod], _at(book, event.at_s))
    book.look_again = True
    if event.lost and not record.all_ended():
        book.set_deadline(record)
        return []
    if record.all_ended():
        return [book.settle(record, _at(book, event.at_s), vanished=event.lost)]
    return []


def gang_ended(book: Book, event: GangEnded) -> list[Action]:
    """All pods are over."""
    record = book.gangs.get(event.uid)
    if record is None:
        return [*book.end_restored(event.uid, _at(book, event.at_s), event.started_s)]
    if not record.released:
        if event.started_s is None:
            book.forget(record)
            return []
        record = _charged(book, event.uid)
        assert record is not None
    book.give_up_promised(record)
    for pod in list(record.pods.values()):
        _catch_up(book, record, pod, event.started_s)
        book.stop(record, pod, _at(book, event.at_s))
    return [book.settle(record, _at(book, event.at_s))]


def unschedulable(book: Book, event: Unschedulable) -> list[Action]:
    """kube-scheduler has no node for a released pod: it keeps its room, others of its kind wait.

    Of a gang that was released without room nothing else is expected.
    """
    record = book.gangs.get(event.uid)
    if record is None or not record.released or record.all_started() or event.uid in book.roomless:
        return []
    until_s = record.released_s + book.settings.start_timeout_s
    book.holds[book.hold_key(record.gang)] = Hold(until_s, event.uid, event.reason)
    sentence = f"it was released, but kube-scheduler finds no node for it: {event.reason}"
    return [*book.tell(record, Trouble.UNSCHEDULABLE, sentence)]


def _at(book: Book, at_s: float | None) -> float:
    return book.now_s if at_s is None else min(at_s, book.now_s)


def _pause_s(failures: int) -> float:
    """The first time at once, then 1, 3, 7, ... s."""
    return min(LONGEST_RETRY_S, 2.0 ** min(failures - 1, 10) - 1.0)


def _is_over(book: Book, gang: Gang) -> bool:
    """True for a late word about pods that have ended, in this gang or another; others are a new life."""
    ended = book.ended.get(gang.uid)
    if ended is None and not gang.pods:
        return False
    return all(pod.uid in (ended or ()) or pod.uid in book.ran for pod in gang.pods)


def _without_buried(book: Book, event: GangFound) -> Gang:
    """The gang without pods that ended in an earlier life under its uid, which was settled."""
    gang = event.gang
    ended = book.ended.get(gang.uid, frozenset()) | {pod.uid for pod in gang.pods if pod.uid in book.ran}
    buried = ended - event.nodes.keys() - event.gated
    return replace(gang, pods=tuple(pod for pod in gang.pods if pod.uid not in buried)) if buried else gang


def _charged(book: Book, uid: str) -> GangRecord | None:
    record = book.gangs.get(uid)
    if record is not None:
        record.seen_s = book.now_s
        if not record.released:
            book.adopt(record, math.nan, math.nan)
    return record


def _open_as_found(book: Book, record: GangRecord, event: GangFound) -> None:
    """Which gates are open, from a view of the pods."""
    opened = event.gang.pods
    for uid in [pod.uid for pod in opened if pod.uid not in event.gated and pod.uid in record.pods]:
        record.asked.add(uid)
        record.open.add(uid)
    closed = {uid for uid in event.gated & record.pods.keys() if uid not in record.ended | record.open}
    if not closed:
        record.half_open_since_s = None
        book.missing.pop(record.gang.uid, None)
        return
    record.asked -= closed
    book.missing[record.gang.uid] = None
    if record.half_open_since_s is None:
        record.half_open_since_s = book.now_s


def _doubt_release(book: Book, record: GangRecord) -> None:
    """Long after its release its gates are said to be closed: the patches were lost; ask for them again."""
    if not record.open and not record.started and book.now_s > record.released_s + IN_DOUBT_S:
        record.asked.clear()
        record.retry_s = record.released_s = book.now_s
        book.missing[record.gang.uid] = None


def _started(book: Book, record: GangRecord) -> None:
    if record.all_started():
        record.half_open_since_s = None
        book.missing.pop(record.gang.uid, None)
        for key in [key for key, hold in book.holds.items() if hold.uid == record.gang.uid]:
            del book.holds[key]
            book.look_again = True
    book.set_deadline(record)


def _catch_up(book: Book, record: GangRecord, pod: GangPod, started_s: float | None) -> None:
    """Count a pod whose end came before its start."""
    if started_s is not None and pod.uid not in record.started:
        book.start(record, pod, book.capacity.node_of(pod.uid), started_s)


def _replaced(book: Book, record: GangRecord, gang: Gang) -> list[Action]:
    """A gang that is not released has other pods now; its place in time and its estimate stay."""
    changed = book.learn_again(record, replace(gang, arrived_s=record.gang.arrived_s))
    return [*book.join(changed)]


def _take_promised_room(book: Book, record: GangRecord, pod: GangPod) -> None:
    """A pod that was promised is there; one of another shape gives up the room kept and needs other."""
    alike = (one for one in record.stand_ins if one.shape == pod.shape)
    twin = next(alike, record.stand_ins[0] if record.stand_ins else None)
    if twin is None:
        return
    record.stand_ins.remove(twin)
    node = book.capacity.node_of(twin.uid)
    book.capacity.drop(twin.uid)
    if node and twin.shape == pod.shape:
        # Not a new plan: others may have crowded the node since its room was taken.
        book.capacity.put(pod.uid, node, pod.shape.requests)


def _grown(book: Book, record: GangRecord, gang: Gang) -> list[Action]:
    """A released gang has new pods: promised ones take the room kept for them, others replace lost ones."""
    known = {pod.uid for pod in record.gang.pods} | record.ended
    fresh = [pod for pod in gang.pods if pod.uid not in known]
    if not fresh:
        return []
    for pod in fresh:
        record.pods[pod.uid] = pod
        _take_promised_room(book, record, pod)
    kept = tuple(one.shape for one in record.stand_ins)
    record.gang = replace(record.gang, pods=(*record.gang.pods, *fresh), promised=kept)
    book.missing[gang.uid] = None
    book.set_deadline(record)
    return []
