"""The experience store on SQLite: the contract of all stores, and what only a file can do wrong."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from placing_builders import a_batch, a_decision, an_outcome
from store_contract import *  # noqa: F403 - the tests of the contract

from scheduler.edge.store import ExperienceStore, StoreError
from scheduler.edge.store import engine as store_engine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExperienceStore]:
    opened = ExperienceStore(f"sqlite:///{tmp_path}/experience.db")
    opened.open()
    yield opened
    opened.close()


def test_a_locked_store_says_so_and_works_again_afterwards(
    store: ExperienceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_engine, "BUSY_MS", 50)
    impatient = ExperienceStore(f"sqlite:///{tmp_path}/experience.db")
    with sqlite3.connect(tmp_path / "experience.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"cannot write outcomes: database is locked"):
            impatient.write_outcomes([an_outcome()], 1.0)
        other.execute("ROLLBACK")
    impatient.write_outcomes([an_outcome()], 1.0)
    assert store.counts()["outcomes"] == 1
    impatient.close()


def test_a_full_store_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    small = ExperienceStore(f"sqlite:///{tmp_path}/small.db", max_bytes=300_000)
    small.open()
    small.write_outcomes([an_outcome()], 1.0)
    too_much = a_batch(*(a_decision(f"u{i}") for i in range(2000)))
    with pytest.raises(StoreError, match="full"):
        small.write_batch(too_much)
    assert small.counts()["outcomes"] == 1
    small.close()


def test_a_store_of_another_version_is_refused(tmp_path: Path, store: ExperienceStore) -> None:
    with sqlite3.connect(tmp_path / "experience.db") as raw:
        raw.execute("UPDATE fairlane_store SET value = '99'")
    with pytest.raises(StoreError, match="version 99"):
        store.open()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database" * 100)
    with pytest.raises(StoreError, match="cannot open"):
        ExperienceStore(f"sqlite:///{tmp_path}/notes.txt").open()
    with pytest.raises(StoreError, match="no experience store"):
        ExperienceStore(f"sqlite:///{tmp_path}/empty.db").check()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite:////nowhere/at/all.db"])
def test_a_url_that_cannot_work_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(StoreError, match=r"cannot"):
        ExperienceStore(url).open()


def test_readers_see_what_another_connection_wrote(store: ExperienceStore, tmp_path: Path) -> None:
    reader = ExperienceStore(f"sqlite:///{tmp_path}/experience.db")
    store.write_outcomes([an_outcome()], 1.0)
    assert len(reader.outcomes()) == 1
    reader.close()
