"""The emulated world: reproducible, physical, and the same for truth and for running pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.physics.jobs import TICK_S, JobSpec, Run, advance, compute_speed, run_s_on_every_node
from testbed.physics.world import NodeSpec, World

WORKERS = [NodeSpec(f"node-{site}-{i}", f"site-{site}", "5g") for site in "ab" for i in range(2)]
STORES = [NodeSpec(f"store-{site}", f"site-{site}", "10g", store=True) for site in "ab"]
JOB = JobSpec(input_bytes=1e9, cpu_s=1.0, rounds=30, data_node="store-a")


def world(seed: int = 1, nodes: Sequence[NodeSpec] = (*WORKERS, *STORES)) -> World:
    return World(seed, nodes)


def run_alone_s(on: World, job: JobSpec, node: str, start_s: float) -> float:
    run = Run.begin("uid", on.index[node], on.index[job.data_node], "", job)
    elapsed_s = 0.0
    while run.phase:
        advance(on, on.at(start_s + elapsed_s), [run], TICK_S)
        elapsed_s += TICK_S
    return elapsed_s


def test_a_node_joining_changes_nothing_about_the_others() -> None:
    small, grown = world(), world(nodes=[*WORKERS, *STORES, NodeSpec("new", "site-b", "10g")])
    for name in small.index:
        here, there = small.index[name], grown.index[name]
        assert small.at(500).receive[here] == grown.at(500).receive[there]


def test_another_seed_is_another_world() -> None:
    assert not np.allclose(world(1).at(100).cpu_load, world(2).at(100).cpu_load)


@settings(max_examples=15, deadline=None)
@given(start_s=st.floats(0, 3000), node=st.sampled_from([spec.name for spec in WORKERS]))
def test_the_ground_truth_is_what_a_lone_pod_takes(start_s: float, node: str) -> None:
    truth = run_s_on_every_node(world(), JOB, start_s, [])
    assert truth[node] == pytest.approx(run_alone_s(world(), JOB, node, start_s), abs=TICK_S)


def test_the_ground_truth_is_what_happens_beside_the_others() -> None:
    on = world()
    spec = JobSpec(input_bytes=2e9, startup_s=0, data_node="store-a")
    reader = Run.begin("other", on.index["node-a-0"], on.index["store-a"], "", spec)
    truth = run_s_on_every_node(on, JOB, 10.0, [reader])
    run, elapsed_s = Run.begin("uid", on.index["node-a-0"], on.index["store-a"], "", JOB), 0.0
    runs = [run, reader.copy()]
    while run.phase:
        advance(on, on.at(10.0 + elapsed_s), runs, TICK_S)
        elapsed_s += TICK_S
    assert truth["node-a-0"] == pytest.approx(elapsed_s, abs=TICK_S)
    assert truth["node-a-0"] > run_s_on_every_node(on, JOB, 10.0, [])["node-a-0"]
    assert reader.left == {"input": 2e9}


def test_what_the_state_of_the_moment_says_knows_nothing_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a world would come to that stays as it is at the start."""
    on, long = world(), replace(JOB, input_bytes=2e10)
    told = run_s_on_every_node(on, long, 10.0, [], standing_still=True)
    truth = run_s_on_every_node(on, long, 10.0, [])
    assert max(abs(told[node] / truth[node] - 1) for node in told) > 0.05
    then = on.at(10.0)
    monkeypatch.setattr(on, "at", lambda _: then)
    assert told == run_s_on_every_node(on, long, 10.0, [])


def test_a_neighbour_that_is_nearly_done_hardly_matters() -> None:
    on = world()
    specs = (JobSpec(input_bytes=size, startup_s=0, data_node="store-a") for size in (1e6, 5e9))
    short, long = (
        run_s_on_every_node(on, JOB, 10.0, [Run.begin("o", on.index["node-a-0"], 4, "", spec)])["node-a-0"]
        for spec in specs
    )
    assert short < run_s_on_every_node(on, JOB, 10.0, [])["node-a-0"] + 0.1 < long


def test_what_is_left_of_a_tick_goes_into_the_next_phase() -> None:
    run = Run("u", 0, 0, "", {"startup": 0.1, "input": 10.0, "compute": 5.0})
    assert run.proceed(1.0, lambda phase: {"startup": 1.0, "input": 100.0, "compute": 2.0}[phase]) == 10.0
    assert run.left == {"compute": pytest.approx(5.0 - 2.0 * 0.8)}
    run.proceed(10.0, lambda _phase: 2.0)
    assert (run.phase, run.unused_s) == ("", pytest.approx(10.0 - 1.7))


def test_a_job_whose_store_is_not_there_only_computes() -> None:
    spec = JobSpec(input_bytes=1e9, cpu_s=2.0, rounds=50, startup_s=0, data_node="gone")
    alone = run_s_on_every_node(world(), replace(spec, input_bytes=0.0, rounds=0.0), 0, [])
    assert run_s_on_every_node(world(), spec, 0, []) == pytest.approx(alone, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(time_s=st.floats(0, 20_000), seed=st.integers(0, 5))
def test_the_state_is_physical_at_any_time(time_s: float, seed: int) -> None:
    state = world(seed).at(time_s)
    assert (state.receive > 0).all()
    assert ((state.cpu_load >= 0) & (state.cpu_load < 1)).all()
    assert ((state.loss > 0) & (state.loss < 0.01)).all()
    assert (state.rate > 0).all()
    assert (state.rtt > 0).all()


def test_a_store_in_another_site_is_farther_away() -> None:
    state, index = world().at(60), world().index
    near, far = index["store-a"], index["store-b"]
    assert state.rtt[near, index["node-a-0"]] < state.rtt[far, index["node-a-0"]]


def test_two_readers_on_one_node_share_its_link() -> None:
    on = world()
    specs = JobSpec(input_bytes=1e9, startup_s=0, data_node="store-a")
    runs = [Run.begin(str(i), on.index["node-a-0"], on.index["store-a"], "", specs) for i in range(2)]
    alone = advance(on, on.at(0), runs[:1], TICK_S)["0"]
    both = advance(on, on.at(0), runs, TICK_S)
    assert both["0"] == both["1"] < alone


def test_a_gang_member_waits_for_its_slowest_peer() -> None:
    on = world()
    job = JobSpec(peers_bytes=1e9, startup_s=0)
    members = [Run.begin(n, on.index[n], -1, "gang", job) for n in ("node-a-0", "node-a-1", "node-b-0")]
    received = advance(on, on.at(0), members, TICK_S)
    state = on.at(0)
    slowest = min(state.rate[on.index[p], on.index["node-a-0"]] for p in ("node-a-1", "node-b-0"))
    assert received["node-a-0"] <= slowest * TICK_S * 1.0001


def test_stores_run_no_jobs() -> None:
    assert set(run_s_on_every_node(world(), JOB, 0, [])) == {spec.name for spec in WORKERS}


def test_a_job_computes_slower_on_busy_cores() -> None:
    on = world()
    state = on.at(0)
    idle = replace(state, cpu_load=np.zeros_like(state.cpu_load))
    busy = replace(state, cpu_load=np.full_like(state.cpu_load, 0.8))
    alone = np.ones(len(on.nodes))
    assert (compute_speed(on, busy, alone) < 0.5 * compute_speed(on, idle, alone)).all()
