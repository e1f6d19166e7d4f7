"""The rules as admission policies, which the API server applies by itself (Kubernetes 1.36 and newer)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scheduler.core.admission import cel
from scheduler.core.admission.kinds import Barred, Kind, Place
from scheduler.core.admission.rules import (
    BEHALF,
    BOUND_WITH_STAMP,
    FIXED_AT_CREATION,
    FORGED,
    GATE,
    NAMES_A_NODE,
    NOT_A_SUBMITTER,
    NOT_GATED,
    NOT_RENAMED,
    NOT_STAMPED,
    QUEUE,
    RECEIPT_FORGED,
    RELEASED_BY_HAND,
    RESIZED,
    STAMP,
    STAMP_CHANGED,
    Rules,
    fixed,
)

Object = dict[str, Any]
API = "admissionregistration.k8s.io/v1"
NAME = "fairlane"


def policies(rules: Rules, failure_policy: str = "Fail") -> list[Object]:
    """Every policy and binding, ready to be applied."""
    made = [
        _pods_prepared(rules),
        _pods_checked(rules),
        _pods_guarded(rules),
        _bindings_guarded(),
        _sizes_guarded(),
    ]
    for name, kinds in by_places(rules.kinds):
        made += [_templates_stamped(name, kinds, rules), _templates_checked(name, kinds, rules)]
    for policy in made:
        policy["spec"]["failurePolicy"] = failure_policy
        selector = policy["spec"]["matchConstraints"]["namespaceSelector"]
        selector["matchExpressions"] = not_in(rules.excluded_namespaces)
    return [one for policy in made for one in (policy, _binding(policy))]


def by_places(kinds: Iterable[Kind]) -> list[tuple[str, list[Kind]]]:
    """Kinds that have the same at the same places, under the name of the first of them."""
    groups: dict[tuple[tuple[Place, ...], Barred | None], list[Kind]] = {}
    for kind in kinds:
        groups.setdefault((kind.places, kind.barred), []).append(kind)
    return [(same[0].resource, same) for same in groups.values()]


def not_in(namespaces: Sequence[str]) -> list[Object]:
    """A selector's expressions for all namespaces but these."""
    return [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": sorted(namespaces)}]


def rule(
    operations: Sequence[str], resources: Sequence[str], group: str = "", versions: Sequence[str] = ("v1",)
) -> Object:
    """One rule of resources to match."""
    return {
        "apiGroups": [group],
        "apiVersions": list(versions),
        "operations": list(operations),
        "resources": list(resources),
    }


def kind_rules(kinds: Iterable[Kind]) -> list[Object]:
    """Rules that match writing objects of these kinds."""
    return [rule(("CREATE", "UPDATE"), (kind.resource,), kind.group, kind.versions) for kind in kinds]


POD_CREATED = rule(("CREATE",), ("pods",))
POD_CHANGED = rule(("UPDATE",), ("pods", "pods/status"))
"""Annotations can be written through the status, too."""
POD_RESIZED = rule(("UPDATE",), ("pods/resize",))
BINDINGS = rule(("CREATE",), ("pods/binding", "bindings"))


def _policy(kind: str, name: str, matched: list[Object], variables: Mapping[str, str], **spec: Any) -> Object:
    named = [{"name": key, "expression": expression} for key, expression in variables.items()]
    constraints: Object = {"namespaceSelector": {}, "resourceRules": matched}
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": f"{NAME}-{name}"},
        "spec": {"matchConstraints": constraints, "variables": named, **spec},
    }


def _mutating(
    name: str, matched: list[Object], variables: Mapping[str, str], patch: str, **spec: Any
) -> Object:
    mutations = [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]
    spec = {"reinvocationPolicy": "IfNeeded", "mutations": mutations, **spec}
    return _policy("MutatingAdmissionPolicy", name, matched, variables, **spec)


def _validating(
    name: str, matched: list[Object], variables: Mapping[str, str], checks: list[Object], **spec: Any
) -> Object:
    return _policy("ValidatingAdmissionPolicy", name, matched, variables, validations=checks, **spec)


