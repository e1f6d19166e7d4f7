"""Questions to the store: training examples, histories, the newest placement of a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Select, Table, case, exists, func, select

from model.placement import RunHistory
from model.schema import NAMES, SCHEMA_VERSION
from scheduler.core.histories import RUNS_USED, summed_up
from scheduler.core.outcomes import Outcome
from scheduler.core.records import read_rows
from scheduler.core.types import SCHEDULER_NAME
from scheduler.edge.store.schema import decisions, outcomes, score_tables
from scheduler.edge.store.settling import COMPLETED

if TYPE_CHECKING:
    import pandas as pd

_ENDED_AT_S = case(
    # the clock of a node that is ahead would make one run newer than all others, which then count for nothing
    (outcomes.c.ended_at_s > outcomes.c.written_at_s, outcomes.c.written_at_s),
    else_=outcomes.c.ended_at_s,
)
_UNDECIDED = (
    select(func.count())
    .select_from(outcomes)
    .where(
        outcomes.c.scheduler == SCHEDULER_NAME,
        # decisions that are older were pruned
        outcomes.c.bound_at_s > select(func.coalesce(func.min(decisions.c.at_s), 0.0)).scalar_subquery(),
        ~exists().where(decisions.c.pod_uid == outcomes.c.pod_uid),
    )
)


def examples(connection: Connection) -> pd.DataFrame:
    """A row per completion with the chosen node's features; ordered by `ended_at`."""
    import pandas as pd  # here: half a second, and a recorder that only records needs no tables

    rows = connection.execute(_examples())
    columns, records = list(rows.keys())[1:], rows.all()
    features = read_rows([record[0] for record in records], len(NAMES))
    facts = pd.DataFrame([tuple(record)[1:] for record in records], columns=columns)
    return pd.concat([pd.DataFrame(features, columns=list(NAMES)), facts], axis=1)


def _examples() -> Select[Any]:
    chosen, ran = decisions.c, outcomes.c
    return (
        select(
            chosen.chosen_features,
            ran.run_s,
            ran.startup_s,
            _ENDED_AT_S.label("ended_at"),
            ran.job_class,
            case((ran.gang != "", ran.namespace + "/" + ran.gang), else_="").label("group"),
            ran.user,
            ran.node,
            ran.pod_uid,
            chosen.decision_id,
            chosen.chosen_propensity.label("propensity"),
            chosen.explored,
            chosen.model_version,
            chosen.chosen_p50_s.label("predicted_s"),
        )
        .join(outcomes, ran.pod_uid == chosen.pod_uid)
        .where(*COMPLETED, chosen.chosen_features.is_not(None), chosen.schema_version == SCHEMA_VERSION)
        .order_by(_ENDED_AT_S)
    )


def all_outcomes(connection: Connection) -> pd.DataFrame:
    """Every pod followed, whatever became of it."""
    import pandas as pd

    rows = connection.execute(select(outcomes).order_by(outcomes.c.created_at_s))
    return pd.DataFrame([tuple(row) for row in rows], columns=list(rows.keys()))


def unfinished(connection: Connection) -> list[Outcome]:
    """Pods whose end was not seen yet."""
    return [
        _outcome(row) for row in connection.execute(select(outcomes).where(outcomes.c.end_state.is_(None)))
    ]


def history(connection: Connection, column: Column[str], value: str) -> RunHistory:
    """Completions of one job class or one user."""
    mine = (column == value, *COMPLETED)
    newest = connection.execute(  # by what the index is in order of; how they follow each other is seen below
        select(_ENDED_AT_S, outcomes.c.run_s)
        .where(*mine)
        .order_by(outcomes.c.ended_at_s.desc())
        .limit(RUNS_USED)
    ).all()
    count = connection.scalar(select(func.count()).select_from(outcomes).where(*mine)) or 0
    return summed_up([run_s for _, run_s in sorted(tuple(row) for row in newest)], count)


def newest(connection: Connection, table: Table, namespace: str, name: str, age: Column[float]) -> Any:
    """The newest row for a pod name; None without one."""
    wanted = select(table).where(table.c.namespace == namespace, table.c.name == name)
    return connection.execute(wanted.order_by(age.desc()).limit(1)).first()


def last_decision(connection: Connection, pod_uid: str) -> Any:
    """The newest decision about a pod; None without one."""
    wanted = select(decisions).where(decisions.c.pod_uid == pod_uid)
    return connection.execute(wanted.order_by(decisions.c.at_s.desc()).limit(1)).first()


def outcome_of(row: Any) -> Outcome | None:
    """A row of `outcomes` as an `Outcome`; None for none."""
    return None if row is None else _outcome(row)


def _outcome(row: Any) -> Outcome:
    return Outcome(*(getattr(row, name) for name in Outcome.__struct_fields__))


def counts(connection: Connection) -> dict[str, int]:
    """Rows kept by table, the completions that can be trained on, and the pods placed without us.

    `undecided` are pods that our kube-scheduler bound without a recorded
    decision: the extender was away, or is asked for scores only and just one node was feasible.
    """
    found = {
        table.name: connection.scalar(select(func.count()).select_from(table))
        for table in (decisions, outcomes, score_tables)
    }
    trainable = select(func.count()).select_from(decisions).where(decisions.c.log_error.is_not(None))
    found |= {"examples": connection.scalar(trainable), "undecided": connection.scalar(_UNDECIDED)}
    return {name: int(rows or 0) for name, rows in found.items()}
