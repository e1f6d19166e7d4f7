"""Shares, by what users did to get more; and that an unfair queue is found out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from queue_harness import Run, SlotCluster, Work, play

from scheduler.core.queue.events import Estimate, GangWithdrawn
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.slots import slots_gang, slots_settings

FAIR = 0.01
"""Largest difference from the entitled share, as a part of the cluster."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Its multiples are spread evenly over a period, as dice are in the mean."""


@dataclass(frozen=True)
class User:
    """Keeps `backlog` gangs waiting; each lasts `task_s`, up to `spread` of it more or less, and is said to
    last `told` times that."""

    task_s: float = 1.0
    told: float = 1.0
    backlog: int = 4
    weight: float = 1.0
    spread: float = 0.0


def closed_loop(
    users: Mapping[str, User],
    slots: int = 4,
    horizon_s: float = 250.0,
    clock: Callable[[float], FairClock] = FairClock,
) -> dict[str, float]:
    """Share of all slot-seconds held by each user, when each submits a gang for every one that ends."""
    weights = {(name,): user.weight for name, user in users.items()}
    cluster = SlotCluster(slots, clock, slots_settings(slots, weights=weights, invariants_every=499))
    number = 0

    def submit(flow: str, at_s: float) -> None:
        nonlocal number
        number += 1
        user = users[flow]
        task_s = user.task_s * (1.0 + user.spread * (2.0 * (number * GOLDEN % 1.0) - 1.0))
        estimate = Estimate.exactly(task_s * user.told)
        cluster.submit(slots_gang(f"{flow}{number:06d}", flow, at_s, estimate), task_s, at_s, number)

    for name, user in users.items():
        for _ in range(user.backlog + slots):
            submit(name, 0.0)
    cluster.refill = submit
    held = cluster.play(horizon_s).held
    return {name: held.get(name, 0.0) / sum(held.values()) for name in users}


def assert_shares(found: Mapping[str, float], expected: Sequence[float], tolerance: float = FAIR) -> None:
    assert list(found.values()) == pytest.approx(list(expected), abs=tolerance)


def test_biased_estimates_do_not_change_shares() -> None:
    users = {"low": User(told=0.3), "true": User(), "high": User(told=3.0)}
    assert_shares(closed_loop(users), [1 / 3] * 3)


def test_a_user_who_lies_by_ten_gains_nothing() -> None:
    assert_shares(closed_loop({"liar": User(told=0.1), "a": User(), "b": User()}), [1 / 3] * 3)
    inflated = closed_loop({"liar": User(told=10.0), "a": User(), "b": User()}, horizon_s=600.0)
    assert_shares(inflated, [1 / 3] * 3)


def test_shares_follow_weights() -> None:
    users = {"a": User(weight=1), "b": User(weight=2), "c": User(weight=4)}
    assert_shares(closed_loop(users), [1 / 7, 2 / 7, 4 / 7])


def test_shares_follow_weights_while_one_user_lies() -> None:
    users = {"a": User(weight=1, told=0.1), "b": User(weight=2), "c": User(weight=4)}
    assert_shares(closed_loop(users), [1 / 7, 2 / 7, 4 / 7])


def test_who_tells_a_tenth_is_hardly_ahead_by_what_of_him_runs_unpaid() -> None:
    varied = [("one", 1.0, 1.0), ("liar", 0.1, 2.0), ("four", 1.0, 4.0)]
    users = {name: User(6.0, told, backlog=24, weight=weight, spread=0.33) for name, told, weight in varied}
    found = closed_loop(users, slots=28, horizon_s=300.0)
    assert found["liar"] / (2 / 7) - 1 < 0.02


def test_long_gangs_get_no_less_than_short_ones() -> None:
    users = {"long": User(task_s=20.0, backlog=8), "short": User(task_s=0.5, backlog=8)}
    assert_shares(closed_loop(users, horizon_s=300.0), [0.5, 0.5], tolerance=0.05)


def test_more_gangs_in_the_queue_are_no_larger_share() -> None:
    assert_shares(closed_loop({"flood": User(backlog=60), "calm": User(backlog=2)}), [0.5, 0.5])


class EverybodyAlike(FairClock):
    """Deliberately unfair: who arrived first goes first, whatever he has had."""

    def tag(self, key: object) -> float:
        del key
        return 0.0

    def _book(self, flow: object, work: float, effective: float) -> None:
        del effective
        flow.ledger += work  # type: ignore[attr-defined]


def test_an_unfair_queue_fails_the_fairness_test() -> None:
    users = {"flood": User(backlog=60), "calm": User(backlog=2)}
    with pytest.raises(AssertionError, match="comparison failed"):
        assert_shares(closed_loop(users, clock=EverybodyAlike), [0.5, 0.5])


