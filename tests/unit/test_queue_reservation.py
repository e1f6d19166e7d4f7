"""Whose the reservation is: it stays with its gang, except where the order changed by what came since."""

from __future__ import annotations

from queue_keeper import Queue, arrive, released

from scheduler.core.queue.events import GangEnded, GangStarted


def full(slots: int = 1, lasts_s: float = 10.0) -> Queue:
    """A queue whose slots one gang of user z holds until then."""
    queue = Queue(slots)
    queue.at(0, arrive("first", "z", lasts_s=lasts_s, width=slots), GangStarted("first"))
    return queue


def test_a_gang_whose_job_grew_does_not_keep_the_reservation_of_its_first_pod() -> None:
    """b's first pod alone comes before a's job; with the other two of its job it comes behind."""
    queue = full()
    queue.at(1, *[arrive(f"a{k}", "a", job="a", lasts_s=1) for k in range(2)])
    queue.at(1, arrive("b0", "b", job="b", lasts_s=1))
    assert queue.reserved == "b0"
    queue.at(1, *[arrive(f"b{k}", "b", job="b", lasts_s=1) for k in range(1, 3)])
    assert queue.reserved == "a0"


def test_a_shorter_job_of_the_same_user_goes_before_his_reserved_one() -> None:
    """With the new job the reserved gang's tag is larger than it was when it got the reservation."""
    queue = Queue()
    for k, now_s in enumerate((0.0, 0.75, 1.5)):
        queue.at(now_s, arrive(f"a{k}", "a", job="a", lasts_s=0.75, at_s=0.0), GangStarted(f"a{k}"))
        if k < 2:
            queue.at(now_s + 0.75, GangEnded(f"a{k}"))
    queue.at(1.5, *[arrive(f"a{k}", "a", job="a", lasts_s=0.75, at_s=0.0) for k in (3, 4)])
    assert queue.reserved == "a3"
    queue.at(1.7, arrive("short", "a", job="b", lasts_s=1.0, at_s=1.7))
    assert queue.reserved == "short"
    assert released(queue.at(2.25, GangEnded("a2"))) == ["short"]


def test_after_a_refund_a_gang_of_the_same_kind_takes_the_reservation_over() -> None:
    """Nothing was drained for the one that the other could not use as well."""
    queue = full(lasts_s=30)
    queue.at(1, arrive("v", "v", lasts_s=20), arrive("z", "z", lasts_s=5))
    assert queue.reserved == "v"
    assert released(queue.at(2, GangEnded("first"))) == ["z"]


def test_a_reservation_is_not_lost_to_a_gang_of_another_kind_by_a_refund() -> None:
    queue = full(slots=2, lasts_s=30)
    queue.at(1, arrive("wide", "v", lasts_s=10, width=2), arrive("z", "z", lasts_s=50))
    assert queue.reserved == "wide"
    assert released(queue.at(2, GangEnded("first"))) == ["wide"]


def test_backfill_of_a_user_does_not_push_back_his_own_reserved_gang() -> None:
    """Each raises his meter, and with it the tags of all that he has waiting."""
    queue = Queue(3)
    queue.at(0, arrive("first", "z", width=2, lasts_s=100), GangStarted("first"))
    queue.at(1, arrive("mine", "a", width=2, lasts_s=30), arrive("other", "b", width=2, lasts_s=31))
    assert queue.reserved == "mine"
    for k in range(8):
        (uid,) = released(queue.at(2 + 10 * k, arrive(f"s{k}", "a", lasts_s=9, priority=-1)))
        queue.at(2 + 10 * k, GangStarted(uid))
        queue.at(11 + 10 * k, GangEnded(uid))
        assert queue.reserved == "mine"
    assert released(queue.at(100, GangEnded("first"))) == ["mine"]


def test_a_reserved_gang_whose_pods_changed_is_looked_at_anew() -> None:
    queue = full(slots=4)
    queue.at(1, arrive("wide", "v", width=4), arrive("w", "w", width=2, lasts_s=90))
    queue.at(2, arrive("wide", "v", width=2))
    assert queue.reserved == "wide"
    assert released(queue.at(3, GangEnded("first"))) == ["wide", "w"]


def test_an_end_that_changes_who_is_first_inside_a_user_changes_his_tag() -> None:
    """b's long job ran 9 s instead of 1: now his other job is first, and with it he comes behind a."""
    queue = Queue()
    queue.at(0, arrive("l0", "b", job="long", lasts_s=1), GangStarted("l0"))
    queue.at(0, arrive("l1", "b", job="long", lasts_s=1), arrive("s", "b", job="short", lasts_s=2.5))
    queue.at(0, arrive("a", "a", lasts_s=10.5))
    assert queue.reserved == "l1"
    assert released(queue.at(9, GangEnded("l0"))) == ["a"]
