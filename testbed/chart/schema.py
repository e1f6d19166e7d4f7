"""The schema of the chart's values: values.schema.yaml, with `settings` made from scheduler/config.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scheduler.config import Settings
from scheduler.core.admission.kinds import KNOWN
from scheduler.edge.sources import preset_names

Schema = dict[str, Any]
FILE = Path(__file__).with_name("values.schema.yaml")
CHARTS_OWN = {
    "": (
        *("kubeconfig", "token", "token_file", "admission"),
        *("predictor_address", "predictor_ca_file", "extender_url", "recorder_url", "controller_url"),
    ),
    # secrets do not belong into a ConfigMap: scheduler.prometheusSecret brings them as files
    "PrometheusSettings": ("bearer_token", "password"),
    "ExtenderSettings": ("host", "port", "metrics_host", "metrics_port", "prefix"),
    "RecorderSettings": ("host", "port", "store_url"),
    "ControllerSettings": ("host", "port", "url", "name", "namespace", "scheduler_name"),
    "PredictorSettings": (
        "host",
        "port",
        "metrics_host",
        "metrics_port",
        "registry",
        "certificate_file",
        "key_file",
    ),
    "PredictorCertificate": ("secret", "namespace", "names"),
    "ProbeSettings": ("host", "port", "metrics_port", "ca_file", "certificate_file", "key_file"),
}
"""Settings, by section, that the chart sets or has other values for."""
IN_WORDS = ("pattern", "must", "exclusiveMinimum")
"""Keywords whose refusals by Helm nobody would understand."""
PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
URL = rf"^(https?://([^/\s@]*@)?([^/\s:@?#\[\]]+|\[[0-9A-Fa-f:.]+\])(:{PORT})?([/?#]\S*)?)?$"
"""Its port is let out of our pods."""
URLS = {
    "url": "an http or https URL, such as http://prometheus.monitoring:9090, or empty",
    "proxy": "an http or https URL, such as http://proxy:3128, or empty",
}


def values_schema() -> Schema:
    """The JSON schema of all values."""
    schema: Schema = yaml.safe_load(FILE.read_text())
    schema["properties"]["admission"]["properties"]["kinds"]["items"]["enum"] = list(KNOWN)
    settings, parts = _settings()
    schema["properties"]["settings"] = settings
    schema["$defs"] |= parts
    return schema


def schema_text() -> str:
    """values.schema.json: without what the chart checks in words (forms.py)."""
    return json.dumps(_without_forms(values_schema()), indent=1) + "\n"


def _without_forms(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_forms(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # a property may have the name of a keyword
    return {
        key: _without_forms(one)
        for key, one in schema.items()
        if key not in IN_WORDS or isinstance(one, dict)
    }


def resolved(schema: Schema, one: Schema) -> Schema:
    """`one`, a part of `schema`, with what it refers to; its own description wins."""
    if "$ref" not in one:
        return one
    target = resolved(schema, schema["$defs"][one["$ref"].rpartition("/")[2]])
    return {**target, **{key: value for key, value in one.items() if key != "$ref"}}


def _settings() -> tuple[Schema, Schema]:
    """The schema of `settings`, and of the parts that it refers to."""
    made = Settings.model_json_schema()
    parts: Schema = made.pop("$defs")
    for section, names in CHARTS_OWN.items():
        properties = (parts[section] if section else made)["properties"]
        for name in names:
            del properties[name]  # a KeyError: the setting is gone, and its name here too late
    # what the processes check by code, said so that Helm can check it too
    for name, must in URLS.items():
        parts["PrometheusSettings"]["properties"][name] |= {"pattern": URL, "must": must}
    preset, _inline = made["properties"]["sources"]["items"]["oneOf"]
    preset["enum"] = list(preset_names())
    made["description"] = (
        "Settings of the processes, as in fairlane.yaml; what the chart sets is not among them."
    )
    used = {name: _cleaned(parts[name]) for name in sorted(_referred(made, parts))}
    return _cleaned(made), used


def _referred(schema: Any, parts: Schema) -> set[str]:
    """Names of the parts that `schema` needs."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        fresh = {name for name in _references(waiting.pop()) if name not in found}
        found |= fresh
        waiting += [parts[name] for name in fresh]
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.rpartition("/")[2]
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def _cleaned(schema: Any) -> Any:
    """Without what only Python needs: titles, and defaults, which the processes know by themselves."""
    if isinstance(schema, list):
        return [_cleaned(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    properties = {name: _cleaned(one) for name, one in schema.get("properties", {}).items()}
    kept = {
        key: _cleaned(one)
        for key, one in schema.items()
        if key not in ("title", "default", "properties", "format", "writeOnly")
    }
    return kept | ({"properties": properties} if properties else {})
