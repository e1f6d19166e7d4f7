"""An answer before the table is there: the analytic prior from what is in memory already.

Building feature rows takes longer than a call of kube-scheduler may; so a call that
has no table, or one that does not know the gang's newest members, estimates:

- without a table, from a draft: the rows of no job in particular, built in
  the background at each epoch. The job's own columns are filled in, and the
  time its transfers would take is computed from the pairs measured to its
  data and its peers; columns about those pairs stay unknown.
- with a table of the same job that misses members of the gang or has other
  sizes, by the seconds that its transfers take more (where volumes are
  hinted), else by the ratio of this job's prior to that of the table's job.

A pair that was not measured counts as the mean of the candidate's pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.features import build, job_columns
from model.placement import ClusterView, Job
from model.prior import log_level, log_placement, reader_of
from model.schema import POSITION
from model.snapshot import Floats, Indices, TelemetrySnapshot
from model.transfer import attained_throughput, transfer_columns
from scheduler.core.scoring import Basis, table_from_prior
from scheduler.core.types import Columns, Corrections, Estimate, Fallback, Mask, ScoreTable

NOBODY = Job("")
"""The job of the drafts."""
PARTNERS_AT_MOST = 8
"""Data nodes and peers looked at for an estimate; each costs a pass over all nodes."""


_COMPARED = ("transfer_ratio", "transfer_median_s")
"""Columns that compare a candidate with all others."""


def estimated_table(draft: Basis, job: Job, table_id: str, now_s: float) -> ScoreTable:
    """A table of the prior for `job` (histories included) from a draft."""
    rows = draft.features.copy(order="K")
    for name, value in _columns_for(job, draft).items():
        rows[:, POSITION[name]] = value
    basis = replace(draft, job=job, features=rows)
    return table_from_prior(basis, Fallback.MISS, table_id, now_s)


def adapted(table: ScoreTable, corrections: Corrections, job: Job) -> Corrections:
    """`corrections` plus what `job` has in other sizes and further placed members than `table` knows.

    Where volumes are hinted, the seconds that their transfers take more or
    less are added to the table's own time: at least the share of the run that
    is no transfer does not grow with them. Elsewhere the prior compares.
    """
    basis = _basis_of(table)
    if corrections.own is None:
        corrections.own = _estimate(table.job, basis)
    informed = replace(job, class_history=table.job.class_history, user_history=table.job.user_history)
    other = _estimate(informed, basis)
    shift = corrections.shift + _difference(np.exp(table.p50), corrections.own, other)
    return Corrections(shift, corrections.view_version, corrections.own, estimated=other.columns)


def _estimate(job: Job, basis: Basis) -> Estimate:
    columns = _columns_for(job, basis)
    count = len(basis.nodes)
    hinted = np.stack([np.broadcast_to(columns[name], count) for name in ("input_s", "shuffle_s")])
    known = np.isfinite(hinted)
    transfer_s = np.where(known.any(axis=0), np.where(known, hinted, 0.0).sum(axis=0), np.nan)
    return Estimate(columns, _log_prior(columns, basis), transfer_s)


def _difference(run_s: Floats, own: Estimate, other: Estimate) -> Floats:
    """How much longer the other job takes than the own one, which takes `run_s`: difference of logarithms."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(other.transfer_s == own.transfer_s, 1.0, other.transfer_s / own.transfer_s)
        added = 1.0 + (other.transfer_s - own.transfer_s) / run_s
        # a run that is all transfer scales with it; nothing can make it change more than that
        longer = np.log(np.clip(added, np.minimum(scaled, 1.0), np.maximum(scaled, 1.0)))
    return np.where(np.isfinite(longer), longer, other.log_s - own.log_s)


def compared(table: ScoreTable, corrections: Corrections, rows: Indices) -> Columns:
    """Of these rows, the columns that only an estimate over all candidates can tell."""
    columns = corrections.estimated
    if columns is None:
        return {name: table.features[rows, POSITION[name]] for name in _COMPARED}
    everywhere = ((name, np.broadcast_to(columns[name], len(table.nodes))) for name in _COMPARED)
    return {name: np.asarray(values)[rows] for name, values in everywhere}


