"""Each component may do exactly what its code asks of the API server, and has a reason for it.

What the code asks is read from its source: every call of the API server in
scheduler/edge is found, and the tables below say of each which resource it is
about. A new call, or one that is gone, has to be written here; and then the
rights rendered from the chart must be the same.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from scheduler.core.workloads.membership import TRAINING

EDGE = Path(__file__).parents[2] / "scheduler" / "edge"
MANIFESTS = Path(__file__).parents[2] / "manifests"
VERBS = {
    "get": ("get",),
    "list_all": ("list",),
    "mirror": ("list", "watch"),
    "post": ("create",),
    "put": ("update",),
    "patch": ("patch",),
    "delete": ("delete",),
}


class Right(NamedTuple):
    """A verb on a resource, as a rule gives it."""

    scope: str
    group: str
    resource: str
    verb: str
    name: str = ""


GANG_OBJECTS = (
    *("batch/jobs", "jobset.x-k8s.io/jobsets", "ray.io/rayclusters"),
    *(f"kubeflow.org/{kind.lower()}s" for kind in TRAINING),
    *("sparkoperator.k8s.io/sparkapplications", "scheduling.x-k8s.io/podgroups"),
    *("scheduling.volcano.sh/podgroups", "scheduling.k8s.io/podgroups"),
)
DISCOVERY: tuple[str, ...] = ()
"""What kinds there are may everybody ask."""
QUEUES = ("fairlane.dev/fairqueues",)
WEBHOOKS = (
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
)
CALLS: dict[tuple[str, str], list[tuple[str, ...]]] = {
    ("admission", "mirror"): [("/namespaces",)],
    ("admission", "get"): [("/namespaces",)],
    ("admission_certificates", "mirror"): [WEBHOOKS],
    ("admission_certificates", "get"): [WEBHOOKS],
    ("admission_certificates", "post"): [("/secrets",)],
    ("admission_certificates", "patch"): [WEBHOOKS],
    ("announcements", "post"): [("/events",)],
    ("announcements", "patch"): [("/pods/status",)],
    ("certificate_secret", "get"): [("/secrets",)],
    ("certificate_secret", "put"): [("/secrets",)],
    ("checkpoints", "get"): [("/configmaps",)],
    ("checkpoints", "put"): [("/configmaps",), ("/configmaps",)],
    ("checkpoints", "post"): [("/configmaps",), ("/configmaps",)],
    ("cluster_view", "mirror"): [("/nodes",), ("/pods",)],
    ("facts", "get"): [("coordination.k8s.io/leases",), ("/nodes", "/pods")],
    ("feeds", "mirror"): [("/nodes",), ("/pods",), QUEUES],
    ("feeds", "get"): [QUEUES, QUEUES],
    ("lease", "post"): [("coordination.k8s.io/leases",)],
    ("lease", "get"): [("coordination.k8s.io/leases",)],
    ("lease", "put"): [("coordination.k8s.io/leases",)],
    ("owners", "get"): [(*GANG_OBJECTS, "/configmaps"), DISCOVERY, DISCOVERY],
    ("owners", "mirror"): [GANG_OBJECTS],
    ("probe_peers", "get"): [("/pods",)],
    ("queue_status", "patch"): [("fairlane.dev/fairqueues/status",)],
    ("recorder_process", "mirror"): [("/pods",)],
    ("release", "get"): [("/pods",)],
    ("release", "patch"): [("/pods",)],
    ("release", "delete"): [("/pods",)],
    ("support", "get"): [("/pods", "/pods/log", "/events", "/nodes", *QUEUES)],
    ("support", "list_all"): [("/pods",)],
    ("support_users", "list_all"): [QUEUES, ("/pods",)],
    ("trial", "post"): [("/pods",)],
    ("trial", "get"): [("/pods",)],
    ("trial", "delete"): [("/pods",)],
}
"""By file and method, the resources that each call is about."""

OWN_NAMESPACE = {"/secrets", "coordination.k8s.io/leases"}
"""Asked for in the namespace of the release only; ConfigMaps there too but for reading."""
PIECES = tuple(f"fairlane-controller-{slot}-{number}" for slot in "ab" for number in range(1, 16))
NAMES: dict[str, tuple[str, ...]] = {
    "coordination.k8s.io/leases": ("fairlane-controller",),
    "/configmaps": ("fairlane-controller", *PIECES),
    **dict.fromkeys(WEBHOOKS, ("fairlane",)),
}
CONTROLLER = ("announcements", "checkpoints", "feeds", "lease", "owners", "queue_status", "release")


def test_every_call_of_the_api_server_is_known_here() -> None:
    found: Counter[tuple[str, str]] = Counter()
    for file in EDGE.glob("*.py"):
        if file.name != "kube.py":
            found += Counter((file.stem, method) for method in _calls(ast.parse(file.read_text())))
    assert found == Counter({call: len(about) for call, about in CALLS.items()})


def test_the_controller_may_do_what_it_does_and_nothing_more() -> None:
    assert _granted("fairlane.yaml", "fairlane-controller") == _asked(*CONTROLLER)


def test_the_recorder_may_do_what_it_does_and_nothing_more() -> None:
    asked = _asked("recorder_process", "certificate_secret", secret="fairlane-predictor-certificates")
    assert _granted("fairlane.yaml", "fairlane-recorder") == asked


def test_the_webhook_may_do_what_it_does_and_nothing_more() -> None:
    granted = _granted("admission-webhook.yaml", "fairlane-admission")
    modules = ("admission", "admission_certificates", "certificate_secret")
    assert granted == _asked(*modules, secret="fairlane-admission-certificates")


@pytest.mark.parametrize("part", ["predictor", "train"])
def test_what_never_asks_the_api_server_has_no_rights_and_no_token(part: str) -> None:
    assert _granted("fairlane.yaml", f"fairlane-{part}") == set()
    pods = [one for one in _objects("fairlane.yaml") if one["metadata"]["name"] == f"fairlane-{part}"]
    specs = [spec for one in pods if (spec := _pod(one))]
    assert [spec["automountServiceAccountToken"] for spec in specs] == [False]


def test_the_extender_has_only_the_rights_of_kubernetes_own_scheduler() -> None:
    bound = {
        one["roleRef"]["name"]
        for one in _objects("fairlane.yaml")
        if one["kind"].endswith("Binding") and one["subjects"][0]["name"] == "fairlane-scheduler"
    }
    builtin = {
        "system:kube-scheduler",
        "system:volume-scheduler",
        "extension-apiserver-authentication-reader",
    }
    assert bound == builtin | {"fairlane-scheduler"}
    leases = {
        (right.resource, right.verb, right.name) for right in _granted("fairlane.yaml", "fairlane-scheduler")
    }
    assert leases == {
        ("leases", "create", ""),
        *(("leases", verb, "fairlane-scheduler") for verb in ("get", "update")),
    }


def test_a_comment_gives_the_reason_of_every_rule() -> None:
    text = (EDGE.parents[1] / "helm" / "fairlane" / "templates" / "rbac.yaml").read_text().splitlines()
    rules = [number for number, line in enumerate(text) if line.startswith("- apiGroups:")]
    assert len(rules) > 15
    above = [_line_above(text, number) for number in rules]
    unexplained = [number + 1 for number, line in zip(rules, above, strict=True) if not line]
    assert unexplained == []


def _line_above(lines: list[str], number: int) -> bool:
    """A comment above the rule, or above the run of rules that it belongs to."""
    while number > 0 and not lines[number].startswith("#"):
        number -= 1
        if lines[number].startswith(("rules:", "---", "{{")):
            return False
    return lines[number].startswith("#")


def _calls(tree: ast.AST) -> list[str]:
    """Methods called on something named kube or _kube."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        func.attr
        for func in calls
        if isinstance(func, ast.Attribute) and func.attr in VERBS and _is_kube(func.value)
    ]


