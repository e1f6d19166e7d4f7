"""How long a job runs on a node, given the true state of the world.

A job starts up, fetches its input from a store over the network, computes,
and then makes rounds of request and answer with that store. Input shares the
NICs with the other jobs on the node; cores slow down under background load
and under neighbours. The same rules move running pods forward and answer
what the job would have taken on every other node at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.snapshot import Floats
from testbed.physics.world import State, World

TICK_S = 0.25
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


@dataclass(frozen=True)
class Flows:
    """Who moves bytes at this instant: counts of readers per node and runs per node."""

    readers: Floats
    running: Floats


def flows(runs: Sequence[Run], node_count: int) -> Flows:
    """Count the runs and the network users on each node."""
    nodes = np.array([run.node for run in runs], dtype=np.intp)
    moving = np.array([run.phase in ("input", "peers") for run in runs], dtype=bool)
    return Flows(
        readers=np.bincount(nodes[moving], minlength=node_count).astype(np.float64),
        running=np.bincount(nodes, minlength=node_count).astype(np.float64),
    )


def compute_speed(world: World, state: State, running: Floats) -> Floats:
    """Core-seconds of work done per second on each node, with `running` jobs there (this one included)."""
    crowding = 1 + 0.06 * np.maximum(running - 1, 0)
    return np.asarray(world.speed * (1 - 0.75 * state.cpu_load) / crowding, dtype=np.float64)


def advance(world: World, state: State, runs: Sequence[Run], tick_s: float) -> dict[str, float]:
    """Move all `runs` forward by `tick_s`; bytes received per run, for the exporters' counters.

    Work left over at the end of a phase is not carried into the next: a
    phase ends on a tick, which is far below what anyone can observe.
    """
    now = flows(runs, len(world.nodes))
    speed = compute_speed(world, state, now.running)
    nodes_of_gang: dict[str, set[int]] = {}
    for run in runs:
        if run.gang:
            nodes_of_gang.setdefault(run.gang, set()).add(run.node)
    received: dict[str, float] = {}
    for run in runs:
        phase = run.phase
        done = tick_s * _pace(phase, run, state, now, speed, nodes_of_gang.get(run.gang, set()))
        if phase in ("input", "peers"):
            received[run.uid] = min(done, run.left[phase])
        if phase:
            run.left[phase] -= done
            if run.left[phase] <= 0:
                del run.left[phase]
    return received


def _pace(phase: str, run: Run, state: State, now: Flows, speed: Floats, gang_nodes: set[int]) -> float:
    """Units of the phase's work done per second."""
    if phase == "input":
        return _share(state, run.data, run.node, now.readers[run.node])
    if phase == "compute":
        return float(speed[run.node])
    if phase == "peers":
        others = gang_nodes - {run.node}
        rates = [_share(state, peer, run.node, now.readers[run.node]) for peer in others]
        return min(rates, default=float(state.receive[run.node]))
    if phase == "rounds":
        return 1 / float(state.rtt[run.data, run.node])
    return 1.0


def _share(state: State, source: int, node: int, readers: float) -> float:
    alone = float(state.rate[source, node])
    return min(alone, float(state.receive[node]) / max(readers, 1.0)) if source != node else 1e10


def run_s_on_every_node(
    world: World, job: JobSpec, start_s: float, others: Sequence[Run], peers: Sequence[int] = ()
) -> Mapping[str, float]:
    """Seconds the job takes on each worker if started there at `start_s`, the other runs staying as they are.

    This is the ground truth of a placement: `{node: run_s}` for every node
    that is not a store, over the world as it will truly develop.
    """
    workers = [i for i, spec in enumerate(world.nodes) if not spec.store]
    base = flows(others, len(world.nodes))
    data = world.index.get(job.data_node, -1)
    left = [job.startup_s, job.input_bytes if data >= 0 else 0.0, job.cpu_s, job.peers_bytes, job.rounds]
    remaining = np.tile(np.array(left)[:, None], (1, len(workers)))
    finished = np.full(len(workers), TRUTH_S_MAX)
    elapsed = 0.0
    while elapsed < TRUTH_S_MAX and (remaining > 0).any():
        state = world.at(start_s + elapsed)
        paces = _paces(world, state, base, workers, data, peers)
        elapsed += TICK_S
        phase = np.argmax(remaining > 0, axis=0)
        columns = np.arange(len(workers))
        active = remaining[phase, columns] > 0
        remaining[phase[active], columns[active]] -= TICK_S * paces[phase[active], columns[active]]
        ended = active & ~(remaining > 0).any(axis=0)
        overshoot_s = remaining[phase, columns] / paces[phase, columns]
        finished[ended] = elapsed + overshoot_s[ended]
    return {world.nodes[i].name: float(seconds) for i, seconds in zip(workers, finished, strict=True)}


def _paces(
    world: World, state: State, base: Flows, workers: list[int], data: int, peers: Sequence[int]
) -> Floats:
    """Work per second in each phase (rows) on each worker (columns), this job added to what runs there."""
    readers = base.readers[workers] + 1
    shared = state.receive[workers] / readers
    fetch = np.minimum(state.rate[data, workers], shared) if data >= 0 else shared
    slowest = shared
    for peer in peers:
        near = np.array(workers) == peer
        slowest = np.minimum(slowest, np.where(near, shared, state.rate[peer, workers]))
    rounds = 1 / state.rtt[data, workers] if data >= 0 else np.full(len(workers), 1e4)
    compute = compute_speed(world, state, base.running + 1)[workers]
    return np.array([np.ones(len(workers)), fetch, compute, slowest, rounds])
