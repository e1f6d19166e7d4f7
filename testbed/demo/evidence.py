"""What happened in the demo, put together: decisions, ground truths, outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.schema import POSITION, without
from model.snapshot import Floats
from scheduler.core.records import DecisionRecord, read_decision
from scheduler.edge.store import ExperienceStore


@dataclass(frozen=True)
class Evidence:
    """One pod whose run time on every node is known.

    `nodes`, `run_s` and the rows of `features` belong together, and so does
    `standing_s`: the run times if loads stayed as they were then. `features`
    and `times_s` (p10, p50, p90) are what our decision saw, None for a pod of
    the default scheduler.
    """

    name: str
    node: str
    nodes: tuple[str, ...]
    run_s: Floats
    standing_s: Floats
    features: Floats | None = None
    times_s: Floats | None = None
    decision: DecisionRecord | None = None
    job_class: str = ""
    """What our decision took it to be."""
    ran_s: float = np.nan

    @property
    def chosen(self) -> int:
        """Position of the node the pod ran on."""
        return self.nodes.index(self.node)

    def reading(self, name: str) -> Floats:
        """One feature over the candidates."""
        assert self.features is not None
        return self.features[:, POSITION[name]]

    def without_network(self) -> Floats:
        """The features with everything about the network unknown."""
        assert self.features is not None
        return without(self.features, ["network"])


def read_truths(path: Path) -> dict[str, Mapping[str, object]]:
    """The ground truths that the emulated world wrote, by pod name."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["name"]: row for row in rows}


def gather(store: ExperienceStore, truth_file: Path, namespace: str, names: Iterable[str]) -> list[Evidence]:
    """Evidence of each named pod that has a ground truth."""
    truths = read_truths(truth_file)
    outcomes = store.outcomes()
    ran = dict(zip(outcomes["name"], outcomes["ended_at_s"] - outcomes["bound_at_s"], strict=True))
    return [
        _evidence(store, namespace, name, truths[name], float(ran.get(name, np.nan)))
        for name in names
        if name in truths
    ]


def _evidence(
    store: ExperienceStore, namespace: str, name: str, truth: Mapping[str, object], ran_s: float
) -> Evidence:
    run_s, standing_s = truth["run_s"], truth["standing_s"]
    assert isinstance(run_s, dict)
    assert isinstance(standing_s, dict)
    node = str(truth["node"])
    placed = store.placement(namespace, name)
    if placed.decision is None or placed.table is None:
        nodes = tuple(run_s)
        return Evidence(name, node, nodes, _of(run_s, nodes), _of(standing_s, nodes), ran_s=ran_s)
    seen = read_decision(placed.decision, placed.table)
    rows = [row for row, n in enumerate(seen.nodes) if n in run_s and seen.offered[row]]
    nodes = tuple(seen.nodes[row] for row in rows)
    return Evidence(
        name,
        node,
        nodes,
        _of(run_s, nodes),
        _of(standing_s, nodes),
        features=seen.features[rows],
        times_s=seen.times_s[:, rows],
        decision=placed.decision,
        job_class=placed.decision.job_class,
        ran_s=ran_s,
    )


def _of(times: Mapping[str, float], nodes: Sequence[str]) -> Floats:
    return np.array([times[node] for node in nodes])
