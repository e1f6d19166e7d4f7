"""Inputs that nobody should send: good ones, damaged in their structure and in their bytes.

Input number n of a door is the same on every machine, so a failure names all that is needed to see it again.
FAIRLANE_BAD_INPUTS sets how many each door gets in the long form, FAIRLANE_BAD_INPUTS_FIRST the first number:

    FAIRLANE_BAD_INPUTS=1000000 pytest -m long -n auto tests/integration/test_bad_{input,settings}.py
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

FIRST = int(os.environ.get("FAIRLANE_BAD_INPUTS_FIRST", "0"))
DEEP = 2000
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.0, -0.0, 1.5, 1e308, 5e-324),
    *(float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "0",
        "-1",
        "1e999",
        "NaN",
        "null",
        "x" * 5000,
        "\x00",
        "\n",
        "a/b",
        "../..",
        "ä€𝄞",
        "٣",
        "\ud800",
    ),
    *("2020-13-45", "1:99:99", "0o9", "1_0", "!!python/name:os.system", "*x", "&x", "{{", "%s", "http://"),
    *([], {}, [[]], [None], {"": None}, {"x": {"x": {}}}, ["a"] * 300),
)
SCRAPS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xc3",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\\u",
    b",",
    b":",
    b"\r\n",
)
SCRAPS += (
    b"\r\n\r\n",
    b"-",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"- " * DEEP,
    b"\x7f" * 9,
)


def counts(short: int, long: int) -> list[Any]:
    """Parameters of a test: how many inputs it tries in the ordinary form, and in the long one."""
    chosen = os.environ.get("FAIRLANE_BAD_INPUTS")
    return [short, pytest.param(int(chosen or long), marks=[pytest.mark.long, pytest.mark.timeout(3600)])]


def damaged_trees(
    door: str, good: Sequence[Any], count: int, first: int = FIRST
) -> Iterator[tuple[int, Any]]:
    """Numbered values of JSON, each one of the good with one to four places of it changed."""
    for number in range(first, first + count):
        rng = random.Random(f"{door} {number}")
        whole = [copy.deepcopy(rng.choice(good))]
        for _ in range(rng.randint(1, 4)):
            _damage(rng, whole)
        yield number, whole[0]


def damaged_texts(door: str, good: Sequence[Any], count: int) -> Iterator[tuple[int, bytes]]:
    """The same as JSON texts, of which a third have damaged bytes, too."""
    for number, tree in damaged_trees(door, good, count):
        text = json.dumps(tree).encode()
        rng = random.Random(f"{door} {number} bytes")
        yield number, damaged_bytes(rng, text) if rng.random() < 0.33 else text


def damaged_bytes(rng: random.Random, good: bytes) -> bytes:
    """`good` with one to four pieces of it changed, moved, cut out or put in."""
    text = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        length = min(rng.choice((0, 1, 2, 8, 64, 100_000)), len(text) - at)
        piece = bytes(text[at : at + length])
        match rng.randrange(5):
            case 0:
                text[at : at + length] = rng.choice(SCRAPS)
            case 1:
                text[at : at + length] = rng.randbytes(min(length, 64))
            case 2:
                del text[at : at + length]
            case 3:
                text[at:at] = piece * rng.choice((1, 2, 50)) if length <= 64 else piece
            case _:
                end = rng.randint(0, len(text))
                text[end:end] = piece
    return bytes(text)


def _damage(rng: random.Random, whole: list[Any]) -> None:
    """Change one place, chosen at random, of the value in `whole`."""
    holder, key = rng.choice(list(_places(whole)))
    match rng.randrange(8):
        case 0 | 1 | 2:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        case 3:
            other, there = rng.choice(list(_places(whole)))
            holder[key] = copy.deepcopy(other[there])
        case 4 if holder is not whole:
            del holder[key]
        case 5:
            holder[key] = {"x": holder[key]} if rng.random() < 0.5 else [holder[key], holder[key]]
        case 6 if isinstance(holder, dict):
            holder[rng.choice(("", "x", "metadata", "ä", key + " ", key.upper()))] = holder.pop(key)
        case _:
            holder[key] = _stretched(rng, holder[key])


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value: what holds it, and under which key."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _stretched(rng: random.Random, value: Any) -> Any:
    """A value with some more of what it has."""
    if isinstance(value, str):
        at = rng.randint(0, len(value))
        return value[:at] + str(rng.choice([one for one in ODD if isinstance(one, str)])) + value[at:]
    if isinstance(value, list):
        return value * rng.choice((0, 2, 100)) if len(value) < 1000 else value
    if isinstance(value, dict):
        more = {f"x{n}": copy.deepcopy(rng.choice(ODD)) for n in range(rng.choice((1, 100)))}
        return {**value, **more}
    return (
        rng.choice((-1, 1e-9, 1e9, 1e300)) * value
        if isinstance(value, int | float) and value < 1e9
        else value
    )
