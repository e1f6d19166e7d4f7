"""The published slices, cut for real pods: the load and the figures that are known of them."""

from __future__ import annotations

import pytest

from benchmarks.peer_figures import BEST, figures_of, simulated
from benchmarks.peer_loads import SLOTS, load_of
from tests.simulator_builders import macro


@pytest.mark.parametrize(
    ("name", "jobs", "users", "load", "mean_s", "late"),
    [("hetero", 125, 27, 0.63, 4.18, 0.40), ("homo", 97, 22, 0.99, 7.8, 0.15)],
)
def test_without_any_cost_uwfq_has_its_known_figures(
    name: str, jobs: int, users: int, load: float, mean_s: float, late: float
) -> None:
    """The known homo figures are of a variant of UWFQ, so they are met to a few hundredths only."""
    cut = load_of(name, macro(name).parent.parent, 0, 0)
    assert (len(cut.workload.jobs), len(cut.workload.users)) == (jobs, users)
    work_s = sum(job.pod_seconds for job in cut.workload.jobs)
    assert round(work_s / SLOTS / cut.workload.jobs[-1].submitted_s, 2) == load
    found = figures_of(simulated(cut, BEST, cut.workload.jobs, {}), cut.scored)
    assert found.mean_s == pytest.approx(mean_s, rel=0.02)
    assert found.late == pytest.approx(late, abs=0.03)
