"""The rules of `pods.py` and `templates.py` in CEL, as variables and conditions of admission policies.

Texts are built from the same constants; each variable says the same as the
Python name beside it. Lists of policies and of webhooks use them alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from scheduler.core.admission.annotations import RULES, AnnotationRule, scheduler_rule
from scheduler.core.admission.kinds import Barred, Kind, Place
from scheduler.core.admission.rules import (
    ASKED_SCHEDULER,
    BEHALF,
    ENABLED_LABEL,
    GATE,
    QUEUE,
    RECEIPT,
    STAMP,
    Rules,
)

CALLER = "request.userInfo.username"
NOT_A_NODE = "!('system:nodes' in request.userInfo.?groups.orValue([]))"
ENABLED = f"namespaceObject.metadata.?labels[?'{ENABLED_LABEL}'].orValue('') == 'true'"
ANNOTATIONS = "object.metadata.?annotations.orValue({})"
ANNOTATIONS_BEFORE = "oldObject.metadata.?annotations.orValue({})"
RECEIPT_GIVEN = f"'{RECEIPT}' in {ANNOTATIONS}"
BINDING_STAMPED = f"'{STAMP}' in {ANNOTATIONS} || {RECEIPT_GIVEN}"
WAS_STAMPED = f"'{STAMP}' in {ANNOTATIONS_BEFORE}"
RECEIPT_KEPT = f"{ANNOTATIONS}[?'{RECEIPT}'] == {ANNOTATIONS_BEFORE}[?'{RECEIPT}']"


def text(value: str) -> str:
    """A CEL string."""
    return json.dumps(value, ensure_ascii=False)


def texts(values: Iterable[str]) -> str:
    """A CEL list of strings, in order of the alphabet."""
    return "[" + ", ".join(text(value) for value in sorted(values)) + "]"


def among(names: Iterable[str]) -> str:
    """Whether the caller is one of `names`."""
    listed = texts(names)
    return f"{CALLER} in {listed}" if listed != "[]" else "false"


def of(annotations: str, key: str) -> str:
    """The annotation `key`, empty where it is not given."""
    return f"{annotations}[?'{key}'].orValue('')"


def gated(pod: str) -> str:
    """`pods.is_gated`."""
    return f"{pod}.spec.?schedulingGates.orValue([]).exists(gate, gate.name == '{GATE}')"


def asks_by_itself(rules: Rules) -> str:
    """Whether a new pod joins whatever its namespace says; over `object`."""
    name = text(rules.scheduler_name)
    return (
        f"object.spec.?schedulerName.orValue('') == {name} || {of(ANNOTATIONS, ASKED_SCHEDULER)} == {name}"
        f" || {of(ANNOTATIONS, QUEUE)} != '' || {gated('object')}"
    )


def claims(annotations: str) -> str:
    """Whether a new pod or template carries a stamp or names somebody else."""
    return f"{of(annotations, STAMP)} != '' || {of(annotations, BEHALF)} != ''"


def pod_touched(rules: Rules) -> str:
    """Whether a change of a pod is one that could be refused: of our annotations, or a release by hand.

    What the controller itself does when it releases is not: it must not wait for a webhook.
    """
    keys = [one.annotation for one in annotation_rules(rules)]
    released = f"{gated('oldObject')} && !{gated('object')}"
    by_hand = f"{CALLER} != {text(rules.controller)} && (({released}) || !({RECEIPT_KEPT}))"
    return (
        f"({texts([STAMP, *keys])}.exists(key, {ANNOTATIONS}[?key] != {ANNOTATIONS_BEFORE}[?key])) || "
        f"({by_hand})"
    )


def pod_variables(rules: Rules) -> dict[str, str]:
    """What `pods._Creation` knows, in an order in which each may use those before."""
    name = text(rules.scheduler_name)
    daemon = "owner.kind == 'DaemonSet' && owner.?controller.orValue(false)"
    return {
        "annotations": ANNOTATIONS,
        "trusted": among(rules.trusted),
        "submitter": among(rules.submitters),
        "stamp": of("variables.annotations", STAMP),
        "behalf": of("variables.annotations", BEHALF),
        "ours": f"object.spec.?schedulerName.orValue('') == {name} || "
        f"{of('variables.annotations', ASKED_SCHEDULER)} == {name}",
        "gated": gated("object"),
        "joins": f"variables.ours || {of('variables.annotations', QUEUE)} != '' || variables.gated || "
        + ENABLED,
        "waits": "variables.joins && !(variables.trusted && "
        f"object.metadata.?ownerReferences.orValue([]).exists(owner, {daemon}))",
        "user": "variables.trusted ? "
        "(variables.stamp != '' ? variables.stamp : 'namespace:' + request.namespace) : "
        f"variables.submitter && variables.behalf != '' ? variables.behalf : {CALLER}",
    }


def template_variables(rules: Rules, places: tuple[Place, ...]) -> dict[str, str]:
    """What `templates._Template` knows of every template in the object, as the list `templates`."""
    return {
        "submitter": among(rules.submitters),
        "enabled": ENABLED,
        "read": " + ".join(f"{_found(place)}.map(f, {_reading(place, rules)})" for place in places),
        "templates": f"variables.read.map(t, {_JUDGEMENT})",
    }


def templates_ask(rules: Rules, kind: Kind) -> str:
    """Whether a template asks by itself, or carries or carried a stamp, or something is barred.

    For webhooks, so in words that Kubernetes 1.30 has: `transformList` came with 1.33.
    """
    asks = [
        _any_template(place, owner, f"{_asks('t', place, rules)} || {claims(_annotations('t', place))}")
        for place in kind.places
        for owner in ("dyn(object){}", "(oldObject == null ? optional.none() : dyn(oldObject){})")
    ]
    return " || ".join([*asks, *([has_barred(kind.barred)] if kind.barred else [])])


def has_barred(barred: Barred) -> str:
    """`kinds.barred_keys`."""
    chain = "".join(f".?{name}" for name in barred.path.split("."))
    now = f"dyn(object){chain}"
    was = f"(oldObject == null ? optional.none() : dyn(oldObject){chain})"
    return f"{texts(barred.keys)}.exists(k, {now}[?k].hasValue() && {now}[?k] != {was}[?k])"


def _any_template(place: Place, owner: str, test: str) -> str:
    """Whether `test` holds of a template `t` there in `owner`, a format that takes the way to the place."""
    before, inside = place.step
    there = owner.format("".join(f".?{name}" for name in before))
    if not place.repeats:
        return f"({there}.hasValue() ? [{there}.value()] : []).exists(t, {test})"
    rest = "".join(f".?{name}" for name in inside)
    if "[]" in place.path:
        listed = f"{there}.orValue([]).map(item, dyn(item){rest}.hasValue(), dyn(item){rest}.value())"
        return f"{listed}.exists(t, {test})"
    listed = f"named.map(key, dyn(named[key]){rest}.hasValue(), dyn(named[key]){rest}.value())"
    return f"[{there}.orValue({{}})].exists(named, {listed}.exists(t, {test}))"


def _found(place: Place) -> str:
    """A list of {at, now, was}: a template's JSON pointer, the template, and what it was (none or one)."""
    before, inside = place.step
    chain = "".join(f".?{name}" for name in before)
    old = f"(oldObject == null ? optional.none() : dyn(oldObject){chain})"
    path = "/" + "/".join(before)
    if not place.repeats:
        entry = _entry(text(path), f"dyn(object){chain}.value()", old)
        return f"(dyn(object){chain}.hasValue() ? [{entry}] : [])"
    rest = "".join(f".?{name}" for name in inside)
    is_list = "[]" in place.path
    key = "string(key)" if is_list else "key.replace('~', '~0').replace('/', '~1')"
    at = f"{text(path + '/')} + {key} + {text('/' + '/'.join(inside))}"
    entry = _entry(at, f"dyn(item){rest}.value()", f"{old}[?key]{rest}")
    empty = "[]" if is_list else "{}"
    return (
        f"dyn(object){chain}.orValue({empty}).transformList(key, item, dyn(item){rest}.hasValue(), {entry})"
    )


