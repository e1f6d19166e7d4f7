"""The bound of the settled fair clock: identical slots, gangs of one, exact estimates, no backfill.

Every job finishes no later than its fluid finish + 2 l_max + L_max / M, with
l_max the longest gang, L_max the largest job's slot-seconds, M slots, and the
uncapped fluid. It is a theorem where each flow has one job at a time or jobs of
one tier; priorities change the order inside a flow and are left out.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_harness import Work, play

from scheduler.core.queue.fluid import FluidJob, fluid_finish

lengths = st.sampled_from([0.5, 1.0, 2.0, 5.0, 20.0])
works = st.lists(
    st.builds(
        Work,
        flow=st.sampled_from(["a", "b", "c", "d"]),
        at_s=st.integers(0, 40).map(float),
        tasks=st.integers(1, 12),
        task_s=lengths,
    ),
    min_size=1,
    max_size=14,
)
WEIGHTS = {("a",): 1.0, ("b",): 2.0, ("c",): 4.0, ("d",): 1.0}


def worst_excess_s(jobs: list[Work], slots: int, weights: dict[tuple[str, ...], float]) -> float:
    """By how much the latest job exceeds its bound; at most 0 when the bound holds."""
    finish = play(jobs, slots, backfill=False, weights=weights).finish_s
    fluid = fluid_finish(
        [
            FluidJob(str(i), j.flow, j.at_s, j.slot_seconds, weight=weights.get((j.flow,), 1.0))
            for i, j in enumerate(jobs)
        ],
        float(slots),
    )
    longest_s, largest = max(j.task_s for j in jobs), max(j.slot_seconds for j in jobs)
    bound_s = 2 * longest_s + largest / slots
    return max(finish[i] - fluid[str(i)] - bound_s for i in range(len(jobs)))


@given(works, st.sampled_from([1, 2, 3, 8]), st.sampled_from([{}, WEIGHTS]))
@settings(max_examples=120)
def test_every_job_finishes_within_the_bound_of_its_fluid_finish(
    jobs: list[Work], slots: int, weights: dict[tuple[str, ...], float]
) -> None:
    assert worst_excess_s(jobs, slots, weights) <= 1e-6


@pytest.mark.long
@given(works, st.sampled_from([1, 2, 3, 8, 20]), st.sampled_from([{}, WEIGHTS]))
@settings(max_examples=5000)
def test_the_bound_holds_over_many_more_workloads(
    jobs: list[Work], slots: int, weights: dict[tuple[str, ...], float]
) -> None:
    assert worst_excess_s(jobs, slots, weights) <= 1e-6
