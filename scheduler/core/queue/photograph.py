"""A bounded copy of the queue, to run forward what may happen: nodes, what is released, the first that wait.

The copy is brought to life as after a restart, from virtual times and charges
(`checkpoint`) and a list of gangs: so it is the same core and not a model of
it. Released pods that have no node yet are taken to start now, and pods that
were promised to be there already. What the copy does not have is the gangs
beyond the first `most`; the reserved gang is put first in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from scheduler.core.queue import checkpoint
from scheduler.core.queue.book import Book
from scheduler.core.queue.events import (
    Event,
    ForeignUsage,
    Gang,
    GangArrived,
    GangFound,
    Listed,
    NodeSet,
    Promoted,
)
from scheduler.core.queue.gangs import GangRecord, Phase
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.waiting import Hold

Job = tuple[str, str]
"""A user and the name of a job of his."""


def job_of(gang: Gang) -> Job:
    """Which job a gang is a part of; itself, if of none."""
    return (gang.flow, gang.job or gang.uid)


@dataclass(frozen=True, slots=True)
class Photograph:
    """The queue at `now_s`. `released` and `waiting` carry the estimates in force; `waiting` is in order.

    `first` are uids that go before all others (by hand, or reserved); `retry_s`
    until when gangs (uid) whose release failed are left alone; `ratios` how long
    gangs of a job took of which some have ended, compared with their estimates;
    `beyond` how many gangs wait that are not in it.
    """

    now_s: float
    settings: QueueSettings
    state: dict[str, Any]
    nodes: tuple[NodeSet | ForeignUsage, ...]
    released: tuple[GangFound, ...]
    waiting: tuple[Gang, ...]
    first: tuple[str, ...]
    retry_s: dict[str, float]
    holds: tuple[Hold, ...]
    ratios: dict[Job, tuple[float, ...]]
    beyond: int

    def likeness(self) -> tuple[object, ...]:
        """Equal for two photographs between which only time has passed; charges grow with that alone."""
        held = (self.state["paused"], self.state["weights"], self.settings)
        released = tuple((one.gang, one.nodes, one.started_s, one.released_s) for one in self.released)
        gangs = (released, self.waiting, self.first, self.beyond)
        return (*held, *gangs, self.nodes, self.retry_s, self.holds, self.ratios)

    def events(self) -> list[Event]:
        """What the copy is told, all at once."""
        waiting = [GangArrived(gang) for gang in self.waiting]
        present = frozenset(gang.uid for gang in (*(one.gang for one in self.released), *self.waiting))
        first = [Promoted(uid) for uid in self.first]
        return [*self.nodes, *self.released, *waiting, *first, Listed(present)]


def take(book: Book, most: int) -> Photograph:
    """The queue as it is, with its first `most` waiting gangs; O(flows + released gangs + `most`)."""
    records = list(islice(_in_order(book), most))
    waiting = {record.gang.uid for record in records}
    kept = [*book.promoted, *([book.reservation.uid] if book.reservation is not None else [])]
    return Photograph(
        book.now_s,
        replace(book.settings, invariants_every=0),
        checkpoint.export(book, ended=False, jobs={(one.place.path, one.place.job) for one in records}),
        tuple(_nodes(book)),
        tuple(_released(book, record) for record in book.gangs.values() if record.released),
        tuple(replace(record.gang, estimate=record.estimate) for record in records),
        tuple(uid for uid in dict.fromkeys(kept) if uid in waiting),
        {record.gang.uid: record.retry_s for record in records if record.retry_s > book.now_s},
        tuple(book.holds.values()),
        {job: ratios for job in {*map(job_of, _gangs(book, records))} if (ratios := book.runs.ratios(*job))},
        sum(book.waiting_of.values()) - len(records) + sum(map(len, book.turned_away.values())),
    )


def develop(book: Book, photo: Photograph) -> None:
    """What the events of the photograph do not say, for a book that was told of them."""
    for uid, retry_s in photo.retry_s.items():
        if uid in book.gangs:
            book.gangs[uid].retry_s = retry_s
    for hold in photo.holds:
        if hold.uid in book.gangs:
            book.holds[book.hold_key(book.gangs[hold.uid].gang)] = hold


def _in_order(book: Book) -> Iterator[GangRecord]:
    for turn in book.order.turns():
        for (_, uid), _ in turn.job.gangs.in_order():
            yield book.gangs[uid]


def _gangs(book: Book, waiting: list[GangRecord]) -> Iterator[Gang]:
    yield from (record.gang for record in waiting)
    yield from (record.gang for record in book.gangs.values() if record.released)


def _nodes(book: Book) -> Iterator[NodeSet | ForeignUsage]:
    for name, room in book.capacity.rooms().items():
        if room.node is not None:
            yield NodeSet(room.node)
        if room.foreign:
            yield ForeignUsage(name, dict(room.foreign))


def _released(book: Book, record: GangRecord) -> GangFound:
    pods = tuple(record.wanted())
    gang = replace(record.gang, pods=pods, promised=(), size=len(pods), estimate=record.estimate)
    nodes = {pod.uid: book.capacity.node_of(pod.uid) for pod in pods}
    started_s = record.started_s if record.phase is Phase.RUNNING else None
    return GangFound(gang, nodes, started_s, record.released_s, record.charged_work)
