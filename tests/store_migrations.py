"""What every experience store has to do about its versions; on SQLite (unit) and PostgreSQL (integration).

A module that imports these tests provides the fixture `empty_url`: the URL of an empty database.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from placing_builders import a_batch, a_decision, an_outcome
from sqlalchemy import Engine
from store_version_1 import make_version_1, rows, shape

from scheduler.edge.store import ExperienceStore, StoreError
from scheduler.edge.store.engine import connect
from scheduler.edge.store.versions import MIGRATIONS, VERSION, Migration

COLUMN = Migration(
    up=("ALTER TABLE outcomes ADD COLUMN wish TEXT", "UPDATE outcomes SET wish = 'more'"),
    down=("ALTER TABLE outcomes DROP COLUMN wish",),
    loses="what users wished",
)
"""A step that no release has: unlike those that have been, its way down loses something."""
HALF = Migration((COLUMN.up[0], "ALTER TABLE nowhere ADD COLUMN wish TEXT"), (), "")


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    made = connect(empty_url)
    yield made
    made.dispose()


def fill(url: str) -> None:
    """A judged decision, one that waits for its pod, and two outcomes."""
    store = ExperienceStore(url)
    store.write_batch(a_batch(a_decision(), a_decision("u2")))
    store.write_outcomes([an_outcome(), an_outcome("u3")], 2000.0)
    store.close()


def test_a_store_goes_forward_as_it_is_opened_and_back_by_command_with_its_rows(
    empty_url: str, engine: Engine
) -> None:
    make_version_1(engine)
    first = shape(engine)
    fill(empty_url)  # a step leaves tables that its neighbour can write
    kept = rows(engine)
    assert [len(some) for some in kept.values()] == [1, 2, 2]
    store = ExperienceStore(empty_url)
    store.open()
    assert (shape(engine)["version"], rows(engine)) == ("2", kept)
    assert store.counts()["examples"] == 1
    assert store.migrate(1) == 2
    store.close()
    assert (shape(engine), rows(engine)) == (first, kept)


def test_a_store_that_came_the_whole_way_is_as_a_new_one(empty_url: str, engine: Engine) -> None:
    make_version_1(engine)
    ExperienceStore(empty_url).open()
    came = shape(engine)
    with engine.begin() as connection:
        for name in ("fairlane_store", "score_tables", "decisions", "outcomes"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
    ExperienceStore(empty_url).open()
    assert came == shape(engine)


def test_a_step_that_fails_leaves_the_store_as_it_was(empty_url: str, engine: Engine) -> None:
    make_version_1(engine)
    fill(empty_url)
    before = shape(engine), rows(engine)
    broken = ExperienceStore(empty_url, migrations={1: HALF})
    with pytest.raises(StoreError, match=r"cannot open the experience store.*nowhere"):
        broken.open()
    assert (shape(engine), rows(engine)) == before
    broken.close()
    ExperienceStore(empty_url).open()
    assert shape(engine)["version"] == "2"


def test_going_back_loses_nothing_unasked(empty_url: str, engine: Engine) -> None:
    future = ExperienceStore(empty_url, migrations={**MIGRATIONS, VERSION: COLUMN})
    future.open()
    fill(empty_url)
    future.migrate(VERSION + 1)
    there = shape(engine)
    assert "wish" in there["outcomes"][0]
    with pytest.raises(StoreError, match=r"would lose what users wished.*--accept-loss"):
        future.migrate(1)
    assert shape(engine) == there
    assert future.migrate(VERSION, accept_loss=True) == VERSION + 1
    assert "wish" not in shape(engine)["outcomes"][0]
    assert len(rows(engine)["outcomes"]) == 2
    future.close()


def test_an_older_fairlane_says_what_the_newer_one_has_to_do_first(empty_url: str) -> None:
    future = ExperienceStore(empty_url, migrations={**MIGRATIONS, VERSION: COLUMN})
    future.open()
    future.migrate(VERSION + 1)
    ours = ExperienceStore(empty_url)
    told = r"version 3.*up to 2: run `fairlane recorder migrate --to 2` with the newer Fairlane \("
    for act in (ours.open, ours.check, lambda: ours.migrate(1)):
        with pytest.raises(StoreError, match=told):
            act()
    future.migrate(VERSION, accept_loss=True)
    ours.open()
    ours.close()
    future.close()


@pytest.mark.parametrize("to", [0, VERSION + 1, -1])
def test_there_is_no_way_to_a_version_that_we_do_not_know(empty_url: str, to: int) -> None:
    store = ExperienceStore(empty_url)
    store.open()
    with pytest.raises(StoreError, match=f"no way from version {VERSION} to {to}: .* knows versions 1 to 2"):
        store.migrate(to)
    store.close()


def test_a_reader_of_an_older_store_says_who_takes_it_along(empty_url: str, engine: Engine) -> None:
    make_version_1(engine)
    with pytest.raises(StoreError, match=r"version 1.*`fairlane recorder migrate --to 2`"):
        ExperienceStore(empty_url).check()


@pytest.mark.parametrize("version", [None, 1])
def test_several_recorders_may_open_at_once(empty_url: str, engine: Engine, version: int | None) -> None:
    if version == 1:
        make_version_1(engine)
        fill(empty_url)
    together = Barrier(6)

    def begin(_number: int) -> None:
        store = ExperienceStore(empty_url)
        together.wait()
        store.open()
        store.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(begin, range(6)))
    assert shape(engine)["version"] == "2"
