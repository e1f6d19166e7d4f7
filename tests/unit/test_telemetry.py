"""The poller against answers of every bad kind: unknown is NaN, and one bad reading spoils no other."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from canned_prometheus import CannedPrometheus

from model.snapshot import EMPTY, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller, promql

NODES = [NodeIdentity(f"n{i}", (f"10.0.0.{i}",)) for i in range(3)]
INTERVAL_S = 5.0
LOAD = {
    "name": "loads",
    "measured_at": "measured",
    "interval": INTERVAL_S,
    "readings": {"load1_per_core": {"expr": "load"}, "memory_available": {"expr": "memory"}},
}
PAIRS = {
    "name": "pairs",
    "node_label": "source",
    "measured_at": "rounds",
    "interval": INTERVAL_S,
    "readings": {"rtt": {"expr": "rtt"}, "loss": {"expr": "loss"}},
}


@pytest.fixture
def prometheus() -> Iterator[CannedPrometheus]:
    with CannedPrometheus() as canned:
        canned.series = {
            "load": [({"node": n.name}, 0.5) for n in NODES],
            "memory": [({"node": n.name}, 0.25) for n in NODES],
            "measured": [({"node": n.name}, lambda t: t - 1) for n in NODES],
            f"vector({INTERVAL_S:g})": [({}, INTERVAL_S)],
            "rtt": [({"source": "n0", "target": "n1"}, 0.001), ({"source": "n1", "target": "n0"}, 0.002)],
            "rounds": [
                ({"source": "n0", "target": "n1"}, lambda t: t),
                ({"source": "n1", "target": "n0"}, lambda t: t),
            ],
        }
        yield canned


def poller(
    canned: CannedPrometheus, *sources: dict[str, Any], nodes: Any = NODES, **settings: Any
) -> TelemetryPoller:
    prometheus = {"url": canned.url, "timeout_s": 10.0, **settings}
    values = {"prometheus": prometheus, "sources": sources or [LOAD, PAIRS], "epoch_s": 5}
    return TelemetryPoller(Settings.model_validate(values), lambda: nodes)


def polled(canned: CannedPrometheus, *sources: dict[str, Any], **more: Any) -> TelemetrySnapshot:
    made = poller(canned, *sources, **more)
    assert made.poll(), made.stats.failure
    made.stop()
    return made.snapshot


def loads(snapshot: TelemetrySnapshot) -> list[float]:
    return snapshot.node_readings["load1_per_core"].tolist()


def test_a_poll_makes_one_dated_snapshot(prometheus: CannedPrometheus) -> None:
    snapshot = polled(prometheus)
    assert snapshot.nodes == ("n0", "n1", "n2")
    assert loads(snapshot) == [0.5, 0.5, 0.5]
    assert snapshot.node_age_s["load1_per_core"] == pytest.approx([1, 1, 1], abs=1.0)
    assert snapshot.pair_readings["rtt"].from_node(0).tolist()[1] == 0.001
    assert snapshot.problems == ()


def test_windowed_readings_have_all_windows(prometheus: CannedPrometheus) -> None:
    prometheus.series["load"] = [({"node": "n0"}, lambda t: 10 + 0.01 * (t - prometheus.now()))]
    snapshot = polled(prometheus)
    assert snapshot.node_readings["load1_per_core_slope_1m"][0] == pytest.approx(0.01, rel=1e-3)
    assert snapshot.node_readings["load1_per_core_slope_5m"][0] == pytest.approx(0.01, rel=1e-3)
    assert (
        snapshot.node_readings["load1_per_core_mean_5m"][0]
        < snapshot.node_readings["load1_per_core_mean_1m"][0]
        < 10
    )
    assert snapshot.node_readings["load1_per_core_forecast"][0] > 10
    assert math.isnan(snapshot.node_readings["load1_per_core_forecast"][1])
    assert "memory_available_mean_1m" not in snapshot.node_readings


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", -3.0, 1e9, "rubbish"])
def test_an_impossible_value_is_unknown_and_harms_no_other_node(
    prometheus: CannedPrometheus, value: Any
) -> None:
    prometheus.series["load"][1] = ({"node": "n1"}, value)
    snapshot = polled(prometheus)
    assert loads(snapshot) == pytest.approx([0.5, math.nan, 0.5], nan_ok=True)
    assert snapshot.node_readings["memory_available"].tolist() == [0.25] * 3


def test_an_impossible_value_is_reported(prometheus: CannedPrometheus) -> None:
    prometheus.series["load"][1] = ({"node": "n1"}, -3.0)
    assert "load1_per_core from loads: 1 of 3 series have an impossible value." in polled(prometheus).problems


def test_noise_of_rate_around_the_bound_of_a_ratio_is_no_error(prometheus: CannedPrometheus) -> None:
    prometheus.series["memory"] = [({"node": "n0"}, -0.004), ({"node": "n1"}, 1.01), ({"node": "n2"}, -0.2)]
    assert polled(prometheus).node_readings["memory_available"].tolist() == pytest.approx(
        [0, 1, math.nan], nan_ok=True
    )


@pytest.mark.parametrize(("interval_s", "limit_s"), [(20.0, 60.0), (5.0, 30.0)])
def test_a_reading_is_stale_after_three_intervals_of_its_own_but_not_within_half_a_minute(
    prometheus: CannedPrometheus, interval_s: float, limit_s: float
) -> None:
    ages = {"n0": limit_s - 2.0, "n1": limit_s + 2.0, "n2": 1.0}
    prometheus.series["measured"] = [
        ({"node": n}, lambda _, a=a: prometheus.now() - a) for n, a in ages.items()
    ]
    prometheus.series[f"vector({interval_s:g})"] = [({}, interval_s)]
    snapshot = polled(prometheus, {**LOAD, "interval": interval_s})
    assert loads(snapshot) == pytest.approx([0.5, math.nan, 0.5], nan_ok=True)
    assert any("1 of 3 series are stale" in problem for problem in snapshot.problems)


def test_windows_of_a_stale_reading_are_unknown_too(prometheus: CannedPrometheus) -> None:
    prometheus.series["measured"] = [({"node": "n0"}, lambda _: prometheus.now() - 100)]
    readings = polled(prometheus).node_readings
    assert all(math.isnan(readings[f"load1_per_core{suffix}"][0]) for suffix in ("", "_mean_5m", "_forecast"))


def test_a_reading_whose_age_nobody_tells_is_unknown(prometheus: CannedPrometheus) -> None:
    del prometheus.series["measured"]
    snapshot = polled(prometheus)
    assert np.isnan(loads(snapshot)).all()
    assert any("3 of 3 series have no known age" in problem for problem in snapshot.problems)


def test_a_clock_ahead_is_dated_by_prometheus_own_sample_time(prometheus: CannedPrometheus) -> None:
    prometheus.series["measured"] = [({"node": "n0"}, lambda t: t + 3600)]
    prometheus.series["timestamp(measured)"] = [({"node": "n0"}, lambda t: t - 3)]
    snapshot = polled(prometheus)
    assert loads(snapshot)[0] == 0.5
    assert snapshot.node_age_s["load1_per_core"][0] == pytest.approx(3, abs=1.0)


def test_the_interval_is_learned_where_none_is_configured(prometheus: CannedPrometheus) -> None:
    learned = "(max_over_time(measured[5m]) - min_over_time(measured[5m])) / changes(measured[5m])"
    prometheus.series[learned] = [({"node": "n0"}, 2.0), ({"node": "n1"}, 30.0)]
    prometheus.series["measured"] = [({"node": n.name}, lambda _: prometheus.now() - 40) for n in NODES]
    source = {key: value for key, value in LOAD.items() if key != "interval"}
    assert loads(polled(prometheus, source)) == pytest.approx([math.nan, 0.5, 0.5], nan_ok=True)


def test_a_gap_shorter_than_three_intervals_is_bridged(prometheus: CannedPrometheus) -> None:
    def missing_now(t: float) -> float | None:
        return 0.5 if t < prometheus.now() - 4 else None

    prometheus.series["load"] = [({"node": "n0"}, missing_now)]
    snapshot = polled(prometheus)
    assert loads(snapshot)[0] == 0.5
    assert snapshot.node_age_s["load1_per_core"][0] >= 4


def test_an_empty_vector_is_unknown_without_complaint(prometheus: CannedPrometheus) -> None:
    prometheus.series["load"] = []
    snapshot = polled(prometheus)
    assert np.isnan(loads(snapshot)).all()
    assert snapshot.problems == ()


def test_series_of_strangers_are_counted_and_not_fatal(prometheus: CannedPrometheus) -> None:
    prometheus.series["load"].append(({"instance": "192.0.2.9:9100"}, 0.1))
    snapshot = polled(prometheus)
    assert loads(snapshot) == [0.5, 0.5, 0.5]
    assert any("1 of 4 series name no node of the cluster, e.g. {instance=" in p for p in snapshot.problems)


def test_a_renamed_node_is_unknown_until_its_new_name_reports(prometheus: CannedPrometheus) -> None:
    renamed = [*NODES[:2], NodeIdentity("new", ("10.0.0.2",))]
    assert loads(polled(prometheus, nodes=renamed)) == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)
    prometheus.series["load"][2] = prometheus.series["measured"][2] = ({"instance": "10.0.0.2:9100"}, 0.5)
    prometheus.series["measured"][2] = ({"instance": "10.0.0.2:9100"}, lambda t: t)
    assert loads(polled(prometheus, nodes=renamed)) == [0.5, 0.5, 0.5]


def test_a_value_is_read_as_of_now_and_not_of_the_last_whole_second(prometheus: CannedPrometheus) -> None:
    prometheus.now = lambda: 1_700_000_000.9
    prometheus.series["load"] = [({"node": "n0"}, lambda t: t - 1_700_000_000)]
    prometheus.series["measured"] = [({"node": "n0"}, lambda t: t)]
    snapshot = polled(prometheus, LOAD)
    assert loads(snapshot)[0] == pytest.approx(0.9, abs=1e-3)
    assert snapshot.node_age_s["load1_per_core"][0] == pytest.approx(0.0, abs=1e-3)


def test_whose_a_series_is_follows_series_and_nodes_from_poll_to_poll(prometheus: CannedPrometheus) -> None:
    nodes = list(NODES)
    prometheus.series["load"] = [({"node": "n0"}, 0.1), ({"node": "n1"}, 0.2)]
    made = poller(prometheus, LOAD, nodes=nodes)
    assert made.poll()
    prometheus.series["load"] = [({"node": "n1"}, 0.2), ({"node": "n0"}, 0.1)]
    assert made.poll()
    assert loads(made.snapshot)[:2] == [0.1, 0.2]
    nodes.insert(0, NodeIdentity("a-new-one"))  # the others move on by one position
    assert made.poll()
    assert loads(made.snapshot)[1:3] == [0.1, 0.2]
    made.stop()


def test_of_two_series_for_one_node_the_fresher_wins(prometheus: CannedPrometheus) -> None:
    both = [{"node": "n0", "instance": "a"}, {"node": "n0", "instance": "b"}]
    prometheus.series["load"] = [(both[0], 7.0), (both[1], 9.0)]
    prometheus.series["measured"] = [(both[0], lambda t: t - 8), (both[1], lambda t: t - 2)]
    snapshot = polled(prometheus)
    assert loads(snapshot)[0] == 9.0
    assert any("1 of 2 series repeat a node or pair" in problem for problem in snapshot.problems)


def test_two_series_for_one_pair_count_once(prometheus: CannedPrometheus) -> None:
    prometheus.series["rtt"].append(({"source": "n0", "target": "10.0.0.1"}, 0.9))
    snapshot = polled(prometheus)
    assert snapshot.pair_readings["rtt"].from_node(0).tolist()[1] == 0.001
    assert len(snapshot.pair_readings["rtt"].value) == 2


def test_a_pair_with_itself_is_no_pair(prometheus: CannedPrometheus) -> None:
    prometheus.series["rtt"] = [({"source": "n0", "target": "10.0.0.0"}, 0.1)]
    prometheus.series["rounds"] = [({"source": "n0", "target": "10.0.0.0"}, lambda t: t)]  # nor undated
    assert len(polled(prometheus).pair_readings["rtt"].value) == 0


def test_a_pair_is_not_dated_by_another_pair(prometheus: CannedPrometheus) -> None:
    del prometheus.series["rounds"][1]
    assert polled(prometheus).pair_readings["rtt"].source.tolist() == [0]


def test_the_first_source_wins_where_it_knows(prometheus: CannedPrometheus) -> None:
    second = {**LOAD, "name": "second", "readings": {"load1_per_core": {"expr": "other"}}}
    prometheus.series["load"] = prometheus.series["load"][:1]
    prometheus.series["other"] = [({"node": n.name}, 2.0) for n in NODES]
    snapshot = polled(prometheus, LOAD, second)
    assert loads(snapshot) == [0.5, 2.0, 2.0]
    assert snapshot.node_readings["load1_per_core_mean_1m"].tolist() == [0.5, 2.0, 2.0]
    assert loads(polled(prometheus, second, LOAD)) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"data": 5}', b'{"data": {"result": 5}}', b"\x00\xff", b'"a"']
)
def test_rubbish_for_one_reading_spoils_no_other(prometheus: CannedPrometheus, body: bytes) -> None:
    prometheus.raw["load"] = body
    snapshot = polled(prometheus)
    assert np.isnan(loads(snapshot)).all()
    assert snapshot.node_readings["memory_available"].tolist() == [0.25] * 3
    assert any(problem.startswith("load1_per_core from loads: ") for problem in snapshot.problems)


def test_one_unreadable_series_spoils_no_other(prometheus: CannedPrometheus) -> None:
    now = math.floor(time.time())
    good = {"metric": {"node": "n1"}, "values": [[now, "0.5"]]}
    bad = [{"metric": 3, "values": [[now, "1"]]}, {"values": 1}, 7, {"metric": {}, "values": [["x", "1"]]}]
    prometheus.raw["load"] = json.dumps({"data": {"result": [*bad, good]}}).encode()
    prometheus.now = lambda: now
    snapshot = polled(prometheus)
    assert loads(snapshot)[1] == 0.5
    assert any("4 of 5 series could not be read" in problem for problem in snapshot.problems)


@pytest.mark.parametrize(
    "odd", ['[[T,"1","2"],[T]]', '[[T,"1"],[T,"x"]]', '[["1",T]]', '[[T,"NaN"],[T]]', "[[T]]"]
)
def test_samples_of_another_shape_are_not_taken_for_those_of_another_series(
    prometheus: CannedPrometheus, odd: str
) -> None:
    now = math.floor(time.time())
    series = ['{"metric":{"node":"n0"},"values":[[T,"0.1"]]}', '{"metric":{"node":"n1"},"values":ODD}']
    result = ",".join(series).replace("ODD", odd).replace("T", str(now))
    prometheus.raw["load"] = f'{{"data":{{"result":[{result}]}}}}'.encode()
    prometheus.now = lambda: now
    snapshot = polled(prometheus)
    assert loads(snapshot)[0] == 0.1
    assert np.isnan(loads(snapshot)[1])


def test_a_number_that_json_does_not_know_spoils_no_other(prometheus: CannedPrometheus) -> None:
    prometheus.series["load"] = [({"node": "n0"}, "NaN"), ({"node": "n1"}, 0.4), ({"node": "n2"}, "+Inf")]
    assert loads(polled(prometheus))[1] == 0.4


def test_an_http_error_for_one_reading_is_named(prometheus: CannedPrometheus) -> None:
    prometheus.status["load"] = 500
    prometheus.raw["load"] = b'{"status":"error","error":"out of order"}'
    assert any("500" in problem and "out of order" in problem for problem in polled(prometheus).problems)


def test_a_slow_answer_is_given_up_and_spoils_no_other(prometheus: CannedPrometheus) -> None:
    prometheus.delay_s["load"] = 9.0
    begun = time.monotonic()
    snapshot = polled(prometheus, timeout_s=1.5)
    assert time.monotonic() - begun < 8.0
    assert snapshot.node_readings["memory_available"].tolist() == [0.25] * 3
    assert any("no answer within 1.5 s" in problem for problem in snapshot.problems)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_dripping_answer_is_given_up(prometheus: CannedPrometheus, part: str) -> None:
    prometheus.drip = part
    made = poller(prometheus, timeout_s=0.3)
    begun = time.monotonic()
    assert not made.poll()
    assert time.monotonic() - begun < 3.0
    assert "no answer within" in made.stats.failure


def test_a_huge_answer_is_refused(prometheus: CannedPrometheus) -> None:
    prometheus.raw["load"] = b'{"data": {"result": [' + b" " * 100_000 + b"]}}"
    problems = polled(prometheus, max_response_bytes=50_000).problems
    assert any("larger than prometheus.max_response_bytes (50000)" in problem for problem in problems)


def test_while_prometheus_is_down_the_last_snapshot_stays_with_its_date() -> None:
    with CannedPrometheus() as canned:
        canned.series = {"load": [({"node": "n0"}, 1.0)], "measured": [({"node": "n0"}, lambda t: t)]}
        made = poller(canned, LOAD)
        assert made.poll()
    before = made.snapshot
    assert not made.poll()
    assert made.snapshot is before
    assert "cannot be reached" in made.stats.failure
    assert (made.stats.polls, made.stats.failures) == (2, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"data": {"result": []}}',
        b'{"data": {"result": [0, "x"]}}',
        b'{"data": {"result": [0, "NaN"]}}',
        b'{"data": {"result": [0, "1e12"]}}',
        b'{"data": {"result": [0, "1e300"]}}',
        pytest.param(b'{"data": {"result": ' + b"[" * 100_000, id="nested too deeply"),
    ],
)
def test_rubbish_everywhere_makes_no_snapshot(prometheus: CannedPrometheus, body: bytes) -> None:
    prometheus.raw["*"] = body
    made = poller(prometheus)
    assert not made.poll()
    assert made.snapshot is EMPTY
    assert made.stats.failure.startswith(f"Prometheus at {prometheus.url}: ")


def test_when_no_query_is_answered_the_poll_has_failed(prometheus: CannedPrometheus) -> None:
    made = poller(prometheus)
    assert made.poll()
    before = made.snapshot
    prometheus.status["*"] = 503
    prometheus.raw["*"] = b"overloaded"
    prometheus.raw["time()"] = b'{"data": {"result": [1, "1700000000"]}}'
    prometheus.status["time()"] = 200
    assert not made.poll()
    assert made.snapshot is before
    assert "no query was answered" in made.stats.failure


def test_without_a_url_the_poll_says_what_to_set(prometheus: CannedPrometheus) -> None:
    made = poller(prometheus, url="")
    assert not made.poll()
    assert "set prometheus.url" in made.stats.failure


def test_a_failing_node_list_is_a_failed_poll_not_a_dead_poller(prometheus: CannedPrometheus) -> None:
    made = poller(prometheus)
    made._nodes = lambda: 1 / 0  # type: ignore[assignment,return-value]
    assert not made.poll()
    assert "ZeroDivisionError" in made.stats.failure


def test_no_nodes_yet_is_said(prometheus: CannedPrometheus) -> None:
    assert any("no nodes yet" in problem for problem in polled(prometheus, nodes=[]).problems)


def test_a_wrong_clock_of_ours_is_said_and_does_not_age_the_readings(prometheus: CannedPrometheus) -> None:
    prometheus.now = lambda: time.time() - 500
    snapshot = polled(prometheus)
    assert loads(snapshot) == [0.5] * 3
    assert any("differ by 500 s" in problem for problem in snapshot.problems)


def test_credentials_are_sent_and_a_token_file_is_read_again(
    prometheus: CannedPrometheus, tmp_path: Any
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    made = poller(prometheus, bearer_token_file=str(token), headers={"X-Scope-OrgID": "us"})
    made.poll()
    token.write_text("second")
    made.poll()
    sent = [headers["Authorization"] for _, headers in prometheus.requests]
    assert set(sent) == {"Bearer first", "Bearer second"}
    assert all(headers["X-Scope-OrgID"] == "us" for _, headers in prometheus.requests)


def test_a_missing_token_file_is_named(prometheus: CannedPrometheus) -> None:
    made = poller(prometheus, bearer_token_file="/nowhere/token")
    assert not made.poll()
    assert "/nowhere/token" in made.stats.failure


def test_basic_authentication_is_sent(prometheus: CannedPrometheus) -> None:
    poller(prometheus, username="me", password="secret").poll()
    assert all(headers["Authorization"].startswith("Basic ") for _, headers in prometheus.requests)


def test_a_poll_slower_than_the_epoch_is_skipped_not_piled_up(prometheus: CannedPrometheus) -> None:
    prometheus.delay_s["time()"] = 0.25
    values = {"prometheus": {"url": prometheus.url}, "sources": [LOAD], "epoch_s": 0.1}
    made = TelemetryPoller(Settings.model_validate(values), lambda: NODES)
    with made:
        while made.stats.polls < 3:
            time.sleep(0.05)
        assert sum(thread.name == "telemetry" for thread in threading.enumerate()) == 1
    asked = sum(query["query"] == ["time()"] for query, _ in prometheus.requests)
    assert asked == made.stats.polls
    assert made.stats.skipped >= 2 * (made.stats.polls - 1)


def test_the_poller_recovers_by_itself(prometheus: CannedPrometheus) -> None:
    made = poller(prometheus)
    prometheus.status["*"], prometheus.raw["*"] = 500, b"down"
    assert not made.poll()
    prometheus.status.clear()
    prometheus.raw.clear()
    assert made.poll()
    assert made.stats.failure == ""
    assert made.snapshot.epoch == 1


def test_a_rate_is_asked_only_where_its_range_is_covered() -> None:
    expr = promql('sum without (d) ($rate(x{d="a"})) / rate(y[$range])', 60.0)
    covered = '(rate(x{d="a"}[60000ms]) and x{d="a"} and (x{d="a"} offset 60000ms))'
    assert expr == f"sum without (d) ({covered}) / rate(y[60000ms])"