def _entry(at: str, now: str, was: str) -> str:
    return f"{{'at': dyn({at}), 'now': dyn({now}), 'was': dyn({was}.hasValue() ? [{was}.value()] : [])}}"


def _annotations(template: str, place: Place) -> str:
    return (
        f"{template}.?annotations.orValue({{}})"
        if place.flat
        else f"{template}.?metadata.?annotations.orValue({{}})"
    )


def _asks(template: str, place: Place, rules: Rules) -> str:
    where = template if place.flat else f"{template}.?spec"
    given, name = _annotations(template, place), text(rules.scheduler_name)
    return (
        f"{where}.?schedulerName.orValue('') == {name} || {of(given, ASKED_SCHEDULER)} == {name} || "
        f"{of(given, QUEUE)} != ''"
    )


def _reading(place: Place, rules: Rules) -> str:
    """Fields of a template that do not depend on its shape; `content`: as it was, but for annotations."""
    if place.flat:
        at, bare = "f.at", "false"
        content = (
            "f.now.all(k, k == 'annotations' || w[?k] == optional.of(f.now[k])) && "
            "w.all(k, k == 'annotations' || k in f.now)"
        )
    else:
        at, bare = "f.at + '/metadata'", "!has(f.now.metadata)"
        content = (
            "w.?spec.orValue({}) == f.now.?spec.orValue({}) && "
            "w.?metadata.?labels.orValue({}) == f.now.?metadata.?labels.orValue({})"
        )
    return (
        f"{{'at': dyn({at} + '/annotations'), 'above': dyn({at}), 'bare': dyn({bare}), "
        f"'annotations': dyn({_annotations('f.now', place)}), "
        f"'before': dyn(f.was.size() > 0 ? {_annotations('f.was[0]', place)} : {{}}), "
        f"'joins': dyn(variables.enabled || {_asks('f.now', place, rules)}), "
        f"'content': dyn(f.was.exists(w, {content}))}}"
    )


_BEHALF = of("t.annotations", BEHALF)
_REST_IS_SAME = (
    f"t.annotations.all(k, k == '{STAMP}' || t.before[?k] == optional.of(t.annotations[k])) && "
    f"t.before.all(k, k == '{STAMP}' || k in t.annotations)"
)
_JUDGEMENT = (
    "{'at': t.at, 'above': t.above, 'bare': t.bare, 'annotations': t.annotations, 'before': t.before, "
    f"'joins': t.joins, 'stamp': dyn({of('t.annotations', STAMP)}), 'was': dyn({of('t.before', STAMP)}), "
    f"'behalf': dyn({_BEHALF}), "
    f"'user': dyn(variables.submitter && {_BEHALF} != '' ? {_BEHALF} : {CALLER}), "
    f"'same': dyn(t.content && {_REST_IS_SAME})}}"
)


def annotation_rules(rules: Rules) -> tuple[AnnotationRule, ...]:
    """Every rule about the value of an annotation."""
    return (*RULES, scheduler_rule(rules.scheduler_name))


def keeps(rule: AnnotationRule, now: str, before: str) -> str:
    """Whether an annotation is empty, or as it was, or good; `now` and `before` are maps."""
    return (
        f"[{of(now, rule.annotation)}].all(value, value == '' || value == {of(before, rule.annotation)} || "
        f"({rule.cel}))"
    )
