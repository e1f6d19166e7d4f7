"""The demo on a simulated clock: readings are those of the world in which the jobs run."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulated_telemetry import HANDLING_S
from benchmarks.worlds import SimulatedCluster, measure, summary
from testbed.demo.jobs import draw
from testbed.demo.stages import Plan
from testbed.layout import Options
from testbed.physics.jobs import run_s_on_every_node

NODES = Options(nodes=8, sites=2, seed=5)


def test_readings_are_those_of_the_world_a_moment_ago() -> None:
    at = SimulatedCluster(NODES)
    at.pass_time(45.0)
    snapshot, state = at.telemetry.snapshot, at.world.at(at.now_s - 4.0)
    assert HANDLING_S <= at.now_s - snapshot.taken_at_s <= HANDLING_S + 2.0
    for reading, truth, error in (("throughput", state.rate, 0.15), ("rtt", state.rtt, 0.1)):
        told = snapshot.pair_readings[reading]
        assert len(told.value) >= 0.8 * len(at.workers) ** 2
        true = truth[told.source, told.destination]
        assert np.median(np.abs(np.log(told.value / true))) < error
    assert np.nanmax(np.abs(snapshot.node_readings["cpu_use"] - state.cpu_load)) < 0.15


def test_a_job_that_moves_bytes_slows_the_path_that_is_measured() -> None:
    busy, idle = SimulatedCluster(NODES), SimulatedCluster(NODES)
    (job,) = draw(np.random.default_rng(0), 1, busy.stores)
    for cluster in (busy, idle):
        cluster.pass_time(30.0)
    for _ in range(6):
        busy.place(job, lambda _features, _job: 0)
    for cluster in (busy, idle):
        cluster.pass_time(6.0)
    received = [one.telemetry.snapshot.node_readings["network_receive"][0] for one in (busy, idle)]
    assert received[0] > 2 * received[1]


def test_a_job_without_neighbours_takes_what_the_ground_truth_says() -> None:
    at = SimulatedCluster(NODES)
    at.pass_time(40.0)
    (job,) = draw(np.random.default_rng(1), 1, at.stores)
    began_s = at.now_s
    at.place(job, lambda _features, _job: 2)
    at.drain()
    truth = run_s_on_every_node(at.world, job.spec, began_s, [])
    assert at.ended[-1]["run_s"] == pytest.approx(truth[at.workers[2]])
    assert at.ended[-1]["node"] == at.workers[2]


@pytest.mark.long  # trains two models
def test_a_world_is_judged_by_what_every_choice_would_have_taken() -> None:
    plan = Plan(seed=5, collect_s=60.0, rounds=1, jobs_per_round=12)
    found = measure(plan, NODES)
    regret = {one.policy: one.regret.mean for one in found.judgements}
    assert {one.decisions for one in found.judgements} == {12, 12 * 8}
    assert regret["true state of the moment"] < regret["Fairlane"] < regret["random"]
    assert [row[0] for row in summary([found])] == list(regret)
