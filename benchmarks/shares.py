"""What the fair queue promises, on a real control plane: shares, whole gangs, a flood, killed leaders.

    saturation   three users of weights 1:2:4 always have pods waiting; the second tells a tenth of every
                 run time. Meanwhile gangs of GPU pods and Spark applications come, and the leader is
                 killed twice.
    flood        one user submits hundreds of pods at once; another one a small job now and then.

Pods run on simulated nodes for as long as the benchmark lets them. Who held
what is counted from a watch of the API server (`live_jobs`), not by the queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.live_jobs import Ask, Life, LiveJobs, followed
from benchmarks.replicas import Replicas, Takeover
from scheduler.core.queue.fluid import FluidJob, fluid_finish
from scheduler.edge.kube import STRATEGIC_PATCH, KubeClient
from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.layout import OPTIONAL, Options
from testbed.progress import Progress

NODES, CPU, GPU = 4, 7, 4
SLOTS = NODES * CPU
GPU_NAME = "nvidia.com/gpu"
WEIGHTS: Mapping[str, float] = {"one": 1.0, "two": 2.0, "four": 4.0}
LIAR, LIE = "two", 0.1
RUN_S = (4.0, 8.0)
KEPT_WAITING = 24
GANGS_AT, KILLS_AT = (0.1, 0.4, 0.65), (0.3, 0.6)
"""In parts of the saturation."""
EXECUTORS, GPU_PODS = 4, 8
SMALL_S, SMALL_EVERY_S = 1.0, 3.0
DRAIN_S_MAX = 120.0
TARGET = 0.02


@dataclass(frozen=True, slots=True)
class Share:
    """What a user held of what all three held, and what he is entitled to of it; `told`: of his run times."""

    user: str
    weight: float
    told: float
    held_s: float
    share: float
    entitled: float
    ledger_s: float
    """Slot-seconds that the queue charged him in all, after everything had ended."""
    held_in_all_s: float

    @property
    def off(self) -> float:
        """How far the share is from the entitlement, as a part of it."""
        return self.share / self.entitled - 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    """One gang: seconds from its arrival to its first pod on a node, from there to its last, and whether
    every pod ran before any had ended. Of a Spark application the executors' own arrival is what counts."""

    kind: str
    pods: int
    waited_s: float
    spread_s: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Small:
    """A small job during the flood: what it took, and what the fluid with the bound allows."""

    took_s: float
    fluid_s: float
    allowed_s: float


@dataclass(frozen=True, slots=True)
class Shares:
    """All that was seen."""

    seconds: float
    slots: int
    used: float
    """Part of the slots that was held during the saturation, by anybody."""
    most_bound: int
    shares: tuple[Share, ...]
    gangs: tuple[Whole, ...]
    takeovers: tuple[Takeover, ...]
    flood: int
    flood_s: float
    small: tuple[Small, ...]
    status: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        shares = [{**asdict(one), "off": one.off} for one in self.shares]
        return {**asdict(self), "shares": shares, "target": TARGET, "weights": dict(WEIGHTS), "lie": LIE}


def measure(seconds: float, flood: int, seed: int, progress: Progress) -> Shares:
    """Bring up a cluster and do all of it.

    Raises:
        TestbedError: the cluster did not come up, nobody led, or pods did not end in time.
    """
    own = {"reference": {"cpu": float(SLOTS), GPU_NAME: float(NODES * GPU)}, "weights": dict(WEIGHTS)}
    options = Options(nodes=NODES, sites=1, node_cpu=CPU, without=OPTIONAL, settings={"controller": own})
    with Cluster(options, progress=progress) as cluster:
        return asyncio.run(_measure(cluster, seconds, flood, random.Random(seed), progress.say))


async def _measure(
    cluster: Cluster, seconds: float, flood: int, dice: random.Random, say: Callable[[str], None]
) -> Shares:
    async with followed(str(cluster.kubeconfig)) as (kube, jobs):
        await _give_gpus(kube, cluster.worker_names)
        replicas = Replicas(cluster)
        await replicas.wait_led()
        say("two replicas are up, one leads")
        run = _Saturation(jobs, replicas, seconds, dice, say)
        await run.play()
        await jobs.give_up_waiting(WEIGHTS)
        await _drained(jobs, replicas)
        say("the saturation is over; the flood begins")
        flooded, small = await _flood(jobs, flood, dice)
        await _drained(jobs, replicas)
        received = await asyncio.to_thread(replicas.received)
        _, status = await replicas.wait_led()
        return Shares(
            seconds,
            SLOTS,
            _held(jobs.lives.values(), run.from_s, run.to_s) / (SLOTS * seconds),
            jobs.most_bound,
            shares_of(list(jobs.lives.values()), run.from_s, run.to_s, received),
            tuple(run.gangs(jobs)),
            tuple(run.takeovers),
            flood,
            max(life.ended_s or 0.0 for life in jobs.of(flooded)) - jobs.lives[flooded[0]].created_s,
            tuple(small_jobs(jobs.of(flooded), jobs.of(small))),
            {name: status[name] for name in STATUS},
        )


