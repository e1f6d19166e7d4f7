"""Which values our annotations may have: one rule each, in Python and in CEL, which accept the same strings.

An empty value is one that is not given. Names and sizes are decided by one
regular expression that Python and RE2 read alike; what a rule accepts, the
readers of scheduler.core (`jobs`, `quantities`) understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler.core.quantities import duration_s
from scheduler.core.types import PREFIX

NUMBER_CHARACTERS = 32
NAME_CHARACTERS = 253
QUEUE_CHARACTERS = 63

_NUMBER = r"[0-9]+\.?[0-9]*|\.[0-9]+"
_SIZE = rf"\+?({_NUMBER})([eE][+-]?[0-9]{{1,2}})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
_PART = rf"({_NUMBER})(ns|us|µs|ms|s|m|h)"
_TEXT = r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_QUEUE = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"

_UNIT_S = (
    "part.endsWith('ns') ? 1e-9 : part.endsWith('us') ? 1e-6 : part.endsWith('µs') ? 1e-6 : "
    "part.endsWith('ms') ? 1e-3 : part.endsWith('s') ? 1.0 : part.endsWith('m') ? 60.0 : 3600.0"
)


@dataclass(frozen=True, slots=True)
class AnnotationRule:
    """`accepts` says whether a value that is not empty may stand there; `cel` is the same over `value`."""

    annotation: str
    what: str
    accepts: Callable[[str], bool]
    cel: str

    @property
    def sentence(self) -> str:
        """Why a value is refused."""
        return f"{self.annotation} must be {self.what}"


def _is_count(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", value) is not None and 1 <= int(value) <= 999_999


def _is_duration(value: str) -> bool:
    if len(value) > NUMBER_CHARACTERS or value != value.strip():
        return False
    try:
        return duration_s(value) > 0
    except ValueError:
        return False


_COUNT_CEL = "value.matches('^[0-9]{1,9}$') && int(value) >= 1 && int(value) <= 999999"
_DURATION_CEL = (
    f"size(value) <= {NUMBER_CHARACTERS} && "
    f"[value.matches(r'^({_NUMBER})$') ? double(value) : value.matches(r'^({_PART})+$') ? "
    f"value.findAll(r'{_PART}').map(part, double(part.find('^[0-9.]+')) * ({_UNIT_S})).sum() : 0.0]"
    ".all(seconds, seconds > 0.0 && seconds < 1e9)"
)


def _count(name: str) -> AnnotationRule:
    return AnnotationRule(PREFIX + name, "a whole number from 1 to 999999", _is_count, _COUNT_CEL)


def _duration(name: str) -> AnnotationRule:
    what = "seconds above zero and below 1e9, or a duration such as 90s or 1h30m"
    return AnnotationRule(PREFIX + name, what, _is_duration, _DURATION_CEL)


def _by_pattern(name: str, pattern: str, characters: int, what: str) -> AnnotationRule:
    compiled = re.compile(pattern)
    return AnnotationRule(
        PREFIX + name,
        what,
        lambda value: len(value) <= characters and compiled.fullmatch(value) is not None,
        f"size(value) <= {characters} && value.matches(r'^({pattern})$')",
    )


def _size(name: str) -> AnnotationRule:
    return _by_pattern(
        name, _SIZE, NUMBER_CHARACTERS, "a size in bytes that is not negative, such as 500M or 1.5Gi"
    )


def _text(name: str) -> AnnotationRule:
    what = f"at most {NAME_CHARACTERS} characters, no control characters, no spaces at its ends"
    return _by_pattern(name, _TEXT, NAME_CHARACTERS, what)


RULES = (
    _count("gang-size"),
    _duration("expected-duration"),
    _size("input-bytes"),
    _size("shuffle-bytes"),
    _by_pattern(
        "gang",
        _LABEL,
        NAME_CHARACTERS,
        f"at most {NAME_CHARACTERS} letters, digits, '-', '_' or '.', with a letter or digit at its ends",
    ),
    _text("job-class"),
    _by_pattern(
        "queue-name",
        _QUEUE,
        QUEUE_CHARACTERS,
        f"the name of a FairQueue: at most {QUEUE_CHARACTERS} lower-case letters, digits or '-', "
        "with a letter or digit at its ends",
    ),
    _text("on-behalf-of"),
)


def complaint(now: Mapping[str, str], before: Mapping[str, str], scheduler_name: str) -> str:
    """Why one of the annotations is refused; empty when all are good.

    A value that was there before stays: refusing it now would only block whoever changes something else.
    """
    for rule in RULES:
        value = now.get(rule.annotation, "")
        if value and value != before.get(rule.annotation, "") and not rule.accepts(value):
            return rule.sentence
    asked = scheduler_rule(scheduler_name)
    value = now.get(asked.annotation, "")
    return asked.sentence if value not in ("", before.get(asked.annotation, ""), scheduler_name) else ""


def scheduler_rule(scheduler_name: str) -> AnnotationRule:
    """The annotation that asks for our scheduler can ask for no other."""
    return AnnotationRule(
        PREFIX + "scheduler-name",
        f"{scheduler_name} or left out; name other schedulers by spec.schedulerName",
        lambda value: value == scheduler_name,
        f"value == '{scheduler_name}'",
    )
