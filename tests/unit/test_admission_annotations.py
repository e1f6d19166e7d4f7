"""What admission accepts, the readers of the core understand; what it refuses, it refuses with a sentence."""

from __future__ import annotations

import math

import msgspec
import pytest
from admission_values import BAD, GOOD
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.admission.annotations import RULES, AnnotationRule, complaint, scheduler_rule
from scheduler.core.jobs import describe
from scheduler.core.wire import Pod

BY_NAME = {rule.annotation.partition("/")[2]: rule for rule in (*RULES, scheduler_rule("fairlane"))}
NUMBERS = st.text(alphabet="0123456789.eE+-nums kKMGTPih µ٣", max_size=12)
ANY = st.text(max_size=40)


def read_by_core(name: str, value: str) -> tuple[object, int]:
    """What the core makes of the annotation, and how many complaints it has."""
    body = {"metadata": {"annotations": {f"fairlane.dev/{name}": value}}}
    described = describe(msgspec.convert(body, Pod))
    field = {
        "gang-size": "gang_size",
        "expected-duration": "expected_s",
        "input-bytes": "input_bytes",
        "shuffle-bytes": "shuffle_bytes",
        "gang": "gang",
        "job-class": "job_class",
    }[name]
    return getattr(described.pod.job, field), len(described.complaints)


@pytest.mark.parametrize("name", ["gang-size", "expected-duration", "input-bytes", "shuffle-bytes"])
@given(value=NUMBERS)
def test_an_accepted_number_is_understood_by_the_core(name: str, value: str) -> None:
    if value and BY_NAME[name].accepts(value):
        number, complaints = read_by_core(name, value)
        assert complaints == 0
        assert isinstance(number, int | float)
        assert math.isfinite(number)
        assert number >= 0


@pytest.mark.parametrize("name", ["gang", "job-class"])
@given(value=ANY)
def test_an_accepted_name_reaches_the_core_as_it_is(name: str, value: str) -> None:
    if value and BY_NAME[name].accepts(value):
        assert read_by_core(name, value) == (value, 0)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_good_values_are_accepted(name: str, value: str) -> None:
    assert BY_NAME[name].accepts(value)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_bad_values_are_refused(name: str, value: str) -> None:
    assert not BY_NAME[name].accepts(value)


def test_nothing_said_is_nothing_wrong_and_what_was_there_stays() -> None:
    assert complaint({"fairlane.dev/gang-size": ""}, {}, "fairlane") == ""
    bad = {"fairlane.dev/gang-size": "many"}
    assert "whole number" in complaint(bad, {}, "fairlane")
    assert complaint(bad, dict(bad), "fairlane") == ""
    assert "whole number" in complaint(bad, {"fairlane.dev/gang-size": "few"}, "fairlane")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.annotation)
def test_every_sentence_names_its_annotation(rule: AnnotationRule) -> None:
    assert rule.sentence.startswith(f"{rule.annotation} must be ")
    assert "\n" not in rule.sentence
