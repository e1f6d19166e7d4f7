"""Grafana's JSON of the dashboards, made from dashboards.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("dashboards.yaml")
SCHEMA_VERSION = 39
"""Of Grafana 11; newer ones convert it."""
COLUMNS, WIDTH, HEIGHT = 24, 12, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Panel = dict[str, Any]


def dashboards() -> dict[str, Any]:
    """The readable source, by the name of the dashboard."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def dashboard_texts() -> Iterator[tuple[str, str]]:
    """Name and JSON of every dashboard."""
    for name, source in dashboards().items():
        yield name, json.dumps(_dashboard(name, source), indent=1) + "\n"


def _dashboard(name: str, source: dict[str, Any]) -> Panel:
    return {
        "uid": name,
        "title": source["title"],
        "tags": ["fairlane"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["fairlane"], "title": "Fairlane", "asDropdown": False}],
        "templating": {"list": [{"name": "datasource", "label": "Prometheus", **_choice()}]},
        "panels": [_panel(number, one) for number, one in enumerate(source["panels"])],
    }


def _choice() -> Panel:
    return {"type": "datasource", "query": "prometheus", "current": {}, "hide": 0}


def _panel(number: int, source: Panel) -> Panel:
    across = COLUMNS // WIDTH
    kind = source.get("kind", "timeseries")
    lines = enumerate(source["lines"].items())
    return {
        "id": number + 1,
        "type": kind,
        "title": source["title"],
        "description": source["about"],
        "datasource": DATASOURCE,
        "gridPos": {
            "x": number % across * WIDTH,
            "y": number // across * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": source["unit"], "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {},
        "targets": [_target(at, legend, expression, kind) for at, (legend, expression) in lines],
    }


def _target(at: int, legend: str, expression: str, kind: str) -> Panel:
    return {
        "refId": chr(ord("A") + at),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend,
        "instant": kind == "table",
        "range": kind != "table",
        "format": "table" if kind == "table" else "time_series",
    }
