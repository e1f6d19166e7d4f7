"""The experience store on a real PostgreSQL: the same contract as on SQLite."""

from collections.abc import Iterator

import msgspec
import pytest
from placing_builders import an_outcome, pod_of
from real_postgres import binaries, postgres
from sqlalchemy import text
from store_contract import *  # noqa: F403 - the tests of the contract
from store_migrations import *  # noqa: F403 - the tests of versions

from scheduler.core.outcomes import OutcomeTracker
from scheduler.edge.store import ExperienceStore, StoreError
from scheduler.edge.store.engine import connect
from scheduler.edge.store.schema import metadata

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server (package postgresql)"),
    pytest.mark.integration,
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def store(url: str) -> Iterator[ExperienceStore]:
    opened = ExperienceStore(url)
    opened.open()
    yield opened
    opened.close()
    engine = connect(url)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def empty_url(url: str) -> Iterator[str]:
    yield url
    engine = connect(url)
    metadata.drop_all(engine)
    engine.dispose()


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    with pytest.raises(StoreError, match=r"cannot open the experience store.*127\.0\.0\.1"):
        ExperienceStore("postgresql://fairlane@127.0.0.1:1/none").open()


def test_a_pod_whose_annotations_hold_nul_stops_no_records(store: ExperienceStore) -> None:
    given = {f"fairlane.dev/{name}": "a\0b" for name in ("job-class", "user", "gang")}
    pod = pod_of(annotations=given)
    pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, schedulerName="other\0"))
    seen = OutcomeTracker().observe(pod, 1.0)
    store.write_outcomes(seen, 1.0)
    assert store.counts()["outcomes"] == 1
    assert store.histories([seen[0].job_class], [seen[0].user])


def test_a_connection_that_was_cut_is_opened_again(store: ExperienceStore, url: str) -> None:
    store.write_outcomes([an_outcome()], 1.0)
    admin = connect(url)
    with admin.connect() as connection:
        others = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        connection.execute(text(others + " and backend_type = 'client backend'")).all()
    admin.dispose()
    assert store.counts()["outcomes"] == 1


def test_a_pod_with_a_very_long_schedulers_name_stops_no_records(store: ExperienceStore) -> None:
    """The API server takes any; the pod is followed for its job class."""
    pod = pod_of(annotations={"fairlane.dev/job-class": "etl"})
    pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, schedulerName="x" * 300))
    store.write_outcomes(OutcomeTracker().observe(pod, 1.0), 1.0)
    assert store.counts()["outcomes"] == 1
