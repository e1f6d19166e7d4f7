"""An AdmissionReview as it comes from the API server, and the answer to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from scheduler.core.admission.pods import pod_bound, pod_changed, pod_created, pod_resized, why_not_prepared
from scheduler.core.admission.rules import NOT_STAMPED, Caller, Rules, Verdict
from scheduler.core.admission.templates import templates_written
from scheduler.core.wire import encode_json

Fields = Mapping[str, Any]
REFUSED = 422
"""As admission policies refuse."""


class BadReview(ValueError):
    """What came is no AdmissionReview that we can judge; the message says why."""


def request_of(review: Any) -> Fields:
    """The request inside a decoded AdmissionReview.

    Raises:
        BadReview: there is none.
    """
    request = review.get("request") if isinstance(review, Mapping) else None
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise BadReview("the body is not an AdmissionReview with a request and its uid")
    return request


def judge(request: Fields, labels: Mapping[str, str], rules: Rules, *, prepared: bool) -> Verdict:
    """The verdict on a request; `labels` are those of its namespace.

    `prepared`: all plugins that change objects have run, so nothing may be missing any more.

    Raises:
        BadReview: the request is about something that we have no rules for.
    """
    try:
        verdict = _judge(request, labels, rules)
    except (AttributeError, TypeError, KeyError) as error:
        raise BadReview(f"the request cannot be read: {type(error).__name__}: {error}") from error
    if not prepared or not verdict.patch:
        return verdict
    return Verdict(refusal=why_not_prepared(verdict) if _is_pod(request) else NOT_STAMPED)


def _judge(request: Fields, labels: Mapping[str, str], rules: Rules) -> Verdict:
    resource = request["resource"]
    key = (resource.get("group", ""), resource["resource"])
    user = request.get("userInfo") or {}
    caller = Caller(user.get("username", ""), user.get("groups") or ())
    now, before = request.get("object") or {}, request.get("oldObject")
    if key == ("", "bindings") or request.get("subResource") == "binding":
        return pod_bound(now)
    if key == ("", "pods"):
        if request.get("subResource") == "resize":
            return pod_resized(before or {})
        if before is not None:
            return pod_changed(now, before, caller, rules)
        return pod_created(now, request.get("namespace", ""), labels, caller, rules)
    kind = next((one for one in rules.kinds if one.key == key), None)
    if kind is None:
        raise BadReview(f"there are no rules for {resource}: add the kind to admission.kinds")
    return templates_written(now, before, kind, labels, caller, rules)


def _is_pod(request: Fields) -> bool:
    return bool(request["resource"]["resource"] == "pods")


def answer(request: Fields, verdict: Verdict) -> dict[str, Any]:
    """The AdmissionReview to send back."""
    response: dict[str, Any] = {"uid": request["uid"], "allowed": not verdict.refusal}
    if verdict.refusal:
        response["status"] = {
            "status": "Failure",
            "code": REFUSED,
            "reason": "Invalid",
            "message": verdict.refusal,
        }
    elif verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(encode_json(verdict.patch)).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
