"""What values must look like, as the chart checks it: a sentence for each pattern and each lower limit.

Helm checks values.schema.json with a library that prints bare regular
expressions, and of limits the wrong half. So these are taken out of the schema
and into files/forms.json, which templates/_forms.tpl goes through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from testbed.chart.schema import Schema, values_schema

EACH = "*"
"""In a path: every item of a list, every value of a map."""


@dataclass(frozen=True)
class Form:
    """A value at `path` matches `pattern` if it is a string, and is above `above` if it is a number.

    `above` is text, because zero is not left out then. `of` is "keys" where the
    keys of a map are meant.
    """

    path: tuple[str, ...]
    must: str
    pattern: str = ""
    above: str = ""
    of: str = ""


def forms() -> list[Form]:
    """All of them, in the order of the schema.

    Raises:
        KeyError: a pattern is not said in words.
    """
    schema = values_schema()
    return list(dict.fromkeys(_of(schema, schema, ())))


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
