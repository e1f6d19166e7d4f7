"""docs/values.md: every value of the chart with its default, what may be written, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from scheduler.config import Settings
from testbed.chart.helm import CHART
from testbed.chart.schema import Schema, resolved, values_schema

HEAD = """\
# Values of the chart

Made by `make manifests` from the schema and the defaults in `helm/fairlane`. Anything that is not here is
refused with a sentence. `settings` is the file fairlane.yaml of all processes; its defaults are theirs.

| value | default | may be | meaning |
|---|---|---|---|
"""
SHARED = ["resources", "podLabels", "podAnnotations", "env", "nodeSelector", "tolerations", "affinity"]
"""Alike in every part: told once."""
_WORDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "must": "{}",
}


def reference_text() -> str:
    """The whole page."""
    schema = values_schema()
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [*_rows(schema, schema["properties"], defaults, ""), *_shared(schema)]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _shared(schema: Schema) -> Iterator[tuple[str, ...]]:
    controller = schema["properties"]["controller"]["properties"]
    for name in SHARED:
        one = resolved(schema, controller[name])
        yield f"`PART.{name}`", "", _allowed(one), _escaped(one.get("description", ""))


def _rows(schema: Schema, properties: Schema, defaults: Any, above: str) -> Iterator[tuple[str, ...]]:
    for name, given in properties.items():
        if above and name in SHARED:
            continue
        one, path = resolved(schema, given), f"{above}{name}"
        default = _default(path, defaults.get(name) if isinstance(defaults, dict) else None)
        if below := one.get("properties"):
            yield from _rows(schema, below, default, f"{path}.")
        else:
            told = "" if default is None else f"`{json.dumps(default)}`"
            yield f"`{path}`", _escaped(told), _allowed(one), _escaped(one.get("description", ""))


def _default(path: str, written: Any) -> Any:
    """What values.yaml says, and for settings what the processes do without it."""
    if not path.startswith("settings") or isinstance(written, str | int | float | list):
        return written
    value: Any = Settings().model_dump(mode="json")
    for name in path.split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _allowed(one: Schema) -> str:
    if "enum" in one:
        return _escaped(", ".join(json.dumps(value) for value in one["enum"]))
    types = [kind for choice in one.get("anyOf", [one]) for kind in _types(choice) if kind != "null"]
    limits = [text.format(one[key]) for key, text in _WORDS.items() if key in one]
    return _escaped(", ".join([" or ".join(types), *limits]).strip(", "))


def _types(one: Schema) -> list[str]:
    kinds = one.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
