"""Versions of the experience store: which one it is, and the way from one to the next and back.

A step is SQL that SQLite and PostgreSQL both read, and is never changed once
it was released. It leaves tables that the version before can still write
(new columns may be empty), because a recorder may go on for a while as the
tables change under it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Connection, delete, insert, inspect, select

from scheduler.edge.store.schema import about, metadata
from scheduler.edge.store_error import StoreError


@dataclass(frozen=True, slots=True)
class Migration:
    """The step up to the next version, and down again; `loses` says what is lost on the way down, if any."""

    up: tuple[str, ...]
    down: tuple[str, ...]
    loses: str = ""


Migrations = Mapping[int, Migration]
"""By the version that each starts from."""

MIGRATIONS: Migrations = {
    1: Migration(
        up=("CREATE INDEX decisions_judged ON decisions (log_error) WHERE log_error IS NOT NULL",),
        down=("DROP INDEX decisions_judged",),
    ),
}
VERSION = max(MIGRATIONS) + 1
"""What `schema` describes."""


def found_version(connection: Connection) -> int | None:
    """The version of the store; None where there is none.

    Raises:
        StoreError: its version is not a number.
    """
    if not inspect(connection).has_table(about.name):
        return None
    value = _told(connection, "version")
    if not value.isdecimal():
        raise StoreError(f"this is no experience store of Fairlane: its version is {value!r}")
    return int(value)


def make(connection: Connection) -> None:
    """All tables, of the newest version, in an empty database."""
    metadata.create_all(connection)
    _note(connection, VERSION)


def migrate(connection: Connection, to: int, migrations: Migrations, accept_loss: bool = False) -> int:
    """Take the store to version `to`, step by step; the version that it had.

    Raises:
        StoreError: we do not know the way, there is no store, or something would be lost without consent.
    """
    found = found_version(connection)
    if found is None:
        raise StoreError(NO_STORE)
    statements, losses = _way(connection, found, to, migrations)
    if losses and not accept_loss:
        raise StoreError(
            f"going back from version {found} to {to} would lose {', and '.join(losses)}: "
            f"back the store up, then say --accept-loss"
        )
    for statement in statements:
        connection.exec_driver_sql(statement)
    if found != to:
        _note(connection, to)
    return found


NO_STORE = "there is no experience store at this URL: start `fairlane recorder` first"


def other_version(connection: Connection, found: int, ours: int) -> str:
    """What to do about a store of another version than ours, in a sentence."""
    if found < ours:
        return (
            f"the experience store has version {found}, this Fairlane reads version {ours}: "
            f"start its `fairlane recorder` first, or run `fairlane recorder migrate --to {ours}`"
        )
    writer = _told(connection, "fairlane") or "that wrote it"
    return (
        f"the experience store has version {found}, this Fairlane knows versions up to {ours}: "
        f"run `fairlane recorder migrate --to {ours}` with the newer Fairlane ({writer}) first, "
        f"or use another store URL"
    )


def _way(connection: Connection, found: int, to: int, migrations: Migrations) -> tuple[list[str], list[str]]:
    """The statements that lead from one version to another, and what they lose."""
    oldest, newest = min(migrations), max(migrations) + 1
    if found > newest:
        raise StoreError(other_version(connection, found, newest))
    if not (oldest <= to <= newest and oldest <= found):
        raise StoreError(
            f"there is no way from version {found} to {to}: this Fairlane knows versions {oldest} to {newest}"
        )
    if to >= found:
        return list(chain.from_iterable(migrations[at].up for at in range(found, to))), []
    steps = [migrations[at] for at in range(found - 1, to - 1, -1)]
    return list(chain.from_iterable(step.down for step in steps)), [one.loses for one in steps if one.loses]


def _told(connection: Connection, key: str) -> str:
    return connection.scalar(select(about.c.value).where(about.c.key == key)) or ""


def _note(connection: Connection, version: int) -> None:
    """Which version the store has now, and which Fairlane made it so."""
    noted = {"version": str(version), "fairlane": importlib.metadata.version("fairlane")}
    connection.execute(delete(about).where(about.c.key.in_(noted)))
    connection.execute(insert(about), [{"key": key, "value": value} for key, value in noted.items()])
