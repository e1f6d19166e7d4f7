"""Whatever the workload and the policy: nothing is lost, nothing overlaps, and the references are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queue_oracles import PouredJob, poured_finish
from queue_oracles import max_min as slow_max_min

from scheduler.core.queue import fluid
from scheduler.core.queue.fluid import fluid_finish
from simulator.capped import capped_finish_s
from simulator.cluster import Node, Nodes, Slots
from simulator.comparison import Setting, simulate
from simulator.fluid import FluidJob, uncapped_finish_s
from simulator.metrics import measure, references_of
from simulator.policies.fairlane import FairlaneScheduler
from simulator.policies.registry import NAMES
from simulator.shares import intervals, max_min
from simulator.state import Schedule
from simulator.workload import Job, Request
from tests.simulator_builders import workload

SLOTS = 4
QUARTERS = st.integers(1, 24).map(lambda quarters: quarters / 4)
ESTIMATES = st.sampled_from(["exact", "lognormal:1.0", "constant"])


@st.composite
def jobs(draw: st.DrawFn, *, gangs: bool = True, most: int = 8) -> list[Job]:
    """A few jobs of three users; times in quarters of a second, so that many things coincide."""
    made = []
    for at in range(draw(st.integers(1, most))):
        user = draw(st.sampled_from("abc"))
        pods = draw(st.integers(1, 5))
        gang = gangs and pods <= SLOTS and draw(st.booleans())
        length_s = draw(QUARTERS)
        request = Request(draw(st.sampled_from([1.0, 2.0])), draw(st.sampled_from([0.0, 1.0, 3.0])))
        submitted_s = draw(st.integers(0, 40)) / 4
        made.append(Job(f"{user}{at}", user, submitted_s, (length_s,) * pods, request, gang))
    return made


def most_held(schedule: Schedule) -> float:
    return max(float(part.held.sum(axis=0).max()) for part in intervals(schedule))


@pytest.mark.parametrize("policy", NAMES)
@given(made=jobs(), estimates=ESTIMATES)
@settings(max_examples=25)
def test_every_pod_runs_once_and_never_more_than_there_is_room(
    policy: str, made: Sequence[Job], estimates: str
) -> None:
    schedule = simulate(Setting(workload(*made), lambda: Slots(SLOTS), estimates), policy)
    assert len(schedule.submissions) == len(made)
    for each in schedule.submissions:
        mine = schedule.job == each.index
        held_s = (schedule.share[mine] * (schedule.end_s[mine] - schedule.start_s[mine])).sum()
        assert held_s == pytest.approx(each.share * each.job.pod_seconds)
        assert schedule.start_s[mine].min() >= each.job.submitted_s
    assert most_held(schedule) <= 1.0 + 1e-9


@pytest.mark.parametrize("policy", NAMES)
@given(made=jobs(gangs=False), estimates=ESTIMATES)
@settings(max_examples=25)
def test_no_slot_is_idle_while_a_lone_pod_waits(policy: str, made: Sequence[Job], estimates: str) -> None:
    schedule = simulate(Setting(workload(*made), lambda: Slots(SLOTS), estimates), policy)
    for part in intervals(schedule):
        held, wanted = part.held.sum(axis=0), part.wanted.sum(axis=0)
        assert np.allclose(held, np.minimum(1.0, wanted))


@pytest.mark.parametrize("policy", ["fairlane", "fifo", "drf"])
@given(made=jobs())
@settings(max_examples=25)
def test_on_nodes_every_pod_runs_once(policy: str, made: Sequence[Job]) -> None:
    nodes = [Node("n1", 4.0, 8.0, 0.0), Node("n2", 2.0, 3.0, 0.0)]
    schedule = simulate(Setting(workload(*made), lambda: Nodes(nodes)), policy)
    assert len(schedule.submissions) + len(schedule.left_out) == len(made)
    ran = sum(each.job.pods for each in schedule.submissions)
    pods = [each.share for each in schedule.submissions]
    assert round((schedule.share / np.array(pods)[schedule.job]).sum() if ran else 0) == ran


@given(made=jobs(gangs=False))
@settings(max_examples=40)
def test_theorem_bound_of_the_settled_clock(made: Sequence[Job]) -> None:
    """Slots, lone pods, exact estimates: nobody ends later than his fluid finish + 2 l_max + L_max / M."""
    setting = Setting(workload(*made), lambda: Slots(SLOTS))
    ours, fair = simulate(setting, "fairlane"), simulate(setting, "ujf")
    assert measure(ours, references_of(ours), fair).late_uncapped.beyond == 0


@given(made=jobs(gangs=False), slots=st.sampled_from([1, 2, 4]))
@settings(max_examples=150)
def test_core_and_independent_model_agree_on_every_job(made: Sequence[Job], slots: int) -> None:
    """Slots, lone pods, exact estimates, no two jobs at one instant: a reservation changes nothing."""
    apart = [replace(each, submitted_s=each.submitted_s + 0.0137 * at) for at, each in enumerate(made)]
    assert_agreement(apart, slots, "exact")


LONE = Request(1.0, 0.0)
RETURNS_IN_DEBT = (
    Job("b0", "b", 0.0, (0.25,), LONE, False),
    Job("a1", "a", 0.0, (0.25,), LONE, False),
    Job("a2", "a", 0.0, (0.25,), LONE, False),
    Job("b3", "b", 0.25, (0.25, 0.25), LONE, False),
    Job("b4", "b", 0.75, (0.25,), LONE, False),
)
"""The liar's first job outlives its estimate and is all he has; then he comes back with two more."""


