"""The experience store as one object; one writer (the recorder), any number of readers.

Every write is idempotent: a batch that is sent again, or a pod reported again
after a restart, changes nothing. Times that were recorded first stay, because
they were seen live.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, Table, func, select

from model.placement import RunHistory
from scheduler.core.outcomes import Outcome
from scheduler.core.records import Batch, BatchReply, DecisionRecord
from scheduler.core.table_records import ReadTable, TableRecord
from scheduler.edge.store import pruning, reading, settling
from scheduler.edge.store.engine import alone, chunks, connect, told
from scheduler.edge.store.schema import decisions, outcomes, score_tables
from scheduler.edge.store.versions import (
    MIGRATIONS,
    NO_STORE,
    VERSION,
    Migrations,
    found_version,
    make,
    migrate,
    other_version,
)
from scheduler.edge.store_error import StoreError

if TYPE_CHECKING:
    import pandas as pd

KEEP_TABLE_BYTES = 2 * 2**30
"""Score tables kept, compressed."""
log = logging.getLogger(__name__)
_FIRST_STAYS = ("node", "bound_at_s", "started_at_s", "ended_at_s", "end_state")


@dataclass(frozen=True, slots=True)
class Placement:
    """The newest pod of a name: what became of it, its last decision, and the table that was read."""

    outcome: Outcome | None = None
    decision: DecisionRecord | None = None
    table: ReadTable | None = None


class ExperienceStore:
    """Decisions and outcomes in SQLite (a file) or PostgreSQL, by SQLAlchemy URL.

    Every method raises `StoreError` when the database cannot do it now.
    """

    def __init__(self, url: str, max_bytes: int | None = None, migrations: Migrations = MIGRATIONS) -> None:
        self._engine = connect(url, max_bytes)
        self._migrations = migrations
        self._insert = _insert_of(self._engine.dialect.name)
        self.on_server = self._engine.dialect.name == "postgresql"
        self.is_open = False
        self._tables = settling.TableReader()

    def open(self) -> None:
        """Make the tables where there are none, and take an older store to our version.

        Of several that open at once one does it and the others wait; when it is
        interrupted, the store is what it was before.

        Raises:
            StoreAwayError: it cannot be reached now.
            StoreError: a newer version of Fairlane wrote it, or it is none.
        """
        self._open()
        self.is_open = True

    def _open(self) -> None:
        with told("open the experience store"):
            with self._engine.connect() as connection:
                if found_version(connection) == VERSION:
                    return
            with alone(self._engine) as connection:
                found = found_version(connection)
                if found is None:
                    make(connection)
                else:
                    migrate(connection, VERSION, self._migrations)
        if found not in (None, VERSION):
            log.info("the experience store was taken from version %d to %d", found, VERSION)

    def check(self) -> None:
        """Make sure that this is a store we can read.

        Raises:
            StoreError: it is not there, or another version of Fairlane wrote it.
        """
        self._require_file()
        with told("open the experience store"), self._engine.connect() as connection:
            found = found_version(connection)
            if found is None:
                raise StoreError(NO_STORE)
            if found != VERSION:
                raise StoreError(other_version(connection, found, VERSION))

    def migrate(self, to: int, accept_loss: bool = False) -> int:
        """Take the store to version `to`, which may be an older one; the version that it had.

        Raises:
            StoreError: it cannot be done, or would lose something without consent; then nothing changed.
        """
        self._require_file()
        with told("migrate the experience store"), alone(self._engine) as connection:
            return migrate(connection, to, self._migrations, accept_loss)

    def _require_file(self) -> None:
        """SQLite would make a file that is not there; who only looks for a store leaves none behind."""
        file = None if self.on_server else self._engine.url.database
        if file and not file.startswith(("file:", ":")) and not Path(file).exists():
            raise StoreError(NO_STORE)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def write_batch(self, batch: Batch) -> tuple[BatchReply, list[settling.Judged]]:
        """Store tables and decisions; also the predictions that can be judged since."""
        with told("write decisions"), self._engine.begin() as connection:
            self._put(connection, score_tables, [_table_values(one) for one in batch.tables])
            self._put(connection, decisions, [_decision_values(one) for one in batch.decisions])
            uids = {one.pod_uid for one in batch.decisions}
            uids |= settling.pods_of_tables(connection, [one.table_id for one in batch.tables])
            judged = settling.settle(connection, uids, self._tables)
            missing = _missing(connection, {one.table_id for one in batch.decisions if one.table_id})
        return BatchReply(len(batch.decisions), missing), judged

    def write_outcomes(self, changed: Sequence[Outcome], now_s: float) -> list[settling.Judged]:
        """Store what is newly known of pods; the predictions that can be judged since."""
        if not changed:
            return []
        with told("write outcomes"), self._engine.begin() as connection:
            insert = self._insert(outcomes)
            merged = insert.on_conflict_do_update(index_elements=["pod_uid"], set_=_merged(insert.excluded))
            connection.execute(merged, [_outcome_values(one, now_s) for one in changed])
            return settling.settle(connection, {one.pod_uid for one in changed}, self._tables)

    def unfinished(self) -> list[Outcome]:
        """Pods whose end was not seen yet, to be followed again after a restart."""
        with told("read outcomes"), self._engine.connect() as connection:
            return reading.unfinished(connection)

    def histories(
        self, classes: Iterable[str], users: Iterable[str]
    ) -> tuple[dict[str, RunHistory], dict[str, RunHistory]]:
        """Completions summed up, per job class and per user."""
        with told("read histories"), self._engine.connect() as connection:
            by_class = {one: reading.history(connection, outcomes.c.job_class, one) for one in classes}
            by_user = {one: reading.history(connection, outcomes.c.user, one) for one in users}
        return by_class, by_user

    def examples(self) -> pd.DataFrame:
        """The table that `fairlane train --examples` reads: a row per completion, by `ended_at`.

        Columns: the features by name, `run_s`, `startup_s`, `ended_at` (unix
        s), `job_class`, `group` (the gang, namespace/name), `user`, `node`,
        `pod_uid`, `decision_id`, `propensity`, `explored`, `model_version`
        and `predicted_s`. Only decisions made with the current feature schema.
        """
        with told("read examples"), self._engine.connect() as connection:
            return reading.examples(connection)

    def outcomes(self) -> pd.DataFrame:
        """Every pod followed, whatever became of it: one row each, the columns of `Outcome`."""
        with told("read outcomes"), self._engine.connect() as connection:
            return reading.all_outcomes(connection)

    def placement(self, namespace: str, name: str) -> Placement:
        """What is known of the newest pod of this name."""
        with told("read a decision"), self._engine.connect() as connection:
            outcome = reading.newest(connection, outcomes, namespace, name, outcomes.c.created_at_s)
            decision = reading.newest(connection, decisions, namespace, name, decisions.c.at_s)
            if outcome is not None and decision is not None and outcome.pod_uid != decision.pod_uid:
                decision = reading.last_decision(connection, outcome.pod_uid)
            record = None if decision is None else settling.read_record(decision.record)
            table = None if record is None else self._tables.read(connection, record.table_id)
        return Placement(reading.outcome_of(outcome), record, table)

    def counts(self) -> dict[str, int]:
        """Rows kept by table, `examples` that can be trained on, `undecided` pods placed without us."""
        with told("count rows"), self._engine.connect() as connection:
            return reading.counts(connection)

    def prune(
        self, now_s: float, keep_rows: int, keep_days: float, keep_table_bytes: int = KEEP_TABLE_BYTES
    ) -> int:
        """Delete what is too old or too much, oldest first; how many rows went."""
        with told("prune the experience store"), self._engine.begin() as connection:
            gone = pruning.prune(
                connection,
                now_s,
                keep_rows=keep_rows,
                keep_days=keep_days,
                keep_table_bytes=keep_table_bytes,
            )
        if gone and self._engine.dialect.name == "sqlite":
            with told("give space back"), self._engine.connect() as connection:
                cursor = connection.connection.cursor()
                cursor.execute("PRAGMA incremental_vacuum")
                cursor.fetchall()  # each step gives back one page
        return gone

    def _put(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows; those that are there already stay as they are."""
        if rows:
            connection.execute(self._insert(table).on_conflict_do_nothing(), rows)


