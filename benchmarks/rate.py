"""Scheduling rate: the same burst of pods through several schedulers, in turn, in one run.

Rounds alternate (A B C D, D C B A, ...), so that a machine that grows slower
or busier hits all alike. In each round one kube-scheduler runs by itself:
started, warmed up with a few pods, paused while the burst is created, and
released.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from benchmarks import jobs
from benchmarks.burst import Bound, Placed, Pods, burst, followed_pods
from benchmarks.figures import Histogram, Ratio, histogram, ratio_of_medians
from benchmarks.machine import busy_s, cpu_s
from benchmarks.schedulers import Arm, Scheduler, running
from benchmarks.setting import Setting
from benchmarks.stub import stub
from scheduler.core.workloads.rules import GATE
from testbed.configuration import FAIRLANE_SCHEDULER
from testbed.control import TestbedError

PLAIN = "plain"
OURS = "fairlane"
PRIORITIZE = "prioritize"
HINT, HINT_RUNNING = "hint", "hint-running"
HINT_PREFERRED, HINT_BINDING = "hint-preferred", "hint-binding"
TARGETS = {OURS: 0.8, HINT: 0.95}
WARM_UP_PODS = 48
ALGORITHM = "scheduler_scheduling_algorithm_duration_seconds"
EXTENSION_POINTS = "scheduler_framework_extension_point_duration_seconds"
SHARED = ("kube-apiserver", "etcd")


@dataclass(frozen=True)
class Round:
    """One burst of one arm."""

    arm: str
    number: int
    bound: Bound
    cpu_ms: dict[str, float]
    """CPU time per pod of each process."""
    algorithm_ms: float
    """Mean time kube-scheduler took to choose a node, by its own metrics."""
    score_ms: float
    """Mean time of its score plugins."""
    other_cores: float
    """Cores that processes which are no part of the benchmark used meanwhile."""
    answers: dict[str, int] = field(default_factory=dict)
    """The extender's answers, or its plans at release, by fallback reason; `none` is a fresh prediction."""
    as_planned: float | None = None
    """Share of the pods that were bound to the node planned at their release, where one was."""


@dataclass(frozen=True)
class Rate:
    """All rounds of one cluster size."""

    nodes: int
    pods: int
    arms: tuple[Arm, ...]
    rounds: tuple[Round, ...]

    def of(self, arm: str) -> list[Round]:
        """Rounds of one arm, oldest first."""
        return [one for one in self.rounds if one.arm == arm]

    def rates(self, arm: str) -> list[float]:
        """Pods per second of each of its rounds."""
        return [one.bound.rate for one in self.of(arm)]

    def ratio(self, arm: str) -> Ratio:
        """Its median rate over that of plain kube-scheduler."""
        return ratio_of_medians(self.rates(arm), self.rates(PLAIN))

    def answers(self, arm: str) -> dict[str, int]:
        """The extender's answers over all rounds, by reason."""
        total: dict[str, int] = {}
        for one in self.of(arm):
            for reason, count in one.answers.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def to_json(self) -> dict[str, Any]:
        """Figures and single rounds as plain values."""
        return {
            "nodes": self.nodes,
            "pods": self.pods,
            "target_ratios": TARGETS,
            "arms": {arm.name: self._arm_json(arm) for arm in self.arms},
            "rounds": [_round_json(one) for one in self.rounds],
        }

    def _arm_json(self, arm: Arm) -> dict[str, Any]:
        ratio, rounds = self.ratio(arm.name), self.of(arm.name)
        return {
            "what": arm.what,
            "pods_per_s": median(self.rates(arm.name)),
            "pods_per_s_after_first": median(one.bound.inner_rate for one in rounds),
            "ratio": ratio.value,
            "ratio_90": [ratio.low, ratio.high],
            "algorithm_ms": median(one.algorithm_ms for one in rounds),
            "cpu_ms_per_pod": {name: median(one.cpu_ms[name] for one in rounds) for name in rounds[0].cpu_ms},
            "answers": self.answers(arm.name),
        }


