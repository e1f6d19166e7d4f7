"""Tables of the experience store; the same on SQLite and PostgreSQL.

`decisions` has one row per call of kube-scheduler, `score_tables` what they were read
from, `outcomes` one row per pod. The `chosen_*` columns repeat what a decision
said of the node that the pod was bound to, so that training needs no score
table and these can be dropped first when space is short.

A change here needs a step in `versions.MIGRATIONS` that makes the same of an older store.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()
_JUDGED = text("log_error IS NOT NULL")

about = Table(
    "fairlane_store",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

score_tables = Table(
    "score_tables",
    metadata,
    Column("table_id", String(64), primary_key=True),
    Column("made_at_s", Double, nullable=False),
    Column("taken_at_s", Double, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("feature_names", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("nodes", LargeBinary, nullable=False),
    Column("features", LargeBinary, nullable=False),
    Column("quantiles", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("score_tables_by_age", "made_at_s"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", String(64), primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("pod_uid", String(64), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("job_class", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("table_id", String(64), nullable=False),
    Column("model_version", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("explored", Boolean, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("chosen_node", String(253)),
    Column("chosen_features", LargeBinary),
    Column("chosen_p10_s", Double),
    Column("chosen_p50_s", Double),
    Column("chosen_p90_s", Double),
    Column("chosen_propensity", Double),
    Column("log_error", Double),
    Index("decisions_by_age", "at_s"),
    Index("decisions_by_pod", "pod_uid"),
    Index("decisions_by_name", "namespace", "name"),
    Index("decisions_by_table", "table_id"),
    # counted every few seconds, beside rows that carry whole decisions
    Index("decisions_judged", "log_error", sqlite_where=_JUDGED, postgresql_where=_JUDGED),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("pod_uid", String(64), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("job_class", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("framework", String(64), nullable=False),
    Column("gang", Text, nullable=False),
    Column("scheduler", String(253), nullable=False),
    Column("created_at_s", Double),
    Column("node", String(253)),
    Column("bound_at_s", Double),
    Column("started_at_s", Double),
    Column("ended_at_s", Double),
    Column("end_state", String(32)),
    Column("startup_s", Double),
    Column("run_s", Double),
    Column("written_at_s", Double, nullable=False),
    Index("outcomes_by_class", "job_class", "ended_at_s"),
    Index("outcomes_by_user", "user", "ended_at_s"),
    Index("outcomes_by_name", "namespace", "name"),
    Index("outcomes_by_age", "written_at_s"),
)
