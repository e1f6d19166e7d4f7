"""Expected starts: copies of the queue, draws of run times and arrivals, and what futures say together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise, takewhile

import pytest

from scheduler.core.queue.actions import Action, ReleaseGang
from scheduler.core.queue.arrivals import BLOCKS, KEPT, Past, RecentArrivals, draw_arrivals
from scheduler.core.queue.events import (
    Estimate,
    Gang,
    GangArrived,
    GangEnded,
    GangStarted,
    NodeSet,
    ReleaseFailed,
    Tick,
)
from scheduler.core.queue.expected import Outlook, StartSource, futures_of, outlook, quantile
from scheduler.core.queue.futures import Future, reached, run_time_s
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.photograph import Photograph
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings

SLOTS = 4


def queue_of(gangs: Iterable[Gang], now_s: float = 0.0, **settings: object) -> Gatekeeper:
    """A queue on which what is released starts at once."""
    keeper = Gatekeeper(slots_settings(SLOTS, **settings))
    keeper.handle(NodeSet(slots_node(SLOTS)), now_s)
    for gang in gangs:
        start(keeper, keeper.handle(GangArrived(gang), gang.arrived_s), gang.arrived_s)
    return keeper


def start(keeper: Gatekeeper, actions: list[Action], now_s: float) -> list[str]:
    """Start what is released, and what that releases; their uids."""
    started: list[str] = []
    while released := [one.uid for one in actions if isinstance(one, ReleaseGang)]:
        started += released
        actions = keeper.handle_all([GangStarted(uid) for uid in released], now_s)
    return started


def exactly(uid: str, flow: str, run_s: float, arrived_s: float = 0.0, width: int = 1) -> Gang:
    return slots_gang(uid, flow, arrived_s, Estimate.exactly(run_s), width)


def one_future(keeper: Gatekeeper, seed: int = 0) -> dict[str, float]:
    """Starts by uid in a future without arrivals."""
    photo = keeper.photograph(100)
    return dict(next(futures_of(photo, None, random.Random(seed))).starts_s)


def outlook_without_arrivals(photo: Photograph, futures: int = 10) -> Outlook:
    return outlook(photo, [*islice(futures_of(photo, None, random.Random(0)), futures)], arrivals=False)


def test_with_exact_estimates_a_future_is_what_happens() -> None:
    source = random.Random(5)
    runs_s = [source.choice((5.0, 7.0, 11.5, 40.0)) for _ in range(40)]
    gangs = [
        exactly(f"g{at}", f"user-{at % 3}", run_s, 0.1 * at, 1 + (at % 5 == 0))
        for at, run_s in enumerate(runs_s)
    ]
    keeper = queue_of(gangs)
    told = one_future(keeper)
    assert len(told) > 30
    happened = {}
    running = {one.gang.uid: one.started_s for one in keeper.photograph(0).released}
    ends = {uid: (at_s or 0.0) + _run_s(gangs, uid) for uid, at_s in running.items()}
    while ends:
        uid = min(ends, key=lambda one: (ends[one], one))
        now_s = ends.pop(uid)
        for released in start(keeper, keeper.handle(GangEnded(uid), now_s), now_s):
            happened[released] = now_s
            ends[released] = now_s + _run_s(gangs, released)
    assert told == pytest.approx(happened)


def _run_s(gangs: list[Gang], uid: str) -> float:
    return next(one.estimate.p50_s for one in gangs if one.uid == uid and one.estimate is not None)


def test_a_photograph_changes_nothing_and_is_bounded() -> None:
    keeper = queue_of([exactly(f"g{at:03d}", "alice", 10.0, 0.001 * at) for at in range(50)])
    before = keeper.dump()
    photo = keeper.photograph(5)
    assert [gang.uid for gang in photo.waiting] == [f"g{at:03d}" for at in range(SLOTS, SLOTS + 5)]
    assert photo.beyond == 50 - SLOTS - 5
    Gatekeeper.developed(photo)
    one_future(keeper)
    assert keeper.dump() == before


def test_a_copy_keeps_shares_and_debts() -> None:
    """Bob was served before and has paid for it: in the copy alice goes first, as in the queue."""
    keeper = queue_of([exactly(f"b{at}", "bob", 100.0) for at in range(SLOTS)])
    for arrived in (exactly("b-next", "bob", 100.0, 50.0), exactly("a-next", "alice", 100.0, 51.0)):
        start(keeper, keeper.handle(GangArrived(arrived), arrived.arrived_s), arrived.arrived_s)
    copy = Gatekeeper.developed(keeper.photograph(10))
    assert [one.uid for one in copy.gangs() if one.position] == ["a-next", "b-next"]
    flows = {one.path: one for one in copy.dump().flows}
    for flow in keeper.dump().flows:
        assert flows[flow.path].lead == pytest.approx(flow.lead)
        assert flows[flow.path].held == pytest.approx(flow.held)


def test_a_gang_whose_release_failed_is_left_alone_as_long_in_the_copy() -> None:
    keeper = queue_of([])
    keeper.handle(GangArrived(exactly("g", "alice", 10.0)), 0.0)
    for _ in range(4):  # tried again after 0, 1, 3 and then 7 s
        keeper.handle(ReleaseFailed("g", "no answer"), 0.0)
        keeper.handle(Tick(), 0.0)
    photo = keeper.photograph(10)
    retry_s = photo.retry_s["g"]
    assert retry_s > 0.5
    assert one_future(keeper)["g"] >= retry_s


@pytest.mark.parametrize("estimate", [Estimate(5.0, 10.0, 40.0), Estimate(9.0, 10.0, 11.0)])
def test_run_times_have_the_quantiles_of_their_estimate(estimate: Estimate) -> None:
    drawn = sorted(run_time_s(estimate, (at + 0.5) / 1000) for at in range(1000))
    assert (drawn[100], drawn[500], drawn[900]) == pytest.approx(
        (estimate.p10_s, estimate.p50_s, estimate.p90_s), rel=0.01
    )


def test_what_runs_already_lasts_longer_than_its_age() -> None:
    estimate = Estimate(5.0, 10.0, 40.0)
    for age_s in (1.0, 12.0, 45.0, 1e4):
        least = reached(estimate, age_s)
        drawn = [run_time_s(estimate, least + at / 100 * (1 - least), age_s) for at in range(100)]
        assert min(drawn) > age_s
        assert len(set(drawn)) > 50
    # of those beyond their median, four fifths end before the p90
    assert reached(estimate, 10.0) == pytest.approx(0.5)
    assert run_time_s(estimate, 0.9, 10.0) == pytest.approx(40.0, rel=0.01)


def test_an_exact_estimate_that_was_outlived_still_ends() -> None:
    assert 20.0 < run_time_s(Estimate.exactly(10.0), 0.5, 20.0) < 40.0
    assert run_time_s(Estimate.exactly(10.0), 0.9) == 10.0
    assert run_time_s(Estimate(0.0, 10.0, 10.0), 0.0) > 0.0


def test_what_one_gang_of_a_job_outlived_the_others_will() -> None:
    """Pods of a job that takes longer than estimated: those that wait take as long as those that run."""
    estimate = Estimate(8.0, 10.0, 12.5)
    keeper = queue_of(slots_gang(f"g{at}", "alice", 0.0, estimate, job="one") for at in range(3 * SLOTS))
    keeper.handle(Tick(), 14.0)
    starts = sorted(one_future(keeper).values())
    assert starts[SLOTS] - starts[0] > 14.0


def test_the_rest_of_a_job_takes_as_long_as_what_ended_of_it() -> None:
    estimate = Estimate(5.0, 10.0, 20.0)
    keeper = queue_of(slots_gang(f"g{at:02d}", "alice", 0.0, estimate, job="one") for at in range(20))
    for at in range(SLOTS):
        start(keeper, keeper.handle(GangEnded(f"g{at:02d}"), 30.0), 30.0)
    told = outlook_without_arrivals(keeper.photograph(100))
    waves = sorted(one.p50_s for one in told.starts.values())
    assert waves[::SLOTS] == pytest.approx([60.0, 90.0, 120.0])
    assert all(one.p90_s - one.p10_s < 1e-6 for one in told.starts.values())


def past_of(gangs: Iterable[Gang], until_s: float) -> Past:
    recent = RecentArrivals(0.0)
    for gang in gangs:
        recent.note(gang, gang.estimate or Estimate.exactly(1.0))
    return recent.past(until_s)


def drawn_until(past: Past, end_s: float, seed: int = 0) -> list[Gang]:
    return [*takewhile(lambda gang: gang.arrived_s < end_s, draw_arrivals(past, random.Random(seed)))]


def test_drawn_arrivals_keep_each_users_rate_sizes_and_bursts() -> None:
    steady = [exactly(f"s{at}", "steady", 5.0, 6.0 * at) for at in range(100)]
    burst = [exactly(f"b{at}", "bursts", 9.0, 300.0 + 0.1 * at, width=2) for at in range(40)]
    past = past_of([*steady, *burst], 600.0)
    drawn = drawn_until(past, 600.0 + 20 * 600.0)
    counts = Counter(gang.flow for gang in drawn)
    assert counts["steady"] == pytest.approx(2000, rel=0.03)
    assert counts["bursts"] == pytest.approx(800, rel=0.4)
    assert all(len(gang.pods) == 2 for gang in drawn if gang.flow == "bursts")
    bursts = [gang.arrived_s for gang in drawn if gang.flow == "bursts"]
    close = sum(after - before < 0.2 for before, after in pairwise(bursts))
    assert close > 0.9 * len(bursts)
    assert [gang.arrived_s for gang in drawn] == sorted(gang.arrived_s for gang in drawn)
    assert len({gang.uid for gang in drawn}) == len(drawn)


def test_the_gangs_of_a_job_are_drawn_as_one_job() -> None:
    gangs = [slots_gang(f"g{at}", "alice", 100.0, None, job="many") for at in range(7)]
    jobs = Counter(gang.job for gang in drawn_until(past_of(gangs, 600.0), 600.0 * 20))
    assert set(jobs.values()) == {7}
    assert len(jobs) > BLOCKS


def test_nobody_came_nobody_comes() -> None:
    assert not drawn_until(past_of([], 600.0), 1e9)


def test_recent_arrivals_are_bounded_in_time_and_number() -> None:
    recent = RecentArrivals(50.0, window_s=1000.0)
    recent.note(exactly("before", "alice", 1.0, 49.0), Estimate.exactly(1.0))
    for at in range(KEPT + 10):
        recent.note(exactly(f"g{at}", "alice", 1.0, 60.0 + 0.1 * at), Estimate.exactly(1.0))
    recent.note(exactly("g9", "alice", 1.0, 60.9), Estimate.exactly(1.0))  # forgotten already, and old
    past = recent.past(400.0)
    assert len(past.gangs) <= KEPT
    assert past.since_s > 60.0  # those that were dropped are not counted into the rate
    assert recent.past(60.0 + 1100.0).gangs[0].arrived_s >= 160.0
    assert not Past(0.0, 10.0, ()).tells


def test_arrivals_of_others_put_a_gang_back() -> None:
    """What others will submit goes before some of what waits: with arrivals it starts later."""
    rival = [exactly(f"r{at}", "rival", 30.0, 10.0 * at) for at in range(60)]
    keeper = queue_of([])
    for gang in rival:
        start(keeper, keeper.handle(GangArrived(gang), gang.arrived_s), gang.arrived_s)
    wide = exactly("wide", "alice", 30.0, 600.0, width=SLOTS)
    keeper.handle(GangArrived(wide), 600.0)
    last = exactly("last", "rival", 30.0, 600.0)
    keeper.handle(GangArrived(last), 600.0)
    photo, past = keeper.photograph(200), past_of(rival, 600.0)
    reaches = [*islice(futures_of(photo, past, random.Random(1)), 5)]
    with_arrivals = outlook(photo, reaches, arrivals=True)
    alone = outlook_without_arrivals(photo)
    assert (alone.source, with_arrivals.source) == (StartSource.NO_ARRIVALS, StartSource.ARRIVALS)
    assert with_arrivals.starts["last"].p50_s > alone.starts["last"].p50_s


def test_a_future_that_is_followed_too_far_is_left_and_says_how_far_it_came() -> None:
    keeper = queue_of([exactly(f"g{at}", "alice", 10.0, 0.001 * at) for at in range(100)])
    photo = keeper.photograph(100)
    reach = Future(Gatekeeper.developed(photo), photo, (), random.Random(0)).run(60)
    assert not reach.whole
    assert 0 < len(reach.starts_s) < 96
    told = outlook(photo, [reach], arrivals=False)
    last = told.starts["g99"]
    assert not last.known
    assert last.later_than_s == reach.until_s
    first = told.starts["g4"]
    assert first.known
    assert told.beyond().later_than_s == max(one.p50_s for one in told.starts.values() if one.known)


def test_the_less_is_known_of_run_times_the_wider_is_the_interval() -> None:
    widths = []
    for spread in (1.2, 3.0):
        estimate = Estimate(10.0 / spread, 10.0, 10.0 * spread)
        gangs = [slots_gang(f"g{at}", "alice", 0.0, estimate) for at in range(30)]
        start_ = outlook_without_arrivals(queue_of(gangs).photograph(100), 30).starts["g9"]
        assert start_.p10_s < start_.p50_s < start_.p90_s
        widths.append(start_.p90_s - start_.p10_s)
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("futures", [10, 12, 40])
def test_an_interval_covers_as_much_however_few_futures_it_comes_from(futures: int) -> None:
    source = random.Random(7)
    inside, rounds = 0, 4000
    for _ in range(rounds):
        values = sorted(source.random() for _ in range(futures))
        inside += quantile(values, 0.1) <= source.random() <= quantile(values, 0.9)
    assert inside / rounds == pytest.approx(0.8, abs=0.025)