def _insert_of(dialect: str) -> Any:
    """The dialect's own INSERT, which can leave rows as they are; only the one that is used is imported."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


def _missing(connection: Connection, table_ids: set[str]) -> list[str]:
    stored = {
        one
        for some in chunks(sorted(table_ids))
        for one in connection.scalars(
            select(score_tables.c.table_id).where(score_tables.c.table_id.in_(some))
        )
    }
    return sorted(table_ids - stored)


def _table_values(record: TableRecord) -> dict[str, Any]:
    values = msgspec.structs.asdict(record)
    size = len(record.nodes) + len(record.features) + len(record.quantiles)
    return values | {"feature_names": json.dumps(record.feature_names), "bytes": size}


def _decision_values(record: DecisionRecord) -> dict[str, Any]:
    columns = [column.name for column in decisions.columns if hasattr(record, column.name)]
    return {name: getattr(record, name) for name in columns} | {"record": msgspec.msgpack.encode(record)}


def _outcome_values(outcome: Outcome, now_s: float) -> dict[str, Any]:
    values = msgspec.structs.asdict(outcome)
    return values | {"startup_s": outcome.startup_s, "run_s": outcome.run_s, "written_at_s": now_s}


def _merged(new: Any) -> dict[str, Any]:
    """Columns of an outcome that is stored already: what was known first stays."""
    first = {name: func.coalesce(outcomes.c[name], new[name]) for name in _FIRST_STAYS}
    return first | {
        "startup_s": func.coalesce(outcomes.c.startup_s, first["started_at_s"] - first["bound_at_s"]),
        "run_s": func.coalesce(outcomes.c.run_s, first["ended_at_s"] - first["started_at_s"]),
        "written_at_s": new.written_at_s,
    }
