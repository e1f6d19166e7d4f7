"""What the gathered facts mean: findings in sentences, each problem with what to do. Pure.

`CHECKS` is the whole diagnosis: small functions from facts to findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from model.columns import VERSIONS_APART
from model.protocol import NOTHING_PUBLISHED
from model.schema import SCHEMA_VERSION
from scheduler.edge.facts import Asked, Facts, queue_only
from scheduler.edge.whereabouts import NAMESPACE


class Level(StrEnum):
    """How much a finding matters; only a problem makes `fairlane doctor` fail."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one part, and what to do about it."""

    part: str
    level: Level
    sentence: str
    advice: str = ""


Findings = Iterable[Finding]
Check = Callable[[Facts], Findings]

_JUST_NOW_S = 600.0
"""Bindings longer ago than this say nothing about today's configuration."""
_CALL_SLACK_S = 10.0
_EPOCHS_MAX = 4.0


def diagnose(facts: Facts, checks: Iterable[Check]) -> list[Finding]:
    """All findings of all checks."""
    return [finding for check in checks for finding in check(facts)]


def api_server(facts: Facts) -> Findings:
    """Whether the API server answers, and how many nodes there are."""
    part = "API server"
    if facts.kube_failure:
        told = (
            f"tells {len(facts.nodes)} nodes, but not of pods"
            if facts.nodes
            else "does not tell of nodes and pods"
        )
        yield problem(
            part,
            f"The API server {told}: {facts.kube_failure}.",
            "Give a kubeconfig (KUBECONFIG, or kubeconfig: in the settings) of somebody who may list them.",
        )
    elif not facts.nodes:
        yield problem(part, "The cluster has no nodes.", "Add nodes; nothing can be placed without.")
    else:
        yield ok(part, f"The API server answers and tells {len(facts.nodes)} nodes.")


def extender_answers(facts: Facts) -> Findings:
    """Whether the extender can be reached and has all it needs."""
    status = facts.extender.answer
    if queue_only(facts.settings):
        yield note(
            "extender",
            "No extender is configured: the queue is kept, and nodes are chosen without us.",
            "Set extender_url, unless only the queue is wanted.",
        )
    elif not facts.settings.extender_url:
        yield problem("extender", "I was not told where the extender is.", _NOT_TOLD)
    elif facts.extender.failure:
        yield unreachable("extender", facts.settings.extender_url, facts.extender, _EXTENDER_DOWN)
    elif status.get("unready"):
        yield problem("extender", f"The extender is not ready: {status['unready']}.", _UNREADY)
    else:
        yield ok("extender", f"The extender is ready, with {status.get('tables', 0)} score tables.")


_NOT_TOLD = (
    "Set extender_url (or ask `fairlane doctor --extender-url URL`). Of a release of the chart"
    " `kubectl fairlane doctor` and `kubectl fairlane status` tell, which ask from inside."
)
_EXTENDER_DOWN = "Start `fairlane extender`; until then kube-scheduler places pods by its own plugins."
_UNREADY = "What it waits for is told above; the other findings say how to mend it."


def kube_scheduler_calls(facts: Facts) -> Findings:
    """Whether kube-scheduler asks the extender when it binds pods of ours, or pods are planned at release."""
    status = facts.extender.answer
    if not status:
        return
    if pod := _leads_elsewhere(facts):
        asks = "controller" if facts.settings.controller.placement == "hint" else "kube-scheduler"
        yield note(
            asks,
            f"The {asks} beside this extender stands by: nobody asks here, but in {pod}, which leads.",
            f"Ask there: kubectl exec -n {namespace_of(facts)} {pod} -c extender -- fairlane doctor.",
        )
    elif facts.settings.controller.placement == "hint":
        yield from _plans(facts, status)
    else:
        yield from _calls(facts, status)


