"""Figures of schedules that can be worked out by hand, and errors of estimates."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest

from simulator.capped import capped_finish_s
from simulator.cluster import Node, Nodes, Slots, read_nodes
from simulator.comparison import Setting, compare
from simulator.estimates import errors_of
from simulator.fluid import FluidJob, uncapped_finish_s
from simulator.metrics import measure, references_of
from simulator.report import as_json
from simulator.shares import user_shares
from simulator.traces import TraceError
from simulator.workload import Job, Request, workload_of
from tests.simulator_builders import job, schedule, workload

# One slot: a's job of 4 s, and b's of 2 s at 1 s.
PAIR = [job("a", 0, 4), job("b", 1, 2)]


def test_uncapped_fluid_of_two_users() -> None:
    # a alone to 1 s; then halves: b is done after 4 s at 5 s, a has 1 s left of its 3
    work = [FluidJob("a", 0.0, 4.0), FluidJob("b", 1.0, 2.0)]
    assert list(uncapped_finish_s(work)) == [6.0, 5.0]


def test_uncapped_fluid_shares_by_user_not_by_job() -> None:
    work = [FluidJob("a", 0.0, 1.0), FluidJob("a", 0.0, 1.0), FluidJob("b", 0.0, 1.0)]
    assert list(uncapped_finish_s(work)) == [3.0, 3.0, 2.0]


def test_uncapped_fluid_follows_weights() -> None:
    work = [FluidJob("a", 0.0, 3.0), FluidJob("b", 0.0, 3.0)]
    assert list(uncapped_finish_s(work, {"a": 3.0})) == [4.0, 6.0]


def test_capped_fluid_gives_what_a_small_job_cannot_use_to_others() -> None:
    # a may hold 1/4 only: done at 8; b takes 3/4 to 8 s (6 of 7), then everything
    work = [FluidJob("a", 0.0, 2.0, 0.25), FluidJob("b", 0.0, 7.0, 1.0)]
    assert list(capped_finish_s(work)) == [8.0, 9.0]


def test_lateness_is_relative_to_the_fluid_response() -> None:
    made = schedule("fifo", PAIR, 1)  # a 4, b 6 s; fluid 6 and 5
    late = measure(made, references_of(made), made).late_uncapped
    assert late.mean == pytest.approx((0.0 + 1 / 4) / 2)
    assert (late.largest, late.beyond) == (pytest.approx(0.25), 0)


def test_jobs_beyond_the_bound_are_counted() -> None:
    """Bound: 2 x longest pod + largest job; one long job may delay b, five of 10 s may not."""
    for length, beyond in ((20, 0), (30, 0)):
        made = schedule("fifo", [job("a", 0, length), job("b", 0.5, 1)], 1)
        assert measure(made, references_of(made), made).late_uncapped.beyond == beyond
    many = [job(f"a{at}", 0, 10) for at in range(5)] + [job("b", 0.5, 1)]
    made = schedule("fifo", many, 1)  # b ends at 51, fluid about 2.5, bound 12 s later
    assert measure(made, references_of(made), made).late_uncapped.beyond == 1


def test_response_slowdown_use_and_makespan() -> None:
    made = schedule("fifo", [job("a", 0, 2), job("b", 0, 2), job("c", 10, 2)], 2)
    figures = measure(made, references_of(made), made)
    assert figures.response_s.mean == pytest.approx((1 + 2 + 1) / 3)
    assert figures.slowdown.mean == pytest.approx((1 + 2 + 1) / 3)  # each needs 1 s alone
    assert figures.makespan_s == pytest.approx(11.0)
    assert figures.utilisation == pytest.approx(6 / 22)


def test_dvr_and_dsr_are_against_user_job_fair() -> None:
    jobs = [job("a1", 0, 6), job("a2", 0.5, 1), job("b1", 0.5, 2)]
    made, fair = schedule("fifo", jobs, 2), schedule("ujf", jobs, 2)
    # fifo ends at 3, 4, 5; ujf at 5, 4, 3: b1 waits 2 s longer than its 2.5 s
    ratios = measure(made, references_of(made), fair).deadlines
    assert (ratios.dvr, ratios.violations) == (pytest.approx(2 / 2.5), 1)
    assert (ratios.dsr, ratios.slacks) == (pytest.approx((-2 / 5 + 0) / 2), 2)


TWO = [job("a", 0, 2), job("b", 0, 2)]


def test_shares_count_only_contended_time() -> None:
    # a runs to 2 s, then b: from 3 s on nothing waits; from 2 s on b is alone and entitled to all
    shares = user_shares(schedule("ujf", TWO, 1))
    assert shares.contended_s == pytest.approx(3.0)
    assert dict(zip(shares.users, shares.entitled, strict=True)) == pytest.approx({"a": 1 / 3, "b": 2 / 3})
    assert dict(zip(shares.users, shares.received, strict=True)) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert shares.jain == pytest.approx(2.5**2 / (2 * (2**2 + 0.5**2)))


def test_every_number_of_a_comparison_is_json() -> None:
    comparison = compare(Setting(workload(job("a", 0, 1)), lambda: Slots(4)), ["fifo", "fairlane"])
    text = json.dumps(as_json(comparison), allow_nan=False)
    assert json.loads(text)["policies"]["fairlane"]["shares"]["jain"] is None


def test_estimates_of_the_model_are_those_of_runs_that_could_have_ended() -> None:
    ran = [Job("etl", "ann", 0.0, (10.0, 30.0)), Job("etl", "ann", 31.0, (40.0,))]
    other = [
        Job("new", "ann", 32.0, (5.0,)),
        Job("etl", "bob", 33.0, (5.0,)),
        Job("etl", "ann", 80.0, (8.0,)),
    ]
    jobs = workload_of([*ran, *other], "t")
    error = errors_of("model", 0, jobs)
    told_s = [error(each) * each.pod_seconds / each.pods for each in jobs.jobs]
    assert told_s == pytest.approx([60.0, 20.0, 20.0, 20.0, (20.0 + 40.0) / 2])


def test_estimates_are_exact_biased_constant_or_lognormal() -> None:
    jobs = workload(job("a", 0, 1), job("b", 0, 4), job("c", 0, 16))
    assert [errors_of("exact", 0, jobs)(each) for each in jobs.jobs] == [1, 1, 1]
    assert [errors_of("bias:[ab]=0.1,bias:b=2", 0, jobs)(each) for each in jobs.jobs] == [0.1, 0.2, 1]
    assert [errors_of("constant", 0, jobs)(each) * each.pod_seconds for each in jobs.jobs] == [4, 4, 4]


def test_lognormal_errors_have_median_one_and_are_seeded() -> None:
    jobs = workload(job("a", 0, 1))
    errors, again = errors_of("lognormal:0.5", 7, jobs), errors_of("lognormal:0.5", 7, jobs)
    logs = [math.log(errors(jobs.jobs[0])) for _ in range(4000)]
    assert [math.log(again(jobs.jobs[0])) for _ in range(4000)] == logs
    assert statistics.mean(logs) == pytest.approx(0.0, abs=0.03)
    assert statistics.stdev(logs) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "text", ["lognormal", "lognormal:-1", "lognormal:x", "bias:a", "bias:z=2", "best", ""]
)
def test_an_unreadable_estimate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="estimates: "):
        errors_of(text, 0, workload(job("a", 0, 1)))


def test_a_gang_is_placed_across_nodes_or_not_at_all() -> None:
    cluster = Nodes([Node("n1", 2.0, 8.0, 0.0), Node("n2", 3.0, 2.0, 0.0)])
    place = cluster.take(Request(1.0, 1.0), 4)  # two on n1, two (by memory) on n2
    assert place is not None
    assert cluster.take(Request(1.0, 1.0), 1) is None
    cluster.free(place)
    assert cluster.take(Request(1.0, 1.0), 5) is None
    assert cluster.take_on(Request(1.0, 1.0), ["n2", "n2"]) is not None
    assert cluster.take_on(Request(1.0, 1.0), ["n2"]) is None


def test_the_dominant_share_is_of_the_whole_cluster() -> None:
    cluster = Nodes([Node("n1", 4.0, 100.0, 2.0), Node("n2", 4.0, 100.0, 0.0)])
    assert cluster.share(Request(1.0, 10.0, 1.0)) == 0.5
    assert cluster.share(Request(2.0, 10.0)) == 0.25
    assert np.isinf(Nodes([Node("n", 1.0, 1.0, 0.0)]).share(Request(1.0, 0.0, 1.0)))


def test_nodes_are_read_with_counts_and_a_broken_line_is_named(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "nodes.csv"
    path.write_text("name,cpu,memory,gpu,count\ncpu,16,64Gi,0,2\ngpu,8,32Gi,4,\n")
    assert [(each.name, each.cpu, each.gpu) for each in read_nodes(path).nodes] == [
        ("cpu-1", 16, 0),
        ("cpu-2", 16, 0),
        ("gpu", 8, 4),
    ]
    path.write_text("cpu,memory,gpu\n16,lots,0\n")
    with pytest.raises(TraceError, match=r"nodes\.csv:2: 'lots' is not a quantity"):
        read_nodes(path)
