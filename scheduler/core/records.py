"""What the extender hands to the recorder: decisions, and in batches the score tables they were read from.

A decision does not repeat its table: many decisions share one, and at 5,000
nodes a table has megabytes. It names the table and adds what was different at
its moment: which nodes were offered, how far times had shifted, the corrected
rows of the nodes it listed. `chosen_row` puts both together again for the one
node that the pod was bound to, which is all that training needs.

Arrays travel as little-endian bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.features import NEIGHBOURS, neighbour_rows
from model.placement import ClusterView
from model.schema import POSITION, SCHEMA_VERSION
from model.snapshot import Floats, Indices
from scheduler.core.table_records import ReadTable, TableRecord, floats, read_floats
from scheduler.core.types import Fallback, Mask, PodFacts, Ranking, ScoreTable, positions_of


class DecisionRecord(msgspec.Struct, frozen=True):
    """One call of kube-scheduler, or one pod planned at its release, and the answer.

    Positions are rows of the table named by `table_id`.

    `offered` is a bit per row; `shifted`/`shift` say how far times (log s)
    had moved since the table was made; `corrected`/`corrected_rows` are the
    values that replace the table's in those rows, in the columns `corrected_columns`
    (empty: in all); `explorable`/`propensity` the probabilities with which nodes
    would have come first.
    """

    decision_id: str
    at_s: float
    pod_uid: str
    namespace: str
    name: str
    job_class: str
    user: str
    framework: str
    gang: str
    table_id: str
    model_version: str
    schema_version: int
    epoch: int
    epoch_age_s: float
    reason: str
    candidates: int
    listed: list[tuple[str, int]]
    recommended: str
    explored: bool
    tie_width: float
    latency_ms: float
    offered: bytes = b""
    shifted: bytes = b""
    shift: bytes = b""
    corrected: bytes = b""
    corrected_rows: bytes = b""
    explorable: bytes = b""
    propensity: bytes = b""
    corrected_columns: bytes = b""
    at_release: bool = False
    """Asked by the controller when the pod was released, not by kube-scheduler."""


class Batch(msgspec.Struct, frozen=True):
    """Body of `POST /v1/decisions`, as MessagePack."""

    tables: list[TableRecord]
    decisions: list[DecisionRecord]


class BatchReply(msgspec.Struct, frozen=True):
    """How much of a batch is stored, and tables that decisions name but nobody sent."""

    stored: int
    missing_tables: list[str]


class Moment(msgspec.Struct, frozen=True, eq=False):
    """Circumstances of one call of kube-scheduler."""

    decision_id: str
    at_s: float
    latency_ms: float
    epoch: int
    epoch_age_s: float
    reason: Fallback
    at_release: bool = False


RowBuilder = Callable[[], tuple[list[int], Floats]]
"""Builds rows of a table: their positions and features."""


class Judged(msgspec.Struct, frozen=True, eq=False):
    """What an answer with an opinion rested on.

    `ranking` tells rows of `table`. The times of the rows `shifted` had moved by `shift`, and `residents`
    are the facts of the listed nodes, at that moment. `exact` builds the listed rows where the answer only
    had an estimate of them.
    """

    table: ScoreTable
    ranking: Ranking
    shifted: Indices
    shift: Floats
    residents: ClusterView
    exact: RowBuilder | None = None


class Decision(msgspec.Struct, frozen=True, eq=False):
    """One answered call, with all that changes afterwards: writing it down takes longer, and can wait.

    So can reading the names of the candidates, which `offered` does.
    """

    pod: PodFacts
    moment: Moment
    offered: Callable[[], tuple[str, ...]]
    judged: Judged | None = None
    """None for a call that was answered with no opinion."""

    @property
    def table(self) -> ScoreTable | None:
        """The table it was read from."""
        return None if self.judged is None else self.judged.table

    def record(self) -> DecisionRecord:
        """As it is sent and kept; rows that were estimated stay so."""
        offered = self.offered()
        told = {} if self.judged is None else _told(self.judged, offered, self.moment.at_s)
        return _record(self.pod, self.moment, len(offered), **told)


def _told(judged: Judged, candidates: Sequence[str], at_s: float) -> dict[str, Any]:
    table, ranking = judged.table, judged.ranking
    order = ranking.order
    names = [table.nodes[row] for row in order.tolist()]
    rows = positions_of(table.index, candidates)
    offered = np.zeros(len(table.nodes), dtype=np.uint8)
    offered[rows[rows >= 0]] = 1
    return {
        "table_id": table.table_id,
        "model_version": table.model_version,
        "listed": list(zip(names, ranking.scores, strict=True)),
        "recommended": names[0],
        "explored": ranking.explored,
        "tie_width": ranking.tie_width,
        "offered": np.packbits(offered).tobytes(),
        "shifted": _positions(judged.shifted),
        "shift": floats(judged.shift),
        "corrected": _positions(order),
        "corrected_rows": floats(neighbour_rows(table.job, names, judged.residents, at_s)),
        "corrected_columns": _RESIDENTS,
        "explorable": _positions(ranking.explorable),
        "propensity": floats(ranking.propensity),
    }


def with_rows(record: DecisionRecord, rows: Sequence[int], features: Floats) -> DecisionRecord:
    """`record` with these feature rows (of positions `rows`) instead of the table's."""
    return msgspec.structs.replace(
        record, corrected=_positions(rows), corrected_rows=floats(features), corrected_columns=b""
    )


