"""The benchmarks' own arithmetic, against figures known beforehand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import jobs, rate
from benchmarks.burst import Bound
from benchmarks.figures import Histogram, histogram, latency, ratio_of_medians
from benchmarks.machine import cpu_s
from benchmarks.readings import MEASURED_AT, SPREAD, Series, all_series, metric, snapshot
from benchmarks.report import as_json
from benchmarks.schedulers import Arm, config_of
from benchmarks.telemetry_source import Answers
from model.snapshot import NODE_READINGS, PAIR_READINGS
from testbed.cluster import Cluster
from testbed.configuration import scheduler_config
from testbed.layout import PORTS, Layout, Options

EXPOSITION = """\
# TYPE calls_seconds histogram
calls_seconds_bucket{le="0.001"} 90
calls_seconds_bucket{le="0.002"} 99
calls_seconds_bucket{le="+Inf"} 100
calls_seconds_sum 0.08
calls_seconds_count 100
# TYPE other_seconds histogram
other_seconds_bucket{point="Score",le="+Inf"} 2
other_seconds_sum{point="Score"} 1.0
other_seconds_bucket{point="Filter",le="+Inf"} 5
other_seconds_sum{point="Filter"} 9.0
"""


def test_a_latency_summary_has_the_known_quantiles() -> None:
    found = latency([number / 1000.0 for number in range(1, 101)])
    assert (found.calls, found.max_ms) == (100, 100.0)
    assert found.p50_ms == pytest.approx(50.5)
    assert found.p99_ms == pytest.approx(99.01)


def test_no_call_is_no_latency() -> None:
    with pytest.raises(ValueError, match="no call"):
        latency([])


def test_a_histogram_tells_bounds_and_shares() -> None:
    found = histogram(EXPOSITION, "calls_seconds")
    assert (found.count, found.mean_ms) == (100, pytest.approx(0.8))
    assert (found.bound_ms(0.5), found.bound_ms(0.99)) == (1.0, 2.0)
    assert found.share_within(0.002) == 0.99
    assert math.isinf(found.bound_ms(0.995))


def test_series_of_other_labels_do_not_count() -> None:
    assert histogram(EXPOSITION, "other_seconds", {"point": "Score"}).mean_ms == 500.0


def test_the_difference_of_two_histograms_is_what_came_between() -> None:
    before = Histogram((0.001, math.inf), (10.0, 10.0), 0.005)
    after = Histogram((0.001, math.inf), (10.0, 30.0), 0.105)
    assert (after - before).cumulative == (0.0, 20.0)
    assert (after - before).mean_ms == pytest.approx(5.0)
    assert after - Histogram((), (), 0.0) == after


def test_a_ratio_of_medians_lies_inside_its_interval() -> None:
    found = ratio_of_medians([80.0, 82.0, 78.0, 40.0], [100.0, 101.0, 99.0, 100.0])
    assert found.value == pytest.approx(0.79)
    assert found.low <= found.value <= found.high


def test_rounds_run_forward_and_backward_in_turn() -> None:
    arms = rate.arms("http://a", "http://b", "http://c")
    names = [arm.name for _, arm in rate.order(arms, 2)]
    assert names == [*rate.ARMS, *reversed(rate.ARMS)]


def test_the_rate_counts_from_the_release_to_the_last_binding() -> None:
    bound = Bound((0.5, 1.0, 1.5, 2.0))
    assert bound.rate == 2.0
    assert bound.inner_rate == 2.0


def _cluster() -> Cluster:
    cluster = Cluster(Options(nodes=4, sites=2), directory=Path("/nowhere"))
    cluster._use(Layout(cluster.directory, dict.fromkeys(PORTS, 1), {}))
    return cluster


def test_plain_and_ours_are_configured_as_the_testbed_does() -> None:
    cluster = _cluster()
    plain, ours = (scheduler_config(cluster.options, cluster.layout, ours=ours) for ours in (False, True))
    hints = scheduler_config(cluster.options, cluster.layout, ours=True, hints=True)
    arms = {
        arm.name: arm for arm in rate.arms(cluster.extender_url, "http://127.0.0.1:2", "http://127.0.0.1:3")
    }
    assert tuple(arms) == rate.ARMS
    assert config_of(arms[rate.PLAIN], cluster) == plain
    assert config_of(arms[rate.OURS], cluster) == ours
    assert config_of(arms[rate.HINT], cluster) == config_of(arms[rate.HINT_RUNNING], cluster) == hints


def test_where_placement_is_written_at_release_nobody_is_asked_and_the_hint_outweighs_the_rest() -> None:
    cluster = _cluster()
    hints = scheduler_config(cluster.options, cluster.layout, ours=True, hints=True)
    assert "extenders" not in hints
    (weight,) = hints["profiles"][0]["plugins"]["score"]["enabled"]
    assert weight == {"name": "NodeAffinity", "weight": 100}


def test_the_floor_differs_from_ours_by_the_extender_alone() -> None:
    cluster = _cluster()
    arms = rate.arms(cluster.extender_url, "http://127.0.0.1:2", "http://127.0.0.1:3")
    silent, naming, ours, scored = (config_of(arm, cluster) for arm in arms[2:6])
    assert scored["extenders"][0].pop("prioritizeVerb") == "prioritize"
    assert scored["extenders"][0].pop("weight") == 100
    scored["extenders"][0]["filterVerb"] = "filter"
    for other in (naming, ours, scored):
        other["extenders"][0]["urlPrefix"] = silent["extenders"][0]["urlPrefix"]
        other["profiles"][0]["schedulerName"] = silent["profiles"][0]["schedulerName"]
        assert silent == other
    assert "extenders" not in config_of(Arm("none", ""), cluster)


def test_every_generated_reading_is_possible_and_known_to_the_snapshot() -> None:
    readings = {reading.name: reading for reading in (*NODE_READINGS, *PAIR_READINGS)}
    for name, (low, high) in SPREAD.items():
        assert readings[name].low <= low <= high <= readings[name].high


def test_a_generated_snapshot_has_every_pair_once() -> None:
    found = snapshot(np.random.default_rng(0), ["a", "b", "c", "d", "e"], ["s"], 0.0)
    rtt = found.pair_readings["rtt"]
    ends = list(zip(rtt.source.tolist(), rtt.destination.tolist(), strict=True))
    assert len(ends) == len(set(ends)) == 5 * 4
    assert all(a != b for a, b in ends)


def test_generated_answers_lie_on_the_grid_that_was_asked_for() -> None:
    answers = Answers(all_series(["a", "b"], ["s"], seed=1))
    body = msgspec.json.decode(answers.range(metric("cpu_use"), 1000.0, 1030.0, 15.0))
    result = body["data"]["result"]
    assert [series["metric"]["node"] for series in result] == ["a", "b", "s"]
    assert [point[0] for point in result[0]["values"]] == [1000, 1015, 1030]
    again = msgspec.json.decode(answers.range(metric("cpu_use"), 2000.0, 2030.0, 15.0))
    assert [point[0] for point in again["data"]["result"][0]["values"]] == [2000, 2015, 2030]


def test_generated_answers_know_their_age_and_nothing_else() -> None:
    answers = Answers({metric("cpu_use"): Series([{"node": "a"}], np.array([0.5]))})
    measured = msgspec.json.decode(answers.range(MEASURED_AT, 1000.0, 1000.0, 1.0))
    assert float(measured["data"]["result"][0]["values"][0][1]) == 990.0
    nothing = msgspec.json.decode(answers.range("node_load1", 0.0, 60.0, 60.0))
    assert nothing["data"]["result"] == []


def test_a_burst_repeats_the_kinds_in_turn() -> None:
    kinds = jobs.kinds(["s1", "s2"])
    made = jobs.pods(len(kinds) + 1, "x", "fairlane", kinds)
    first, *_, last = made.values()
    assert len(made) == len(kinds) + 1
    assert first["metadata"]["annotations"] == last["metadata"]["annotations"]


def test_results_hold_no_number_that_is_not_one() -> None:
    assert msgspec.json.decode(as_json({"a": float("nan"), "b": [1.23456789]})) == {"a": None, "b": [1.23457]}


def test_cpu_time_of_a_child_counts_also_once_it_has_ended() -> None:
    before_s, own_before_s = cpu_s(os.getpid()), cpu_s(os.getpid(), with_children=False)
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    own_s = cpu_s(os.getpid(), with_children=False) - own_before_s
    assert cpu_s(os.getpid()) - before_s >= 0.25 + own_s
