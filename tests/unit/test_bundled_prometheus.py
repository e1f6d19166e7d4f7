"""The chart's own Prometheus keeps what the presets read, and is the one that the tests run."""

from __future__ import annotations

import re

from scheduler.config import Settings
from scheduler.edge.sources import load_sources
from testbed.binaries import PROMETHEUS_VERSION
from testbed.chart.helm import CHART

TEMPLATE = (CHART / "templates" / "bundled-prometheus.yaml").read_text()
METRIC = re.compile(r"\bnode_[A-Za-z0-9_]+\b(?!\s*[=!]~?\")")


def kept() -> re.Pattern[str]:
    found = re.search(r'source_labels: \[__name__\], regex: "([^"]+)"', TEMPLATE)
    assert found is not None
    return re.compile(found[1])


def test_no_metric_of_node_exporter_that_a_preset_reads_is_thrown_away() -> None:
    [source] = load_sources(Settings.model_validate({"sources": ["node_exporter"]}))
    texts = [reading.expr for reading in source.readings.values()]
    read = set(METRIC.findall(" ".join([*texts, source.measured_at, source.newest, "node_uname_info"])))
    assert len(read) > 15
    assert {name for name in read if not kept().fullmatch(name)} == set()
    assert not kept().fullmatch("node_filesystem_size_bytes")


def test_its_image_is_of_the_version_that_the_tests_run() -> None:
    assert f'"tag" "v{PROMETHEUS_VERSION}"' in TEMPLATE


def test_every_rule_of_its_rights_has_a_reason() -> None:
    lines = TEMPLATE.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("- apiGroups:")]
    assert rules
    assert all(lines[number - 1].startswith("#") for number in rules)
