"""Alerts and dashboards ask for metrics that our processes export; every alert has its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from metric_names import exported, named

from testbed.chart.dashboards import dashboards

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "helm/fairlane/files/alerts.yaml").read_text())
RUNBOOKS = ROOT / "docs" / "runbooks"
EXPORTED = exported()


def test_metrics_are_read_from_the_source_by_their_kinds() -> None:
    assert {
        "fairlane_controller_leads",
        "fairlane_queue_releases_total",
        "fairlane_queue_lateness_bucket",
        "fairlane_queue_waiting_gangs",
        "fairlane_extender_calls_total",
        "fairlane_recorder_store_writable",
        "fairlane_admission_reviews_total",
        "fairlane_predictor_model_trained_at_seconds",
        "fairlane_probe_rounds_total",
        "fairlane_probe_rtt_seconds",
    } <= EXPORTED
    assert not {"fairlane_queue_releases", "fairlane_extender", "fairlane_queue"} & EXPORTED


def test_metrics_of_an_expression_are_found_among_functions_and_labels() -> None:
    expression = 'sum by (le) (rate(a_bucket{user=~"b|c"}[5m])) / on (d) group_left (e) 2 * f_total offset 5m'
    assert named(expression) == {"a_bucket", "f_total"}
    assert named("time() - max(g_seconds) > 14 * 86400") == {"g_seconds"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_has_a_page(rule: dict[str, Any]) -> None:
    asked = named(rule["expr"])
    assert asked
    assert asked - EXPORTED == set()
    assert rule["labels"].keys() == {"severity"}
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
    for part in (f"# {rule['alert']}", "What users notice", "## Find the cause", "## Mend it"):
        assert part in page


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_asks_for_what_there_is(name: str) -> None:
    panels = dashboards()[name]["panels"]
    asked = set().union(*(named(line) for panel in panels for line in panel["lines"].values()))
    assert len(panels) >= 10
    assert asked - EXPORTED == set()


def test_only_what_never_falls_is_taken_for_a_counter() -> None:
    """A fall is a restart for `rate` and `increase`: all that ever was would have come at that moment."""
    panels = [panel for one in dashboards().values() for panel in one["panels"]]
    expressions = [line for panel in panels for line in panel["lines"].values()]
    expressions += [rule["expr"] for rule in RULES]
    counted = {
        name
        for expression in expressions
        for name in re.findall(r"\b(?:rate|increase|irate)\s*\(\s*(\w+)", expression)
    }
    assert len(counted) > 20
    assert {name for name in counted if not name.endswith(("_total", "_bucket", "_sum", "_count"))} == set()


def test_every_page_is_of_an_alert_and_in_the_list() -> None:
    alerts = {rule["alert"] for rule in RULES}
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    listed = set(re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text()))
    assert alerts == pages == listed


def test_metrics_in_the_documentation_exist_too() -> None:
    sources = {path.stem for path in (ROOT / "scheduler/edge/presets").iterdir()}
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for name in set(re.findall(r"\b(fairlane_\w+)\b", path.read_text())) - sources:
            assert {name, f"{name}_bucket", f"{name}_total"} & EXPORTED, (path.name, name)
