"""Kubernetes quantities and durations as plain numbers."""

from __future__ import annotations

import math
import re
from functools import lru_cache

_SUFFIX = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}
_QUANTITY = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
)
_DURATION_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")


@lru_cache(maxsize=4096)
def quantity(text: str) -> float:
    """The value of a Kubernetes quantity such as `500m`, `2`, `1.5Gi` or `1e3`.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2, 1.5Gi or 1e3")
    value = float(match[1]) * _SUFFIX[match[2] or ""]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    return value


def duration_s(text: str) -> float:
    """Seconds of a duration: a plain number of seconds, or Go's form such as `90s` or `1h30m`.

    Raises:
        ValueError: it is none, or not above zero.
    """
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        value = float(stripped)
    elif _DURATION.fullmatch(stripped):
        value = sum(float(n) * _DURATION_UNIT_S[unit] for n, unit in _DURATION_PART.findall(stripped))
    else:
        raise ValueError(f"{text!r} is not a duration such as 90, 90s or 1h30m")
    if not 0 < value < 1e9:
        raise ValueError(f"{text!r} must be above zero and below 1e9 seconds")
    return value
