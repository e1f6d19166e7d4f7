"""Small worlds for the tests of placing: a snapshot, a cluster, jobs, tables, recorded decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from model.placement import ClusterView, Job, NodeFacts
from model.snapshot import PairReadings, TelemetrySnapshot
from scheduler.core.outcomes import EndState, Outcome
from scheduler.core.ranking import rank
from scheduler.core.records import (
    Batch,
    Decision,
    DecisionRecord,
    Judged,
    Moment,
)
from scheduler.core.scoring import Basis, basis_of, table_from_model
from scheduler.core.table_records import table_record
from scheduler.core.types import Fallback, PodFacts, Prediction, ScoreTable
from scheduler.core.wire import Node, Pod

NODES = ("a", "b", "c", "d")
JOB = Job("etl", user="ann", cpu=1.0, input_bytes=1e9, data_nodes=("d",))


def a_snapshot(
    nodes: Sequence[str] = NODES,
    cpu_use: Mapping[str, float] | None = None,
    throughput: Mapping[tuple[str, str], float] | None = None,
    epoch: int = 1,
    taken_at_s: float = 1000.0,
) -> TelemetrySnapshot:
    """Every node at 20 % CPU and every pair at 1e8 bytes/s, but for what is given."""
    use = np.array([(cpu_use or {}).get(node, 0.2) for node in nodes])
    pairs = [(i, j) for i in range(len(nodes)) for j in range(len(nodes)) if i != j]
    rates = [(throughput or {}).get((nodes[i], nodes[j]), 1e8) for i, j in pairs]
    source, destination = np.array(pairs, dtype=np.intp).T if pairs else np.zeros((2, 0), dtype=np.intp)
    ages = np.full(len(pairs), 2.0)
    readings = {
        "throughput": PairReadings(len(nodes), source, destination, np.array(rates), ages),
        "rtt": PairReadings(len(nodes), source, destination, np.full(len(pairs), 0.01), ages),
    }
    cores = np.full(len(nodes), 8.0)
    return TelemetrySnapshot(
        epoch, taken_at_s, tuple(nodes), {"cpu_use": use, "cpu_cores": cores}, {}, readings
    )


def a_view(nodes: Sequence[str] = NODES, **facts: NodeFacts) -> ClusterView:
    """Nodes of 8 cores in one zone, but for what is given."""
    return {node: facts.get(node, NodeFacts(zone="z", allocatable_cpu=8.0)) for node in nodes}


def a_basis(job: Job = JOB, snapshot: TelemetrySnapshot | None = None) -> Basis:
    """What a table of `job` on NODES is made from."""
    return basis_of(job, NODES, snapshot or a_snapshot(), a_view(), 0, 0.0)


def a_table(
    times_s: Sequence[float] = (10.0, 11.0, 20.0, 40.0), basis: Basis | None = None, table_id: str = "t1"
) -> ScoreTable:
    """A table of a model that predicted these medians, give or take ten percent."""
    p50 = np.array(times_s)
    prediction = Prediction(p50 * 0.9, p50, p50 * 1.1, "m1")
    return table_from_model(basis or a_basis(), prediction, table_id, 1001.0)


def a_pod(uid: str = "u1", job: Job = JOB, **facts: Any) -> PodFacts:
    """A pod of our scheduler that waits in namespace `team`, but for what is given."""
    given = {"uid": uid, "namespace": "team", "name": uid, "job": job, "scheduler": "fairlane", **facts}
    return PodFacts(**given)


def a_call(
    uid: str = "u1",
    at_s: float = 1002.0,
    table: ScoreTable | None = None,
    decision_id: str = "",
) -> Decision:
    """An answered call that listed the nodes of `table`, best first."""
    table = table or a_table()
    nothing = np.zeros(0, dtype=np.intp)
    ranking = rank(table.ranked, table.sigma, lambda some: some.tolist(), 5)
    assert ranking is not None
    moment = Moment(decision_id or f"d-{uid}-{at_s}", at_s, 0.5, 1, 2.0, Fallback.NONE)
    judged = Judged(table, ranking, nothing, np.zeros(0), a_view(table.nodes))
    return Decision(a_pod(uid), moment, lambda: table.nodes, judged)


def a_decision(
    uid: str = "u1", at_s: float = 1002.0, table: ScoreTable | None = None, **changes: Any
) -> DecisionRecord:
    """The record of such a call."""
    record = a_call(uid, at_s, table, changes.pop("decision_id", "")).record()
    return msgspec.structs.replace(record, **changes)


def a_batch(*decisions: DecisionRecord, tables: Sequence[ScoreTable] | None = None) -> Batch:
    """A batch of decisions with the table they were read from."""
    sent = [a_table()] if tables is None else tables
    return Batch([table_record(table) for table in sent], list(decisions))


def an_outcome(
    uid: str = "u1", node: str | None = "a", run_s: float | None = 10.0, **changes: Any
) -> Outcome:
    """A pod that was bound at 1003, started at 1005 and succeeded after `run_s` (None: it runs)."""
    outcome = Outcome(uid, "team", uid, "etl", "ann", "batch", "", "fairlane", 1000.0, node)
    if node is not None:
        outcome = msgspec.structs.replace(outcome, bound_at_s=1003.0, started_at_s=1005.0)
    if run_s is not None:
        outcome = msgspec.structs.replace(outcome, ended_at_s=1005.0 + run_s, end_state=EndState.SUCCEEDED)
    return msgspec.structs.replace(outcome, **changes)


def node_of(
    name: str,
    cpu: str = "8",
    labels: Mapping[str, str] | None = None,
    images: Sequence[str] = (),
    taints: Sequence[Mapping[str, str]] = (),
) -> Node:
    """A node as the API server sends it."""
    status = {"allocatable": {"cpu": cpu}, "images": [{"names": list(images)}] if images else None}
    meta, spec = {"name": name, "labels": dict(labels or {})}, {"taints": [dict(one) for one in taints]}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status}, Node)


def pod_of(
    status: Mapping[str, Any] | None = None, node: str | None = None, uid: str = "u1", **meta: Any
) -> Pod:
    """A pod of our scheduler as the API server sends it."""
    metadata = {"name": uid, "namespace": "team", "uid": uid, **meta}
    spec = {"schedulerName": "fairlane", "nodeName": node, "containers": [{"name": "main", "image": "i"}]}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": dict(status or {})}, Pod)
