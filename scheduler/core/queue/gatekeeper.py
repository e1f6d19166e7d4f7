"""Opens scheduling gates in fair order while the cluster has room: events in, actions out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from scheduler.core.plans import PlanRequest
from scheduler.core.queue import checkpoint, invariants, lifecycle, photograph, planning, receipts
from scheduler.core.queue.actions import Action, Report, Trouble
from scheduler.core.queue.book import Book
from scheduler.core.queue.configuring import configure
from scheduler.core.queue.events import (
    Estimate,
    Event,
    ForeignUsage,
    GangArrived,
    GangChanged,
    GangEnded,
    GangFound,
    GangStarted,
    GangWithdrawn,
    Listed,
    NodeRemoved,
    NodeSet,
    Planned,
    PodEnded,
    PodStarted,
    Promoted,
    QueueConfigured,
    QueuePaused,
    QueueResumed,
    ReleaseDone,
    ReleaseFailed,
    ReleaseHalfFailed,
    Tick,
    Unschedulable,
    WeightSet,
)
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.fluid import FluidJob
from scheduler.core.queue.overtaking import let_others_ahead
from scheduler.core.queue.photograph import Photograph
from scheduler.core.queue.receipts import GangReceipt
from scheduler.core.queue.releasing import Overtake, release_what_fits
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.timeouts import pass_time

CLOCK_BACK_S = 1.0
"""A clock that steps back further than this is worth a report."""


class Gatekeeper:
    """Opens the gates of gangs in fair order while the cluster has room.

    `handle` is the only way in; everything else only reads. `clock` makes the
    clock of a level from its lag limit, `overtake` lets gangs go ahead of the
    reserved one; tests put broken or plain ones in their place.
    """

    def __init__(
        self,
        settings: QueueSettings,
        clock: Callable[[float], FairClock] = FairClock,
        overtake: Overtake = let_others_ahead,
    ) -> None:
        self._book = Book(settings, clock)
        self._overtake = overtake
        self._gains_seen = -1
        self._events = 0

    def handle(self, event: Event, now_s: float) -> list[Action]:
        """Take note of what happened and say what to do now.

        `now_s` is seconds on any steady scale; a step back counts as no time
        passed. Raises `InvariantBroken` when a full check finds a contradiction.
        """
        return self.handle_all((event,), now_s)

    def handle_all(self, events: Sequence[Event], now_s: float) -> list[Action]:
        """As `handle`, of events that came at once: all are known before anything is released."""
        book = self._book
        actions: list[Action] = self._go_on(now_s)
        for event in events:
            actions += _HANDLERS[type(event)](book, event)
        actions += pass_time(book)
        actions += release_what_fits(book, self._gains_seen, self._overtake)
        self._gains_seen = book.capacity.gains
        checked = self._events
        self._events += len(events)
        every = book.settings.invariants_every
        if every and self._events // every != checked // every:
            self.check_invariants()
        return actions

    def check_invariants(self) -> None:
        """Raise `InvariantBroken` with the property's name when the state contradicts itself."""
        invariants.check(self._book)

    def dump(self) -> receipts.QueueView:
        """The flows with their shares, and counts, for people and metrics; a copy."""
        return receipts.view(self._book)

    def explain(self, uid: str) -> GangReceipt | None:
        """Why a gang waits, or what was decided about it; None for one that is not known."""
        return receipts.explain(self._book, uid)

    def gangs(self, flow: str | None = None, limit: int = 1000) -> list[GangReceipt]:
        """Gangs (of one flow): those that wait in their order, then the others; `limit` of each."""
        return receipts.listing(self._book, flow, limit)

    def demand(self, uid: str) -> FluidJob | None:
        """What a gang that waits or runs asks of the cluster; None for one that does neither."""
        return receipts.demand(self._book, uid)

    @property
    def held_share(self) -> float:
        """Share of the reference that our running pods hold."""
        return self._book.order.top.held

    @property
    def idle_share(self) -> float:
        """Share of the reference that stands idle although gangs wait; 0 when none waits."""
        return receipts.idle_share(self._book)

    def estimate(self, uid: str) -> Estimate | None:
        """The estimate in force for a gang; None for one that is not known."""
        record = self._book.gangs.get(uid)
        return record.estimate if record is not None else None

    def room_of(self, wanted: Mapping[str, Collection[str]]) -> PlanRequest:
        """What is free for these pods, by the uid of their released gang; see `planning`."""
        return planning.room_of(self._book, wanted)

    def photograph(self, most: int) -> Photograph:
        """A bounded copy with the first `most` waiting gangs, to be run forward elsewhere."""
        return photograph.take(self._book, most)

    @classmethod
    def developed(cls, photo: Photograph) -> Gatekeeper:
        """The gatekeeper of a photograph, ready to go on at `photo.now_s`; nothing is released yet."""
        keeper = cls.revive(photo.settings, photo.state)
        keeper._book.paused = True
        keeper.handle_all(photo.events(), photo.now_s)
        photograph.develop(keeper._book, photo)
        keeper._book.paused = photo.state["paused"]
        return keeper

    def export(self) -> dict[str, Any]:
        """What must survive a restart (JSON-able): virtual times, meters, ledger of charges, past runs."""
        return checkpoint.export(self._book)

    @classmethod
    def revive(
        cls,
        settings: QueueSettings,
        state: Mapping[str, Any],
        clock: Callable[[float], FairClock] = FairClock,
    ) -> Gatekeeper:
        """A gatekeeper from an export. Then send nodes, GangArrived and GangFound of all pods, and Listed.

        Raises `ValueError` when the state is of another version or not ours.
        """
        keeper = cls(settings, clock)
        checkpoint.revive(keeper._book, state)
        return keeper

    def _go_on(self, now_s: float) -> list[Action]:
        book = self._book
        back_s = book.now_s - now_s
        book.now_s = max(book.now_s, now_s)
        book.order.advance(book.now_s)
        if back_s > CLOCK_BACK_S:
            return [
                Report(
                    "", Trouble.CLOCK_BACK, f"the clock stepped back by {back_s:.1f} s; it stands meanwhile"
                )
            ]
        return []


