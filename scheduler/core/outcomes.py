"""What became of each job's pod: bound, started, ended and how, from what the API server reports.

Kubernetes writes whole seconds. A change seen live narrows them down: the
truth lies within the reported second and not after the moment it was seen
(`instant_s`); what was only found later counts as the middle of its second.

Only pods that ran once, from start to a successful end, count as completions;
everything else keeps its own end state and never enters a run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from scheduler.core.jobs import describe, gang_of, is_recurring
from scheduler.core.types import SCHEDULER_NAME
from scheduler.core.wire import Condition, ContainerStatus, Pod, PodStatus

LIVE_DELAY_S = 0.5
"""A change that was seen this long after its second at most was seen as it happened."""


class EndState(StrEnum):
    """How a pod ended."""

    SUCCEEDED = "succeeded"
    """All containers ended well, at their first try: a completion."""
    RESTARTED = "restarted"
    """It ended well, but a container ran more than once."""
    FAILED = "failed"
    EVICTED = "evicted"
    """The node was short of something, was drained, or went away."""
    PREEMPTED = "preempted"
    DELETED = "deleted"
    """Deleted before it ended."""
    VANISHED = "vanished"
    """It was gone when we looked again; nobody knows how it ended."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One pod's way through the cluster; unix seconds, None for what did not happen (yet)."""

    pod_uid: str
    namespace: str
    name: str
    job_class: str
    user: str
    framework: str
    gang: str
    scheduler: str
    created_at_s: float | None = None
    node: str | None = None
    bound_at_s: float | None = None
    started_at_s: float | None = None
    ended_at_s: float | None = None
    end_state: str | None = None

    @property
    def startup_s(self) -> float | None:
        """Bound to running: image pull and initialisation."""
        return _between(self.bound_at_s, self.started_at_s)

    @property
    def run_s(self) -> float | None:
        """First container running to last container ended."""
        return _between(self.started_at_s, self.ended_at_s)


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else max(0.0, end_s - start_s)