STATUS = ("bound_violations", "invariant_failures", "terms_failed", "checkpoint_failures", "troubles")


def shares_of(
    lives: Sequence[Life], from_s: float, to_s: float, received: Mapping[str, float]
) -> tuple[Share, ...]:
    """Of each of the three users; `received`: share-seconds by the queue's ledger."""
    held = {user: _held((one for one in lives if one.ask.user == user), from_s, to_s) for user in WEIGHTS}
    now_s = time.time()
    in_all = {user: _held((one for one in lives if one.ask.user == user), 0.0, now_s) for user in WEIGHTS}
    return tuple(
        Share(
            user,
            weight,
            LIE if user == LIAR else 1.0,
            held[user],
            held[user] / sum(held.values()),
            weight / sum(WEIGHTS.values()),
            received.get(user, 0.0) * SLOTS,
            in_all[user],
        )
        for user, weight in WEIGHTS.items()
    )


def small_jobs(flood: Sequence[Life], small: Sequence[Life]) -> list[Small]:
    """Each small job beside the fluid in which all of them, and the flood, are poured over the slots.

    The bound is that of gangs of one on slots: two of the longest runs, and the largest work by slots.
    """
    lives = {str(number): life for number, life in enumerate((*flood, *small))}
    held = {uid: life.held_s(0.0, life.ended_s or 0.0) for uid, life in lives.items()}
    jobs = [FluidJob(uid, one.ask.user, one.created_s, held[uid] / SLOTS) for uid, one in lives.items()]
    finish = fluid_finish(jobs)
    allowed_s = 2.0 * max(held.values()) + max(held.values()) / SLOTS
    return [
        Small(
            (life.ended_s or 0.0) - life.created_s,
            finish[uid] - life.created_s,
            finish[uid] - life.created_s + allowed_s,
        )
        for uid, life in lives.items()
        if any(life is one for one in small)
    ]