def _round_json(one: Round) -> dict[str, Any]:
    bound = one.bound.bound_s
    return {
        "arm": one.arm,
        "number": one.number,
        "pods_per_s": one.bound.rate,
        "first_bound_s": bound[0],
        "half_bound_s": bound[len(bound) // 2],
        "last_bound_s": bound[-1],
        "algorithm_ms": one.algorithm_ms,
        "score_ms": one.score_ms,
        "cpu_ms_per_pod": one.cpu_ms,
        "other_cores": one.other_cores,
        "answers": one.answers,
        "as_planned": one.as_planned,
    }


def arms(extender_url: str, silent_url: str, naming_url: str) -> tuple[Arm, ...]:
    """Plain kube-scheduler, the steps from it to Fairlane, and Fairlane."""
    return (
        Arm(PLAIN, "kube-scheduler as it comes: batching, its own sample of the nodes", scores_all=False),
        Arm("all-nodes", "no extender, every node scored (Fairlane's scheduler without its extender)"),
        Arm("silent", "an extender that keeps all nodes at once: nothing but asking", silent_url),
        Arm("naming", "one that names a node in turn at once: nothing is computed", naming_url),
        fairlane_arm(OURS, "Fairlane's extender, real model and tables", extender_url),
        replace(
            fairlane_arm(PRIORITIZE, "the same asked for scores, which kube-scheduler adds up", extender_url),
            verb="prioritize",
        ),
        _hint_arm(HINT, "placement written at release; like plain with Fairlane's processes paused"),
        _hint_arm(HINT_RUNNING, "as hint, while Fairlane's processes run on the same cores", ours=True),
        _hint_arm(HINT_PREFERRED, "as hint, nodes preferred and none nominated", hint_nominates=False),
        _hint_arm(
            HINT_BINDING,
            "the same, each pod bound to the few nodes of its plan",
            hint_nominates=False,
            hint_binds="all",
        ),
    )


def _hint_arm(name: str, what: str, ours: bool = False, **controller: Any) -> Arm:
    hints = {"hint_nominates": True, "hint_binds": "nobody"} | controller
    return Arm(name, what, ours=ours, hints=hints, scheduler_name=FAIRLANE_SCHEDULER)


def fairlane_arm(name: str, what: str, extender_url: str) -> Arm:
    """Fairlane's own scheduler, asking the extender at this URL."""
    return Arm(name, what, extender_url, ours=True, scheduler_name=FAIRLANE_SCHEDULER)


def order(arms: Sequence[Arm], rounds: int) -> Iterator[tuple[int, Arm]]:
    """Who runs when: forward and backward in turn."""
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            yield number, arm


ARMS = tuple(arm.name for arm in arms("", "", ""))


def arm_names(text: str) -> tuple[str, ...]:
    """Names of arms from a comma separated list; empty for all.

    Raises:
        TestbedError: one of them does not exist.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise TestbedError(f"no scheduler {', '.join(unknown)}; there are: {', '.join(ARMS)}")
    return names


def measure(
    at: Setting, pods: int, rounds: int, names: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> Rate:
    """Run all rounds on the cluster; `names` picks arms (default all)."""
    with (
        stub(at.cluster, "silent-extender") as silent_url,
        stub(at.cluster, "naming-extender", nodes=at.cluster.worker_names) as naming_url,
    ):
        found = arms(at.cluster.extender_url, silent_url, naming_url)
        picked = tuple(arm for arm in found if not names or arm.name in names)
        run = asyncio.run(_rounds(at, picked, pods, rounds, say or at.progress.say))
    return Rate(at.cluster.options.nodes, pods, picked, tuple(run))


async def _rounds(
    at: Setting, picked: tuple[Arm, ...], pods: int, rounds: int, say: Callable[[str], None]
) -> list[Round]:
    done: list[Round] = []
    async with followed_pods(str(at.cluster.kubeconfig)) as created:
        for number, arm in order(picked, rounds):
            play = hinted_round if arm.hints else one_round
            with fairlane(at, runs=arm.ours or bool(arm.hints)):
                one = await play(at, arm, number, pods, created)
            done.append(one)
            say(f"round {number + 1} of {rounds}, {arm.name}: {one.bound.rate:.0f} pods/s")
    return done


@contextmanager
def fairlane(at: Setting, runs: bool) -> Iterator[None]:
    """Fairlane's processes run, or are paused until the block ends."""
    if runs:
        yield
        return
    at.pause_ours()
    try:
        yield
    finally:
        at.resume_ours()
    at.wait_warm(pods=0)  # they have caught up


async def one_round(at: Setting, arm: Arm, number: int, pods: int, created: Pods) -> Round:
    """One burst through a scheduler of its own."""
    prefix = f"{arm.name}-{number}"
    async with running(arm, at.cluster) as scheduler:
        await warm_up(at, scheduler, prefix, created)
        manifests = jobs.pods(pods, prefix, arm.scheduler_name, at.kinds)
        before: list[_Counters] = []

        async def ready() -> None:
            if arm.ours:
                await asyncio.to_thread(at.wait_warm, pods, min(pods, len(at.kinds)))
            before.append(_Counters.read(at, scheduler, last_metrics))

        last_metrics = await scheduler.metrics()
        bound = await burst(scheduler, created, manifests, ready)
        after = _Counters.read(at, scheduler, await scheduler.metrics())
    await created.clear()
    if arm.ours:
        await asyncio.to_thread(at.wait_warm, 0)
    return _round(arm, number, bound, before[0], after)


async def hinted_round(at: Setting, arm: Arm, number: int, pods: int, created: Pods) -> Round:
    """One burst of pods that the controller has released with their placement before."""
    prefix = f"{arm.name}-{number}"
    async with running(arm, at.cluster) as scheduler:
        await warm_up(at, scheduler, prefix, created)
        with at.controller(arm.hints) as controller:
            manifests = jobs.pods(pods, prefix, arm.scheduler_name, at.kinds, GATE)
            last_metrics, planned = await scheduler.metrics(), at.status()["plans_by_reason"]
            before: list[_Counters] = []

            async def ready() -> None:
                await asyncio.to_thread(at.wait_released, pods)
                if not arm.ours:
                    controller.pause()
                    at.pause_ours()
                before.append(_Counters.read(at, scheduler, last_metrics))

            try:
                bound = await burst(scheduler, created, manifests, ready)
                after = _Counters.read(at, scheduler, await scheduler.metrics())
            finally:
                controller.resume()
                at.resume_ours()
            answers = _more(at.status()["plans_by_reason"], planned)
            placed = await created.nodes(manifests)
            await created.clear()
    await asyncio.to_thread(at.wait_warm, 0)
    return replace(
        _round(arm, number, bound, before[0], after), answers=answers, as_planned=_as_planned(placed)
    )


def _more(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}


def _as_planned(pods: Sequence[Placed]) -> float:
    """Share of the pods with a hint that went where it says."""
    hinted = [pod for pod in pods if pod.planned]
    return sum(pod.node == pod.planned for pod in hinted) / len(pods) if pods else 0.0


async def warm_up(at: Setting, scheduler: Scheduler, prefix: str, created: Pods) -> None:
    """Caches, connections and code paths are used once before anything is timed."""
    manifests = jobs.pods(WARM_UP_PODS, f"{prefix}-warm", scheduler.arm.scheduler_name, at.kinds)
    await burst(scheduler, created, manifests, at_once)
    await created.clear()
    if scheduler.arm.ours or scheduler.arm.hints:
        await asyncio.to_thread(at.wait_warm, 0)


async def at_once() -> None:
    """Nothing has to be waited for."""


@dataclass(frozen=True)
class _Counters:
    """Everything that is counted, at one moment."""

    cpu_s: dict[str, float]
    busy_s: float
    algorithm: Histogram
    score: Histogram
    answers: dict[str, int]

    @classmethod
    def read(cls, at: Setting, scheduler: Scheduler, metrics: str) -> _Counters:
        """`metrics` are the scheduler's own: a paused one cannot be asked."""
        names = [*SHARED, *(process.name for process in at.ours)]
        pids = {name: at.cluster.process(name).pid or 0 for name in names}
        pids |= {"kube-scheduler": scheduler.pid}
        return cls(
            {name: cpu_s(pid) for name, pid in pids.items()}
            | {"benchmark": cpu_s(os.getpid(), with_children=False)},
            busy_s(),
            histogram(metrics, ALGORITHM),
            histogram(metrics, EXTENSION_POINTS, {"extension_point": "Score"}),
            at.status()["answers_by_reason"] if scheduler.arm.ours and not scheduler.arm.hints else {},
        )


def _round(arm: Arm, number: int, bound: Bound, before: _Counters, after: _Counters) -> Round:
    used_s = {name: after.cpu_s[name] - before.cpu_s[name] for name in after.cpu_s}
    return Round(
        arm=arm.name,
        number=number,
        bound=bound,
        cpu_ms={name: 1000.0 * seconds / len(bound.bound_s) for name, seconds in used_s.items()},
        algorithm_ms=(after.algorithm - before.algorithm).mean_ms,
        score_ms=(after.score - before.score).mean_ms,
        other_cores=max(0.0, after.busy_s - before.busy_s - sum(used_s.values())) / bound.bound_s[-1],
        answers=_more(after.answers, before.answers),
    )
