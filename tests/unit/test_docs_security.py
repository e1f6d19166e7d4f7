"""docs/security.md says of each right in the chart why it is there, and of no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
WHERE = {"ClusterRole": "cluster", "Role": "own"}
SHARED = {
    "system:kube-scheduler": "cluster",
    "system:volume-scheduler": "cluster",
    "extension-apiserver-authentication-reader": "kube-system",
}
"""Roles that Kubernetes defines, and where they are bound."""


class Right(NamedTuple):
    """As a row tells it; `what` is resource.group (/subresource), or the name of a role of Kubernetes."""

    account: str
    where: str
    what: str
    name: str
    verb: str


def objects() -> list[Any]:
    texts = [(ROOT / "manifests" / file).read_text() for file in ("fairlane.yaml", "admission-webhook.yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def granted() -> Iterator[Right]:
    """Every verb that the chart gives."""
    for one in objects():
        if one["kind"] in WHERE:
            account = one["metadata"]["name"].removeprefix("fairlane-")
            for rule in one["rules"]:
                yield from of_rule(account, WHERE[one["kind"]], rule)
        elif one["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            role = one["roleRef"]["name"]
            for subject in one["subjects"] if role in SHARED else ():
                yield Right(subject["name"].removeprefix("fairlane-"), SHARED[role], role, "", "")


def of_rule(account: str, where: str, rule: Any) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            plural, slash, sub = resource.partition("/")
            what = f"{plural}.{group}{slash}{sub}" if group else resource
            names = {re.sub(r"-[ab]-\d+$", "...", name) for name in rule.get("resourceNames", ())}
            shortened = {name for name in names if f"{name}..." not in names} or {""}
            for verb in rule["verbs"]:
                yield from (Right(account, where, what, name, verb) for name in shortened)


def told() -> list[tuple[Right, str]]:
    """The rows of the table, one for each verb, with the reason."""
    found = []
    for line in (ROOT / "docs" / "security.md").read_text().splitlines():
        match = re.fullmatch(
            r"\| (\w+) \| ([\w-]+) \| (?:role )?`([^`]+)`(?: named (\S+))? \| ([a-z, ]*?) ?\| (.+) \|", line
        )
        if match:
            account, where, what, name, verbs, why = match.groups()
            rights = [Right(account, where, what, name or "", verb) for verb in verbs.split(", ")]
            found += [(right, why) for right in rights]
    return found


def test_the_table_has_every_right_of_the_chart_and_no_other() -> None:
    rights = [right for right, _why in told()]
    assert len(rights) == len(set(rights))
    assert set(rights) == set(granted())


def test_every_right_has_a_reason() -> None:
    assert [(right, why) for right, why in told() if len(why) < len("the same")] == []


def test_parts_that_are_said_to_have_no_rights_are_bound_to_none() -> None:
    bound = {
        subject["name"]
        for one in objects()
        if one["kind"].endswith("Binding")
        for subject in one.get("subjects", [])
    }
    assert bound.isdisjoint({"fairlane-predictor", "fairlane-train", "fairlane-probe"})