def parse_time_s(text: str | None) -> float | None:
    """Unix time of an RFC 3339 time; None for none or for what is no time."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.timestamp() if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def instant_s(reported_s: float | None, seen_s: float) -> float | None:
    """Best estimate of when something happened that was reported in whole seconds and seen at `seen_s`."""
    if reported_s is None or reported_s != int(reported_s):
        return reported_s
    if reported_s <= seen_s < reported_s + 1.0:
        return seen_s
    if reported_s + 1.0 <= seen_s < reported_s + 1.0 + LIVE_DELAY_S:
        return reported_s + 0.999
    return reported_s + 0.5


class OutcomeTracker:
    """Follows the pods of our scheduler, and all that are marked as jobs of ours.

    Each method returns the outcomes that changed and have to be written.
    `bindings` counts pods of our scheduler that were known before they were on
    a node: of others nobody knows when, and whom kube-scheduler asked then.
    """

    def __init__(self, scheduler_name: str = SCHEDULER_NAME) -> None:
        self._scheduler_name = scheduler_name
        self._outcomes: dict[str, Outcome] = {}
        self.bindings = 0

    def __len__(self) -> int:
        return len(self._outcomes)

    def observe(self, pod: Pod, now_s: float) -> list[Outcome]:
        """A pod as it is now, just reported."""
        if pod.spec.schedulerName != self._scheduler_name and not is_recurring(pod.metadata):
            return []
        before = self._outcomes.get(pod.metadata.uid) or _new(pod)
        after = _advance(before, pod, now_s)
        known = pod.metadata.uid in self._outcomes
        if known and before.node is None and after.node and after.scheduler == self._scheduler_name:
            self.bindings += 1
        self._outcomes[pod.metadata.uid] = after
        return [after] if after != before or not known else []

    def observe_all(self, pods: Sequence[Pod], now_s: float) -> list[Outcome]:
        """The whole collection, after a pause: pods not in it any more have vanished."""
        present = {pod.metadata.uid for pod in pods}
        changed = [
            outcome for uid in list(self._outcomes) if uid not in present for outcome in self._lose(uid)
        ]
        for pod in pods:
            changed += self.observe(pod, now_s)
        return changed

    def deleted(self, pod: Pod, now_s: float) -> list[Outcome]:
        """A pod was deleted; its last state came with the report."""
        changed = self.observe(pod, now_s)
        outcome = self._outcomes.pop(pod.metadata.uid, None)
        if outcome is None or outcome.end_state is not None:
            return changed
        state = _disrupted(pod.status) or EndState.DELETED
        return [_replace(outcome, ended_at_s=now_s, end_state=state)]

    def expect(self, unfinished: Iterable[Outcome]) -> None:
        """Pods that were being followed before a restart; missing ones are found by `observe_all`."""
        for outcome in unfinished:
            self._outcomes.setdefault(outcome.pod_uid, outcome)

    def recall(self, unfinished: Iterable[Outcome]) -> list[Outcome]:
        """The same once the collection was observed: those that are gone have vanished."""
        gone = [outcome for outcome in unfinished if outcome.pod_uid not in self._outcomes]
        self.expect(gone)
        return [lost for outcome in gone for lost in self._lose(outcome.pod_uid)]

    def _lose(self, uid: str) -> list[Outcome]:
        outcome = self._outcomes.pop(uid)
        return [] if outcome.end_state is not None else [_replace(outcome, end_state=EndState.VANISHED)]


def _new(pod: Pod) -> Outcome:
    facts = describe(pod).pod
    return Outcome(
        pod_uid=pod.metadata.uid,
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        job_class=facts.job.job_class,
        user=facts.job.user,
        framework=facts.job.framework,
        gang=gang_of(pod),
        scheduler=facts.scheduler,
        created_at_s=parse_time_s(pod.metadata.creationTimestamp),
    )


def _advance(before: Outcome, pod: Pod, now_s: float) -> Outcome:
    """`before` with what `pod` adds; what is known already stays, because it was seen first."""
    status = pod.status
    after = before
    if after.bound_at_s is None and pod.spec.nodeName:
        bound_s = scheduled_s(status.conditions)
        after = _replace(after, node=pod.spec.nodeName, bound_at_s=instant_s(bound_s, now_s) or now_s)
    if after.started_at_s is None and (started := started_s(status)) is not None:
        after = _replace(after, started_at_s=instant_s(started, now_s))
    if after.end_state is None and (state := end_state(status)) is not None:
        at_s = instant_s(ended_s(status), now_s) or now_s
        after = _replace(after, ended_at_s=at_s, end_state=state)
    return after


def _replace(outcome: Outcome, **changes: object) -> Outcome:
    return msgspec.structs.replace(outcome, **changes)


def scheduled_s(conditions: list[Condition] | None) -> float | None:
    """When kube-scheduler bound the pod."""
    for condition in conditions or ():
        if condition.type == "PodScheduled" and condition.status == "True":
            return parse_time_s(condition.lastTransitionTime)
    return None


def started_s(status: PodStatus) -> float | None:
    """When the first container started; without statuses of containers, when the kubelet took the pod."""
    if status.phase not in ("Running", "Succeeded", "Failed"):
        return None
    started = [_container_started_s(one) for one in status.containerStatuses or ()]
    known = [moment for moment in started if moment is not None]
    return min(known) if known else parse_time_s(status.startTime)


def _container_started_s(container: ContainerStatus) -> float | None:
    if container.state is None:
        return None
    state = container.state.running or container.state.terminated
    return parse_time_s(state.startedAt) if state is not None else None


def ended_s(status: PodStatus) -> float | None:
    """When the last container ended."""
    ended = [
        parse_time_s(one.state.terminated.finishedAt)
        for one in status.containerStatuses or ()
        if one.state is not None and one.state.terminated is not None
    ]
    known = [moment for moment in ended if moment is not None]
    return max(known) if known else None


def end_state(status: PodStatus) -> EndState | None:
    """How the pod ended; None while it has not."""
    if status.phase == "Succeeded":
        restarted = any(one.restartCount > 0 for one in status.containerStatuses or ())
        return EndState.RESTARTED if restarted else EndState.SUCCEEDED
    if status.phase == "Failed":
        return _disrupted(status) or EndState.FAILED
    return None


def _disrupted(status: PodStatus) -> EndState | None:
    """Ended from outside: evicted or preempted."""
    reasons = {one.reason for one in status.conditions or () if one.type == "DisruptionTarget"}
    if "PreemptionByScheduler" in reasons or status.reason == "Preempting":
        return EndState.PREEMPTED
    if reasons or status.reason in ("Evicted", "NodeLost", "NodeShutdown", "Terminated"):
        return EndState.EVICTED
    return None