def exact_rows(
    seen: Columns,
    job: Job,
    names: Sequence[str],
    snapshot: TelemetrySnapshot,
    cluster: ClusterView,
    now_s: float,
) -> Floats:
    """What `build` says of `names` at `now_s`, for the record, with `seen` (`compared`) in place of its own
    columns."""
    rows = build(job, names, snapshot, cluster, now_s).copy()
    for name, values in seen.items():
        rows[:, POSITION[name]] = values
    return rows


def _basis_of(table: ScoreTable) -> Basis:
    known = (table.job, table.snapshot, table.nodes, table.in_snapshot, table.measured)
    return Basis(*known, table.features, table.view_version)


def warm(basis: Basis) -> None:
    """Index the measured pairs by both ends, so that no call has to."""
    for pairs in basis.snapshot.pair_readings.values():
        if pairs.node_count:
            pairs.from_node(0), pairs.to_node(0)


def _columns_for(job: Job, basis: Basis) -> Columns:
    """The columns of `job` and of its transfers, which take the place of the basis' own."""
    return job_columns(job) | _transfers(job, basis)


def _log_prior(columns: Columns, basis: Basis) -> Floats:
    """The prior of the basis' rows with these columns in place of their own; shape (nodes,)."""
    theirs = reader_of(basis.features)

    def read(name: str) -> Floats | float:
        return columns[name] if name in columns else theirs(name)

    level = log_level(read)
    return np.asarray(level + log_placement(read, level), dtype=np.float64)


def _transfers(job: Job, basis: Basis) -> dict[str, Floats | float]:
    data = job.data_nodes[:PARTNERS_AT_MOST]
    peers = tuple(dict.fromkeys(job.peer_nodes))[:PARTNERS_AT_MOST]
    everywhere = attained_throughput(
        *(basis.features[:, POSITION[name]] for name in ("throughput_all", "rtt_all", "loss_all"))
    )
    ours = basis.in_snapshot
    return transfer_columns(
        job,
        from_data=_throughput(basis, data, ours, everywhere, one_way=True),
        to_peers=_throughput(basis, peers, ours, everywhere, one_way=False),
        to_all=everywhere,
        link=basis.features[:, POSITION["throughput_link"]],
        local=_same(data, basis.nodes),
    )


def _throughput(
    basis: Basis, partners: Sequence[str], ours: Indices, everywhere: Floats, *, one_way: bool
) -> Floats:
    """Bytes/s attained between each partner and each node, shape (partners, nodes)."""
    rows = [_attained(basis, partner, ours, one_way) for partner in partners]
    paths = np.array(rows).reshape(len(partners), len(basis.nodes))
    return np.where(np.isfinite(paths), paths, everywhere)


def _attained(basis: Basis, partner: str, ours: Indices, one_way: bool) -> Floats:
    best, now, rtt, loss = (
        _measured(basis, name, partner, ours, one_way)
        for name in ("throughput_best", "throughput", "rtt", "loss")
    )
    return attained_throughput(np.fmax(best, now), rtt, loss)


def _measured(basis: Basis, reading: str, partner: str, ours: Indices, one_way: bool) -> Floats:
    """The reading from the partner to each node, or the worse direction; NaN where unmeasured."""
    pairs, end = basis.snapshot.pair_readings.get(reading), basis.snapshot.index.get(partner, -1)
    if pairs is None or end < 0:
        return np.full(len(ours), np.nan)
    values = pairs.from_node(end)
    if not one_way:
        worse = np.fmin if reading.startswith("throughput") else np.fmax
        values = worse(values, pairs.to_node(end))
    return np.append(values, np.nan)[ours]


def _same(partners: Sequence[str], nodes: Sequence[str]) -> Mask:
    names = np.array(nodes, dtype=object)
    same = [names == partner for partner in partners]
    return np.array(same, dtype=bool).reshape(len(partners), len(nodes))