def _binding(policy: Object) -> Object:
    name = policy["metadata"]["name"]
    spec: Object = {"policyName": name}
    if policy["kind"].startswith("Validating"):
        spec["validationActions"] = ["Deny"]
    return {"apiVersion": API, "kind": policy["kind"] + "Binding", "metadata": {"name": name}, "spec": spec}


def _condition(name: str, expression: str) -> list[Object]:
    return [{"name": name, "expression": expression}]


def _check(expression: str, message: str) -> Object:
    return {"expression": expression, "message": message}


def _check_caller(expression: str, message: str) -> Object:
    """The sentence ends with the caller's name."""
    return {
        "expression": expression,
        "message": message + "another user",
        "messageExpression": f"{cel.text(message)} + {cel.CALLER}",
    }


def _pods_prepared(rules: Rules) -> Object:
    asked_queue = cel.of("variables.annotations", QUEUE)
    variables = cel.pod_variables(rules)
    variables["queue"] = f"namespaceObject.metadata.?labels[?'{QUEUE}'].orValue('')"
    variables["missing"] = (
        f"{{?'{STAMP}': variables.stamp == '' && (variables.joins || variables.behalf != '') ? "
        f"optional.of(variables.user) : optional.none(), "
        f"?'{QUEUE}': variables.joins && {asked_queue} == '' && variables.queue != '' ? "
        "optional.of(variables.queue) : optional.none()}"
    )
    condition = _condition("not-a-node", cel.NOT_A_NODE)
    return _mutating("prepare-pods", [POD_CREATED], variables, _preparation(rules), matchConditions=condition)


def _preparation(rules: Rules) -> str:
    name = cel.text(rules.scheduler_name)
    first_annotation = "variables.missing != {} && variables.annotations == {}"
    annotation = _patch("'/metadata/annotations/' + jsonpatch.escapeKey(key)", "value")
    renamed = f"variables.ours && object.spec.?schedulerName.orValue('') != {name}"
    first_gate = f"{_TO_GATE} && object.spec.?schedulingGates.orValue([]).size() == 0"
    steps = (
        _when(first_annotation, _add("'/metadata/annotations'", "{}")),
        f"variables.missing.transformList(key, value, {annotation})",
        _when(renamed, _add("'/spec/schedulerName'", name)),
        _when(first_gate, _add("'/spec/schedulingGates'", "[]")),
        _when(_TO_GATE, _add("'/spec/schedulingGates/-'", f"{{'name': '{GATE}'}}")),
    )
    return " + ".join(steps)


_TO_GATE = "variables.waits && !variables.gated && object.spec.?nodeName.orValue('') == ''"


def _patch(path: str, value: str) -> str:
    return f"JSONPatch{{op: 'add', path: {path}, value: {value}}}"


def _add(path: str, value: str) -> str:
    return f"[{_patch(path, value)}]"


def _when(condition: str, steps: str) -> str:
    return f"({condition} ? {steps} : [])"


def _pods_checked(rules: Rules) -> Object:
    name = cel.text(rules.scheduler_name)
    checks = [
        _check_caller("variables.stamp == '' || variables.stamp == variables.user", FORGED),
        _check_caller("variables.behalf == '' || variables.trusted || variables.submitter", NOT_A_SUBMITTER),
        _check("!variables.waits || object.spec.?nodeName.orValue('') == ''", NAMES_A_NODE),
        _check(f"!({cel.RECEIPT_GIVEN})", RECEIPT_FORGED),
        *_annotation_checks(rules, "variables.annotations", "{}", "variables.trusted || !variables.joins"),
        _check("!variables.waits || variables.gated", NOT_GATED),
        _check(f"!variables.ours || object.spec.?schedulerName.orValue('') == {name}", NOT_RENAMED),
        _check(
            "!(variables.joins || variables.behalf != '') || variables.stamp != ''",
            NOT_STAMPED,
        ),
    ]
    return _validating(
        "check-pods",
        [POD_CREATED],
        cel.pod_variables(rules),
        checks,
        matchConditions=_condition("not-a-node", cel.NOT_A_NODE),
    )


