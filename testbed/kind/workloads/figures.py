"""How each job of a scenario went: when it was released, where it ran and how long, from its pods alone.

Times of containers and of creation are whole seconds, as Kubernetes writes them; that of the release is
the controller's, from the receipt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from scheduler.core.admission.rules import STAMP
from scheduler.core.jobs import BATCH_JOB, JOBSET, SPARK_APP, TRAINING_JOB
from scheduler.core.workloads.rules import GATE, RECEIPT

Object = dict[str, Any]

SPARK_NAME, SPARK_ROLE = "spark-app-name", "spark-role"
JOB_LABELS = (SPARK_APP, TRAINING_JOB, JOBSET, BATCH_JOB)
"""Labels that name the job a pod is a part of, in this order."""


@dataclass(frozen=True, slots=True)
class PodTimes:
    """One pod's life, in s since 1970; None for what has not happened."""

    name: str
    job: str
    user: str
    node: str
    phase: str
    created_s: float
    released_s: float | None
    started_s: float | None
    ended_s: float | None
    backfilled: bool = False
    """Let go before its turn, because it would not hold up whose turn it was."""

    @property
    def queued_s(self) -> float | None:
        """From its creation until the controller let it go; None for what replaced a lost member of a gang.

        Its receipt tells of the release of the gang, before it was there.
        """
        known = self.released_s is not None and self.released_s >= self.created_s
        return self.released_s - self.created_s if known and self.released_s is not None else None

    @property
    def starting_s(self) -> float | None:
        """From its release (without one: its creation) until its container ran."""
        if self.started_s is None:
            return None
        return max(0.0, self.started_s - max(self.released_s or 0.0, self.created_s))

    @property
    def run_s(self) -> float | None:
        """How long its container ran."""
        return None if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s


@dataclass(frozen=True, slots=True)
class JobFigures:
    """One job: medians over its pods, but `whole_s`, which is from the first creation to the last end."""

    namespace: str
    job: str
    user: str
    pods: int
    nodes: tuple[str, ...]
    queued_s: float | None
    queued_s_max: float | None
    starting_s: float | None
    run_s: float | None
    predicted_s: float | None
    whole_s: float | None
    phases: Mapping[str, int]


def times_of(pod: Object) -> PodTimes:
    """The times of a pod as the API server tells it."""
    meta, status = pod["metadata"], pod.get("status", {})
    annotations = meta.get("annotations") or {}
    started, ended = _containers(status)
    receipt = _receipt(annotations)
    return PodTimes(
        name=meta["name"],
        job=job_of(meta),
        user=annotations.get(STAMP, ""),
        node=pod["spec"].get("nodeName", ""),
        phase=status.get("phase", ""),
        created_s=instant(meta["creationTimestamp"]),
        released_s=released_s(annotations),
        started_s=min(started, default=None),
        ended_s=max(ended, default=None),
        backfilled=bool(receipt.get("backfilled")),
    )


def job_of(meta: Mapping[str, Any]) -> str:
    """The name of the job that a pod is a part of; its own where nothing names one."""
    labels = meta.get("labels") or {}
    return next((labels[label] for label in JOB_LABELS if label in labels), str(meta["name"]))


def released_s(annotations: Mapping[str, str]) -> float | None:
    """When the controller let a pod go, by its receipt; None without one."""
    receipt = _receipt(annotations)
    return float(receipt["released_s"]) if receipt else None


def _receipt(annotations: Mapping[str, str]) -> dict[str, Any]:
    return dict(json.loads(annotations.get(RECEIPT, "{}")))


def is_gated(pod: Object) -> bool:
    """True while the pod waits in our queue."""
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())


def instant(text: str) -> float:
    """Seconds since 1970 of a time as Kubernetes writes it."""
    return datetime.fromisoformat(text).timestamp()


def job_figures(namespace: str, pods: Iterable[Object], predicted_s: Mapping[str, float]) -> list[JobFigures]:
    """The figures of every job among the pods of a namespace; `predicted_s` by pod name."""
    jobs: dict[str, list[PodTimes]] = defaultdict(list)
    pods = list(pods)
    names = dict(_spark_names(pods))
    for pod in pods:
        times = times_of(pod)
        jobs[names.get(times.job, times.job)].append(times)
    return [_figures(namespace, job, found, predicted_s) for job, found in sorted(jobs.items())]


def _spark_names(pods: Iterable[Object]) -> Iterator[tuple[str, str]]:
    """Spark's id of each application and its name, which only the driver carries as it was submitted."""
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if labels.get(SPARK_ROLE) == "driver" and SPARK_NAME in labels:
            yield job_of(pod["metadata"]), labels[SPARK_NAME]


def _figures(namespace: str, job: str, pods: list[PodTimes], predicted_s: Mapping[str, float]) -> JobFigures:
    ends = [pod.ended_s for pod in pods if pod.ended_s is not None]
    phases: dict[str, int] = defaultdict(int)
    for pod in pods:
        phases[pod.phase] += 1
    return JobFigures(
        namespace=namespace,
        job=job,
        user=next((pod.user for pod in pods if pod.user), ""),
        pods=len(pods),
        nodes=tuple(sorted({pod.node for pod in pods if pod.node})),
        queued_s=_median(pod.queued_s for pod in pods),
        queued_s_max=max((pod.queued_s for pod in pods if pod.queued_s is not None), default=None),
        starting_s=_median(pod.starting_s for pod in pods),
        run_s=_median(pod.run_s for pod in pods),
        predicted_s=_median(predicted_s.get(pod.name) for pod in pods),
        whole_s=max(ends) - min(pod.created_s for pod in pods) if ends else None,
        phases=dict(phases),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _containers(status: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """When containers started and ended."""
    states = [one.get("state") or {} for one in status.get("containerStatuses") or ()]
    last = [state.get("terminated") or state.get("running") or {} for state in states]
    started = [instant(state["startedAt"]) for state in last if state.get("startedAt")]
    ended = [instant(state["finishedAt"]) for state in last if state.get("finishedAt")]
    return started, ended
