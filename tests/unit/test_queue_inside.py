"""Inside one user the shortest job goes first, as long as what is promised to his others can be kept."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from queue_keeper import Queue, arrive, gang, released

from scheduler.core.queue.events import (
    GangArrived,
    GangEnded,
    GangFound,
    GangStarted,
    Listed,
    NodeSet,
    QueueConfigured,
)
from scheduler.core.queue.front import Turn
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.inside import first_inside
from scheduler.core.queue.slots import slots_node, slots_settings


def first_of(works: Sequence[tuple[float, float]], virtual_time: float) -> float:
    """Work of the job that goes first; of each the V at which it came, and its work."""
    turns = [Turn(came + work, (index,), work, index, index) for index, (came, work) in enumerate(works)]
    return first_inside(sorted(turns), virtual_time).work


@pytest.mark.parametrize(
    ("works", "first"),
    [
        ([(0, 50)], 50),
        ([(0, 50), (3, 48)], 50),  # until V is at 50 each gets 47: 44 are left over when 50 are served
        ([(0, 50), (3, 48), (3, 48)], 48),  # of 141 there are 91 left over
        ([(0, 50), (3, 60), (3, 60)], 50),  # longer ones have no reason to go first
        ([(0, 50), (3, 48), (3, 49), (3, 47.5)], 47.5),
    ],
)
def test_a_shorter_job_goes_first_when_those_before_it_can_spare_it(
    works: Sequence[tuple[float, float]], first: float
) -> None:
    assert first_of(works, 3.0) == first


def test_nobody_goes_ahead_of_a_job_that_is_due() -> None:
    jobs = [(0, 50), (10, 41), (10, 42)]
    assert first_of(jobs, 12.0) == 41
    assert first_of(jobs, 49.0) == 50


def before_the_end(*late: str, **knobs: object) -> Queue:
    """One slot, on which a job of u's runs for 6 s; `late` ones of 48 s come to his waiting one of 50 s."""
    queue = Queue(1, backfill=False, **knobs)
    queue.at(0, arrive("now", "u", lasts_s=6), GangStarted("now"))
    queue.at(0, arrive("long", "u", lasts_s=50))
    queue.at(5.9, *[arrive(uid, "u", lasts_s=48, at_s=5.9) for uid in late])
    return queue


def line(keeper: Gatekeeper) -> list[str]:
    return [one.uid for one in keeper.gangs() if one.phase is Phase.WAITING]


def test_of_one_users_jobs_a_later_and_shorter_one_goes_first_only_inside_the_slack() -> None:
    ended = GangEnded("now", started_s=0.0)
    assert released(before_the_end("b").at(6, ended)) == ["long"]
    assert released(before_the_end("b", "c").at(6, ended)) == ["b"]


def test_position_and_order_tell_who_goes_first() -> None:
    queue = before_the_end("b", "c")
    assert line(queue.keeper) == ["b", "long", "c"]
    told = [queue.keeper.explain(uid) for uid in ("b", "long", "c")]
    assert [one.position for one in told if one] == [1, 2, 3]


def test_tags_of_other_users_do_not_move() -> None:
    tags = []
    for by_arrival in (False, True):
        queue = before_the_end("b", "c", by_arrival_inside_user=by_arrival)
        queue.at(5.95, *[arrive(f"v{number}", "v", lasts_s=49, at_s=5.95) for number in range(2)])
        mine = [uid for uid in line(queue.keeper) if not uid.startswith("v")]
        assert mine == (["long", "b", "c"] if by_arrival else ["b", "long", "c"])
        tags.append([one.tag for one in queue.keeper.gangs() if one.path == ("v",)])
    assert tags[0] == tags[1]


def test_priority_goes_before_a_short_job() -> None:
    queue = before_the_end("b", "c")
    queue.at(5.95, arrive("urgent", "u", lasts_s=500, at_s=5.95, priority=1))
    assert released(queue.at(6, GangEnded("now", started_s=0.0))) == ["urgent"]


def test_who_goes_first_is_the_same_after_a_restart() -> None:
    queue = before_the_end("b", "c")
    state = json.loads(json.dumps(queue.keeper.export()))
    revived = Gatekeeper.revive(slots_settings(1, backfill=False), state)
    running = GangFound(gang("now", "u", lasts_s=6), {"now/0": "slots"}, 0.0, 0.0, 6.0)
    waiting = [gang(uid, "u", lasts_s=48, at_s=5.9) for uid in ("c", "b")]
    arrived = [GangArrived(one) for one in (*waiting, gang("long", "u", lasts_s=50))]
    listed = Listed(frozenset({"now", "long", "b", "c"}))
    revived.handle_all([NodeSet(slots_node(1)), running, *arrived, listed], 5.9)
    assert line(revived) == line(queue.keeper) == ["b", "long", "c"]


@pytest.mark.parametrize("late", [("b",), ("b", "c")])
def test_the_line_is_right_when_the_order_changes_inside_a_user_who_is_not_first_in_his_group(
    late: Sequence[str],
) -> None:
    queue = Queue(1, backfill=False, grouped=True)
    queue.at(0, arrive("now", "u", lasts_s=6, group="g"), GangStarted("now"))
    queue.at(0, arrive("first", "v", lasts_s=1, group="g"), arrive("long", "u", lasts_s=50, group="g"))
    queue.at(5.9, *[arrive(uid, "u", lasts_s=48, at_s=5.9, group="g") for uid in late])
    queue.at(
        5.95, QueueConfigured(slots_settings(1, backfill=False, grouped=True, by_arrival_inside_user=True))
    )
    assert line(queue.keeper) == ["first", "long", *late]
    queue.at(5.96, QueueConfigured(slots_settings(1, backfill=False, grouped=True)))
    assert line(queue.keeper) == (["first", "b", "long", "c"] if "c" in late else ["first", "long", "b"])