def _node_set(book: Book, event: NodeSet) -> list[Action]:
    book.capacity.set_node(event.node)
    return []


def _node_removed(book: Book, event: NodeRemoved) -> list[Action]:
    book.capacity.remove_node(event.name)
    return []


def _foreign_usage(book: Book, event: ForeignUsage) -> list[Action]:
    book.capacity.set_foreign(event.node, event.requests)
    return []


def _weight_set(book: Book, event: WeightSet) -> list[Action]:
    if not 0 < event.weight < float("inf"):
        sentence = f"weight {event.weight} of {'/'.join(event.path)} is not above 0; the old one stays"
        return [Report("", Trouble.REFUSED, sentence)]
    book.weights[event.path] = event.weight
    book.order.reweigh(event.path, event.weight, book.now_s)
    book.look_again = True
    return []


def _configured(book: Book, event: QueueConfigured) -> list[Action]:
    return configure(book, event.settings)


def _paused(book: Book, event: QueuePaused) -> list[Action]:
    del event
    book.paused = True
    return []


def _resumed(book: Book, event: QueueResumed) -> list[Action]:
    del event
    book.paused, book.look_again = False, True
    return []


def _promoted(book: Book, event: Promoted) -> list[Action]:
    record = book.gangs.get(event.uid)
    if record is None or not record.waits:
        return [Report(event.uid, Trouble.REFUSED, "it does not wait, so it cannot be put first")]
    book.promoted[event.uid] = None
    book.look_again = True
    return []


def _planned(book: Book, event: Planned) -> list[Action]:
    planning.planned(book, event)
    return []


def _tick(book: Book, event: Tick) -> list[Action]:
    del event
    book.watched_s = book.now_s
    book.look_again = True
    return []


_HANDLERS: dict[type, Callable[[Book, Any], list[Action]]] = {
    GangArrived: lifecycle.arrived,
    GangChanged: lifecycle.arrived,
    GangWithdrawn: lifecycle.withdrawn,
    GangFound: lifecycle.found,
    Listed: lifecycle.listed,
    Planned: _planned,
    ReleaseDone: lifecycle.release_done,
    ReleaseFailed: lifecycle.release_failed,
    ReleaseHalfFailed: lifecycle.release_half_failed,
    PodStarted: lifecycle.pod_started,
    PodEnded: lifecycle.pod_ended,
    GangStarted: lifecycle.gang_started,
    GangEnded: lifecycle.gang_ended,
    Unschedulable: lifecycle.unschedulable,
    NodeSet: _node_set,
    NodeRemoved: _node_removed,
    ForeignUsage: _foreign_usage,
    WeightSet: _weight_set,
    QueueConfigured: _configured,
    QueuePaused: _paused,
    QueueResumed: _resumed,
    Promoted: _promoted,
    Tick: _tick,
}
