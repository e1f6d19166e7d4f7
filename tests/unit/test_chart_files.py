"""The chart's made parts are what the code makes now; the schema knows what administrators may set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from scheduler.config import Settings
from testbed.chart.files import ROOT, differing, without_helm
from testbed.chart.forms import EACH, forms
from testbed.chart.helm import CHART
from testbed.chart.schema import CHARTS_OWN, values_schema

SCHEMA = values_schema()
TAKEN_AS_THEY_ARE = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity"}
"""Kubernetes' own, which the API server checks."""


def test_the_made_files_are_what_the_code_makes_now() -> None:
    """If this fails: make manifests."""
    assert [str(path.relative_to(ROOT)) for path in differing(without_helm())] == []


def test_the_defaults_are_all_described_and_all_that_is_described_has_a_default() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    described = SCHEMA["properties"].keys() - {"global"}
    assert defaults.keys() == described
    for name in described - {"settings"}:
        below = SCHEMA["properties"][name].get("properties", {})
        assert (defaults[name] or {}).keys() == below.keys(), name


def test_every_object_that_people_write_refuses_what_it_does_not_know() -> None:
    open_ones = [path for path, one in _objects(SCHEMA, "") if "additionalProperties" not in one]
    assert {path.rpartition(".")[2] for path in open_ones} <= TAKEN_AS_THEY_ARE


def test_every_value_says_what_it_is() -> None:
    silent = [
        path for path, one in _properties(SCHEMA, "") if not one.get("description") and "$ref" not in one
    ]
    assert [path for path in silent if not re.search(r"Settings|Source|ReadingQuery", path)] == []


def test_what_helm_would_tell_in_signs_is_told_in_words() -> None:
    told = (CHART / "values.schema.json").read_text()
    assert [word for word in ('"pattern"', '"exclusiveMinimum"', '"must"') if word in told] == []
    known = forms()
    assert {one.pattern for one in known if one.pattern} == set(_each(SCHEMA, "pattern"))
    assert [one for one in _with(SCHEMA, "pattern") if "must" not in one] == []
    assert all(re.search(r"[a-z]{2}", one.must) and "^" not in one.must for one in known if one.must)
    assert [one for one in known if not one.must and not one.absent] == []


def test_the_words_are_about_values_wherever_they_are() -> None:
    paths = {one.path: one for one in forms()}
    assert paths["image", "digest"].pattern == paths["scheduler", "kubeScheduler", "image", "digest"].pattern
    assert paths["admission", "submitters", EACH].must.startswith("a user as the API server names him")
    assert paths["controller", "resources", "limits", EACH].pattern
    assert (paths["settings", "epoch_s"].must, paths["settings", "epoch_s"].above) == ("above 0", "0")
    assert paths["settings", "sources", EACH, "readings", EACH, "interval"].above == "0"


def test_what_becomes_of_every_default_that_is_taken_out_is_settled() -> None:
    """Templates would render nonsense of null, or less than was wanted."""
    settled = {one.path for one in forms() if one.absent}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    others = {".".join(path) for path, value in _leaves(defaults, ()) if value != "" and path not in settled}
    in_maps = re.compile(r"[.](resources|exporters|dashboards[.]labels)[.]")
    assert {name for name in others if not in_maps.search(name)} == {
        *("podSecurity.userId", "controller.replicas", "scheduler.replicas", "predictor.replicas"),
        "admission.webhook.replicas",
    }


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    own = [(path, value)] if path else []
    if not isinstance(value, dict):
        return own
    return own + [found for name, one in value.items() for found in _leaves(one, (*path, name))]


def test_defaults_that_the_chart_checks_with_are_those_of_the_processes() -> None:
    """Where only one of two settings that must fit is given, the template takes the other's default."""
    text = (CHART / "templates" / "validate.yaml").read_text()
    assumed = re.findall(r'dig (?:"(\w+)" )?"(\w+)" (\d+) \.Values\.settings', text)
    assert len(assumed) >= 8
    known = Settings().model_dump()
    sections = {"": known, **known}
    assert [one for one in assumed if float(one[2]) != sections[one[0]][one[1]]] == []


def _each(schema: Any, key: str) -> list[str]:
    return [one[key] for one in _with(schema, key)]


def _with(schema: Any, key: str) -> list[dict[str, Any]]:
    """Every schema in it with that keyword; a text, since a property may have its name."""
    if isinstance(schema, list):
        return [found for one in schema for found in _with(one, key)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if isinstance(schema.get(key), str) else []
    return own + [found for one in schema.values() for found in _with(one, key)]


def test_settings_are_those_of_the_processes_but_for_the_charts_own() -> None:
    known = SCHEMA["properties"]["settings"]["properties"].keys()
    assert known == Settings.model_fields.keys() - set(CHARTS_OWN[""])
    assert "bearer_token" not in SCHEMA["$defs"]["PrometheusSettings"]["properties"]


def test_the_manifests_say_of_which_release_their_kube_scheduler_is() -> None:
    """One that is newer than the API server waits for ever for kinds that are not served."""
    text = (ROOT / "manifests" / "fairlane.yaml").read_text()
    (image,) = set(re.findall(r"image: (\S*kube-scheduler:\S+)", text))
    assert image in text.split("---")[0]


def test_the_charts_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'^version = "(.*)"', (Path(ROOT) / "pyproject.toml").read_text(), re.MULTILINE)
    assert project is not None
    assert chart["version"] == chart["appVersion"] == project[1]


def _objects(schema: Any, path: str) -> list[tuple[str, Any]]:
    """Every schema of an object, with its path."""
    found = []
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            found.append((path, schema))
        for key, one in schema.items():
            found += _objects(one, f"{path}.{key}")
    if isinstance(schema, list):
        for one in schema:
            found += _objects(one, path)
    return found


def _properties(schema: Any, path: str) -> list[tuple[str, Any]]:
    found = []
    if isinstance(schema, dict):
        for key, one in schema.items():
            if key == "properties":
                found += [(f"{path}.{name}", value) for name, value in one.items()]
            found += _properties(one, f"{path}.{key}")
    return found
