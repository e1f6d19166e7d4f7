"""The production core in the simulation: `scheduler.core.queue.gatekeeper`, unchanged, told what happens.

A gang is one gang for it, an elastic job one gang of one pod for each pod,
bound together by the job's name. What it releases starts at once where it
planned it. It learns of estimates only; a release that does not fit the
simulated cluster is a defect and ends the simulation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scheduler.core.queue.actions import Action, ReleaseGang, Report
from scheduler.core.queue.events import (
    Estimate,
    Event,
    Gang,
    GangArrived,
    GangEnded,
    GangPod,
    GangStarted,
    Node,
    NodeSet,
    ReleaseDone,
    Shape,
    Tick,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from simulator.cluster import Cluster
from simulator.state import Run, Submission

TICK_S = 30.0
TICK_PART = 1e-3
"""Of the time in which nothing has happened: where that is more than `TICK_S` it is the step, as in
`scheduler.core.queue.futures`, so that a job of years takes no million steps."""
INVARIANTS_EVERY = 1000
"""Full checks of the core's invariants after every so many events."""


class CoreDefectError(Exception):
    """The core did what it never may: the sentence says what."""


class FairlaneScheduler:
    """Translates between the simulation and the gatekeeper; decides nothing."""

    def __init__(
        self,
        cluster: Cluster,
        weights: Mapping[str, float],
        *,
        name: str = "fairlane",
        invariants_every: int = INVARIANTS_EVERY,
        **settings: Any,
    ) -> None:
        self.name = name
        self._cluster = cluster
        self._waiting: dict[str, tuple[Submission, int, int]] = {}
        self._released: list[ReleaseGang] = []
        self._present = 0
        """Gangs that wait or run."""
        self._heard_s = self._ticked_s = 0.0
        self._reports: list[Report] = []
        reference: dict[str, float] = {}
        for offered in cluster.offers().values():
            for resource, amount in offered.items():
                reference[resource] = reference.get(resource, 0.0) + amount
        self.gatekeeper = Gatekeeper(
            QueueSettings(
                reference=reference,
                weights={(user,): weight for user, weight in weights.items()},
                invariants_every=invariants_every,
                **settings,
            )
        )
        for node, offered in cluster.offers().items():
            self._handle(NodeSet(Node(node, offered)), 0.0)

    def submitted(self, submission: Submission, now_s: float) -> None:
        """Its gang, or its pods one by one, arrive."""
        pods = submission.job.pods
        width = pods if submission.job.gang else 1
        self._present += pods // width
        self._heard_s = now_s
        shape = Shape(self._cluster.requests(submission.job.request))
        for pod in range(0, pods, width):
            uid = f"{submission.index:07d}/{pod:06d}"
            self._waiting[uid] = (submission, pod, width)
            gang = Gang(
                uid=uid,
                flow=submission.user,
                pods=tuple(GangPod(f"{uid}/{at}", shape) for at in range(width)),
                arrived_s=now_s,
                estimate=self.estimate(submission, pod),
                job=f"{submission.index:07d}",
            )
            self._handle(GangArrived(gang), now_s)

    def estimate(self, submission: Submission, pod: int) -> Estimate | None:
        """What the core is told of the run time of a pod (and of its gang)."""
        return Estimate.exactly(submission.estimated_pod_s(pod))

    def ended(self, run: Run, now_s: float) -> None:
        """The gang ended."""
        self._present -= 1
        self._heard_s = now_s
        self._handle(GangEnded(run.key), now_s)

    def tick(self, now_s: float) -> None:
        """Time went by."""
        self._ticked_s = now_s
        self._handle(Tick(), now_s)

    def next_tick_s(self, now_s: float) -> float | None:
        """On the grid of `TICK_S`; none while nothing waits and nothing runs: time then changes nothing."""
        if not self._present:
            return None
        step_s = max(TICK_S, TICK_PART * (now_s - self._heard_s))
        return math.ceil(max(now_s, self._ticked_s + step_s) / TICK_S) * TICK_S

    def starts(self, now_s: float) -> Iterable[Run]:
        """What was released; that it started may release more."""
        while self._released:
            release = self._released.pop(0)
            run = self._start(release, now_s)
            self._handle(ReleaseDone(release.uid, release.pods), now_s)
            self._handle(GangStarted(release.uid), now_s)
            yield run

    def notes(self) -> Sequence[str]:
        """The core's reports by kind, each with its number and one example."""
        kinds = Counter(report.trouble for report in self._reports)
        first = {report.trouble: report for report in reversed(self._reports)}
        return [f"{count} x {kind}, e.g. {first[kind].sentence}" for kind, count in kinds.items()]

    def _handle(self, event: Event, now_s: float) -> None:
        for action in self.gatekeeper.handle(event, now_s):
            self._note(action)

    def _note(self, action: Action) -> None:
        if isinstance(action, ReleaseGang):
            self._released.append(action)
        elif isinstance(action, Report):
            self._reports.append(action)

    def _start(self, release: ReleaseGang, now_s: float) -> Run:
        known = self._waiting.pop(release.uid, None)
        if known is None:
            raise CoreDefectError(f"{release.uid} was released twice, or never submitted")
        submission, pod, pods = known
        nodes = [release.receipt.placement[uid] for uid in release.pods]
        place = self._cluster.take_on(submission.job.request, nodes)
        if place is None:
            raise CoreDefectError(
                f"{release.uid} was released at {now_s} s without room on {', '.join(nodes)}"
            )
        submission.waiting -= pods
        submission.running += pods
        end_s = now_s + submission.job.durations_s[pod]
        return Run(submission, pod, pods, now_s, end_s, place, release.uid)