@given(made=jobs(gangs=False), error=st.sampled_from([0.1, 0.5, 3.0, 10.0]))
@example(made=RETURNS_IN_DEBT, error=0.1)
@settings(max_examples=75)
def test_core_and_independent_model_agree_while_one_user_lies(made: Sequence[Job], error: float) -> None:
    """One slot: of ends at one instant the core acts on the first before it hears of the second."""
    apart = [replace(each, submitted_s=each.submitted_s + 0.0137 * at) for at, each in enumerate(made)]
    assert_agreement(apart, 1, f"bias:{apart[0].user}={error}")


def assert_agreement(made: Sequence[Job], slots: int, estimates: str) -> None:
    setting = Setting(workload(*made), lambda: Slots(slots), estimates)
    core, model = (simulate(setting, policy) for policy in ("fairlane", "settled"))
    finished_s = [each.finished_s for each in model.submissions]
    assert [each.finished_s for each in core.submissions] == pytest.approx(finished_s)


FLUID_JOBS = st.builds(
    FluidJob,
    user=st.sampled_from("abc"),
    submitted_s=st.integers(0, 8).map(lambda halves: halves / 2),
    work=st.integers(1, 8).map(lambda quarters: quarters / 4),
    cap=st.sampled_from([0.125, 0.25, 0.5, 1.0]),
)


@given(made=st.lists(FLUID_JOBS, min_size=1, max_size=5), weight=st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=60)
def test_fluid_references_agree_with_a_slow_fluid(made: Sequence[FluidJob], weight: float) -> None:
    weights = {"a": weight}
    for capped, finish_s in ((False, uncapped_finish_s), (True, capped_finish_s)):
        slow = [
            PouredJob(
                each.user,
                each.submitted_s,
                each.work,
                each.cap if capped else math.inf,
                weights.get(each.user, 1.0),
            )
            for each in made
        ]
        assert list(finish_s(made, weights)) == pytest.approx(poured_finish(slow, 1.0), abs=1e-6)


@given(made=st.lists(FLUID_JOBS, min_size=1, max_size=30), weight=st.sampled_from([0.5, 1.0, 3.0]))
def test_fluid_references_agree_with_the_one_that_production_exports(
    made: Sequence[FluidJob], weight: float
) -> None:
    weights = {"a": weight}
    for capped, finish_s in ((False, uncapped_finish_s), (True, capped_finish_s)):
        theirs = fluid_finish(
            [
                fluid.FluidJob(
                    str(at),
                    each.user,
                    each.submitted_s,
                    each.work,
                    each.cap if capped else math.inf,
                    weights.get(each.user, 1.0),
                )
                for at, each in enumerate(made)
            ]
        )
        expected = [theirs[str(at)] for at in range(len(made))]
        assert list(finish_s(made, weights)) == pytest.approx(expected, abs=1e-6)


@given(
    wanted=st.lists(st.integers(0, 12).map(lambda tenths: tenths / 10), min_size=1, max_size=6),
    weights=st.lists(st.sampled_from([0.25, 1.0, 2.0, 5.0]), min_size=6, max_size=6),
)
def test_max_min_agrees_with_pouring(wanted: list[float], weights: list[float]) -> None:
    allocated = max_min(np.array(wanted)[:, None], np.array(weights[: len(wanted)]))[:, 0]
    slow = slow_max_min(list(zip(weights, wanted, strict=False)), 1.0)
    assert list(allocated) == pytest.approx(slow, abs=1e-9)


@given(made=jobs())
@settings(max_examples=20)
def test_invariants_of_the_core_hold_after_every_event(made: Sequence[Job]) -> None:
    from simulator.engine import Simulation

    cluster = Slots(SLOTS)
    scheduler = FairlaneScheduler(cluster, {}, invariants_every=1)
    schedule = Simulation(workload(*made), cluster, scheduler, lambda _: 0.5).run()
    assert len(schedule.submissions) == len(made)


@given(made=jobs(), estimates=ESTIMATES)
@settings(max_examples=20)
def test_the_same_run_twice_is_the_same(made: Sequence[Job], estimates: str) -> None:
    def run() -> list[float]:
        return list(simulate(Setting(workload(*made), lambda: Slots(SLOTS), estimates, 3), "fairlane").end_s)

    assert run() == run()
