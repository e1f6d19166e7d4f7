"""Generated load has the statistics its description asks for."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from simulator.generator import (
    Bursts,
    Exponential,
    Lognormal,
    Once,
    Pareto,
    Poisson,
    Regular,
    Scenario,
    ScenarioError,
    Uniform,
    description,
    generate,
    read_scenario,
    ready,
)

STREAM = "{name: u, arrivals: {kind: poisson, every_s: 2}, jobs: [{duration_s: {kind: constant, value: 1}}]}"


def scenario(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_scenario(str(path))


def taken(arrivals: Poisson | Bursts | Regular | Once, until_s: float) -> list[float]:
    times = []
    for at_s in arrivals.times(random.Random(3)):
        if at_s > until_s:
            break
        times.append(at_s)
    return times


def test_poisson_arrivals_have_their_rate_and_spread() -> None:
    times = taken(Poisson(2.0), 20_000)
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)


def test_bursts_come_together_and_in_order() -> None:
    times = taken(Bursts(every_s=100.0, jobs=10, within_s=5.0), 50_000)
    assert len(times) == pytest.approx(5_000, rel=0.1)
    assert times == sorted(times)
    close = sum(b - a <= 5.0 for a, b in pairwise(times))
    assert close / len(times) > 0.85


def test_regular_and_single_arrivals() -> None:
    assert taken(Regular(every_s=10.0, first_s=1.0), 25) == [1.0, 11.0, 21.0]
    assert taken(Once(at_s=4.0, jobs=2), 25) == [4.0, 4.0]


@pytest.mark.parametrize(
    ("distribution", "median", "mean"),
    [
        (Uniform(2.0, 6.0), 4.0, 4.0),
        (Exponential(5.0), 3.466, 5.0),
        (Lognormal(10.0, 0.5), 10.0, 11.331),
        # bounded: median (1 - 0.999 / 2)^(-1 / 1.5), mean 1.5 / 0.5 x (1 - 0.1) / 0.999
        (Pareto(1.0, 1.5, 100.0), 1.5864, 2.7027),
    ],
)
def test_durations_follow_their_distribution(distribution: Pareto, median: float, mean: float) -> None:
    source = random.Random(5)
    drawn = [distribution.draw(source) for _ in range(40_000)]
    assert statistics.median(drawn) == pytest.approx(median, rel=0.03)
    assert statistics.mean(drawn) == pytest.approx(mean, rel=0.05)


def test_the_heavy_tail_is_heavy_and_bounded() -> None:
    """P(X > 10) = (10^-1.1 - 1000^-1.1) / (1 - 1000^-1.1) for least 1, alpha 1.1, most 1000."""
    source = random.Random(5)
    drawn = [Pareto(1.0, 1.1, 1000.0).draw(source) for _ in range(40_000)]
    assert max(drawn) <= 1000.0
    assert sum(each > 10 for each in drawn) / len(drawn) == pytest.approx(0.0790, rel=0.07)


def test_the_mix_is_drawn_by_share(tmp_path: Path) -> None:
    text = """
horizon_s: 20000
users:
  - name: u
    arrivals: {kind: poisson, every_s: 2}
    jobs:
      - {share: 3, pods: 1, duration_s: {kind: constant, value: 1}}
      - share: 1
        pods: 8
        gang: true
        cpu: 500m
        memory: 1Gi
        gpu: 1
        duration_s: {kind: constant, value: 2}
"""
    jobs = generate(scenario(tmp_path, text), 1).jobs
    gangs = [each for each in jobs if each.gang]
    assert len(gangs) / len(jobs) == pytest.approx(0.25, abs=0.02)
    assert (gangs[0].pods, gangs[0].request.parts) == (8, (0.5, 2.0**30, 1.0))


def test_equal_seeds_give_equal_jobs_and_another_user_changes_nobody(tmp_path: Path) -> None:
    one = f"horizon_s: 100\nusers: [{STREAM}]"
    two = f"horizon_s: 100\nusers: [{STREAM}, {STREAM.replace('name: u', 'name: v')}]"
    first = generate(scenario(tmp_path, one), 1).jobs
    assert generate(scenario(tmp_path, one), 1).jobs == first
    assert generate(scenario(tmp_path, one), 2).jobs != first
    both = [each for each in generate(scenario(tmp_path, two), 1).jobs if each.user == "u"]
    shift_s = both[0].submitted_s - first[0].submitted_s  # the trace begins with its first job
    assert [each.submitted_s - shift_s for each in both] == pytest.approx(
        [each.submitted_s for each in first]
    )


def test_users_of_one_stream_do_not_submit_in_step(tmp_path: Path) -> None:
    two = STREAM.replace("{name: u,", "{name: u, count: 2,")
    jobs = generate(scenario(tmp_path, f"horizon_s: 100\nusers: [{two}]"), 1).jobs
    times = [{each.submitted_s for each in jobs if each.user == user} for user in ("u-1", "u-2")]
    assert all(times)
    assert not times[0] & times[1]


def test_the_limit_keeps_the_first_jobs(tmp_path: Path) -> None:
    made = generate(scenario(tmp_path, f"horizon_s: 100000\nlimit: 7\nusers: [{STREAM}]"), 1)
    assert len(made.jobs) == 7


@pytest.mark.parametrize("name", ["adversary", "flood", "large", "mixed"])
def test_every_ready_scenario_can_be_read(name: str) -> None:
    assert name in ready()
    assert read_scenario(name).users
    assert description(name).startswith("#")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"users: [{STREAM}]", "horizon_s"),
        (f"horizon_s: -1\nusers: [{STREAM}]", "horizon_s"),
        (f"horizon_s: 1\ncolour: red\nusers: [{STREAM}]", "colour"),
        ("horizon_s: 1\nusers: [{name: u}]", "arrivals"),
        (f"horizon_s: 1\nusers: [{STREAM.replace('poisson', 'often')}]", "often"),
        ("horizon_s: [", "s.yaml"),
    ],
)
def test_a_broken_description_names_the_field(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        scenario(tmp_path, text)


def test_nothing_within_the_horizon_is_an_error(tmp_path: Path) -> None:
    late = STREAM.replace("{kind: poisson, every_s: 2}", "{kind: once, at_s: 50}")
    with pytest.raises(ScenarioError, match="no job"):
        generate(scenario(tmp_path, f"horizon_s: 10\nusers: [{late}]"), 1)
    with pytest.raises(ScenarioError, match="no such file"):
        read_scenario("nothing-of-that-name")
