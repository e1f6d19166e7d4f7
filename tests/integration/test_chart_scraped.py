"""Who finds targets by annotations finds all of our parts that tell over HTTP, where that is wanted."""

from __future__ import annotations

import pytest
from chart_variants import EVERYTHING, Object, helm_or_skip

PORTS = {"recorder": 8890, "scheduler": 8895, "controller": 8891, "predictor": 8896, "probe": 8894}


def annotated(values: Object) -> dict[str, tuple[str, str]]:
    """Services with annotations of Prometheus: scrape and port."""
    services = [one for one in helm_or_skip().objects(values) if one["kind"] == "Service"]
    told = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in services}
    found = {
        name: (one.get("prometheus.io/scrape"), one.get("prometheus.io/port")) for name, one in told.items()
    }
    return {name: one for name, one in found.items() if any(one)}


@pytest.mark.parametrize("placement", ["extender", "hint"])
def test_every_part_is_found_by_annotations_where_that_is_wanted(placement: str) -> None:
    wanted: Object = {
        "probe": {"enabled": True},
        "admission": {"by": "webhook"},
        "bundledPrometheus": {"enabled": True},
        "settings": {"controller": {"placement": placement}},
        "monitoring": {"scrapeAnnotations": True},
    }
    assert annotated(wanted) == {f"fairlane-{name}": ("true", str(port)) for name, port in PORTS.items()}


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_nobody_is_told_to_scrape_us_twice(values: Object) -> None:
    assert annotated(values) == {}
