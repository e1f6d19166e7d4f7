"""A flow may have only so many gangs waiting; those beyond are turned away until there is a place."""

from __future__ import annotations

from queue_keeper import Queue, arrive, gang, released, troubles

from scheduler.core.queue.actions import Report, Trouble
from scheduler.core.queue.events import (
    GangEnded,
    GangFound,
    GangStarted,
    GangWithdrawn,
    Listed,
    QueueConfigured,
    ReleaseFailed,
)
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.slots import slots_settings


def crowded() -> Queue:
    """One slot, taken; two gangs of u may wait and do, a third is turned away."""
    queue = Queue(1, backfill=False, max_waiting_per_flow=2)
    queue.at(0, arrive("first", "z"), GangStarted("first"))
    queue.at(1, *[arrive(f"a{k}", at_s=k, lasts_s=5) for k in range(3)])
    return queue


def test_a_gang_too_many_is_told_so_in_a_sentence_and_counts_nothing() -> None:
    queue = crowded()
    (report,) = [one for one in queue.actions if isinstance(one, Report)]
    assert (report.uid, report.trouble) == ("a2", Trouble.REFUSED)
    assert report.sentence.startswith("its user has 2 gangs waiting, as many as the queue takes of one")
    view = queue.keeper.dump()
    assert (view.waiting, view.turned_away) == (2, 1)
    assert [flow.waiting_work for flow in view.flows if flow.path == ("u",)] == [10.0]
    receipt = queue.keeper.explain("a2")
    assert receipt is not None
    assert (receipt.phase, receipt.why) == (Phase.TURNED_AWAY, report.sentence)


def test_one_flow_beyond_its_limit_takes_no_place_from_another() -> None:
    assert troubles(crowded().at(2, arrive("v", "v"))) == []


def test_the_oldest_is_taken_when_another_starts() -> None:
    queue = crowded()
    queue.at(2, arrive("a3", at_s=0.5))
    assert released(queue.at(10, GangEnded("first"))) == ["a0"]
    assert (queue.phase("a3"), queue.phase("a2")) == (Phase.WAITING, Phase.TURNED_AWAY)


def test_a_gang_taken_late_is_released_at_once_if_there_is_room() -> None:
    queue = Queue(9, max_waiting_per_flow=1)
    queue.at(0, arrive("first", "z", width=9), GangStarted("first"))
    queue.at(1, *[arrive(f"a{k}", at_s=k) for k in range(4)])
    assert released(queue.at(2, GangEnded("first"))) == ["a0", "a1", "a2", "a3"]


def test_a_gang_turned_away_may_be_withdrawn_or_vanish_from_the_list() -> None:
    queue = crowded()
    queue.at(2, GangWithdrawn("a2"))
    assert queue.phase("a2") is None
    queue.at(3, arrive("a3"))
    queue.at(4, Listed(frozenset({"first", "a0", "a1"})))
    assert (queue.phase("a3"), queue.keeper.dump().turned_away) == (None, 0)


def test_a_gang_turned_away_that_somebody_opened_is_charged() -> None:
    queue = crowded()
    queue.at(2, GangFound(gang("a2", lasts_s=5, at_s=2), {"a2/0": "slots"}))
    assert queue.phase("a2") is Phase.RUNNING
    assert "a2" in queue.keeper.export()["charges"]


def test_a_gang_whose_release_failed_keeps_its_place() -> None:
    queue = crowded()
    queue.at(10, GangEnded("first"))
    assert queue.phase("a2") is Phase.WAITING
    assert troubles(queue.at(11, ReleaseFailed("a0", "conflict"))) == [Trouble.RELEASE_FAILED]


def test_a_higher_limit_lets_them_in() -> None:
    queue = crowded()
    queue.at(2, QueueConfigured(slots_settings(1, backfill=False, max_waiting_per_flow=3)))
    assert queue.phase("a2") is Phase.WAITING
