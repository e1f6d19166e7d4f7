"""Names that YAML reads as something else: 123 and true are names of releases, namespaces and Secrets too."""

from __future__ import annotations

import re
from typing import Any

import yaml
from chart_variants import BUNDLED, Object, helm_or_skip

from testbed.chart.helm import CHART, NEWEST

TEMPLATES = CHART / "templates"


def values(name: str) -> Object:
    """Everything that can be named, named so."""
    certificate = {"issuerName": name}
    return {
        **BUNDLED,
        "image": {"pullSecrets": [name]},
        "token": {"existingSecret": name, "key": name},
        "priorityClass": {"name": name},
        "scheduler": {"prometheusSecret": name},
        "predictor": {"certificateSecret": name},
        "admission": {"by": "webhook", "webhook": {"certManager": certificate}},
        "storage": {
            "existingClaim": name,
            "registrySecret": name,
            "registryUrl": "s3://models",
        },
        "test": {"namespace": f"{name}0" if name.isdigit() else f"{name}-test"},
        "settings": {"prometheus": {"url": "http://p:9090"}},
        "bundledPrometheus": {},
    }


def kinds_of_values(name: str, more: Object) -> list[Any]:
    """What is made of them, with the kind of each value in its place."""
    words = ("template", name, str(CHART), "--namespace", name, "--kube-version", NEWEST[0])
    text = helm_or_skip().run(*words, values={**values(name), **more})
    return [_kinds(one) for one in yaml.safe_load_all(text)]


def _kinds(value: object) -> object:
    if isinstance(value, dict):
        return {type(key).__name__ + str(at): _kinds(one) for at, (key, one) in enumerate(value.items())}
    return [_kinds(one) for one in value] if isinstance(value, list) else type(value).__name__


PARTS: list[Object] = [
    {},
    {"predictor": {"certManager": {"issuerName": "NAME"}}},
    {"storage": {"postgresql": {"existingSecret": "NAME", "key": "NAME", "caKey": "NAME"}}},
    {"storage": {"storageClass": "NAME"}, "token": {"key": "NAME"}},
    {
        "settings": {},
        "scheduler": {},
        "bundledPrometheus": {"enabled": True, "storage": {"persistent": True, "storageClass": "NAME"}},
    },
]


def test_a_name_that_looks_like_a_number_or_a_truth_stays_a_name() -> None:
    for part in PARTS:
        words = kinds_of_values("word", _named(part, "word"))
        for name in ("123", "true"):
            assert kinds_of_values(name, _named(part, name)) == words, (name, part)


def _named(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _named(one, name) for key, one in value.items()}
    return name if value == "NAME" else value


def test_a_checksum_of_digits_only_stays_text() -> None:
    lines = [line for file in TEMPLATES.iterdir() for line in file.read_text().splitlines()]
    sums = [line for line in lines if "sha256sum" in line]
    assert sums
    assert all(re.search(r"\| toYaml }}$", line) for line in sums)
