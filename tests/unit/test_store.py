"""The experience store on SQLite: the contract of all stores, and what only a file can do wrong."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from placing_builders import a_batch, a_decision, an_outcome
from store_contract import *  # noqa: F403 - the tests of the contract
from store_migrations import *  # noqa: F403 - the tests of versions
from store_migrations import fill
from store_version_1 import make_version_1, rows, shape
from typer.main import get_command

from scheduler.cli.recorder import app as recorder_app
from scheduler.cli.train import app as train_app
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


@pytest.fixture
def empty_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/versions.db"


def test_a_recorder_killed_in_a_migration_leaves_the_old_version(empty_url: str) -> None:
    engine = store_engine.connect(empty_url)
    make_version_1(engine)
    fill(empty_url)
    before = shape(engine), rows(engine)
    # the last statement counts to a billion: the process is killed in the midst of it
    script = (
        "from sqlalchemy import Engine, event\n"
        "from scheduler.edge.store import ExperienceStore\n"
        "from scheduler.edge.store.versions import MIGRATIONS, Migration\n"
        "endless = 'INSERT INTO outcomes (pod_uid) WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n'\n"
        "steps = {1: Migration((*MIGRATIONS[1].up, endless), ())}\n"
        "event.listen(Engine, 'before_cursor_execute', lambda *told: print(told[2], flush=True))\n"
        f"ExperienceStore({empty_url!r}, migrations=steps).open()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("INSERT INTO outcomes") for line in process.stdout)
        process.kill()
    assert (shape(engine), rows(engine)) == before
    engine.dispose()
    ExperienceStore(empty_url).open()


def test_the_command_takes_a_store_back_and_says_so(empty_url: str) -> None:
    ExperienceStore(empty_url).open()
    back = CliRunner().invoke(get_command(recorder_app), ["migrate", "--to", "1", "--store", empty_url])
    assert (back.exit_code, back.output) == (0, "the experience store had version 2, and has version 1 now\n")
    unknown = CliRunner().invoke(get_command(recorder_app), ["migrate", "--to", "7", "--store", empty_url])
    assert unknown.exit_code == 1
    assert "knows versions 1 to 2" in unknown.output


@pytest.mark.parametrize("url", ["postgresql://fairlane@db:port/x", ""])
def test_an_address_that_is_none_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(StoreError, match="the store URL cannot be used"):
        ExperienceStore(url)


@pytest.mark.parametrize("way", ["check", "migrate"])
def test_looking_for_a_store_that_is_not_there_makes_no_file(way: str, tmp_path: Path) -> None:
    mistyped = ExperienceStore(f"sqlite:///{tmp_path}/mistyped.db")
    with pytest.raises(StoreError, match="there is no experience store at this URL"):
        mistyped.check() if way == "check" else mistyped.migrate(1)
    mistyped.close()
    assert list(tmp_path.iterdir()) == []


def test_training_from_a_store_of_another_version_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/experience.db"
    with sqlite3.connect(tmp_path / "experience.db") as newer:
        newer.execute("CREATE TABLE fairlane_store (key VARCHAR PRIMARY KEY, value VARCHAR)")
        newer.execute("INSERT INTO fairlane_store VALUES ('version', '9')")
    told = CliRunner().invoke(get_command(train_app), ["--store", url])
    assert told.exit_code != 0
    assert "the experience store has version 9" in told.output
