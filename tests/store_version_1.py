"""The experience store as version 1 had it, to migrate from: a copy of that schema, with a few rows.

It is not derived from today's schema, which goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, inspect

ABOUT = "CREATE TABLE fairlane_store (key VARCHAR(64) NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
TABLES = (
    """CREATE TABLE score_tables (table_id VARCHAR(64) NOT NULL PRIMARY KEY, made_at_s {double} NOT NULL,
    taken_at_s {double} NOT NULL, epoch BIGINT NOT NULL, schema_version INTEGER NOT NULL,
    feature_names TEXT NOT NULL, model_version TEXT NOT NULL, reason VARCHAR(64) NOT NULL,
    nodes {bytes} NOT NULL,
    features {bytes} NOT NULL, quantiles {bytes} NOT NULL, bytes BIGINT NOT NULL)""",
    """CREATE TABLE decisions (decision_id VARCHAR(64) NOT NULL PRIMARY KEY, at_s {double} NOT NULL,
    pod_uid VARCHAR(64) NOT NULL, namespace VARCHAR(63) NOT NULL, name VARCHAR(253) NOT NULL,
    job_class TEXT NOT NULL, "user" TEXT NOT NULL, table_id VARCHAR(64) NOT NULL, model_version TEXT NOT NULL,
    schema_version INTEGER NOT NULL, reason VARCHAR(64) NOT NULL, explored BOOLEAN NOT NULL,
    record {bytes} NOT NULL, chosen_node VARCHAR(253), chosen_features {bytes}, chosen_p10_s {double},
    chosen_p50_s {double}, chosen_p90_s {double}, chosen_propensity {double}, log_error {double})""",
    """CREATE TABLE outcomes (pod_uid VARCHAR(64) NOT NULL PRIMARY KEY, namespace VARCHAR(63) NOT NULL,
    name VARCHAR(253) NOT NULL, job_class TEXT NOT NULL, "user" TEXT NOT NULL,
    framework VARCHAR(64) NOT NULL,
    gang TEXT NOT NULL, scheduler VARCHAR(253) NOT NULL, created_at_s {double}, node VARCHAR(253),
    bound_at_s {double}, started_at_s {double}, ended_at_s {double}, end_state VARCHAR(32),
    startup_s {double},
    run_s {double}, written_at_s {double} NOT NULL)""",
)
INDEXES = (
    "CREATE INDEX score_tables_by_age ON score_tables (made_at_s)",
    "CREATE INDEX decisions_by_age ON decisions (at_s)",
    "CREATE INDEX decisions_by_pod ON decisions (pod_uid)",
    "CREATE INDEX decisions_by_name ON decisions (namespace, name)",
    "CREATE INDEX decisions_by_table ON decisions (table_id)",
    "CREATE INDEX outcomes_by_class ON outcomes (job_class, ended_at_s)",
    'CREATE INDEX outcomes_by_user ON outcomes ("user", ended_at_s)',
    "CREATE INDEX outcomes_by_name ON outcomes (namespace, name)",
    "CREATE INDEX outcomes_by_age ON outcomes (written_at_s)",
)


def make_version_1(engine: Engine) -> None:
    """All tables of version 1, empty."""
    on_server = engine.dialect.name == "postgresql"
    types = (
        {"double": "DOUBLE PRECISION", "bytes": "BYTEA"}
        if on_server
        else {"double": "DOUBLE", "bytes": "BLOB"}
    )
    with engine.begin() as connection:
        for statement in (ABOUT, *(table.format(**types) for table in TABLES), *INDEXES):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("INSERT INTO fairlane_store VALUES ('version', '1')")


def shape(engine: Engine) -> dict[str, Any]:
    """Every table with its columns, their types, and its indexes; and the version."""
    seen = inspect(engine)
    tables: dict[str, Any] = {
        name: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in seen.get_columns(name)},
            {
                index["name"]: (index["column_names"], _where(index.get("dialect_options", {})))
                for index in seen.get_indexes(name)
            },
        )
        for name in seen.get_table_names()
    }
    with engine.connect() as connection:
        version = "SELECT value FROM fairlane_store WHERE key = 'version'"
        return {**tables, "version": connection.exec_driver_sql(version).scalar()}


def rows(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """All that is kept, in order."""
    with engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1")]
            for name in ("score_tables", "decisions", "outcomes")
        }


def _where(options: Mapping[str, Any]) -> dict[str, str]:
    """What an index leaves out; told as text, for clauses are not equal to each other."""
    return {name: str(value) for name, value in options.items() if name.endswith("_where")}
