"""An API server, its controllers, kube-scheduler and a watch that misbehaves, around Assembly and Gatekeeper.

Everything random comes from one source. Words on the watch come late, twice,
long after newer ones, or not at all until the next list; strangers open gates
and delete pods; the controller restarts from a checkpoint. What pods really
used of the nodes is counted here, apart from the queue's books.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from scheduler.core.queue.actions import Action, DeletePods, ReleaseGang, Settled
from scheduler.core.queue.events import Event, Node, NodeSet, ReleaseDone, Tick
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.wire import Pod, Workload
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.rules import Rules

NODES = {"n1": 4.0, "n2": 4.0}
LIST_S, TICK_S, BIND_S, CHECKPOINT_S = 25.0, 10.0, 1.0, 5.0
CLOCKS_S = 120.0
"""As the controller takes into account that clocks differ."""
BEGIN_S = 1_000_000.125
"""Not a whole second: the world's times are exact, so that work can be compared exactly."""


@dataclass
class Real:
    """A pod as the API server has it. `maker`: what makes it again when it fails; `dead`: deleted."""

    meta: dict[str, Any]
    cpu: float
    duration_s: float
    gated: bool = True
    node: str = ""
    bound_s: float = 0.0
    phase: str = "Pending"
    ended_s: float = 0.0
    dead: bool = False
    heard_over_s: float | None = None
    maker: Callable[[], None] | None = None
    ours: bool = True
    fails: bool = False
    when_bound: Callable[[], None] | None = None

    @property
    def uid(self) -> str:
        return str(self.meta["uid"])

    @property
    def holds(self) -> bool:
        """On a node, and not ended."""
        return bool(self.node) and self.phase == "Pending" and not self.dead

    def snapshot(self, version: int) -> Pod:
        """As the API server sends it now."""
        bound = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(self.bound_s)}]
        ended = [{"state": {"terminated": {"finishedAt": stamp(self.ended_s)}}}]
        pod = {
            "metadata": {**self.meta, "resourceVersion": str(version)},
            "spec": {
                "schedulerName": "fairlane" if self.ours else "default-scheduler",
                "schedulingGates": [{"name": "fairlane.dev/queue"}] if self.gated else [],
                "containers": [{"name": "c", "resources": {"requests": {"cpu": str(self.cpu)}}}],
                "nodeName": self.node or None,
            },
            "status": {
                "phase": self.phase,
                "conditions": bound if self.node else [],
                "containerStatuses": ended if self.phase != "Pending" else [],
            },
        }
        return msgspec.convert(pod, Pod)


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


