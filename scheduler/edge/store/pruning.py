"""Bounded retention: what is too old or too much goes, oldest first."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Table, delete, exists, func, select

from scheduler.edge.store.schema import decisions, outcomes, score_tables

ORPHAN_S = 3600.0
"""A score table that no decision names is kept this long: its decisions may still be on their way."""


def older(connection: Connection, table: Table, age: Column[float], than_s: float) -> int:
    """Delete rows whose `age` lies before `than_s`; how many."""
    return connection.execute(delete(table).where(age < than_s)).rowcount


def beyond(connection: Connection, table: Table, age: Column[float], keep_rows: int) -> int:
    """Delete all but the newest `keep_rows` rows; how many."""
    edge_s = connection.scalar(select(age).order_by(age.desc()).offset(keep_rows - 1).limit(1))
    return 0 if edge_s is None else older(connection, table, age, edge_s)


def tables_unused(connection: Connection, now_s: float) -> int:
    """Delete score tables that no decision names; how many."""
    named = exists().where(decisions.c.table_id == score_tables.c.table_id)
    orphans = delete(score_tables).where(score_tables.c.made_at_s < now_s - ORPHAN_S, ~named)
    return connection.execute(orphans).rowcount


def tables_beyond(connection: Connection, keep_bytes: int) -> int:
    """Delete the oldest score tables until at most `keep_bytes` are left; how many.

    Training loses nothing: what it needs is kept with the decisions.
    """
    total = func.sum(score_tables.c.bytes).over(order_by=score_tables.c.made_at_s.desc())
    sized = select(score_tables.c.table_id, total.label("total")).subquery()
    too_many = select(sized.c.table_id).where(sized.c.total > keep_bytes)
    return connection.execute(delete(score_tables).where(score_tables.c.table_id.in_(too_many))).rowcount


def prune(
    connection: Connection, now_s: float, *, keep_rows: int, keep_days: float, keep_table_bytes: int
) -> int:
    """Apply all limits; how many rows went."""
    oldest_s = now_s - keep_days * 86400.0
    return (
        older(connection, decisions, decisions.c.at_s, oldest_s)
        + older(connection, outcomes, outcomes.c.written_at_s, oldest_s)
        + beyond(connection, decisions, decisions.c.at_s, keep_rows)
        + beyond(connection, outcomes, outcomes.c.written_at_s, keep_rows)
        + tables_unused(connection, now_s)
        + tables_beyond(connection, keep_table_bytes)
    )
