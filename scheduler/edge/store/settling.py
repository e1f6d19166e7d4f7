"""Bringing decisions and outcomes together, whichever came last.

Once a pod is bound, its last decision gets what it said of that node
(`chosen_*`); once it ended as a completion, the error of that prediction.
Both are set once.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Update, bindparam, func, select, update

from scheduler.core.outcomes import EndState
from scheduler.core.records import DecisionRecord, chosen_row
from scheduler.core.table_records import ReadTable, read_table
from scheduler.edge.store.engine import chunks
from scheduler.edge.store.schema import decisions, outcomes, score_tables

TABLE_BYTES_IN_MEMORY = 128 * 2**20
"""Tables that decisions of now were read from; one for 500 nodes takes half a megabyte."""
CLOCKS_S = 300.0
"""Clocks of the API server and of the recorder may differ by so much."""
COMPLETED = (
    outcomes.c.end_state == EndState.SUCCEEDED,
    outcomes.c.run_s > 0,
    # the clock of a node that was set while a job ran makes years of seconds
    outcomes.c.run_s <= outcomes.c.written_at_s - func.coalesce(outcomes.c.created_at_s, 0.0) + CLOCKS_S,
)
"""Which outcomes are completions: ended well, after a time that there was."""
_RECORD = msgspec.msgpack.Decoder(DecisionRecord)
_SET_CHOICE, _SET_ERROR = (
    update(decisions)
    .where(decisions.c.decision_id == bindparam("decision"))
    .values({name: bindparam(name) for name in names})
    for names in (
        (
            "chosen_node",
            "chosen_features",
            "chosen_p10_s",
            "chosen_p50_s",
            "chosen_p90_s",
            "chosen_propensity",
        ),
        ("log_error",),
    )
)
"""Of the decision named by `decision`; the other parameters are called as their columns."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A prediction whose run has ended, in s; `model_version` is empty for the analytic prior."""

    model_version: str
    run_s: float
    p10_s: float
    p50_s: float
    p90_s: float


def read_record(raw: bytes) -> DecisionRecord:
    """A stored decision."""
    return _RECORD.decode(raw)


class TableReader:
    """Reads score tables and keeps the last few: the decisions of a burst share one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, ReadTable] = OrderedDict()

    def read(self, connection: Connection, table_id: str) -> ReadTable | None:
        """The table of this id; None when it is not stored (any more)."""
        if table_id in self._kept:
            return self._kept[table_id]
        row = connection.execute(select(score_tables).where(score_tables.c.table_id == table_id)).first()
        if row is None:
            return None
        table = read_table(row.nodes, row.features, row.quantiles, json.loads(row.feature_names))
        self._kept[table_id] = table
        while sum(one.features.nbytes for one in self._kept.values()) > TABLE_BYTES_IN_MEMORY:
            self._kept.popitem(last=False)
        return table


def settle(connection: Connection, uids: Iterable[str], tables: TableReader) -> list[Judged]:
    """Bring together what is known of these pods; the predictions that became judgeable by it."""
    judged: list[Judged] = []
    for some in chunks(sorted(uids)):
        chosen = [_choice(connection, bound, tables) for bound in _bound_without_choice(connection, some)]
        _change(connection, _SET_CHOICE, [values for values in chosen if values is not None])
        judged += _judge(connection, some)
    return judged


def pods_of_tables(connection: Connection, table_ids: Sequence[str]) -> set[str]:
    """Pods whose decision still waits for one of these tables."""
    waiting = select(decisions.c.pod_uid).where(decisions.c.chosen_node.is_(None))
    return {
        uid
        for some in chunks(table_ids)
        for uid in connection.scalars(waiting.where(decisions.c.table_id.in_(some)))
    }


def _bound_without_choice(connection: Connection, uids: Sequence[str]) -> list[Any]:
    """The last decision of each bound pod, where the choice was not attached yet."""
    wanted = (
        select(decisions.c.pod_uid, decisions.c.chosen_node, decisions.c.record, outcomes.c.node)
        .join(outcomes, outcomes.c.pod_uid == decisions.c.pod_uid)
        .where(decisions.c.pod_uid.in_(uids), outcomes.c.node.is_not(None))
        .order_by(decisions.c.at_s)
    )
    latest = {row.pod_uid: row for row in connection.execute(wanted)}
    return [row for row in latest.values() if row.chosen_node is None]


def _choice(connection: Connection, bound: Any, tables: TableReader) -> dict[str, Any] | None:
    """Parameters of `_SET_CHOICE`: what the decision said of the node; None when its table does not tell."""
    record = read_record(bound.record)
    table = tables.read(connection, record.table_id)
    row = None if table is None else chosen_row(record, table, bound.node)
    if row is None:
        return None
    return {
        "decision": record.decision_id,
        "chosen_node": bound.node,
        "chosen_features": row.features,
        "chosen_p10_s": row.p10_s,
        "chosen_p50_s": row.p50_s,
        "chosen_p90_s": row.p90_s,
        "chosen_propensity": row.propensity,
    }


def _change(connection: Connection, statement: Update, rows: list[dict[str, Any]]) -> None:
    """One statement for all rows: building it anew for each costs more than the database does."""
    if rows:
        connection.execute(statement, rows)


def _judge(connection: Connection, uids: Sequence[str]) -> list[Judged]:
    """Set the error of predictions whose run ended as a completion; those it was set for just now."""
    ended = connection.execute(
        select(decisions, outcomes.c.run_s)
        .join(outcomes, outcomes.c.pod_uid == decisions.c.pod_uid)
        .where(
            decisions.c.pod_uid.in_(uids),
            decisions.c.chosen_p50_s.is_not(None),
            decisions.c.log_error.is_(None),
            *COMPLETED,
        )
    ).all()
    errors = [
        {"decision": row.decision_id, "log_error": math.log(row.run_s / row.chosen_p50_s)} for row in ended
    ]
    _change(connection, _SET_ERROR, errors)
    return [
        Judged(row.model_version, row.run_s, row.chosen_p10_s, row.chosen_p50_s, row.chosen_p90_s)
        for row in ended
    ]
