"""When the queue is photographed for its expected starts: at once after a change, seldom without one."""

from __future__ import annotations

import math

import pytest

from scheduler.core.queue.events import (
    Estimate,
    GangArrived,
    GangStarted,
    NodeSet,
    QueuePaused,
    QueueResumed,
    Tick,
)
from scheduler.core.queue.expected import Outlook, StartSource
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings
from scheduler.edge import expected_starts
from scheduler.edge.expected_starts import UNCHANGED_REST, UNCHANGED_REST_S_MAX, ExpectedStarts

ESTIMATE = Estimate(20.0, 30.0, 60.0)


class Desk:
    """The expected starts of two slots on which two gangs run and three wait, under a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.keeper = Gatekeeper(slots_settings(2))
        gangs = [GangArrived(slots_gang(f"g{at}", "alice", self.now_s, ESTIMATE)) for at in range(5)]
        self.keeper.handle_all([NodeSet(slots_node(2)), *gangs], self.now_s)
        self.keeper.handle_all([GangStarted("g0"), GangStarted("g1")], self.now_s)
        self.expected = ExpectedStarts(
            lambda: self.keeper, self.now_s, gangs=2, every_s=10.0, share=0.2, clock=lambda: self.now_s
        )

    def sends(self, after_s: float = 10.0) -> bool:
        """True when a photograph goes out so much later."""
        self.now_s += after_s
        self.keeper.handle(Tick(), self.now_s)
        self.sent_s = self.keeper.photograph(2).now_s
        return bool(self.expected._photograph())

    def answers(self, at_s: float, after_s: float) -> None:
        """An outlook comes back, of the photograph of `at_s`."""
        self.now_s += after_s
        self.expected._take(Outlook(at_s, {}, math.inf, 0, StartSource.ARRIVALS, 10))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    monkeypatch.setattr(expected_starts.time, "monotonic", lambda: desk.now_s)
    return desk


def test_an_unchanged_queue_rests_as_many_times_longer_as_it_was_worked_on(desk: Desk) -> None:
    assert desk.sends()
    sent_s = desk.sent_s
    assert not desk.sends(5.0)  # it is still being worked on
    desk.answers(sent_s, 15.0)
    assert not desk.sends(20.0 * UNCHANGED_REST - 1.0)
    assert desk.sends(1.0)


def test_no_rest_is_longer_than_what_is_told_stays_true_for(desk: Desk) -> None:
    assert desk.sends()
    desk.answers(desk.sent_s, 500.0)
    assert desk.sends(UNCHANGED_REST_S_MAX)


def test_every_change_of_the_queue_is_photographed_at_once(desk: Desk) -> None:
    assert desk.sends()
    desk.answers(desk.sent_s, 20.0)
    desk.keeper.handle(GangArrived(slots_gang("g5", "bob", desk.now_s, ESTIMATE)), desk.now_s)
    assert desk.sends()
    assert not desk.sends()


def test_the_answer_to_an_earlier_photograph_does_not_begin_the_rest(desk: Desk) -> None:
    assert desk.sends()
    earlier_s = desk.sent_s
    desk.keeper.handle(GangArrived(slots_gang("g5", "bob", desk.now_s, ESTIMATE)), desk.now_s)
    assert desk.sends()
    desk.answers(earlier_s, 1.0)
    assert desk.expected._asked.again_s == math.inf


def test_a_queue_that_goes_on_after_a_pause_is_photographed(desk: Desk) -> None:
    assert desk.sends()
    desk.keeper.handle(QueuePaused(), desk.now_s)
    assert not desk.sends()
    desk.keeper.handle(QueueResumed(), desk.now_s)
    assert desk.sends()
