"""Reviews judged without an API server: what both ways must agree on is tested on a real one as well."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from scheduler.core.admission import rules as told
from scheduler.core.admission.kinds import BUILT_IN, KNOWN, Place, templates_of
from scheduler.core.admission.pods import annotate
from scheduler.core.admission.review import BadReview, answer, judge, request_of
from scheduler.core.admission.rules import Rules, Verdict

Object = dict[str, Any]
RULES = Rules(
    trusted=frozenset({"job-controller"}),
    submitters=frozenset({"airflow"}),
    kinds=(*BUILT_IN, KNOWN["jobsets"]),
)
POD: Object = {
    "metadata": {"name": "p"},
    "spec": {"schedulerName": "fairlane", "containers": [{"name": "c"}]},
}


def request(now: Object, before: Object | None = None, user: str = "alice", **more: Any) -> Object:
    return {
        "uid": "u",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "team",
        "operation": "CREATE" if before is None else "UPDATE",
        "userInfo": {"username": user, "groups": []},
        "object": now,
        "oldObject": before,
        **more,
    }


def decided(asked: Object, labels: dict[str, str] | None = None, *, prepared: bool = False) -> Verdict:
    return judge(asked, labels or {}, RULES, prepared=prepared)


def applied(whole: Object, verdict: Verdict) -> Object:
    """The object with the patch (only `add`)."""
    whole = copy.deepcopy(whole)
    for step in verdict.patch:
        assert step["op"] == "add"
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:])
        where: Any = whole
        for part in path:
            where = where[int(part)] if isinstance(where, list) else where[part]
        if isinstance(where, list):
            where.append(step["value"])
        else:
            where[last] = copy.deepcopy(step["value"])
    return whole


@pytest.mark.parametrize("labels", [{}, {"fairlane.dev/enabled": "true", "fairlane.dev/queue-name": "gpu"}])
def test_a_prepared_pod_needs_nothing_more(labels: dict[str, str]) -> None:
    first = decided(request(POD), labels)
    prepared = applied(POD, first)
    assert first.patch
    assert prepared["spec"]["schedulingGates"] == [{"name": "fairlane.dev/queue"}]
    assert decided(request(prepared), labels) == Verdict()
    assert decided(request(prepared), labels, prepared=True) == Verdict()


def test_what_another_plugin_took_away_is_missed() -> None:
    prepared = applied(POD, decided(request(POD)))
    for take, sentence in [
        (lambda pod: pod["spec"].pop("schedulingGates"), told.NOT_GATED),
        (lambda pod: pod["metadata"].pop("annotations"), told.NOT_STAMPED),
    ]:
        taken = copy.deepcopy(prepared)
        take(taken)
        assert decided(request(taken), prepared=True).refusal == sentence
    renamed = copy.deepcopy(prepared)
    renamed["spec"]["schedulerName"] = "other"
    renamed["metadata"]["annotations"]["fairlane.dev/scheduler-name"] = "fairlane"
    assert decided(request(renamed), prepared=True).refusal == told.NOT_RENAMED


def test_a_template_without_its_stamp_is_missed_after_preparation() -> None:
    job = {"spec": {"template": copy.deepcopy(POD)}}
    asked = request(job, resource={"group": "batch", "version": "v1", "resource": "jobs"})
    assert decided(asked).patch
    assert decided(asked, prepared=True).refusal == told.NOT_STAMPED
    assert decided(asked | {"object": applied(job, decided(asked))}, prepared=True) == Verdict()


def test_a_kind_without_rules_is_told() -> None:
    asked = request(POD, resource={"group": "x", "version": "v1", "resource": "things"})
    with pytest.raises(BadReview, match=r"admission\.kinds"):
        decided(asked)


@pytest.mark.parametrize("body", [[], {}, {"request": 1}, {"request": {}}, "x", None])
def test_what_is_no_review_is_told(body: Any) -> None:
    with pytest.raises(BadReview, match="not an AdmissionReview"):
        request_of(body)


@pytest.mark.parametrize("now", [{"metadata": 1}, {"spec": ["x"]}, {"metadata": {"annotations": ["x"]}}])
def test_a_misshapen_object_is_told_and_not_a_fault(now: Any) -> None:
    with pytest.raises(BadReview, match="cannot be read"):
        decided(request({**POD, **now}))


def test_answers_have_the_uid_and_either_a_patch_or_a_sentence() -> None:
    asked = request(POD)
    changed = answer(asked, decided(asked))["response"]
    assert (changed["uid"], changed["allowed"], changed["patchType"]) == ("u", True, "JSONPatch")
    assert json.loads(base64.b64decode(changed["patch"]))[-1]["path"] == "/spec/schedulingGates/-"
    refused = answer(asked, Verdict(refusal="no"))["response"]
    assert (refused["allowed"], refused["status"]["message"], refused["status"]["code"]) == (False, "no", 422)
    assert answer(asked, Verdict())["response"] == {"uid": "u", "allowed": True}


def test_places_find_every_template_and_say_where() -> None:
    whole = {
        "spec": {"groups": [{"template": {"a": 1}}, {}, {"template": {"b": 2}}], "roles": {"x/y": {"t": {}}}}
    }
    found = list(
        templates_of(whole, (Place("spec.groups[].template"), Place("spec.roles{}.t"), Place("spec.no")))
    )
    assert [(one.at, one.template) for one in found] == [
        (("spec", "groups", "0", "template"), {"a": 1}),
        (("spec", "groups", "2", "template"), {"b": 2}),
        (("spec", "roles", "x/y", "t"), {}),
    ]


def test_annotating_makes_what_is_missing_and_nothing_else() -> None:
    paths = [step["path"] for step in annotate({}, ("metadata",), {"a/b": "1"})]
    assert paths == ["/metadata", "/metadata/annotations", "/metadata/annotations/a~1b"]
    there = {"metadata": {"annotations": {"x": "y"}}}
    assert [step["path"] for step in annotate(there, ("metadata",), {"a": "1"})] == [
        "/metadata/annotations/a"
    ]
    assert annotate({}, ("metadata",), {}) == []


def test_every_known_kind_names_whom_it_trusts() -> None:
    for kind in KNOWN.values():
        assert kind.controllers, kind.resource
        assert all(name.startswith("system:serviceaccount:") for name in kind.controllers)
