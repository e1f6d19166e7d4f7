"""The benchmark against peers: how loads are cut, that its arithmetic is the simulator's, what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import isnan
from pathlib import Path

import pytest

from benchmarks.eta import LoadError
from benchmarks.live_jobs import FAIRLANE, Ask, Life, LiveJob, job_manifest
from benchmarks.peer_figures import DEFAULT, Ran, figures_of, ran_of, schedule_of, simulated, told_of
from benchmarks.peer_loads import FLOODER, SLOTS, SMALL_USERS, Load, cut, flood, load_of, loads_of
from benchmarks.peers import Found, arms_of
from benchmarks.peers_report import sentences
from scheduler.core.workloads.rules import GATE
from simulator.cluster import Slots
from simulator.comparison import Setting, compare
from simulator.metrics import spread
from simulator.state import Schedule
from simulator.workload import Job, workload_of

NOWHERE = Path("/nowhere")
BEGAN_S = 1.7e9


def trace_job(name: str, work_s: float, submitted_s: float = 0.0) -> Job:
    """As the reader of the published slices gives it: in tasks of half a second."""
    tasks = max(1, int(work_s // 0.5))
    return Job(name, name[0], submitted_s, (work_s / tasks,) * tasks)


def small_load() -> Load:
    """Two users, jobs of one to sixteen pods, more than the slots take at once."""
    jobs = [Job(f"a{at}", "a", float(at), (4.0 + at,) * 16) for at in range(4)]
    jobs += [Job(f"b{at}", "b", 0.5 + at, (2.0,) * (1 + at)) for at in range(4)]
    workload = workload_of(jobs, "hetero")
    return Load("hetero", workload, workload.users, lambda job: job.name)


def seen(schedule: Schedule, later_s: float = 0.0) -> dict[str, LiveJob]:
    """Real jobs that went exactly as a schedule of the simulator; every end `later_s` later."""
    jobs = {
        one.job.name: LiveJob(
            Ask(one.user, one.job.durations_s[0], None), one.job.pods, BEGAN_S + one.job.submitted_s
        )
        for one in schedule.submissions
    }
    for index, start_s, end_s in zip(schedule.job, schedule.start_s, schedule.end_s, strict=True):
        job = jobs[schedule.submissions[index].job.name]
        at_s = BEGAN_S + float(start_s)
        job.lives.append(Life(job.ask, job.created_s, "", at_s, at_s, at_s, BEGAN_S + end_s + later_s))
    return jobs


def ran(arm: str = DEFAULT, later_s: float = 0.0, policy: str = "fifo") -> Ran:
    load = small_load()
    return ran_of(load, arm, seen(simulated(load, policy, load.workload.jobs, {}), later_s), {})


def test_a_job_is_cut_into_few_equal_pods_and_keeps_its_work() -> None:
    jobs = {"tiny": 0.13, "one": 20.0, "three": 45.0, "wide": 640.0}
    made = cut(workload_of([trace_job(name, work_s, 8.0) for name, work_s in jobs.items()], "t")).jobs
    assert {job.name: (job.pods, job.durations_s[0]) for job in made} == {
        "tiny": (1, 1.0),
        "one": (1, 5.0),
        "three": (3, 3.75),
        "wide": (16, 10.0),
    }
    assert not any(job.gang for job in made)


def test_time_runs_four_times_as_fast() -> None:
    made = cut(workload_of([trace_job("a", 8.0), trace_job("b", 8.0, 100.0)], "t")).jobs
    assert [job.submitted_s for job in made] == [0.0, 25.0]


def test_the_flood_is_one_user_at_once_and_four_others_now_and_then() -> None:
    jobs = flood(200, seed=2).jobs
    flooded = [job for job in jobs if job.user == FLOODER]
    assert (len(flooded), {job.pods for job in flooded}, {job.submitted_s for job in flooded}) == (
        200,
        {2},
        {0},
    )
    for user in SMALL_USERS:
        times = [job.submitted_s for job in jobs if job.user == user]
        assert {later - sooner for sooner, later in pairwise(times)} == {10.0}
    assert jobs == flood(200, seed=2).jobs != flood(200, seed=3).jobs


def test_the_flood_is_the_published_one_as_far_as_a_simulation_without_costs_can_tell() -> None:
    """Mean and p95 of the four, under UWFQ: 2.9 and 5.0."""
    load = load_of("flood", NOWHERE, 0, 2)
    found = figures_of(simulated(load, "uwfq", load.workload.jobs, {}), load.scored)
    assert (round(found.mean_s, 1), round(found.p95_s, 1), found.jobs) == (2.9, 5.0, 24)


def test_data_that_are_not_there_are_told_and_the_rest_is_measured() -> None:
    loads, absent = loads_of("hetero,flood", NOWHERE, 0, 0)
    assert [load.name for load in loads] == ["flood"]
    assert (
        "hetero is left out: /nowhere/uwfq_google_macro/hetero_macro_config.json.gz is not there" in absent[0]
    )
    with pytest.raises(LoadError, match="--data names the folder"):
        loads_of("hetero", NOWHERE, 0, 0)


def test_what_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(LoadError, match="'hetro' is none of the scenarios hetero, homo, flood"):
        loads_of("hetro", NOWHERE, 0, 0)
    with pytest.raises(LoadError, match="'kueue' is none of the arms default, fairlane, oracle"):
        arms_of("default,kueue")


def test_the_figures_of_a_run_are_those_of_the_simulator() -> None:
    load = small_load()
    compared = compare(Setting(load.workload, lambda: Slots(SLOTS)), ["fair"]).results[0]
    measures, schedule = compared.measures, schedule_of(load, "x", seen(compared.schedule))
    found = figures_of(schedule, load.scored)
    assert spread(schedule.response_s).mean == pytest.approx(measures.response_s.mean, abs=1e-5)
    assert (found.mean_s, found.p95_s) == pytest.approx((measures.response_s.mean, measures.response_s.p95))
    assert (found.late, found.late_most) == pytest.approx(
        (measures.late_capped.mean, measures.late_capped.largest), abs=1e-5
    )
    assert (found.used, found.jain) == pytest.approx((measures.utilisation, measures.shares.jain), abs=1e-5)
    assert found.received == pytest.approx(
        dict(zip(measures.shares.users, measures.shares.received, strict=True)), abs=1e-5
    )


def test_only_the_scored_users_count() -> None:
    load = small_load()
    schedule = simulated(load, "fifo", load.workload.jobs, {})
    of_b = [one for one in schedule.submissions if one.user == "b"]
    expected_s = sum((one.finished_s or 0.0) - one.job.submitted_s for one in of_b) / len(of_b)
    found = figures_of(schedule, ("b",))
    assert found.jobs == 4
    assert found.mean_s == pytest.approx(expected_s)


def test_a_run_as_simulated_differs_by_nothing_and_a_slower_one_by_so_much() -> None:
    as_simulated, slower = ran(), ran(later_s=1.5)
    assert (as_simulated.slower_s, as_simulated.share_off) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert (slower.slower_s, slower.slower_p50_s) == pytest.approx((1.5, 1.5), abs=1e-5)
    assert slower.costs.held_over_s == pytest.approx(1.5, abs=1e-5)
    assert slower.real.late > as_simulated.real.late


def test_another_order_than_the_simulated_one_shows_in_the_shares() -> None:
    assert ran(policy="srpt").share_off > 0.01


def test_shares_are_not_compared_where_nobody_waits() -> None:
    jobs = [Job("a", "a", 0.0, (2.0,)), Job("b", "b", 0.0, (2.0,))]
    load = replace(small_load(), workload=workload_of(jobs, "hetero"))
    live = seen(simulated(load, "fifo", jobs, {}))
    assert isnan(ran_of(load, DEFAULT, live, {}).share_off)


def test_the_simulator_is_told_the_estimates_that_the_queue_had() -> None:
    """Told that the widest jobs are the shortest, the queue lets a user's jobs go in another order."""
    load = small_load()
    live = seen(simulated(load, "fairlane", load.workload.jobs, {}))
    wrong = {
        job.name: [(0.01 if job.name == "a3" else 50.0, "class")] * job.pods for job in load.workload.jobs
    }
    assert ran_of(load, FAIRLANE, live, {}).slower_s == pytest.approx(0.0, abs=1e-5)
    assert abs(ran_of(load, FAIRLANE, live, wrong).slower_s) > 0.1