def _record(
    pod: PodFacts,
    moment: Moment,
    candidates: int,
    *,
    table_id: str = "",
    model_version: str = "",
    listed: Sequence[tuple[str, int]] = (),
    recommended: str = "",
    explored: bool = False,
    tie_width: float = 0.0,
    **arrays: bytes,
) -> DecisionRecord:
    return DecisionRecord(
        decision_id=moment.decision_id,
        at_s=moment.at_s,
        pod_uid=pod.uid,
        namespace=pod.namespace,
        name=pod.name,
        job_class=pod.job.job_class,
        user=pod.job.user,
        framework=pod.job.framework,
        gang=pod.job.gang,
        table_id=table_id,
        model_version=model_version,
        schema_version=SCHEMA_VERSION,
        epoch=moment.epoch,
        epoch_age_s=moment.epoch_age_s,
        reason=str(moment.reason),
        candidates=candidates,
        listed=list(listed),
        recommended=recommended,
        explored=explored,
        tie_width=tie_width,
        latency_ms=moment.latency_ms,
        at_release=moment.at_release,
        **arrays,
    )


def _positions(values: ArrayLike) -> bytes:
    return np.ascontiguousarray(values, dtype="<u4").tobytes()


def _read_positions(raw: bytes) -> NDArray[np.intp]:
    return np.frombuffer(raw, dtype="<u4").astype(np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class ReadDecision:
    """A table as one decision saw it: times in s (3, nodes), who was offered, rows and propensities."""

    nodes: tuple[str, ...]
    feature_names: tuple[str, ...]
    features: Floats
    times_s: Floats
    offered: Mask
    propensity: Floats


def read_decision(record: DecisionRecord, table: ReadTable) -> ReadDecision:
    """`table` with the decision's shifts and corrected rows."""
    count = len(table.nodes)
    logs, features, propensity = table.quantiles.copy(), table.features.copy(), np.zeros(count)
    logs[:, _read_positions(record.shifted)] += read_floats(record.shift)
    corrected, columns, values = _read_corrected(record, features.shape[1])
    features[corrected[:, None], columns] = values
    propensity[_read_positions(record.explorable)] = read_floats(record.propensity)
    offered = np.unpackbits(np.frombuffer(record.offered, dtype=np.uint8), count=count).astype(bool)
    return ReadDecision(table.nodes, table.feature_names, features, np.exp(logs), offered, propensity)


@dataclass(frozen=True, slots=True, eq=False)
class ChosenRow:
    """What was known of the node that the pod was bound to; `features` as float32 bytes."""

    features: bytes
    p10_s: float
    p50_s: float
    p90_s: float
    propensity: float


def chosen_row(record: DecisionRecord, table: ReadTable, node: str) -> ChosenRow | None:
    """The decision's view of `node`; None when the table does not have it."""
    row = table.row(node)
    if row is None:
        return None
    shift = _at(record.shifted, record.shift, row)
    p10_s, p50_s, p90_s = np.exp(table.quantiles[:, row] + shift).tolist()
    corrected, columns, values = _read_corrected(record, len(table.feature_names))
    features = table.features[row].copy()
    for own in values[corrected == row]:
        features[columns] = own
    return ChosenRow(floats(features), p10_s, p50_s, p90_s, _at(record.explorable, record.propensity, row))


def _read_corrected(record: DecisionRecord, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Positions, columns, and values (positions x columns) that replace those of the table."""
    columns = _read_positions(record.corrected_columns) if record.corrected_columns else np.arange(width)
    return (
        _read_positions(record.corrected),
        columns,
        read_floats(record.corrected_rows).reshape(-1, len(columns)),
    )


def _at(positions: bytes, values: bytes, row: int) -> float:
    """The value given for `row`; 0 when none is."""
    found = (np.frombuffer(positions, dtype="<u4") == row).nonzero()[0]
    return float(np.frombuffer(values, dtype="<f4")[found[0]]) if len(found) else 0.0


def read_rows(raw: Sequence[bytes], width: int) -> Floats:
    """Feature rows kept by `chosen_row`, shape (rows, width)."""
    return read_floats(b"".join(raw)).reshape(len(raw), width)


_RESIDENTS = _positions([POSITION[name] for name in NEIGHBOURS])
