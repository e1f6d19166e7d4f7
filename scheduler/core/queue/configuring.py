"""Another configuration of a queue in use: weights, limits, nodes, and the reference of shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scheduler.core.queue.actions import Action, Report, Trouble
from scheduler.core.queue.book import Book, Restored
from scheduler.core.queue.gangs import GangRecord, share_of
from scheduler.core.queue.resources import dominant_share
from scheduler.core.queue.settings import QueueSettings


def configure(book: Book, settings: QueueSettings) -> list[Action]:
    """Put settings in force; what cannot change while the queue is in use is refused."""
    before = book.settings
    if settings.grouped != before.grouped:
        return [Report("", Trouble.REFUSED, "grouping cannot change in a queue in use: make a new queue")]
    book.settings = settings
    if settings.weights != before.weights or settings.default_weight != before.default_weight:
        _reweigh(book, settings)
    if (settings.node_selector, settings.node_tolerations) != (before.node_selector, before.node_tolerations):
        book.capacity.select(settings.node_selector, settings.node_tolerations)
    if settings.by_arrival_inside_user != before.by_arrival_inside_user:
        book.order.order_jobs_by_arrival(settings.by_arrival_inside_user)
    if (settings.backfill_quantile, settings.run_time_s) != (before.backfill_quantile, before.run_time_s):
        _expect_again(book)
    if settings.release_head_after_s != before.release_head_after_s:
        book.no_room_since_s.clear()
        book.nodes_seen = -1  # what fits no node there is may be worth waiting for, or no longer
    book.order.set_lag_limit(settings.lag_limit_share_s)
    if dict(settings.reference) != dict(before.reference):
        _rescale(book, before.reference, settings.reference)
    book.reservation, book.look_again = None, True
    for record in book.gangs.values():
        book.set_deadline(record)
    return []


def _expect_again(book: Book) -> None:
    for record in book.gangs.values():
        if record.released:
            book.expect_end(record)
        elif record.waits:
            book.waiting_forms[record.form].put(record.gang.uid, (book.lasts_s(record),))


def _reweigh(book: Book, settings: QueueSettings) -> None:
    book.weights = dict(settings.weights)
    for path, level in list(book.order.levels()):
        for key in list(level.clock.flows) if len(path) < book.order.depth else ():
            flow = (*path, str(key))
            if level.clock.flows[key].weight != book.weight_of(flow):
                book.order.reweigh(flow, book.weight_of(flow), book.now_s)


def _rescale(book: Book, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Works are in shares of the reference: each gang's by its own, what was settled by the mean factor."""
    old_work = new_work = 0.0
    own: dict[str, float] = {}
    for record in book.gangs.values():
        share = share_of(record.gang, after)
        own[record.gang.uid] = share / record.share if record.share > 0 else 1.0
        old_work += record.place.work
        new_work += record.place.work * own[record.gang.uid]
    factor = new_work / old_work if old_work > 0 else _mean_ratio(before, after)
    for record in book.gangs.values():
        _restate(book, record, own[record.gang.uid], after)
    for info in book.restored.values():
        _restate_restored(info, factor)
    waiting = [record.place for record in book.gangs.values() if record.waits]
    book.order.rescale(factor, own, waiting)
    book.received = {path: work * factor for path, work in book.received.items()}
    book.occupied = {}
    for record in book.gangs.values():
        if record.released:
            path = record.place.path
            book.occupied[path] = book.occupied.get(path, 0.0) + record.share
            book.order.hold(path, record.held_share, 0, 0.0, book.now_s)
            book.look_out(record)


def _restate(book: Book, record: GangRecord, factor: float, reference: Mapping[str, float]) -> None:
    record.count_until(book.now_s)
    record.place = replace(record.place, work=record.place.work * factor)
    record.share *= factor
    record.charged_work *= factor
    record.used_work *= factor
    record.ended_work *= factor
    record.held_share = dominant_share(record.held, reference)


def _restate_restored(info: Restored, factor: float) -> None:
    """Of a gang that was not seen since the checkpoint nobody knows what its pods request."""
    info.place = replace(info.place, work=info.place.work * factor)
    info.share *= factor
    info.charged_work *= factor
    info.used_work *= factor
    info.ended_work *= factor
    info.held_share *= factor
    info.running = {uid: (at_s, share * factor) for uid, (at_s, share) in info.running.items()}


def _mean_ratio(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """What a share of the old reference is of the new one, over the resources that both name."""
    ratios = [before[name] / after[name] for name in before if name in after]
    return sum(ratios) / len(ratios) if ratios else 1.0
