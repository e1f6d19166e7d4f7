"""What becomes of the pod templates in an object when it is created or changed.

A template belongs to who wrote it: at creation to the caller, at a change of
its content (all but the stamp) to who changed it. Any other change of the
object leaves the stamp as it was, so that scaling, `kubectl annotate` or a
garbage collector never make somebody else pay, and a Job's template, which is
immutable, stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.core.admission.annotations import complaint
from scheduler.core.admission.kinds import Found, Kind, barred_keys, templates_of
from scheduler.core.admission.pods import annotate, pointer
from scheduler.core.admission.rules import (
    ASKED_SCHEDULER,
    BEHALF,
    ENABLED_LABEL,
    FORGED,
    NOT_A_SUBMITTER,
    QUEUE,
    STAMP,
    Caller,
    Rules,
    Verdict,
    written_by,
)

Fields = Mapping[str, Any]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Template:
    """One template as it is written, and as it was."""

    found: Found
    was: Fields | None

    @property
    def annotations(self) -> Labels:
        return _annotations(self.found.template, self.found.flat)

    @property
    def before(self) -> Labels:
        return _annotations(self.was, self.found.flat) if self.was is not None else {}

    @property
    def is_same(self) -> bool:
        """Nothing but the stamp differs from what it was."""
        if self.was is None:
            return False
        now, was, flat = self.found.template, self.was, self.found.flat
        return _unstamped(self.annotations) == _unstamped(self.before) and _content(now, flat) == _content(
            was, flat
        )

    def joins(self, labels: Labels, rules: Rules) -> bool:
        given, template = self.annotations, self.found.template
        where = template if self.found.flat else (template.get("spec") or {})
        names = (where.get("schedulerName"), given.get(ASKED_SCHEDULER))
        return rules.scheduler_name in names or bool(given.get(QUEUE)) or labels.get(ENABLED_LABEL) == "true"


def templates_written(
    now: Fields, before: Fields | None, kind: Kind, labels: Labels, caller: Caller, rules: Rules
) -> Verdict:
    """Admission of an object with templates; `before` is None when it is created."""
    if caller.name in rules.trusted:
        return Verdict()
    if kind.barred is not None and barred_keys(now, before, kind.barred):
        return Verdict(refusal=kind.barred.sentence)
    pairs = _paired(now, before, kind)
    refusal = next((why for one in pairs if (why := _refusal(one, labels, caller, rules))), "")
    if refusal:
        return Verdict(refusal=refusal)
    return Verdict(tuple(step for one in pairs for step in _additions(one, labels, caller, rules)))


def _paired(now: Fields, before: Fields | None, kind: Kind) -> list[_Template]:
    known = {found.at: found.template for found in templates_of(before or {}, kind.places)}
    return [_Template(found, known.get(found.at)) for found in templates_of(now, kind.places)]


def _refusal(one: _Template, labels: Labels, caller: Caller, rules: Rules) -> str:
    stamp, before = one.annotations.get(STAMP, ""), one.before.get(STAMP, "")
    behalf = one.annotations.get(BEHALF, "")
    if stamp not in ("", before, "" if one.is_same else written_by(caller, behalf, rules)):
        return FORGED + caller.name
    if behalf and not one.is_same and caller.name not in rules.submitters:
        return NOT_A_SUBMITTER + caller.name
    if not one.joins(labels, rules):
        return ""
    return complaint(one.annotations, one.before, rules.scheduler_name)


def _additions(one: _Template, labels: Labels, caller: Caller, rules: Rules) -> Iterable[Fields]:
    stamp, behalf = one.annotations.get(STAMP, ""), one.annotations.get(BEHALF, "")
    if one.is_same:
        wanted = one.before.get(STAMP, "")
    elif stamp or behalf or one.joins(labels, rules):
        wanted = written_by(caller, behalf, rules)
    else:
        wanted = ""
    if not wanted or wanted == stamp:
        return
    at = () if one.found.flat else ("metadata",)
    place = "".join("/" + pointer(part) for part in one.found.at)
    for step in annotate(one.found.template, at, {STAMP: wanted}):
        yield {**step, "path": place + step["path"]}


def _annotations(template: Fields, flat: bool) -> Labels:
    where = template if flat else (template.get("metadata") or {})
    return where.get("annotations") or {}


def _content(template: Fields, flat: bool) -> Fields:
    """What a template is, its annotations left out; of `metadata` only labels reach the pods."""
    if flat:
        return {name: value for name, value in template.items() if name != "annotations"}
    return {
        "spec": template.get("spec") or {},
        "labels": (template.get("metadata") or {}).get("labels") or {},
    }


def _unstamped(annotations: Labels) -> Labels:
    return {name: value for name, value in annotations.items() if name != STAMP}
