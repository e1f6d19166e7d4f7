"""The webhook's configurations, for API servers without admission policies.

The API server calls the webhook only for what the rules are about: match
conditions and selectors leave out all else, so a webhook that is down stops
nobody but those who opted in. Every rule has two entries: for objects that
ask for the queue by themselves, and for namespaces that are in it as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scheduler.core.admission import cel
from scheduler.core.admission.policies import (
    API,
    BINDINGS,
    NAME,
    POD_CHANGED,
    POD_CREATED,
    POD_RESIZED,
    by_places,
    kind_rules,
    not_in,
)
from scheduler.core.admission.rules import ENABLED_LABEL, Rules

Object = dict[str, Any]
MUTATE = "/mutate"
VALIDATE = "/validate"
WHOLE_NAMESPACE = "/enabled"
"""Appended to the paths where the namespace has the label that puts all of it into the queue."""


def webhook_configurations(
    rules: Rules, client: Mapping[str, Any], failure_policy: str, timeout_s: int
) -> list[Object]:
    """The two configurations; `client` is a clientConfig with a `service` or a `url`, without a path."""
    written = list(_written(rules))
    guards = [
        ("guard-pods", [POD_CHANGED], cel.pod_touched(rules)),
        ("guard-bindings", [BINDINGS], cel.BINDING_STAMPED),
        ("guard-sizes", [POD_RESIZED], cel.WAS_STAMPED),
    ]
    return [
        _configuration(
            "MutatingWebhookConfiguration", MUTATE, written, rules, client, failure_policy, timeout_s
        ),
        _configuration(
            "ValidatingWebhookConfiguration",
            VALIDATE,
            written,
            rules,
            client,
            failure_policy,
            timeout_s,
            guards,
        ),
    ]


def _written(rules: Rules) -> Iterable[tuple[str, list[Object], str, list[str]]]:
    """Name, what is matched, whether it asks by itself, further conditions."""
    asks = f"{cel.asks_by_itself(rules)} || {cel.claims(cel.ANNOTATIONS)} || {cel.RECEIPT_GIVEN}"
    yield "pods", [POD_CREATED], asks, [cel.NOT_A_NODE]
    for name, kinds in by_places(rules.kinds):
        asks = cel.templates_ask(rules, kinds[0])
        yield name, kind_rules(kinds), asks, [f"!({cel.among(rules.trusted)})"]


def _configuration(
    kind: str,
    path: str,
    written: Iterable[tuple[str, list[Object], str, list[str]]],
    rules: Rules,
    client: Mapping[str, Any],
    failure_policy: str,
    timeout_s: int,
    guards: Iterable[tuple[str, list[Object], str]] = (),
) -> Object:
    hooks = []
    for name, matched, asks, conditions in written:
        hooks.append(_hook(name, matched, [*conditions, asks], client, path))
        whole = _hook(f"{name}-enabled", matched, conditions, client, path + WHOLE_NAMESPACE)
        whole["namespaceSelector"] = {"matchLabels": {ENABLED_LABEL: "true"}}
        hooks.append(whole)
    hooks += [_hook(name, matched, [condition], client, path) for name, matched, condition in guards]
    for hook in hooks:
        selector = hook.setdefault("namespaceSelector", {})
        selector["matchExpressions"] = not_in(rules.excluded_namespaces)
        hook.update(failurePolicy=failure_policy, timeoutSeconds=timeout_s)
        if kind.startswith("Mutating"):
            hook["reinvocationPolicy"] = "IfNeeded"
    return {"apiVersion": API, "kind": kind, "metadata": {"name": NAME}, "webhooks": hooks}


def _hook(
    name: str, matched: list[Object], conditions: Iterable[str], client: Mapping[str, Any], path: str
) -> Object:
    return {
        "name": f"{name}.admission.fairlane.dev",
        "rules": matched,
        "matchConditions": [
            {"name": f"condition-{number}", "expression": expression}
            for number, expression in enumerate(conditions)
        ],
        "clientConfig": client_config(client, path),
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "matchPolicy": "Equivalent",
    }


def client_config(client: Mapping[str, Any], path: str) -> Object:
    """`client` for one path of the webhook."""
    if "url" in client:
        return {**client, "url": client["url"].rstrip("/") + path}
    return {**client, "service": {**client["service"], "path": path}}
