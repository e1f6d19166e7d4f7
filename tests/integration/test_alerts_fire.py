"""Every alert in a real Prometheus: it fires when its cause is there for its time, and else is quiet."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_worlds import (
    DAY_S,
    STEP_S,
    World,
    at,
    broken,
    healthy,
    idle,
    now_plus,
    per_minute,
    planned,
    push,
    unasked,
    young,
)
from real_prometheus import RealPrometheus, binary, eventually

from testbed.chart.dashboards import dashboards
from testbed.layout import duration_s

RULES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "helm/fairlane/files/alerts.yaml").read_text()
)
AWAY = {"FairlaneRecorderDown", "FairlaneExtenderDown", "FairlaneWebhookDown", "FairlaneQueueNotLed"}
"""They fire when a part is not there at all."""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[RealPrometheus]:
    """It scrapes nothing, takes what is written to it, and has our rules."""
    if binary("prometheus") is None:
        pytest.skip("there is no prometheus: `make programs` gets one, then this test runs")
    rules = [{name: value for name, value in rule.items() if name != "when"} for rule in RULES]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "fairlane", "rules": rules}]}))
    more: dict[str, Any] = {
        "rule_files": ["rules.yml"],
        "storage": {"tsdb": {"out_of_order_time_window": "1d"}},
        "global": {"evaluation_interval": "1s"},
    }
    made = RealPrometheus(tmp_path, {}, more=more, flags=["--web.enable-remote-write-receiver"])
    made.start()
    yield made
    made.stop()


def fired(prometheus: RealPrometheus, world: World) -> set[str]:
    """Alerts whose condition holds now, and held for all of their time."""
    end_s = time.time()
    for days_ago in (1, 0):
        push(prometheus.url, world, end_s - days_ago * DAY_S)
    return {rule["alert"] for rule in RULES if _held(prometheus, rule, end_s)}


def _held(prometheus: RealPrometheus, rule: dict[str, Any], end_s: float) -> bool:
    lasted_s = duration_s(rule.get("for", "0s"))
    words = {"query": rule["expr"], "start": end_s - lasted_s, "end": end_s, "step": STEP_S}
    steps = int(lasted_s // STEP_S) + 1
    series = _asked(prometheus, "query_range", words)["result"]
    return any(len(one["values"]) >= steps for one in series)


def _asked(prometheus: RealPrometheus, what: str, words: dict[str, Any] | None = None) -> Any:
    query = urllib.parse.urlencode(words or {})
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/{what}?{query}", timeout=30) as answer:
        return json.load(answer)["data"]


@pytest.mark.parametrize("world", [healthy, young, idle, planned, unasked], ids=lambda world: world.__name__)
def test_nobody_is_woken_for_nothing(prometheus: RealPrometheus, world: Any) -> None:
    assert fired(prometheus, world()) == set()


def test_every_fault_of_a_part_that_answers_is_told(prometheus: RealPrometheus) -> None:
    expected = {rule["alert"] for rule in RULES} - AWAY | {"FairlaneQueueNotLed"}
    assert fired(prometheus, broken()) == expected

    def raised() -> bool:
        return {one["labels"]["alertname"] for one in _asked(prometheus, "alerts")["alerts"]} == expected

    assert eventually(raised), "the rules themselves do not say what their expressions do"
    [group] = _asked(prometheus, "rules")["groups"]
    assert [(rule["name"], rule["lastError"]) for rule in group["rules"] if rule.get("lastError")] == []


def test_an_extender_that_nobody_asks_is_told_also_where_placement_is_written_at_release(
    prometheus: RealPrometheus,
) -> None:
    silent = {
        **planned(),
        'fairlane_extender_plans_total{reason="none"}': lambda _s: 20.0,
        "fairlane_extender_choices_unasked_total": per_minute(2),
    }
    assert fired(prometheus, silent) == {"FairlaneNotCalled"}


def test_a_predictor_that_went_away_is_told(prometheus: RealPrometheus) -> None:
    gone = {name: course for name, course in young().items() if "predictor_serving" not in name}
    assert fired(prometheus, gone) == {"FairlaneNoPredictions"}


def test_a_training_that_never_made_a_model_is_told(prometheus: RealPrometheus) -> None:
    failing = {**young(), "fairlane_recorder_examples": lambda _s: 1500.0}
    assert fired(prometheus, failing) == {"FairlaneNoModel"}


def test_a_part_that_is_away_is_told(prometheus: RealPrometheus) -> None:
    assert fired(prometheus, {}) == AWAY


def test_a_snapshot_that_never_came_is_as_bad_as_an_old_one(prometheus: RealPrometheus) -> None:
    never = {name: course for name, course in healthy().items() if "epoch" not in name}
    assert fired(prometheus, {**never, "fairlane_extender_epoch": lambda _s: 0.0}) == {"FairlaneTelemetryOld"}


def test_how_old_telemetry_may_be_is_what_the_settings_say(prometheus: RealPrometheus) -> None:
    seldom = {**healthy(), "fairlane_extender_epoch_age_seconds": lambda s: (s + 450) % 900}
    assert fired(prometheus, {**seldom, "fairlane_extender_epoch_age_max_seconds": at(1200)}) == set()


@pytest.mark.parametrize(("days", "told"), [(14, {"FairlaneModelStale"}), (40, set())])
def test_how_old_a_model_may_be_is_what_the_settings_say(
    prometheus: RealPrometheus, days: int, told: set[str]
) -> None:
    """Who trains once a month has no stale model after three weeks."""
    trained = {"fairlane_predictor_model_trained_at_seconds": now_plus(-20 * DAY_S)}
    after = {"fairlane_predictor_model_stale_after_seconds": at(days * DAY_S)}
    assert fired(prometheus, {**healthy(), **trained, **after}) == told


def test_our_processes_are_drawn_whatever_prometheus_calls_their_jobs(prometheus: RealPrometheus) -> None:
    """The prometheus chart, which goes by annotations, has one job for all Services."""
    where = 'instance="10.0.0.{}:8890",job="kubernetes-service-endpoints"'
    ours, others = where.format(1), where.format(2)
    world = {f"process_resident_memory_bytes{{{one}}}": at(3e8) for one in (ours, others)}
    world |= {f"process_cpu_seconds_total{{{one}}}": per_minute(6) for one in (ours, others)}
    world[f'fairlane_build_info{{{ours},part="recorder",version="0.1.0"}}'] = at(1)
    push(prometheus.url, world, time.time())
    panels = {panel["title"]: panel["lines"] for panel in dashboards()["fairlane-health"]["panels"]}
    for title, value in (("Memory", 3e8), ("CPU", 0.1)):
        [expression] = panels[title].values()
        [one] = _asked(prometheus, "query", {"query": expression})["result"]
        assert (one["metric"]["part"], one["metric"]["instance"]) == ("recorder", "10.0.0.1:8890")
        assert float(one["value"][1]) == pytest.approx(value, rel=0.05)


def living(world: World, begun_days: float, ends_days: float, of: str = "") -> World:
    """The world with certificates, of which the name holds `of`, that began so long ago and end so soon."""
    life = {
        name: now_plus(ends_days * DAY_S if "ends" in name else -begun_days * DAY_S)
        for name in world
        if "certificate_begins" in name or "certificate_ends" in name
    }
    return {**world, **{name: course for name, course in life.items() if of in name}}


def test_short_lives_alarm_nobody_as_long_as_certificates_are_renewed(prometheus: RealPrometheus) -> None:
    """An issuer may give a day at most; after two thirds of it eight hours are left."""
    assert fired(prometheus, living(healthy(), 16 / 24, 8 / 24)) == set()


def test_the_end_of_a_certificate_that_nobody_renewed_is_told(prometheus: RealPrometheus) -> None:
    both = {"FairlanePredictorCertificate", "FairlaneWebhookCertificate"}
    assert fired(prometheus, living(healthy(), 89, 1)) == both


def test_so_is_that_of_a_predictors_certificate_which_others_renew(prometheus: RealPrometheus) -> None:
    kept = "fairlane_predictor_certificate"
    without = {name: course for name, course in healthy().items() if not name.startswith(kept)}
    assert fired(prometheus, living(without, 0.97, 0.02, "served")) == {"FairlanePredictorCertificate"}
