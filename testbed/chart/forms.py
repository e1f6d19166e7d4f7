"""What values must look like, as the chart checks it: a sentence for each pattern, limit and lack.

Helm checks values.schema.json with a library that prints bare regular
expressions, and of limits the wrong half. So these are taken out of the schema
and into files/forms.json, which templates/_forms.tpl goes through. Nor does it
ask for what is not there: null takes a default out, and --reuse-values upgrades
with the defaults of the chart before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from testbed.chart.helm import CHART
from testbed.chart.schema import Schema, resolved, values_schema

EACH = "*"
"""In a path: every item of a list, every value of a map."""


@dataclass(frozen=True)
class Form:
    """A value at `path` matches `pattern` if it is a string, and is above `above` if it is a number.

    `above` is text, because zero is not left out then. `of` is "keys" where the
    keys of a map are meant. `absent` says what becomes of a value that is null or
    missing: it is "refused", or an empty "map" or "list" is put in its place.
    """

    path: tuple[str, ...]
    must: str = ""
    pattern: str = ""
    above: str = ""
    of: str = ""
    absent: str = ""


def forms() -> list[Form]:
    """All of them in the order of the schema, first those of values that are not there.

    Raises:
        KeyError: a pattern is not said in words.
    """
    schema = values_schema()
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return list(dict.fromkeys([*_absent(schema, schema, defaults, ()), *_of(schema, schema, ())]))


def forms_text() -> str:
    """files/forms.json."""
    lines = [json.dumps({key: value for key, value in vars(one).items() if value}) for one in forms()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _of(whole: Schema, one: Any, path: tuple[str, ...]) -> Iterator[Form]:
    if "$ref" in one:
        yield from _of(whole, whole["$defs"][one["$ref"].rpartition("/")[2]], path)
    if "pattern" in one:
        yield Form(path, one["must"], pattern=one["pattern"])
    if "exclusiveMinimum" in one:
        above = f"{one['exclusiveMinimum']:g}"
        yield Form(path, one.get("must", f"above {above}"), above=above)
    if "propertyNames" in one:
        yield from (replace(form, of="keys") for form in _of(whole, one["propertyNames"], path))
    for choice in (*one.get("anyOf", ()), *one.get("oneOf", ())):
        yield from _of(whole, choice, path)
    for name, below in one.get("properties", {}).items():
        yield from _of(whole, below, (*path, name))
    for below in (one.get("items"), one.get("additionalProperties")):
        if isinstance(below, dict):
            yield from _of(whole, below, (*path, EACH))


def _absent(whole: Schema, above: Schema, defaults: Any, path: tuple[str, ...]) -> Iterator[Form]:
    """What has a default, and is not the same without it; of an open map (resources) all may be left out."""
    whole_section = not path or _section(above, defaults)
    for name, default in defaults.items():
        one, here = resolved(whole, above.get("properties", {}).get(name, {})), (*path, name)
        if isinstance(default, dict):
            yield Form(here, absent="refused" if _section(one, default) else "map")
            yield from _absent(whole, one, default, here)
        elif isinstance(default, list):
            yield Form(here, absent="refused" if "minItems" in one else "list")
        elif whole_section and default != "" and "null" not in one.get("type", ""):
            yield Form(here, absent="refused")


def _section(one: Schema, default: Schema) -> bool:
    """Whether it has a default of everything that may be in it."""
    return bool(default) and one.get("properties", {}).keys() == default.keys()
