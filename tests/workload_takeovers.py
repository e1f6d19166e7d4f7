"""A world whose watch is honest and whose replicas take over from each other, often from an old checkpoint.

The former leader may go on for a while: it hears what happens, and what it
opens is open. Its books are lost with it. Checkpoints are the controller's
own, and words begin anew with each list, as those of a watch do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workload_world import CLOCKS_S, NODES, World

from scheduler.core.queue.actions import Action, Settled
from scheduler.core.queue.events import Node, NodeSet
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.wire import Pod
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.rules import Rules
from scheduler.edge.controller_state import ControllerState

OVERLAP_S = 8.0
"""How long a former leader goes on at most; in truth its lease ends that."""


@dataclass
class Replica:
    """What a leader knows."""

    keeper: Gatekeeper
    assembly: Assembly
    state: ControllerState


@dataclass
class Saved:
    """A checkpoint, and the pods that its writer had not heard to be gone."""

    text: str
    core_s: float
    known: frozenset[str]


class TakingOver(World):
    """`unwatched`: pods that were deleted after a checkpoint from which somebody took over: how long they
    ran nobody can know. `received` is the last leader's ledger."""

    def __init__(self, dice: random.Random) -> None:
        self.saved: list[Saved] = []
        self.unwatched = self.takeovers = 0
        self._since = 0
        self._gone_before: frozenset[str] = frozenset()
        self._former: Replica | None = None
        self._former_until_s = 0.0
        super().__init__(dice, faulty=False, strangers=False)
        self.state = ControllerState(self.now_s)
        self._save()

    @property
    def received(self) -> float:
        """Share-seconds of all users."""
        return float(sum(work for _, work in self.keeper.export()["received"]))

    def _save(self) -> None:
        core = self.keeper.export()
        text = json.dumps(self.state.told(core, self.now_s))
        one = Saved(text, core["now_s"], frozenset(self.assembly._members))
        self.saved = [*self.saved[-1:], one]

    def _act(self, action: Action) -> None:
        if isinstance(action, Settled):
            self.state.settled(action.uid, self.now_s)
        super()._act(action)

    def _misfortune(self) -> None:
        """Another replica leads from now on."""
        self.takeovers += 1
        self._former = Replica(self.keeper, self.assembly, self.state)
        self._former_until_s = self.now_s + self.dice.uniform(0.0, OVERLAP_S)
        one = self.dice.choice(self.saved)
        self.saved = [one]
        self.unwatched += sum(self._is_missed(uid, one) for uid in self.pods)
        self._gone_before = frozenset(uid for uid, real in self.pods.items() if real.dead)
        self._number += 1
        self._since, self._words = self._number, []
        self._begin(ControllerState.of(json.loads(one.text)))

    def _begin(self, state: ControllerState) -> None:
        assert state.core is not None
        self.state, self.keeper = state, Gatekeeper.revive(self.settings, state.core)
        self.assembly = Assembly(Rules(), since_s=state.at_s - CLOCKS_S)
        self._handle([NodeSet(Node(name, {"cpu": cpu, "pods": 20.0})) for name, cpu in NODES.items()])
        self.list_all()

    def _is_missed(self, uid: str, saved: Saved) -> bool:
        real = self.pods[uid]
        heard_before = uid not in saved.known and real.bound_s <= saved.core_s
        return real.dead and bool(real.node) and uid not in self._gone_before and not heard_before

    def _hear(self, pod: Pod) -> None:
        self._words = self._words or [pod]
        if int(pod.metadata.resourceVersion) > self._since:
            super()._hear(pod)
        if self._former is not None and self.now_s <= self._former_until_s:
            with self._as_former(self._former):
                super()._hear(pod)

    def _handle_gone(self, uid: str) -> None:
        if uid not in self._gone_before:
            super()._handle_gone(uid)

    @contextmanager
    def _as_former(self, former: Replica) -> Iterator[None]:
        mine, settled = Replica(self.keeper, self.assembly, self.state), self.settled
        self._become(former, [])
        try:
            yield
        finally:
            self._become(mine, settled)

    def _become(self, one: Replica, settled: list[Settled]) -> None:
        self.keeper, self.assembly, self.state, self.settled = one.keeper, one.assembly, one.state, settled
