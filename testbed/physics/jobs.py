"""How long a job runs on a node, given the true state of the world.

A job starts up, fetches its input from a store over the network, computes,
and then makes rounds of request and answer with that store. Input shares the
NICs with the other jobs on the node; cores slow down under background load
and under neighbours. The same rules move running pods forward and answer
what the job would have taken on every other node at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from model.snapshot import Floats
from testbed.physics.world import State, World

TICK_S = 0.25
MOVING = ("input", "peers")
"""Phases that move bytes to the node."""
NO_DATA = math.inf
"""Pace of input and rounds of a job whose store is not there: it has nothing to do with it."""
TRUTH_S_MAX = 300.0
"""A counterfactual run longer than this counts as this."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a pod truly does; `peers_bytes` is exchanged with each gang peer. One core-second per `cpu_s`."""

    input_bytes: float = 0.0
    cpu_s: float = 0.0
    rounds: float = 0.0
    peers_bytes: float = 0.0
    startup_s: float = 0.3
    data_node: str = ""


@dataclass
class Run:
    """Progress of one running pod: what is left of each phase."""

    uid: str
    node: int
    data: int
    gang: str
    left: dict[str, float] = field(default_factory=dict)
    unused_s: float = 0.0
    """What it did not need of the tick in which it ended."""

    @classmethod
    def begin(cls, uid: str, node: int, data: int, gang: str, job: JobSpec) -> Run:
        """A run at its start; phases without work are left out."""
        phases = {
            "startup": job.startup_s,
            "input": job.input_bytes,
            "compute": job.cpu_s,
            "peers": job.peers_bytes,
            "rounds": job.rounds,
        }
        return cls(uid, node, data, gang, {name: left for name, left in phases.items() if left > 0})

    @property
    def phase(self) -> str:
        """The phase it is in; empty when done."""
        return next(iter(self.left), "")

    def copy(self) -> Run:
        """The same progress, to be moved forward on its own."""
        return replace(self, left=dict(self.left))

    def proceed(self, tick_s: float, pace: Callable[[str], float]) -> float:
        """Work for `tick_s` at `pace` (units a second, by phase); bytes received meanwhile."""
        received = 0.0
        while self.left and tick_s > 0:
            phase = self.phase
            speed, left = pace(phase), self.left[phase]
            done = min(left, speed * tick_s)
            received += done if phase in MOVING else 0.0
            if done < left:
                self.left[phase] = left - done
                return received
            del self.left[phase]
            tick_s -= left / speed
        self.unused_s = max(tick_s, 0.0)
        return received


@dataclass(frozen=True)
class Flows:
    """Who moves bytes at this instant: counts of readers per node and runs per node."""

    readers: Floats
    running: Floats


def flows(runs: Sequence[Run], node_count: int) -> Flows:
    """Count the runs and the network users on each node."""
    nodes = np.array([run.node for run in runs], dtype=np.intp)
    moving = np.array([run.phase in MOVING for run in runs], dtype=bool)
    return Flows(
        readers=np.bincount(nodes[moving], minlength=node_count).astype(np.float64),
        running=np.bincount(nodes, minlength=node_count).astype(np.float64),
    )


def spent(runs: Sequence[Run], received: Mapping[str, float], node_count: int) -> tuple[Floats, Floats]:
    """Cores that compute and bytes that came, per node, in a tick of `advance` that told `received`."""
    computing, job_bytes = np.zeros(node_count), np.zeros(node_count)
    for run in runs:
        computing[run.node] += run.phase == "compute"
        job_bytes[run.node] += received.get(run.uid, 0.0)
    return computing, job_bytes


def compute_speed(world: World, state: State, running: Floats) -> Floats:
    """Core-seconds of work done per second on each node, with `running` jobs there (this one included)."""
    crowding = 1 + 0.06 * np.maximum(running - 1, 0)
    return np.asarray(world.speed * (1 - 0.75 * state.cpu_load) / crowding, dtype=np.float64)


def advance(world: World, state: State, runs: Sequence[Run], tick_s: float) -> dict[str, float]:
    """Move all `runs` forward by `tick_s`; bytes received per run, for the exporters' counters.

    Who shares with whom is as at the beginning of the tick.
    """
    now = flows(runs, len(world.nodes))
    speed = compute_speed(world, state, now.running)
    nodes_of_gang: dict[str, set[int]] = {}
    for run in runs:
        if run.gang:
            nodes_of_gang.setdefault(run.gang, set()).add(run.node)
    received: dict[str, float] = {}
    for run in runs:
        others = nodes_of_gang.get(run.gang, set())
        received[run.uid] = run.proceed(
            tick_s, partial(_pace, run=run, state=state, now=now, speed=speed, gang_nodes=others)
        )
    return received


def _pace(phase: str, run: Run, state: State, now: Flows, speed: Floats, gang_nodes: set[int]) -> float:
    """Units of the phase's work done per second."""
    if phase == "input":
        return _share(state, run.data, run.node, now.readers[run.node]) if run.data >= 0 else NO_DATA
    if phase == "compute":
        return float(speed[run.node])
    if phase == "peers":
        others = gang_nodes - {run.node}
        rates = [_share(state, peer, run.node, now.readers[run.node]) for peer in others]
        return min(rates, default=float(state.receive[run.node]))
    if phase == "rounds":
        return 1 / float(state.rtt[run.data, run.node]) if run.data >= 0 else NO_DATA
    return 1.0


def _share(state: State, source: int, node: int, readers: float) -> float:
    alone = float(state.rate[source, node])
    return min(alone, float(state.receive[node]) / max(readers, 1.0)) if source != node else 1e10


def run_s_on_every_node(
    world: World,
    job: JobSpec,
    start_s: float,
    others: Sequence[Run],
    gang: str = "",
    *,
    standing_still: bool = False,
) -> Mapping[str, float]:
    """Seconds the job takes on each worker if started there at `start_s`, as a member of `gang`.

    This is the ground truth of a placement: `{node: run_s}` for every node
    that is not a store, over the world as it will truly develop; the `others`
    go on with their work beside it. With `standing_still` it is what would be
    right if the load on nodes and links stayed as it is at `start_s`: the most
    that anybody can know then.
    """
    states: list[State] = []

    def at(tick: int) -> State:
        while len(states) <= tick:
            states.append(world.at(start_s + (0.0 if standing_still else len(states) * TICK_S)))
        return states[tick]

    data = world.index.get(job.data_node, -1)
    return {
        spec.name: _alongside(world, Run.begin("", node, data, gang, job), others, at)
        for node, spec in enumerate(world.nodes)
        if not spec.store
    }


def _alongside(world: World, run: Run, others: Sequence[Run], at: Callable[[int], State]) -> float:
    """Seconds until `run` has ended beside the others, which stay as they are for the caller."""
    runs, tick = [run, *(other.copy() for other in others)], 0
    while run.phase and tick * TICK_S < TRUTH_S_MAX:
        advance(world, at(tick), runs, TICK_S)
        runs = [one for one in runs if one.phase]
        tick += 1
    return tick * TICK_S - run.unused_s