def _calls(facts: Facts, status: Mapping[str, Any]) -> Findings:
    last_call_s = status.get("last_call_s") or 0.0
    unasked_s = _unasked_s(facts)
    if _just_after(unasked_s, last_call_s, facts.now_s):
        asked = f"last asked {ago(facts.now_s - last_call_s)}" if last_call_s else "never asked"
        yield problem(
            "kube-scheduler",
            f"kube-scheduler bound a pod of ours {ago(facts.now_s - unasked_s)} without asking"
            f" the extender, which it {asked}.",
            "Check extenders[0] of its configuration: urlPrefix must be the extender's address and then"
            f" {facts.settings.extender.prefix}, filterVerb filter, nodeCacheCapable true. With"
            " prioritizeVerb it never asks about a pod that fits on one node only; that is no fault.",
        )
    elif last_call_s:
        yield ok(
            "kube-scheduler",
            f"kube-scheduler asked the extender {status.get('calls', 0)} times, last"
            f" {ago(facts.now_s - last_call_s)}.",
        )
    else:
        yield note(
            "kube-scheduler",
            "kube-scheduler has not asked the extender yet.",
            "Create a pod with schedulerName: fairlane; with prioritizeVerb, one that fits on two nodes.",
        )


def _unasked_s(facts: Facts) -> float:
    """When a pod of ours was bound last that several could have had; any pod, if nobody tells of those."""
    status = facts.extender.answer
    if "choices_unasked" not in status:
        return facts.last_bound_s
    return status.get("last_choice_unasked_s") or 0.0


def _leads_elsewhere(facts: Facts) -> str:
    """The pod of the replica that leads, and asks its own extender; empty if it is this or not known."""
    leader: str = facts.controller.answer.get("leader") or ""
    pod = facts.scheduler_leader
    if facts.settings.controller.placement == "hint":
        pod = leader.rsplit("-", 2)[0]  # host name, process and a random number
    host = facts.extender.answer.get("host")
    return pod if host and pod != host else ""


def namespace_of(facts: Facts) -> str:
    """Of the release; the usual one where the settings name none."""
    return facts.settings.controller.namespace or NAMESPACE


def _just_after(bound_s: float, asked_s: float, now_s: float) -> bool:
    """True when a pod of ours was bound just now, and later than we were asked about any."""
    return bound_s > now_s - _JUST_NOW_S and bound_s > asked_s + _CALL_SLACK_S


def _plans(facts: Facts, status: Mapping[str, Any]) -> Findings:
    last_s = status.get("last_plan_s") or 0.0
    if _just_after(facts.last_bound_s, last_s, facts.now_s):
        asked = f"last asked for a plan {ago(facts.now_s - last_s)}" if last_s else "never asked for one"
        yield problem(
            "controller",
            f"A pod of ours was bound {ago(facts.now_s - facts.last_bound_s)} without a plan: the controller"
            f" {asked}.",
            "See `hints` in the controller's /v1/status: extender_url must be reachable from the controller.",
        )
    else:
        when = f", the last {ago(facts.now_s - last_s)}" if last_s else ""
        yield ok("controller", f"{status.get('planned', 0)} pods were planned at their release{when}.")


def extender_refusals(facts: Facts) -> Findings:
    """Requests that the extender could not use."""
    refused = facts.extender.answer.get("refused") or {}
    if count := sum(refused.values()):
        yield note(
            "extender",
            f"The extender refused {count} requests; the last: {facts.extender.answer.get('last_refusal')}.",
            "Only kube-scheduler should call it; check extenders[0] if the path or verb is wrong.",
        )


def extender_telemetry(facts: Facts) -> Findings:
    """Whether the snapshot that places pods is young."""
    status = facts.extender.answer
    if failure := status.get("telemetry_failure"):
        yield problem("telemetry", f"The extender gets no new telemetry: {failure}", _PROMETHEUS_DOWN)
    age_s = status.get("epoch_age_s")
    limit_s = _EPOCHS_MAX * facts.settings.epoch_s + facts.settings.prometheus.timeout_s
    if age_s is not None and age_s > limit_s:
        yield problem(
            "telemetry",
            f"The snapshot that the extender uses is {age_s:.0f} s old; {limit_s:.0f} s would be the most.",
            "Look for slow queries in Prometheus, raise epoch_s, or give Prometheus more CPU.",
        )


_PROMETHEUS_DOWN = "Check that Prometheus runs and that prometheus.url in the settings is its address."


