"""Schedules of a few jobs that can be worked out by hand, for every policy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simulator.cluster import Node, Nodes, Slots
from simulator.comparison import Setting, simulate
from simulator.engine import ListScheduler, Simulation, StuckError
from simulator.policies.fairlane import FairlaneScheduler
from simulator.policies.keyed import Fifo
from simulator.policies.ordering import Ordering
from simulator.policies.registry import NAMES
from simulator.policies.settled import SettledModel, Turn, inside_slack
from simulator.state import Submission
from simulator.workload import Job, Request
from tests.simulator_builders import finishes, job, schedule, workload

# Two slots. a1 takes both at 0 and has four of its six tasks left when a2 and b1 wait, at 1 s.
LATECOMERS = [job("a1", 0, 6), job("a2", 0.5, 1), job("b1", 0.5, 2)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # a1 a1 | a1 a1 | a1 a1 | a2 b1 | b1
        ("fifo", {"a1": 3, "a2": 4, "b1": 5}),
        # a1 a1 | a1 a2 | a1 b1 | a1 b1 | a1: at 1 s nobody holds anything: a1, then a2, who still does not
        ("fair", {"a1": 5, "a2": 2, "b1": 4}),
        # a1 a1 | a1 b1 | a1 b1 | a1 a2 | a1: one of each user, inside a the job that holds less
        ("ujf", {"a1": 5, "a2": 4, "b1": 3}),
        # a1 a1 | a1 b1 | a1 b1 | a1 a1 | a2: one of each user, inside a first come first served
        ("drf", {"a1": 4, "a2": 5, "b1": 3}),
        # a1 a1 | a2 b1 | b1 a1 | a1 a1 | a1
        ("srpt", {"a1": 5, "a2": 2, "b1": 3}),
        # tags (share-seconds): a1 3.0; at 0.5 s V = 0.5: a2 1.0, b1 1.5
        ("cfq", {"a1": 5, "a2": 2, "b1": 3}),
        # at 0.5 s a's chain is a2 0.5, a1 3.5; b1 0.5 + 1
        ("uwfq", {"a1": 5, "a2": 2, "b1": 3}),
        ("uwfq-floor", {"a1": 5, "a2": 2, "b1": 3}),
        ("fairlane", {"a1": 5, "a2": 2, "b1": 3}),
        ("settled", {"a1": 5, "a2": 2, "b1": 3}),
    ],
)
def test_three_jobs_on_two_slots(policy: str, expected: dict[str, float]) -> None:
    assert finishes(policy, LATECOMERS, slots=2) == expected


# One slot. c comes at 4.5 s, when b has run for half a second and has 3 s more to start than c's 2.5 s.
SHORTER_BUT_LATER = [job("a", 0, 4), job("b", 0, 4), job("c", 4.5, 1, 2.5)]


def test_srpt_lets_a_later_shorter_job_go_first() -> None:
    assert finishes("srpt", SHORTER_BUT_LATER) == {"a": 4, "b": 10.5, "c": 7.5}


@pytest.mark.parametrize("policy", ["srpt", "cfq", "uwfq", "uwfq-floor", "settled"])
def test_what_was_served_before_the_other_came_counts(policy: str) -> None:
    # at 3 s one task of a's four is left, against b's three; V = 2.5 when b comes: its tag is 5.5 against 4
    assert finishes(policy, [job("a", 0, 4), job("b", 2.5, 3)]) == {"a": 4, "b": 7}


def test_cfq_keeps_the_order_of_fluid_finishes() -> None:
    # tags: a 4, b 4; at 4.5 s V = 2.25, so c 4.75
    assert finishes("cfq", SHORTER_BUT_LATER) == {"a": 4, "b": 8, "c": 10.5}


TWO_OF_ONE_USER = [job("a1", 0, 2), job("a2", 0, 2), job("b1", 0, 3)]


def test_cfq_gives_a_user_with_two_jobs_two_turns() -> None:
    assert finishes("cfq", TWO_OF_ONE_USER) == {"a1": 2, "a2": 4, "b1": 7}


@pytest.mark.parametrize("policy", ["uwfq", "uwfq-floor", "settled"])
def test_between_users_two_jobs_of_one_are_chained(policy: str) -> None:
    # tags: a1 2, a2 2 + 2, b1 3
    assert finishes(policy, TWO_OF_ONE_USER) == {"a1": 2, "b1": 5, "a2": 7}


def test_ours_chains_two_jobs_of_one_user_too() -> None:
    # a1 is charged at once: a2's tag is 2 + 2, b1's 0.2 + 3
    jobs = [job("a1", 0, 1, 2.0), job("a2", 0.1, 1, 2.0), job("b1", 0.2, 1, 3.0)]
    assert finishes("fairlane", jobs) == {"a1": 2, "b1": 5, "a2": 7}


def test_the_model_refuses_jobs_it_is_not_made_for() -> None:
    with pytest.raises(ValueError, match="policy settled: pods of job a differ in duration"):
        schedule("settled", [Job("a", "a", 0.0, (1.0, 2.0))], 1)


SERVED_BIG_JOB = [job("a1", 0, 4), job("a3", 0, 4), job("b1", 0, 4), job("a2", 4.5, 2)]


def test_published_uwfq_tags_a_late_small_job_in_the_past() -> None:
    # a1 ran 0-4. At 4.5 s a2's user tag 1.125 + 2 is before a1's 4: its tag is 0 + 2, before b1's 4
    assert finishes("uwfq", SERVED_BIG_JOB) == {"a1": 4, "b1": 10, "a2": 7, "a3": 14}


def test_the_causal_floor_does_not() -> None:
    # V = 2.25 at 4.5 s, so a2's tag is 4.25
    assert finishes("uwfq-floor", SERVED_BIG_JOB) == {"a1": 4, "b1": 8, "a2": 10, "a3": 14}


def test_drf_fills_the_cluster_as_in_its_paper() -> None:
    """9 cores, 18 GB; tasks of <1 core, 4 GB> and <3 cores, 1 GB>: three of the one, two of the other."""
    tasks = [
        Job("a", "a", 0.0, (10.0,) * 9, Request(1.0, 4e9)),
        Job("b", "b", 0.0, (10.0,) * 9, Request(3.0, 1e9)),
    ]
    made = simulate(Setting(workload(*tasks), lambda: Nodes([Node("n", 9.0, 18e9, 0.0)])), "drf")
    first = made.job[made.start_s == 0.0]
    assert [(first == at).sum() for at in (0, 1)] == [3, 2]


def test_weights_divide_what_a_user_holds() -> None:
    made = schedule("ujf", [job("a", 0, 60), job("b", 0, 60)], 6, weights={"a": 2.0})
    first = made.job[made.start_s == 0.0]
    assert [(first == at).sum() for at in (0, 1)] == [4, 2]


@pytest.mark.parametrize("policy", NAMES)
def test_a_gang_starts_with_all_of_its_pods(policy: str) -> None:
    made = schedule(policy, [job("a", 0, 2), job("b", 0, 3, 5.0, gang=True), job("c", 0, 2)], 4)
    runs = made.share[made.job == 1]
    assert list(runs) == [0.75]


def test_a_head_that_does_not_fit_holds_up_the_rest_under_the_published_policies() -> None:
    jobs = [job("a", 0, 1, 10.0), job("b", 1, 2, 1.0, gang=True), job("c", 2, 1, 1.0)]
    assert finishes("fifo", jobs, slots=2) == {"a": 10, "b": 11, "c": 12}


def test_ours_lets_a_short_job_go_ahead_of_a_reserved_gang() -> None:
    jobs = [job("a", 0, 1, 10.0), job("b", 1, 2, 1.0, gang=True), job("c", 2, 1, 1.0)]
    assert finishes("fairlane", jobs, slots=2) == {"a": 10, "b": 11, "c": 3}


def test_a_job_that_never_fits_is_left_out_and_said_so() -> None:
    made = schedule("fifo", [job("a", 0, 3, gang=True), job("b", 0, 1)], 2)
    assert [each.name for each in made.left_out] == ["a"]
    assert [each.job.name for each in made.submissions] == ["b"]


def test_an_unknown_policy_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"policy 'best' is unknown; there are fairlane, .*drf"):
        schedule("best", [job("a", 0, 1)], 1)


def test_a_scheduler_that_starts_nothing_is_found_out() -> None:
    class Lazy(Fifo):
        def head(self) -> None:
            return None

    cluster = Slots(1)
    with pytest.raises(StuckError, match="fifo: 1 jobs wait and nothing runs"):
        Simulation(workload(job("a", 0, 1)), cluster, ListScheduler(Lazy(), cluster), lambda _: 1.0).run()


def test_an_ordering_follows_its_keys() -> None:
    order: Ordering[str] = Ordering()
    for name, key in (("x", 2), ("y", 1), ("x", 0), ("z", 3), ("y", 4)):
        order.put(name, (key,))
    seen = []
    while (first := order.first()) is not None:
        seen.append(first)
        order.drop(first)
    assert seen == ["x", "z", "y"]


def turn(tag: float, name: str, work: int, until_s: float) -> Turn:
    return Turn(tag, (0.0, 0), Submission(0, job(name, 0, work), 1.0, 1.0, 1.0), until_s)


def chosen(*turns: Turn, small: float = 0.0, allowance_s: float = 0.0) -> str:
    return inside_slack(turns, small, allowance_s).job.name


def test_inside_the_slack_the_shortest_goes() -> None:
    assert chosen(turn(5, "a", 5, 8.0), turn(6, "b", 3, 20.0), turn(7, "c", 2, 30.0)) == "c"


def test_who_would_make_an_earlier_one_late_does_not() -> None:
    # a has 1 s to spare; b may not, and c may not either
    assert chosen(turn(5, "a", 5, 6.0), turn(6, "b", 3, 20.0), turn(7, "c", 2, 30.0)) == "a"
    # a has 4 s to spare but b before c has none
    assert chosen(turn(5, "a", 5, 9.0), turn(6, "b", 4, 9.0), turn(7, "c", 2, 30.0)) == "b"


def test_a_small_job_may_cost_others_the_allowance_and_no_more() -> None:
    waiting = turn(5, "a", 5, 5.5), turn(7, "c", 2, 30.0)
    assert chosen(*waiting) == "a"
    assert chosen(*waiting, small=2.0, allowance_s=1.5) == "c"
    assert chosen(*waiting, small=2.0, allowance_s=1.4) == "a"
    assert chosen(*waiting, small=1.9, allowance_s=1.5) == "a"


def test_the_models_tags_are_chained_and_dated() -> None:
    """Tags a1 3, b1 4, a2 3 + 3; V reaches them, shared by a (until 6) and b (until 4), at 6, 8 and 10 s."""
    seen: list[Turn] = []

    class Watched(SettledModel):
        def choose(self, turns: Sequence[Turn]) -> Submission:
            seen.extend([] if seen else self.with_deadlines(turns))
            return super().choose(turns)

    cluster = Slots(1)
    jobs = [job("a1", 0, 3), job("a2", 0, 3), job("b1", 0, 4)]
    Simulation(workload(*jobs), cluster, ListScheduler(Watched(), cluster), lambda _: 1.0).run()
    dated = [(each.job.job.name, each.tag, each.until_s) for each in seen]
    assert dated == [("a1", 3.0, 6.0), ("b1", 4.0, 8.0), ("a2", 6.0, 10.0)]


def test_what_the_core_reports_comes_out_as_a_note() -> None:
    scheduler = FairlaneScheduler(Slots(2), {})
    scheduler.submitted(Submission(0, job("a", 0, 3, gang=True), 0.5, 1.0, 1.0), 0.0)
    assert list(scheduler.starts(0.0)) == []
    (note,) = scheduler.notes()
    assert note.startswith("1 x infeasible, e.g. the 3 pods together do not fit")


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param([job("a1", 0, 1), job("b1", 1e9, 1)], id="nothing for 32 years"),
        pytest.param([job("a1", 0, 1, 1e9)], id="one job of 32 years"),
        pytest.param([job("a1", 0, 1, 1e9), job("b1", 5, 1)], id="another waits behind it"),
        pytest.param([job(f"a{at}", at * 864_000, 1) for at in range(36)], id="a job every ten days"),
    ],
)
def test_time_in_which_nothing_happens_costs_next_to_nothing(jobs: Sequence[Job]) -> None:
    assert schedule("fairlane", jobs, 1).events < 20_000


def test_the_clock_goes_on_where_it_stood_while_the_cluster_was_empty() -> None:
    told: list[float] = []

    class Told(FairlaneScheduler):
        def tick(self, now_s: float) -> None:
            told.append(now_s)
            super().tick(now_s)

    jobs = workload(job("a1", 0, 1, 40.0), job("b1", 150.0, 1, 35.0))
    cluster = Slots(1)
    Simulation(jobs, cluster, Told(cluster, {}), lambda _: 1.0).run()
    assert told == [30.0, 60.0, 150.0, 180.0, 210.0]