class _Saturation:
    """Three users who always have work waiting, gangs among it, and a leader that is killed now and then."""

    def __init__(
        self,
        jobs: LiveJobs,
        replicas: Replicas,
        seconds: float,
        dice: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self._jobs, self._replicas, self._dice, self._say = jobs, replicas, dice, say
        self._seconds = seconds
        self.from_s = self.to_s = 0.0
        self.takeovers: list[Takeover] = []
        self._whole: list[tuple[str, list[str], list[str]]] = []

    async def play(self) -> None:
        """Let all of it happen, for so many seconds from the first pod on.

        Not from a moment when the cluster is full: whose pods came first holds more, and pays it back.
        """
        async with asyncio.TaskGroup() as together:
            self.from_s, self.to_s = time.time(), time.time() + self._seconds
            filling = together.create_task(self._fill())
            for part in GANGS_AT:
                together.create_task(self._after(part, self._gpu_gang))
                together.create_task(self._after(part, self._spark))
            for part in KILLS_AT:
                together.create_task(self._after(part, self._kill))
            await asyncio.sleep(self._seconds)
            self.to_s = time.time()
            filling.cancel()

    def gangs(self, jobs: LiveJobs) -> list[Whole]:
        """What became of the gangs."""
        return [whole(kind, jobs.of(first), jobs.of(names)) for kind, first, names in self._whole]

    async def _after(self, part: float, do: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(part * self._seconds)
        await do()

    async def _fill(self) -> None:
        while True:
            for user in WEIGHTS:
                lacking = KEPT_WAITING - self._jobs.waiting(user)
                await self._jobs.submit_all(_ask(user, self._dice) for _ in range(lacking))
            await asyncio.sleep(0.2)

    async def _kill(self) -> None:
        takeover = await self._replicas.kill_leader(time.time() - self.from_s)
        self.takeovers.append(takeover)
        self._say(f"{takeover.killed} was killed; after {takeover.took_s:.1f} s the other one led")

    async def _gpu_gang(self) -> None:
        number = len(self._whole)
        given = {"fairlane.dev/gang": f"training-{number}", "fairlane.dev/gang-size": str(GPU_PODS)}
        ask = Ask("trainer", RUN_S[1], RUN_S[1], {"cpu": "1", GPU_NAME: "1"}, given)
        names = await self._jobs.submit_all(ask for _ in range(GPU_PODS))
        self._whole.append(("8-pod GPU gang", names, names))

    async def _spark(self) -> None:
        """A driver; when it runs it asks for its executors, as Spark's does."""
        app = f"app-{len(self._whole)}"
        sized = {"fairlane.dev/gang-size": str(1 + EXECUTORS), "fairlane.dev/executor-requests": "cpu=1"}
        labels = {"spark-app-selector": app, "spark-role": "driver"}
        run_s = RUN_S[1]
        driver = await self._jobs.submit(Ask("etl", run_s + 4.0, run_s + 4.0, {"cpu": "1"}, sized, labels))
        life = self._jobs.lives[driver]
        executors: list[str] = []
        self._whole.append(("Spark application", [driver], executors))
        await self._jobs.until(lambda: life.running_s is not None)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": driver, "uid": life.uid, "controller": True}
        account = {"fairlane.dev/user": "system:serviceaccount:default:default"}
        labels = {"spark-app-selector": app, "spark-role": "executor"}
        ask = Ask("etl", run_s, run_s, {"cpu": "1"}, account, labels, owner)
        executors += await self._jobs.submit_all(ask for _ in range(EXECUTORS))


def whole(kind: str, first: Sequence[Life], lives: Sequence[Life]) -> Whole:
    """How a gang started: `first` are the pods that are there from the beginning, `lives` those that must
    start together (of a Spark application its executors)."""
    bound = [life.bound_s for life in lives if life.bound_s is not None]
    ends = [life.ended_s for life in lives if life.ended_s is not None]
    created_s = min(life.created_s for life in first)
    started_s = min((life.bound_s for life in first if life.bound_s is not None), default=float("nan"))
    asked_s = min((life.created_s for life in lives), default=float("nan"))
    begun_s = min(bound, default=float("nan")) if list(first) == list(lives) else asked_s
    last_s = max(bound, default=float("nan"))
    complete = len(bound) == len(lives) > 0 and last_s < min(ends, default=float("inf"))
    return Whole(
        kind, len({id(life) for life in (*first, *lives)}), started_s - created_s, last_s - begun_s, complete
    )


async def _flood(jobs: LiveJobs, count: int, dice: random.Random) -> tuple[list[str], list[str]]:
    """So many pods of one user at once, and a small job of another now and then until they are over."""
    flooded: list[str] = []
    small: list[str] = []
    async with asyncio.TaskGroup() as together:
        flooding = together.create_task(jobs.submit_all(_ask("flooder", dice) for _ in range(count)))
        while not (flooding.done() and jobs.over(flooding.result())):
            await asyncio.sleep(SMALL_EVERY_S)
            small.append(await jobs.submit(Ask("small", SMALL_S, SMALL_S)))
        flooded = flooding.result()
    return flooded, small


def _ask(user: str, dice: random.Random) -> Ask:
    run_s = dice.uniform(*RUN_S)
    return Ask(user, run_s, run_s * (LIE if user == LIAR else 1.0))


def _held(lives: Iterable[Life], from_s: float, to_s: float) -> float:
    return float(sum(life.held_s(from_s, to_s) for life in lives))


async def _drained(jobs: LiveJobs, replicas: Replicas) -> None:
    """Wait until no pod is left that could run, and the queue knows."""
    deadline_s = time.monotonic() + DRAIN_S_MAX
    while not jobs.over(jobs.lives) or await asyncio.to_thread(replicas.running) != 0:
        if time.monotonic() > deadline_s:
            left = [name for name, life in jobs.lives.items() if life.ended_s is None]
            raise TestbedError(f"{len(left)} pods have not ended after {DRAIN_S_MAX:.0f} s: {left[:5]}")
        await asyncio.sleep(0.5)


async def _give_gpus(kube: KubeClient, nodes: Sequence[str]) -> None:
    for node in nodes:
        amounts = {GPU_NAME: str(GPU)}
        body = {"status": {"capacity": amounts, "allocatable": amounts}}
        await kube.patch(f"/api/v1/nodes/{node}/status", body, STRATEGIC_PATCH)
