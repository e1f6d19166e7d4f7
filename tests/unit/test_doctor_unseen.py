"""A kube-scheduler of ours that does not run: its pods are released, and nobody looks at them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
from test_doctor import GOOD, NOW_S, problems

from scheduler.core.unseen import UnseenPods, unseen_since_s
from scheduler.core.wire import Meta, Pod

GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
LATER = "2027-01-15T08:00:00Z"
LATER_S = 1_800_000_000.0


def pod(*conditions: dict[str, Any], released_s: float = 0.0, **spec: Any) -> Pod:
    """One as the API server tells it, made at LATER."""
    receipt = {"fairlane.dev/receipt": json.dumps({"gang": "g", "released_s": released_s})}
    metadata = {"creationTimestamp": LATER, "annotations": receipt if released_s else {}}
    told = {"metadata": metadata, "spec": spec, "status": {"phase": "Pending", "conditions": conditions}}
    return msgspec.json.decode(json.dumps(told), type=Pod)


def test_a_released_pod_that_no_kube_scheduler_looked_at_is_known_by_its_condition() -> None:
    """Who tries to place a pod and cannot says so in its condition."""
    assert unseen_since_s([pod(GATED, released_s=LATER_S + 60)]) == LATER_S + 60
    assert unseen_since_s([pod()]) == LATER_S  # never gated: the queue is not installed
    assert unseen_since_s([pod(), pod(GATED, released_s=LATER_S + 60)]) == LATER_S
    tried = {**GATED, "reason": "Unschedulable"}
    bound = {"type": "PodScheduled", "status": "True", "reason": ""}
    gate = [{"name": "fairlane.dev/queue"}]
    claims = [{"name": "gpu"}]
    others = [
        pod(GATED, resourceClaims=claims),
        pod(tried),
        pod(GATED, schedulingGates=gate),
        pod(bound, nodeName="n0"),
        pod(nodeName="n0"),
    ]
    assert unseen_since_s(others) == 0.0
    broken = msgspec.structs.replace(pod(), metadata=Meta())
    assert unseen_since_s([broken]) == 0.0


def test_the_recorder_counts_them_until_they_are_looked_at_or_gone() -> None:
    def named(uid: str, *conditions: dict[str, Any], scheduler: str = "fairlane", **spec: Any) -> Pod:
        made = pod(*conditions, schedulerName=scheduler, **spec)
        return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, uid=uid))

    unseen = UnseenPods()
    unseen.observe_all([named("a"), named("b", GATED), named("c", scheduler="default-scheduler")])
    assert len(unseen) == 2
    unseen.observe(named("a", {**GATED, "reason": "Unschedulable"}))
    unseen.observe(named("d", GATED, schedulingGates=[{"name": "fairlane.dev/queue"}]))
    assert len(unseen) == 1
    unseen.observe(named("d", GATED))
    unseen.deleted(named("b", GATED))
    assert len(unseen) == 1
    unseen.observe_all([])  # gone while nobody looked
    assert len(unseen) == 0


def test_it_is_a_problem_of_kube_scheduler_after_some_minutes() -> None:
    quiet = replace(GOOD, last_bound_s=NOW_S - 1000)
    assert problems(replace(quiet, unseen_since_s=NOW_S - 200)) == ""
    assert problems(replace(GOOD, unseen_since_s=NOW_S - 600)) == ""  # others were bound since: it runs
    told = problems(replace(quiet, unseen_since_s=NOW_S - 600))
    assert "A pod of ours was released 10 minutes ago, and no kube-scheduler has looked at it." in told
    assert "kubectl --namespace fairlane-system logs deploy/fairlane-scheduler -c kube-scheduler" in told