def adversary() -> list[Work]:
    """A: 100 slot-seconds at once, then small jobs for ever; B: one job of 101. 4 slots."""
    stream = [Work("A", 0.5 * k, 2, 1.0) for k in range(1, 120)]
    return [Work("B", 0.0, 101, 1.0), Work("A", 0.0, 100, 1.0), *stream]


def test_the_adversarys_victim_finishes_as_in_the_fluid() -> None:
    finish_s = play(adversary(), 4, backfill=False, invariants_every=499).finish_s[0]
    assert finish_s <= 50.5 + 1.0


def burst_after(cheat: Sequence[Work], honest: Sequence[Work], slots: int = 4) -> float:
    """Mean response of the cheat's last ten jobs, beside honest ones."""
    works = [*cheat, *honest]
    run: Run = play(works, slots, backfill=False, invariants_every=499)
    last = range(len(cheat) - 10, len(cheat))
    return sum(run.finish_s[i] - works[i].at_s for i in last) / 10


def honest_stream(seconds: int) -> list[Work]:
    return [Work("honest", float(at), 5, 1.0) for at in range(seconds)]


def test_sleeping_behind_an_inflated_charge_gains_nothing() -> None:
    later = [Work("cheat", 60.0, 4, 1.0) for _ in range(10)]
    slept = burst_after([Work("cheat", 0.0, 1, 70.0, told=0.9), *later], honest_stream(120))
    inflated = burst_after([Work("cheat", 0.0, 1, 70.0, told=10.0), *later], honest_stream(120))
    assert inflated >= slept - 1.0


def test_splitting_one_job_into_many_does_not_finish_it_sooner() -> None:
    whole = play(
        [Work("cheat", 0.0, 60, 1.0), *honest_stream(60)], 4, backfill=False, invariants_every=499
    ).finish_s[0]
    split = [Work("cheat", 0.0, 1, 1.0) for _ in range(60)]
    finish = play([*split, *honest_stream(60)], 4, backfill=False, invariants_every=499).finish_s
    assert max(finish[i] for i in range(60)) >= whole - 1.0


def parked(width: int) -> float:
    """When ten jobs of a user finish who parks a gang of that width from the beginning (0: none)."""
    cluster = SlotCluster(4, backfill=False, invariants_every=499)
    works = [*(Work("cheat", 40.0, 4, 1.0) for _ in range(10)), *honest_stream(80)]
    cluster.submit_all(works)
    if width:
        cluster.submit(slots_gang("parked", "cheat", 0.0, Estimate.exactly(1.0), width), 1.0, job=-2)
    return sum(cluster.play().finish_s[i] for i in range(10)) / 10


def test_parking_a_gang_that_never_fits_gains_nothing() -> None:
    assert parked(width=5) == pytest.approx(parked(width=0))


def withdrawing(withdraws: bool) -> float:
    """When ten jobs of a user finish who had kept a long gang waiting and took it back."""
    cluster = SlotCluster(4, backfill=False, invariants_every=499)
    works = [*(Work("cheat", 40.0, 4, 1.0) for _ in range(10)), *honest_stream(80)]
    cluster.submit_all(works)
    if withdraws:
        cluster.submit(slots_gang("bait", "cheat", 0.0, Estimate.exactly(1e5), 4), 1.0, job=-2)
        cluster.push(39.0, GangWithdrawn("bait"))
    finish = cluster.play(200.0).finish_s
    return sum(finish[i] for i in range(10)) / 10


def test_withdrawing_what_one_kept_waiting_gains_nothing() -> None:
    assert withdrawing(True) >= withdrawing(False) - 1e-9


def test_a_flow_that_stayed_away_for_days_has_saved_up_nothing() -> None:
    honest = honest_stream(100)
    back = [Work("absent", 50.0, 20, 1.0), *honest]
    early = [Work("absent", 0.0, 1, 1.0), *back]
    first, second = play(back, 4, backfill=False, invariants_every=499), play(early, 4, backfill=False)
    assert second.finish_s[1] >= first.finish_s[0] - 1.0


def test_a_gang_larger_than_the_lag_limit_is_not_starved() -> None:
    """The limit on credit must not draw the meter of a flow whose turn simply has not come."""
    stream = [Work("small", 0.5 * k, 2, 1.0) for k in range(300)]
    run = play(
        [Work("large", 0.0, 1, 60.0), *stream], 2, backfill=False, lag_limit_share_s=5.0, invariants_every=499
    )
    assert run.first_release_s[0] < 70.0


def test_credit_is_bounded_by_the_lag_limit() -> None:
    clock = FairClock(lag_limit=10.0)
    for key in ("paused", "other"):
        clock.arrive(key, 1.0)
        clock.set_head(key, 1.0, (0.0, key))
    clock.advance(1000.0)
    assert clock.virtual_time - clock.tag("paused") == pytest.approx(10.0)
    assert clock.virtual_time == pytest.approx(11.0), "nobody is left whose share V could count"