def _annotation_checks(rules: Rules, now: str, before: str, unless: str) -> list[Object]:
    return [
        _check(f"{unless} || {cel.keeps(one, now, before)}", one.sentence)
        for one in cel.annotation_rules(rules)
    ]


def _pods_guarded(rules: Rules) -> Object:
    variables = {
        "controller": f"{cel.CALLER} == {cel.text(rules.controller)}",
        "now": cel.ANNOTATIONS,
        "before": cel.ANNOTATIONS_BEFORE,
    }
    checks = [_check(_unchanged(STAMP), STAMP_CHANGED)]
    for annotation in FIXED_AT_CREATION:
        unless = "" if annotation == BEHALF else " || variables.controller"
        checks.append(_check(_unchanged(annotation) + unless, fixed(annotation)))
    released = f"!{cel.gated('oldObject')} || {cel.gated('object')} || variables.controller"
    checks.append(_check(released, RELEASED_BY_HAND))
    checks.append(_check(f"{cel.RECEIPT_KEPT} || variables.controller", RECEIPT_FORGED))
    checks += _annotation_checks(
        rules, "variables.now", "variables.before", f"!('{STAMP}' in variables.before)"
    )
    return _validating(
        "guard-pods",
        [POD_CHANGED],
        variables,
        checks,
        matchConditions=_condition("touched", cel.pod_touched(rules)),
    )


def _unchanged(annotation: str) -> str:
    return f"{cel.of('variables.now', annotation)} == {cel.of('variables.before', annotation)}"


def _bindings_guarded() -> Object:
    check = _check("false", BOUND_WITH_STAMP)
    condition = _condition("stamped", cel.BINDING_STAMPED)
    return _validating("guard-bindings", [BINDINGS], {}, [check], matchConditions=condition)


def _sizes_guarded() -> Object:
    condition = _condition("stamped", cel.WAS_STAMPED)
    return _validating(
        "guard-sizes", [POD_RESIZED], {}, [_check("false", RESIZED)], matchConditions=condition
    )


def _templates_stamped(name: str, kinds: list[Kind], rules: Rules) -> Object:
    stamp = f"t.at + '/' + jsonpatch.escapeKey('{STAMP}')"
    steps = " + ".join(
        (
            _when("t.bare", _add("t.above", "{}")),
            _when("t.annotations.size() == 0", _add("t.at", "{}")),
            _add(stamp, "t.same ? t.was : t.user"),
        )
    )
    return _mutating(
        f"stamp-{name}",
        kind_rules(kinds),
        cel.template_variables(rules, kinds[0].places),
        f"variables.templates.filter(t, {_TO_STAMP}).map(t, {steps}).flatten()",
        matchConditions=_condition("not-trusted", f"!({cel.among(rules.trusted)})"),
    )


_TO_STAMP = (
    "t.same ? t.stamp == '' && t.was != '' : (t.joins || t.stamp != '' || t.behalf != '') && "
    "(t.stamp == '' || t.stamp == t.was) && t.stamp != t.user"
)


def _templates_checked(name: str, kinds: list[Kind], rules: Rules) -> Object:
    barred = kinds[0].barred
    stamped = (
        "variables.templates.all(t, t.same ? t.stamp == t.was : "
        "t.stamp == t.user || (t.stamp == '' && !t.joins && t.behalf == ''))"
    )
    checks = [
        *([_check(f"!({cel.has_barred(barred)})", barred.sentence)] if barred else []),
        _check_caller(stamped, FORGED),
        _check_caller(
            "variables.templates.all(t, t.same || t.behalf == '' || variables.submitter)", NOT_A_SUBMITTER
        ),
        *(
            _check(
                f"variables.templates.all(t, !t.joins || {cel.keeps(one, 't.annotations', 't.before')})",
                one.sentence,
            )
            for one in cel.annotation_rules(rules)
        ),
    ]
    return _validating(
        f"check-{name}",
        kind_rules(kinds),
        cel.template_variables(rules, kinds[0].places),
        checks,
        matchConditions=_condition("not-trusted", f"!({cel.among(rules.trusted)})"),
    )
