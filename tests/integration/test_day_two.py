"""What an administrator sees on an ordinary day, and on a bad one: status, dashboards, the page."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from living import EVE, at_work, browser_or_skip, fairlane, page, queried
from metric_names import exported
from queueing import ask, token_of

from testbed.chart.dashboards import dashboards
from testbed.cluster import Cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
NEVER_HERE = {"Gates not opened", "Later than the bound", "Evenness", "Explored", "First told expected start"}
"""Panels that are empty on a testbed where nothing goes wrong and little has happened."""


@pytest.fixture(scope="module")
def living(cluster: Cluster, trained: Path) -> Iterator[Cluster]:
    """The shared testbed at work."""
    with at_work(cluster, trained) as running:
        yield running


def status(cluster: Cluster) -> tuple[int, dict[str, Any]]:
    ended = fairlane(cluster, "status", "-o", "json")
    return ended.returncode, json.loads(ended.stdout)


def test_one_screen_tells_queue_shares_model_telemetry_and_training(living: Cluster) -> None:
    _, told = status(living)
    assert told["queue"]["waiting"] > 0
    assert told["queue"]["running"] > 0
    assert {flow["user"] for flow in told["shares"]} >= {"alice", "bob", EVE}
    assert told["placement"]["calls"] >= 12
    assert told["model"]["serving"]
    assert told["telemetry"]["readings_known"] > 3
    assert told["training"]["examples"] == 160
    text = fairlane(living, "status").stdout
    for word in ("Queue      default: ", "running on", "alice", "readings known", "last published"):
        assert word in text, text
    assert len(text.splitlines()) < 40


def test_a_part_that_is_away_is_said_in_a_sentence_and_in_the_exit_code(living: Cluster) -> None:
    living.process("predictor").stop()
    try:
        code, told = status(living)
    finally:
        living.process("predictor").start()
    assert code == 1
    assert told["model"] is None
    [trouble] = [
        one for one in told["trouble"] if one["part"] == "predictor" and "No model" in one["sentence"]
    ]
    assert "fairlane predictor" in trouble["advice"]
    assert told["queue"]["waiting"] > 0


def drawn(cluster: Cluster, legend: str, expression: str) -> bool:
    """Whether Prometheus answers with something, and with every label that the legend shows."""
    labels = set(re.findall(r"{{(\w+)}}", legend))
    return any(labels <= one["metric"].keys() for one in queried(cluster.prometheus_url, expression))


def test_every_panel_of_every_dashboard_is_answered_by_prometheus(living: Cluster) -> None:
    wanted = {
        (panel["title"], legend, expression): not (panel.get("optional") or panel["title"] in NEVER_HERE)
        for source in dashboards().values()
        for panel in source["panels"]
        for legend, expression in panel["lines"].items()
    }
    deadline_s = time.monotonic() + 60
    empty = dict(wanted)
    while time.monotonic() < deadline_s:
        empty = {line: must for line, must in empty.items() if not drawn(living, *line[1:])}
        if not any(empty.values()):
            break
        time.sleep(2)
    assert [line for line, must in empty.items() if must] == []


def test_what_is_really_exported_is_what_the_source_says(living: Cluster) -> None:
    series = queried(living.prometheus_url, '{__name__=~"fairlane_.*"}')
    names = {one["metric"]["__name__"] for one in series}
    assert len(names) > 60
    assert names - exported() == set()


def _noted_for_a_while(cluster: Cluster) -> None:
    """Until there is something to draw: shares are noted every five seconds."""
    deadline_s = time.monotonic() + 90
    while len((ask(cluster, "/v1/shares") or {"at_s": []})["at_s"]) < 8:
        assert time.monotonic() < deadline_s
        time.sleep(1)


def test_the_page_shows_the_queue_in_a_real_browser(living: Cluster, tmp_path: Path) -> None:
    browser = browser_or_skip()
    address = living.layout.url("controller").replace("://", f"://me:{token_of(living)}@") + "/"
    _noted_for_a_while(living)
    document = page(browser, tmp_path, address)
    assert 'data-told="' in document, "the script did not come to its end"
    for text in ("Queue default: ", "alice", "bob", "running on", "<polygon", "Gangs that wait"):
        assert text in document
    assert "&lt;b onclick=alert(1)&gt;eve&lt;/b&gt;" in document
    assert "<b onclick" not in document
    assert document.count("<tr>") > 20
    if wanted := os.environ.get("PAGE_PICTURE"):
        page(browser, tmp_path, address, Path(wanted))