def predictions(facts: Facts) -> Findings:
    """Which model answers."""
    part, address = "predictor", facts.settings.predictor_address
    if not address:
        yield note(
            part,
            "No predictor is configured; the analytic prior ranks the nodes.",
            "Train a model (`fairlane train`), serve it (`fairlane predictor`) and set predictor_address.",
        )
    elif NOTHING_PUBLISHED in facts.predictor_failure:
        examples = (facts.recorder.answer.get("rows") or {}).get("examples", 0)
        no_training = _NO_TRAINING.format(namespace_of(facts))
        advice = no_training if examples > _SURELY_ENOUGH else _FIRST_TRAINING
        yield note(part, "No model was published yet; the analytic prior ranks the nodes.", advice)
    elif facts.predictor_failure:
        yield problem(
            part,
            f"No model answers: {facts.predictor_failure}.",
            "Start `fairlane predictor` on a registry with a model (`fairlane train` publishes one);"
            " until then the analytic prior ranks the nodes.",
        )
    elif facts.model is not None:
        yield from _model_findings(facts)


_FIRST_TRAINING = (
    "Nothing, until enough runs have ended: `fairlane train` (in the chart every night, train.leastExamples)"
    " makes the first one."
)
_SURELY_ENOUGH = 1000
"""Runs from which a model is made by every setting that makes sense."""
_NO_TRAINING = (
    "Enough runs are recorded, so look whether training fails: `kubectl get jobs -n {}"
    " -l app.kubernetes.io/component=train` and its logs, or run `fairlane train` by hand."
)


def _model_findings(facts: Facts) -> Findings:
    model = facts.model
    assert model is not None
    if model.schema_version != SCHEMA_VERSION:
        told = problem if abs(model.schema_version - SCHEMA_VERSION) > VERSIONS_APART else note
        yield told(
            "predictor",
            f"Model {model.version} was trained on features of schema {model.schema_version};"
            f" this version builds schema {SCHEMA_VERSION}.",
            "Bring predictor and extender to one release, and train again with `fairlane train`.",
        )
    elif not facts.predictor_serving:
        yield problem(
            "predictor",
            f"The predictor has model {model.version} but says that it is not serving.",
            "Look into its log; restart it if it does not recover.",
        )
    else:
        age = ago(facts.now_s - model.trained_at_s)
        yield ok("predictor", f"Model {model.version} answers; trained {age} on {model.examples} examples.")
    if model.problem:
        yield problem(
            "predictor",
            f"A newer model cannot be served: {model.problem}.",
            "Train again with `fairlane train`, or remove that version from the registry.",
        )


def extender_predictions(facts: Facts) -> Findings:
    """Whether the extender's tables come from the model."""
    status = facts.extender.answer
    failure = status.get("predictor_failure") or ""
    if failure and NOTHING_PUBLISHED not in failure:
        yield problem(
            "predictor",
            f"The extender gets no predictions and ranks by the prior: {failure}.",
            "Check that the extender's predictor_address leads to the predictor and that it serves a model.",
        )
    if why := status.get("tables_failure"):
        yield problem(
            "extender",
            f"Answers may be late: {why}.",
            "See the extender's log; out of memory is the usual cause, so look at its limit.",
        )
    made = status.get("tables_made") or {}
    if made and facts.settings.predictor_address and not failure:
        by = ", ".join(f"{count} by the {name}" for name, count in made.items())
        yield ok("extender", f"Score tables made so far: {by}.")


def unreadable_annotations(facts: Facts) -> Findings:
    """Annotations that users wrote and we could not read."""
    unreadable = facts.extender.answer.get("unreadable_annotations") or {}
    if count := sum(unreadable.values()):
        yield note(
            "pods",
            f"{count} annotations could not be read and were left out; the last:"
            f" {facts.extender.answer.get('last_unreadable_annotation')}.",
            "Tell the pod's owner; the documentation of annotations says what is allowed.",
        )


def unreachable(part: str, url: str, asked: Asked, advice: str) -> Finding:
    """A part that is configured and does not answer."""
    return problem(part, f"The {part} at {url} cannot be asked: {asked.failure}.", advice)


def ago(seconds: float) -> str:
    """A time that has passed, in its largest unit."""
    for name, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}s ago"
    return f"{max(0.0, seconds):.0f} s ago"


def ok(part: str, sentence: str) -> Finding:
    """All is well with a part."""
    return Finding(part, Level.OK, sentence)


def note(part: str, sentence: str, advice: str = "") -> Finding:
    """Worth knowing; nothing is broken."""
    return Finding(part, Level.NOTE, sentence, advice)


def problem(part: str, sentence: str, advice: str) -> Finding:
    """Something to mend, and how."""
    return Finding(part, Level.PROBLEM, sentence, advice)
