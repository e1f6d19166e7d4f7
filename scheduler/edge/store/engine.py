"""Connections: SQLite as a file that survives crashes, PostgreSQL by URL; failures as sentences."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from scheduler.edge.store_error import StoreAwayError, StoreError

BUSY_MS = 2000
"""How long SQLite waits for another connection's lock."""
ALONE_S = 60
"""How long whoever changes tables waits for another who does: an index on a million rows takes seconds."""
_ALONE_IN_FILE = (f"PRAGMA busy_timeout={ALONE_S * 1000}", "BEGIN EXCLUSIVE")
_ALONE_ON_SERVER = (
    f"SET LOCAL lock_timeout = '{ALONE_S}s'",
    f"SELECT pg_advisory_xact_lock({int.from_bytes(b'fairlane')})",
)
_ANSWERS_S = 10
_SERVER = {
    "connect_timeout": _ANSWERS_S,
    "tcp_user_timeout": 1000 * _ANSWERS_S,
    "keepalives_idle": _ANSWERS_S,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Of libpq: a server that went away without a word is given up after seconds; TCP waits for 15 minutes."""
CHUNK = 400
"""Values in one IN (...), below every database's limit on parameters."""

Item = TypeVar("Item")


def connect(url: str, max_bytes: int | None = None) -> Engine:
    """An engine for `url`; nothing is opened yet. `max_bytes` bounds an SQLite file.

    Raises:
        StoreError: the URL is none of SQLite or PostgreSQL, or the driver is missing.
    """
    try:
        parsed = _with_driver(make_url(url))
        engine = create_engine(parsed, **_options(parsed))
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError, ValueError) as error:
        raise StoreError(f"the store URL cannot be used: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda raw, _record: _prepare_sqlite(raw, max_bytes))
    return engine


def _with_driver(url: URL) -> URL:
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(
            f"the store cannot be kept in {backend}: use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _options(url: URL) -> dict[str, Any]:
    """What the URL says itself goes before."""
    if url.get_backend_name() != "postgresql":
        return {}
    own = {name: value for name, value in _SERVER.items() if name not in url.query}
    return {"pool_pre_ping": True, "connect_args": own}


def _prepare_sqlite(raw: Any, max_bytes: int | None) -> None:
    cursor = raw.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")  # pruned rows give their space back
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    if max_bytes is not None:
        page = cursor.execute("PRAGMA page_size").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count={max(1, max_bytes // page)}")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Readers do not wait for the writer. Of several that open a new file at once SQLite refuses some."""
    until_s = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until_s:
                raise
        time.sleep(0.01)


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """One transaction, of those that change tables the only one at a time; all of it stays, or nothing.

    By itself Python's SQLite driver begins no transaction before it changes a table, so that is said here.
    """
    with engine.connect() as connection:
        is_file = engine.dialect.name == "sqlite"
        try:
            for statement in _ALONE_IN_FILE if is_file else _ALONE_ON_SERVER:
                connection.exec_driver_sql(statement)
            yield connection
            connection.commit()
        finally:
            connection.rollback()
            if is_file:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_MS}")


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn a failure of the database into a `StoreError` that says what could not be done."""
    try:
        yield
    except SQLAlchemyError as error:
        away = isinstance(error, OperationalError | InterfaceError | NoConnectionError)
        cause = getattr(error, "orig", None) or error
        kind = StoreAwayError if away else StoreError
        raise kind(f"cannot {action}: {' '.join(str(cause).split())}") from error


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`items` in pieces that fit into one IN (...)."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
