"""Score tables: made from predictions, brought up to date as pods come and go.

A table holds the predicted run time of one job on every node of the cluster.
Between two tables pods come and go; for the nodes concerned the logarithm of
the time is shifted by

    log_placement(projected row) - log_placement(row of the table)

(the prior's terms that residents can move), where the projected row is what
telemetry would read with the new residents: what they still transfer (the
prior lets transfers share the link), and a CPU use raised by the share of the
cores requested since.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model.features import build
from model.placement import NOWHERE, ClusterView, Job
from model.prior import PRIOR_SIGMA, Placement, log_level, placement_of, reader_of, residents_of
from model.schema import POSITION
from model.snapshot import Floats, Indices, TelemetrySnapshot
from scheduler.core.types import Corrections, Fallback, Mask, Prediction, ScoreTable, TableKey, key_of

Z90 = 1.2815515655446004
"""The 90 % quantile of the normal distribution: p10 and p90 lie this many sigma from the median."""
CORRECTED_AT_ONCE = 64
"""Changed nodes corrected within one call."""

_REQUESTED = POSITION["requested_cpu_ratio"]


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """What a table is made from: a job and its feature rows on `nodes` at one epoch.

    `in_snapshot` are the nodes' positions in the snapshot, -1 where it does
    not know them; `measured` says of which nodes anything is known.
    """

    job: Job
    snapshot: TelemetrySnapshot
    nodes: tuple[str, ...]
    in_snapshot: Indices
    measured: Mask
    features: Floats
    view_version: int

    @property
    def key(self) -> TableKey:
        """Under which key the table is kept."""
        return key_of(self.job)


def basis_of(
    job: Job,
    nodes: tuple[str, ...],
    snapshot: TelemetrySnapshot,
    cluster: ClusterView,
    view_version: int,
    now_s: float,
) -> Basis:
    """Feature rows of `job` on `nodes` at `now_s`, with what `cluster` knew at `view_version`."""
    features, positions = build(job, nodes, snapshot, cluster, now_s), snapshot.positions(nodes)
    return Basis(job, snapshot, nodes, positions, snapshot.measured[positions], features, view_version)


def table_from_model(basis: Basis, prediction: Prediction, table_id: str, now_s: float) -> ScoreTable:
    """A table of the predictor's answer.

    Raises:
        ValueError: the answer does not have one finite, positive time per node.
    """
    times = (prediction.p10_s, prediction.p50_s, prediction.p90_s)
    if any(len(quantile) != len(basis.nodes) for quantile in times):
        raise ValueError(f"the predictor answered {len(times[1])} times for {len(basis.nodes)} nodes")
    if not all(np.isfinite(quantile).all() and (quantile > 0).all() for quantile in times):
        raise ValueError("the predictor answered times that are not finite and positive")
    p10, p50, p90 = (np.log(quantile) for quantile in times)
    read = reader_of(basis.features)
    placement = placement_of(read, log_level(read))
    return _table(basis, (p10, p50, p90), placement, prediction.model_version, Fallback.NONE, table_id, now_s)


def table_from_prior(basis: Basis, reason: Fallback, table_id: str, now_s: float) -> ScoreTable:
    """A table of the analytic prior, with its wide spread; `reason` says why the model did not answer."""
    read, spread = reader_of(basis.features), Z90 * PRIOR_SIGMA
    level = log_level(read)
    placement = placement_of(read, level)
    prior = level + _log_placement(basis, placement)
    return _table(basis, (prior - spread, prior, prior + spread), placement, "", reason, table_id, now_s)


def _log_placement(basis: Basis, placement: Placement) -> Floats:
    return placement.log_s(*residents_of(reader_of(basis.features)))


def _table(
    basis: Basis,
    quantiles: tuple[Floats, Floats, Floats],
    placement: Placement,
    model_version: str,
    reason: Fallback,
    table_id: str,
    now_s: float,
) -> ScoreTable:
    return ScoreTable(
        table_id=table_id,
        key=basis.key,
        job=basis.job,
        snapshot=basis.snapshot,
        nodes=basis.nodes,
        index=_index_of(basis.nodes),
        in_snapshot=basis.in_snapshot,
        features=basis.features,
        placement=placement,
        log_placement=_log_placement(basis, placement),
        requested=np.ascontiguousarray(basis.features[:, _REQUESTED]),
        p10=quantiles[0],
        p50=quantiles[1],
        p90=quantiles[2],
        sigma=(quantiles[2] - quantiles[0]) / (2.0 * Z90),
        ranked=settle_unmeasured(quantiles[1], basis.measured),
        tie_seed=_seed_of(basis.nodes),
        measured=basis.measured,
        model_version=model_version,
        reason=reason,
        made_at_s=now_s,
        view_version=basis.view_version,
    )


@lru_cache(maxsize=4)
def _index_of(nodes: tuple[str, ...]) -> Mapping[str, int]:
    return {name: position for position, name in enumerate(nodes)}


@lru_cache(maxsize=4)
def _seed_of(nodes: tuple[str, ...]) -> NDArray[np.uint64]:
    return np.fromiter((zlib.crc32(name.encode()) for name in nodes), np.uint64)


def settle_unmeasured(log_s: Floats, measured: Mask) -> Floats:
    """Times for ranking: an unmeasured node is never better than the median measured one.

    Its prediction rests on typical readings; unknown must be neither the best
    nor the worst. Unchanged where nothing is measured.
    """
    if measured.all() or not measured.any():
        return log_s
    middle = float(np.median(log_s[measured]))
    return np.where(measured, log_s, np.maximum(log_s, middle))


def tie_break_of(table: ScoreTable, rows: Indices, pod_uid: str) -> list[int]:
    """A number for each position, different for every pod: orders exact ties, and so spreads them."""
    own = zlib.crc32(pod_uid.encode())
    return [((seed ^ own) * 2654435761) & 0xFFFFFFFF for seed in table.tie_seed[rows].tolist()]


def bring_up_to_date(
    corrections: Corrections,
    table: ScoreTable,
    changed: Sequence[str],
    cluster: ClusterView,
    version: int,
    now_s: float,
) -> None:
    """Take the nodes in `changed` (newest first) into account, at most `CORRECTED_AT_ONCE` of them.

    The nodes beyond that stay as they were until their next change or the
    next table, which is at most one epoch away.
    """
    known = [name for name in changed if name in table.index][:CORRECTED_AT_ONCE]
    if known:
        rows = np.array([table.index[name] for name in known], dtype=np.intp)
        corrections.shift[rows] = _projected(table, rows, known, cluster, now_s) - table.log_placement[rows]
    corrections.view_version = version


def _projected(
    table: ScoreTable, rows: Indices, names: Sequence[str], cluster: ClusterView, now_s: float
) -> Floats:
    """The terms of placement as they would be with the residents of now; shape (rows,)."""
    own, heavy, left_s, more_use = table.job.cpu, [], [], []
    for name, requested in zip(names, table.requested[rows].tolist(), strict=True):
        fact = cluster.get(name, NOWHERE)
        cores = fact.allocatable_cpu
        more = (fact.requested_cpu + own) / cores - requested if cores > 0 else 0.0
        heavy.append(fact.network_heavy)
        left_s.append(fact.transfer_left_s(now_s))
        more_use.append(0.0 if math.isnan(more) else more)
    return np.array(table.placement.changed(rows, heavy, left_s, more_use))
