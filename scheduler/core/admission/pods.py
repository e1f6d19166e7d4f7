"""What becomes of a pod when it is created, changed or bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.core.admission.annotations import complaint
from scheduler.core.admission.rules import (
    ASKED_SCHEDULER,
    BEHALF,
    BOUND_WITH_STAMP,
    ENABLED_LABEL,
    FIXED_AT_CREATION,
    FORGED,
    GATE,
    NAMES_A_NODE,
    NOT_A_SUBMITTER,
    NOT_GATED,
    NOT_RENAMED,
    NOT_STAMPED,
    QUEUE,
    RECEIPT,
    RECEIPT_FORGED,
    RELEASED_BY_HAND,
    RESIZED,
    STAMP,
    STAMP_CHANGED,
    Caller,
    Rules,
    Verdict,
    fixed,
    written_by,
)

Fields = Mapping[str, Any]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Creation:
    """A pod that is about to be, and what its annotations and its namespace say."""

    pod: Fields
    namespace: str
    labels: Labels
    caller: Caller
    rules: Rules

    @property
    def spec(self) -> Fields:
        return self.pod.get("spec") or {}

    @property
    def annotations(self) -> Labels:
        return annotations_of(self.pod)

    def given(self, annotation: str) -> str:
        return self.annotations.get(annotation, "")

    @property
    def trusted(self) -> bool:
        return self.caller.name in self.rules.trusted

    @property
    def wants_our_scheduler(self) -> bool:
        name = self.rules.scheduler_name
        return name in (self.spec.get("schedulerName"), self.given(ASKED_SCHEDULER))

    @property
    def joins(self) -> bool:
        return (
            self.wants_our_scheduler
            or bool(self.given(QUEUE))
            or self.labels.get(ENABLED_LABEL) == "true"
            or is_gated(self.pod)
        )

    @property
    def waits(self) -> bool:
        """Joins, and is not one of the pods that a DaemonSet has on every node."""
        owners = (self.pod.get("metadata") or {}).get("ownerReferences") or []
        of_daemon_set = any(one.get("kind") == "DaemonSet" and one.get("controller") for one in owners)
        return self.joins and not (self.trusted and of_daemon_set)

    @property
    def user(self) -> str:
        """Whose pod it is; for a template that was there before Fairlane, its namespace stands."""
        if self.trusted:
            return self.given(STAMP) or f"namespace:{self.namespace}"
        return written_by(self.caller, self.given(BEHALF), self.rules)


def pod_created(pod: Fields, namespace: str, labels: Labels, caller: Caller, rules: Rules) -> Verdict:
    """Admission of a new pod; `labels` are those of its namespace."""
    made = _Creation(pod, namespace, labels, caller, rules)
    if caller.is_node:
        return Verdict()
    refusal = _refusal(made)
    return Verdict(refusal=refusal) if refusal else Verdict(tuple(_additions(made)))


def _refusal(made: _Creation) -> str:
    stamp, caller = made.given(STAMP), made.caller
    if stamp and stamp != made.user:
        return FORGED + caller.name
    if made.given(BEHALF) and not made.trusted and caller.name not in made.rules.submitters:
        return NOT_A_SUBMITTER + caller.name
    if made.waits and made.spec.get("nodeName"):
        return NAMES_A_NODE
    if RECEIPT in made.annotations:
        return RECEIPT_FORGED
    if made.trusted or not made.joins:
        return ""  # a template was judged when it was written
    return complaint(made.annotations, {}, made.rules.scheduler_name)


def _additions(made: _Creation) -> list[Fields]:
    annotations: dict[str, str] = {}
    if not made.given(STAMP) and (made.joins or made.given(BEHALF)):
        annotations[STAMP] = made.user
    queue = made.labels.get(QUEUE, "")
    if queue and made.joins and not made.given(QUEUE):
        annotations[QUEUE] = queue
    patch = annotate(made.pod, ("metadata",), annotations)
    if made.wants_our_scheduler and made.spec.get("schedulerName") != made.rules.scheduler_name:
        patch.append({"op": "add", "path": "/spec/schedulerName", "value": made.rules.scheduler_name})
    if made.waits and not is_gated(made.pod):
        if not made.spec.get("schedulingGates"):
            patch.append({"op": "add", "path": "/spec/schedulingGates", "value": []})
        patch.append({"op": "add", "path": "/spec/schedulingGates/-", "value": {"name": GATE}})
    return patch


def why_not_prepared(verdict: Verdict) -> str:
    """Why a pod is refused that still lacks something after it was prepared; empty if it lacks nothing."""
    paths = {operation["path"] for operation in verdict.patch}
    if "/spec/schedulingGates/-" in paths:
        return NOT_GATED
    if "/spec/schedulerName" in paths:
        return NOT_RENAMED
    return NOT_STAMPED if paths else ""


def pod_changed(now: Fields, before: Fields, caller: Caller, rules: Rules) -> Verdict:
    """Admission of a change of a pod, of its status too: annotations can be written through both."""
    if annotations_of(now).get(STAMP, "") != annotations_of(before).get(STAMP, ""):
        return Verdict(refusal=STAMP_CHANGED)
    is_controller = caller.name == rules.controller
    for annotation in FIXED_AT_CREATION:
        same = annotations_of(now).get(annotation, "") == annotations_of(before).get(annotation, "")
        if not same and not (is_controller and annotation != BEHALF):
            return Verdict(refusal=fixed(annotation))
    if is_gated(before) and not is_gated(now) and not is_controller:
        return Verdict(refusal=RELEASED_BY_HAND)
    if annotations_of(now).get(RECEIPT) != annotations_of(before).get(RECEIPT) and not is_controller:
        return Verdict(refusal=RECEIPT_FORGED)
    if STAMP not in annotations_of(before):
        return Verdict()
    return Verdict(refusal=complaint(annotations_of(now), annotations_of(before), rules.scheduler_name))


def pod_bound(binding: Fields) -> Verdict:
    """Admission of a binding: the API server copies its annotations onto the pod."""
    carries = not annotations_of(binding).keys().isdisjoint((STAMP, RECEIPT))
    return Verdict(refusal=BOUND_WITH_STAMP if carries else "")


def pod_resized(before: Fields) -> Verdict:
    """Admission of other requests for a pod in place: who started small would grow past the queue."""
    return Verdict(refusal=RESIZED if STAMP in annotations_of(before) else "")


def annotations_of(whole: Fields) -> Labels:
    """The annotations of an object."""
    return (whole.get("metadata") or {}).get("annotations") or {}


def is_gated(pod: Fields) -> bool:
    """Whether our gate is on the pod."""
    gates = (pod.get("spec") or {}).get("schedulingGates") or []
    return any(gate.get("name") == GATE for gate in gates)


def annotate(container: Fields, at: tuple[str, ...], wanted: Labels) -> list[Fields]:
    """A patch that sets annotations under the field path `at` of `container`, made where it is missing."""
    if not wanted:
        return []
    patch: list[Fields] = []
    inside, path = container, ""
    for name in (*at, "annotations"):
        inside, path = inside.get(name) or {}, f"{path}/{pointer(name)}"
        if not inside:
            patch.append({"op": "add", "path": path, "value": {}})
    patch += [{"op": "add", "path": f"{path}/{pointer(key)}", "value": text} for key, text in wanted.items()]
    return patch


def pointer(part: str) -> str:
    """One part of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")