def _is_kube(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return name.lstrip("_") == "kube"


def _asked(*modules: str, secret: str = "") -> set[Right]:
    """The rights that the modules need; `secret`: the one Secret that they look after."""
    return {
        right
        for (module, method), calls in CALLS.items()
        if module in modules
        for about in calls
        for resource in about
        for verb in VERBS[method]
        for right in _rights(resource, verb, {**NAMES, "/secrets": (secret,)})
    }


def _rights(resource: str, verb: str, named: dict[str, tuple[str, ...]]) -> list[Right]:
    group, _, plural = resource.partition("/")
    mine = resource in OWN_NAMESPACE or (resource == "/configmaps" and verb != "get")
    reading_anywhere = resource == "/configmaps" and verb == "get"
    scope = "namespace" if mine else "cluster"
    names = ("",) if verb == "create" or reading_anywhere else named.get(resource, ("",))
    return [Right(scope, group, plural, verb, name) for name in names]


@lru_cache
def _objects(file: str) -> list[Any]:
    return [one for one in yaml.safe_load_all((MANIFESTS / file).read_text()) if one]


def _pod(one: Any) -> Any:
    spec = one.get("spec", {})
    return spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("spec")


def _granted(file: str, name: str) -> set[Right]:
    """The rights of the roles of that name."""
    rights = set()
    for role in _objects(file):
        if role["kind"] not in ("Role", "ClusterRole") or role["metadata"]["name"] != name:
            continue
        scope = "cluster" if role["kind"] == "ClusterRole" else "namespace"
        for rule in role["rules"]:
            rights |= {
                Right(scope, group, resource, verb, one)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for one in rule.get("resourceNames", [""])
            }
    return rights
