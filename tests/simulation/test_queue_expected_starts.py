"""Expected starts say what they seem to: where run times follow estimates, four of five lie inside."""

from __future__ import annotations

import random
from itertools import islice

from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.events import Estimate, GangArrived, GangEnded, GangStarted, NodeSet
from scheduler.core.queue.expected import futures_of, outlook
from scheduler.core.queue.futures import run_time_s
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings
from simulator.cluster import Slots
from simulator.comparison import Setting
from simulator.expected_starts import Plan, Told, coverage, measure_expected_starts
from simulator.workload import Job, workload_of

WORLDS, GANGS, FUTURES = 40, 7, 20
ESTIMATES = (Estimate(5.0, 10.0, 20.0), Estimate(20.0, 30.0, 90.0), Estimate(8.0, 9.0, 10.0))


def world(seed: int) -> list[Told]:
    """Two slots and gangs of three users; run times are drawn from the estimates that the queue has."""
    luck = random.Random(seed)
    keeper = Gatekeeper(slots_settings(2))
    ends: dict[str, float] = {}
    starts: dict[str, float] = {}
    gangs = [slots_gang(f"g{at}", f"user-{at % 3}", 0.0, luck.choice(ESTIMATES)) for at in range(GANGS)]

    def begin(actions: list[Action], now_s: float) -> None:
        for one in actions:
            if isinstance(one, ReleaseGang):
                starts[one.uid] = now_s
                ends[one.uid] = now_s + run_time_s(one.receipt.estimate, luck.random())
                begin(keeper.handle(GangStarted(one.uid), now_s), now_s)

    keeper.handle(NodeSet(slots_node(2)), 0.0)
    begin(keeper.handle_all([GangArrived(gang) for gang in gangs], 0.0), 0.0)
    photo = keeper.photograph(GANGS)
    told = outlook(photo, [*islice(futures_of(photo, None, random.Random(seed)), FUTURES)], arrivals=False)
    while ends:
        uid = min(ends, key=lambda one: ends[one])
        now_s = ends.pop(uid)
        begin(keeper.handle(GangEnded(uid), now_s), now_s)
    return [Told(0.0, expected, starts[uid]) for uid, expected in told.starts.items()]


def test_four_of_five_starts_lie_inside_where_run_times_follow_their_estimates() -> None:
    found = coverage([each for seed in range(WORLDS) for each in world(seed)])
    assert found.told == WORLDS * (GANGS - 2)
    assert 0.7 < found.inside < 0.9
    assert min(found.early, found.late) > 0.03


def test_a_replay_is_compared_with_what_was_told() -> None:
    """With exact estimates and nothing that arrives later, what is told is what happens."""
    jobs = [Job(f"j{at}", f"user-{at % 2}", 0.0, (10.0 + at,)) for at in range(12)]
    late = [Job("late", "user-0", 40.0, (1.0,))]
    setting = Setting(workload_of([*jobs, *late], "few"), lambda: Slots(2))
    told = measure_expected_starts(setting, Plan(photographs=2, futures=2, sigma=0.0))
    before_late = [each for each in told["without"] if each.start_s < 40.0]
    assert before_late
    assert coverage(before_late).inside == 1.0
    assert coverage(before_late).error_part < 0.01