def test_a_pod_that_is_missing_is_no_result() -> None:
    load = small_load()
    live = seen(simulated(load, "fifo", load.workload.jobs, {}))
    live["a0"].lives.pop()
    with pytest.raises(Exception, match="a job of a with 16 pods had 15"):
        schedule_of(load, DEFAULT, live)


def test_a_job_ends_with_the_last_of_its_pods() -> None:
    ask = Ask("u", 1.0, None)
    job = LiveJob(ask, 2, 0.0, [Life(ask, 0.0, ended_s=5.0), Life(ask, 0.0)])
    assert job.ended_s is None
    job.lives[1].ended_s = 4.0
    assert job.ended_s == 5.0


def test_estimates_are_counted_by_source_and_by_how_far_they_were_off() -> None:
    load = small_load()
    found = told_of(load, {"b0": [(4.0, "class")], "b1": [(1.0, "class"), (2.0, "hint")]})
    assert found is not None
    assert (found.sources, found.factor) == ({"class": 2, "hint": 1}, 2.0)
    assert told_of(load, {}) is None


def pod_of(job: Mapping[str, dict[str, dict[str, dict[str, object]]]]) -> dict[str, dict[str, object]]:
    return job["spec"]["template"]


def test_only_pods_of_our_scheduler_have_a_gate_and_only_the_oracle_tells() -> None:
    ours = job_manifest("j", Ask("ann", 6.0, 6.0), 3)
    plain = job_manifest("j", Ask("ann", 6.0, None, scheduler="default-scheduler"), 3)
    assert (ours["spec"]["parallelism"], ours["spec"]["completions"]) == (3, 3)
    assert pod_of(ours)["spec"]["schedulingGates"] == [{"name": GATE}]
    assert pod_of(plain)["spec"]["schedulingGates"] == []
    assert pod_of(ours)["metadata"]["annotations"] == {
        "fairlane.dev/user": "ann",
        "fairlane.dev/job-class": "j",
        "fairlane.dev/expected-duration": "6s",
    }
    annotations = pod_of(plain)["metadata"]["annotations"]
    assert isinstance(annotations, dict)
    assert "fairlane.dev/expected-duration" not in annotations


def test_targets_are_judged_on_the_whole_load_alone() -> None:
    one = replace(ran(FAIRLANE), real=replace(ran().real, mean_s=4.5, late=0.5))
    found = Found(small_load(), True, 3, 1.0, (ran(), one))
    told = " ".join(sentences(found))
    assert "fairlane: mean 4.50 s, lateness 0.500; target 4.5 s, 0.5: met." in told
    assert "default: mean" not in told
    for worse in (replace(one.real, mean_s=4.51), replace(one.real, late=0.51)):
        slow = replace(one, real=worse)
        assert "missed" in " ".join(sentences(replace(found, ran=(slow,))))
        assert "not judged" in " ".join(sentences(replace(found, ran=(slow,), whole=False)))


def test_results_hold_no_job_of_the_published_traces() -> None:
    """Neither their names nor their order: they are not ours to publish."""
    told = Found(small_load(), True, 3, 1.0, (ran(later_s=1.0),)).to_json()
    pairs = told["arms"][0]["responses_s"]
    assert list(pairs) == sorted(pairs)
    assert len(pairs) == told["jobs"] == 8
    assert "a3" not in str(told)