@dataclass
class World:
    """The cluster. `faulty`: the watch loses words, lists repair that, and the controller restarts."""

    dice: random.Random
    faulty: bool
    strangers: bool = True
    now_s: float = BEGIN_S
    pods: dict[str, Real] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)
    charged: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    ended_well: int = 0
    answering: set[str] = field(default_factory=set)
    least: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = QueueSettings(
            reference={"cpu": sum(NODES.values())},
            half_open_timeout_s=20.0,
            start_timeout_s=60.0,
            promise_timeout_s=30.0,
        )
        self.keeper = Gatekeeper(self.settings)
        self.assembly = Assembly(Rules(), since_s=self.now_s)
        self.checkpoint = json.dumps(self.keeper.export())
        self.until_s = self.now_s + 120.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._words: list[Pod] = []
        self._repeat(TICK_S, lambda: self._handle([Tick()]))
        if self.faulty:
            self._repeat(LIST_S, self.list_all)
        self._repeat(BIND_S, self._bind)
        self._repeat(CHECKPOINT_S, self._save)

    # What happens

    def play(self) -> None:
        """Let jobs come and things happen; then let everything end, and be seen to have ended."""
        self._handle([NodeSet(Node(name, {"cpu": cpu, "pods": 20.0})) for name, cpu in NODES.items()])
        self.list_all()
        for index in range(self.dice.randint(2, 8)):
            self._at(self.now_s + self.dice.uniform(0.0, 60.0), lambda index=index: self._submit(index))
        for _ in range(self.dice.randint(0, 5)):
            self._at(self.now_s + self.dice.uniform(5.0, 110.0), self._misfortune)
        self._run(self.until_s + 200.0)
        for real in list(self.pods.values()):
            real.maker = None
            self._delete(real)
        self._run(self.now_s + 60.0)
        if self.faulty:
            self.list_all()

    def _run(self, until_s: float) -> None:
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._heap)
            do()

    def _submit(self, index: int) -> None:
        kind = self.dice.choice([self._lone, self._annotated, self._indexed, self._spark, self._foreign])
        kind(f"j{index}", self.dice.choice(["ann", "bob"]), self.dice.choice([0.5, 1.0, 2.0]))

    def _lone(self, name: str, user: str, cpu: float) -> None:
        self._create(name, user, cpu)

    def _foreign(self, name: str, user: str, cpu: float) -> None:
        self._create(name, user, cpu, ours=False)

    def _annotated(self, name: str, user: str, cpu: float) -> None:
        """A gang; sometimes with pods beyond its size, sometimes without all of them."""
        size = self.dice.randint(2, 4)
        given = {"fairlane.dev/gang": name, "fairlane.dev/gang-size": str(size)}
        self.least[f"ns/{name}//{user}"] = size
        for number in range(size + self.dice.choice([0, 0, 0, 1, -1])):
            self._create(f"{name}-{number}", user, cpu, given)

    def _indexed(self, name: str, user: str, cpu: float) -> None:
        """An indexed Job, seen before or after its pods; it makes failed pods again."""
        size = self.dice.randint(1, 4)
        spec = {"parallelism": size, "completions": size, "completionMode": "Indexed"}
        meta = {"name": name, "namespace": "ns", "uid": f"job-{name}"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
        late_s = self.dice.choice([0.0, 0.0, 3.0])
        self.workloads[name] = msgspec.convert(job, Workload)
        self._at(self.now_s + late_s, lambda: self.answering.add(name))
        labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": "0"}
        owner = {"kind": "Job", "name": name, "uid": f"job-{name}", "controller": True}

        def make(number: int, tries: int) -> None:
            again = (lambda: make(number, tries - 1)) if tries else None
            self._create(
                f"{name}-{number}", user, cpu, labels=labels, owner=owner, maker=again,
                failing=0.4 if tries else 0.0,
            )  # fmt: skip

        for number in range(size):
            make(number, 2)

    def _hear_of(self, name: str) -> list[Event]:
        return self.assembly.set_owner(self.workloads[name], self.now_s)

    def _spark(self, name: str, user: str, cpu: float) -> None:
        """A driver that asks for its executors when it runs; some never come, some come beyond."""
        count = self.dice.randint(1, 3)
        given = {
            "fairlane.dev/gang-size": str(1 + count),
            "fairlane.dev/executor-requests": f"cpu={self.dice.choice([cpu, 0.25])}",
        }
        labels = {"spark-app-selector": name, "spark-role": "driver"}
        driver = self._create(f"{name}-driver", user, cpu, given, labels)
        account = "system:serviceaccount:ns:default" if self.dice.random() < 0.8 else "mallory"
        owner = {"kind": "Pod", "name": f"{name}-driver", "uid": driver.uid, "controller": True}

        def ask() -> None:
            for number in range(count + self.dice.choice([0, 0, 1, -1])):
                marks = {"spark-app-selector": name, "spark-role": "executor"}
                self._create(f"{name}-exec-{number}", account, cpu, labels=marks, owner=owner)

        driver.when_bound = ask

    def _misfortune(self) -> None:
        alive = [one for one in self.pods.values() if not one.dead]
        what = self.dice.randrange(4)
        if what == 0 and self.faulty:
            self._restart()
        elif what == 1 and self.faulty:
            self.list_all()
        elif alive and self.strangers:
            real = self.dice.choice(alive)
            if what == 2:
                self._delete(real)
            elif real.gated and not real.node:
                real.gated = False
                self._word(real)

    # The API server and who acts on it

    def _create(
        self,
        name: str,
        user: str,
        cpu: float,
        annotations: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        owner: dict[str, Any] | None = None,
        maker: Callable[[], None] | None = None,
        failing: float = 0.1,
        ours: bool = True,
    ) -> Real:
        self._number += 1
        meta = {
            "name": name,
            "namespace": "ns",
            "uid": f"{name}~{self._number}",
            "annotations": {"fairlane.dev/user": user, **(annotations or {})},
            "labels": labels or {},
            "ownerReferences": [owner] if owner else [],
            "creationTimestamp": stamp(self.now_s),
        }
        real = Real(meta, cpu, self.dice.choice([1.0, 5.0, 20.0]), gated=ours, maker=maker, ours=ours)
        real.fails = self.dice.random() < failing
        self.pods[real.uid] = real
        self._word(real)
        return real

    def _bind(self) -> None:
        """kube-scheduler, and pods that end after they have run for their time."""
        for real in list(self.pods.values()):
            if real.holds and self.now_s >= real.bound_s + real.duration_s:
                self._end(real, well=not real.fails)
        for real in list(self.pods.values()):
            if real.gated or real.node or real.dead:
                continue
            for name, cpu in NODES.items():
                if self._used(name) + real.cpu <= cpu + 1e-9:
                    real.node, real.bound_s = name, self.now_s
                    self._word(real)
                    if real.when_bound is not None:
                        real.when_bound()
                    break

    def _used(self, node: str) -> float:
        return sum(one.cpu for one in self.pods.values() if one.holds and one.node == node)

    def _end(self, real: Real, *, well: bool) -> None:
        real.phase, real.ended_s = "Succeeded" if well else "Failed", self.now_s
        self.ended_well += well
        self._word(real)
        if not well and real.maker is not None:
            real.maker()
        for child in list(self.pods.values()):
            if any(one["uid"] == real.uid for one in child.meta["ownerReferences"]):
                self._delete(child)

    def _delete(self, real: Real) -> None:
        if real.dead:
            return
        real.dead = True
        self._at(self.now_s + self._late_s(), lambda: self._handle_gone(real.uid))
        if real.phase == "Pending" and real.maker is not None:
            real.maker()

    # The watch

    def _late_s(self) -> float:
        return self.dice.choice([0.0, 0.0, 0.2, 1.5])

    def _word(self, real: Real) -> None:
        """A change of a pod: soon, twice, and sometimes lost until the next list."""
        self._number += 1
        pod = real.snapshot(self._number)
        self._words.append(pod)
        if self.faulty and self.now_s < self.until_s and self.dice.random() < 0.1:
            return
        for _ in range(2 if self.dice.random() < 0.2 else 1):
            self._at(self.now_s + self._late_s(), lambda: self._hear(pod))

    def _hear(self, pod: Pod) -> None:
        real = self.pods[pod.metadata.uid]
        if pod.status.phase != "Pending" and real.heard_over_s is None:
            real.heard_over_s = real.ended_s
        self._handle(self.assembly.set_pod(pod, self.now_s))
        if self.dice.random() < 0.05:
            self._handle(self.assembly.set_pod(self.dice.choice(self._words), self.now_s))

    def _handle_gone(self, uid: str) -> None:
        if self.faulty and self.now_s < self.until_s and self.dice.random() < 0.1:
            return
        self._number += 1
        last = self.pods[uid].snapshot(self._number)
        self._hear(last)
        self._gone(self.pods[uid], self.now_s)
        self._handle(self.assembly.remove_pod(uid, self.now_s))

    def _gone(self, real: Real, at_s: float) -> None:
        """The queue hears that it is gone; if that is how it learns of the end, this is the end."""
        real.heard_over_s = real.heard_over_s or max(at_s, real.bound_s)

    def list_all(self) -> None:
        self._number += 1
        for real in self.pods.values():
            if real.dead:
                self._gone(real, min(self.now_s, self.assembly.heard_s))
            elif real.phase != "Pending":
                real.heard_over_s = real.heard_over_s or real.ended_s
        there = [one.snapshot(self._number) for one in self.pods.values() if not one.dead]
        self._handle(self.assembly.set_pods(there, self.now_s))

    # The controller

    def _handle(self, events: list[Event]) -> None:
        keeper = self.keeper
        self.seen.update(type(event).__name__ for event in events)
        for action in keeper.handle_all(events, self.now_s):
            self._act(action)
        for ref in self.assembly.needs:
            if ref.name not in self.workloads:
                self._handle(self.assembly.remove_owner(ref, self.now_s))
            elif ref.name in self.answering:
                self._handle(self._hear_of(ref.name))

    def _act(self, action: Action) -> None:
        if isinstance(action, ReleaseGang):
            self._release(action)
        elif isinstance(action, DeletePods):
            for uid in action.pods:
                self._delete(self.pods[uid])
        elif isinstance(action, Settled):
            self.settled.append(action)

    def _release(self, action: ReleaseGang) -> None:
        self.charged[action.uid] += not action.completing
        whole = action.completing or len(action.pods) >= self.least.get(action.uid, 1)
        assert whole, f"only {action.pods} of {action.uid} start"
        told = {
            "gang": action.uid,
            "released_s": action.receipt.released_s,
            "charged_work": action.receipt.charged_work,
        }
        for uid in action.pods:
            real = self.pods[uid]
            if not real.dead and real.gated:
                real.gated = False
                real.meta["annotations"] = real.meta["annotations"] | {
                    "fairlane.dev/receipt": json.dumps(told)
                }
                self._word(real)
        self._at(self.now_s + 0.1, lambda: self._handle([ReleaseDone(action.uid, action.pods)]))

    def _save(self) -> None:
        self.checkpoint = json.dumps(self.keeper.export(), allow_nan=True)

    def _restart(self) -> None:
        state = json.loads(self.checkpoint)
        self.keeper = Gatekeeper.revive(self.settings, state)
        self.assembly = Assembly(Rules(), since_s=state["now_s"] - CLOCKS_S)
        self._handle([NodeSet(Node(name, {"cpu": cpu, "pods": 20.0})) for name, cpu in NODES.items()])
        self.list_all()

    # Time

    def _at(self, at_s: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_s, self._number, do))

    def _repeat(self, every_s: float, work: Callable[[], None]) -> None:
        def again() -> None:
            work()
            self._at(self.now_s + every_s, again)

        self._at(self.now_s + every_s, again)

    def work_done(self) -> float:
        """Share-seconds that pods of ours held a node for, as far as the queue could know."""
        whole, done = sum(NODES.values()), 0.0
        for real in [one for one in self.pods.values() if one.ours and one.node]:
            done += real.cpu / whole * ((real.heard_over_s or self.now_s) - real.bound_s)
        return done
