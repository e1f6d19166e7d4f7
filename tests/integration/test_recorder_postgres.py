"""A recorder whose database is away, refuses, hangs or is full: it says so, is not ready, loses nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import msgspec
import psycopg
import pytest
import yaml
from placing_builders import a_batch, a_decision, an_outcome
from raw_http import Reply, ask
from real_postgres import PostgresServer, binaries, postgres_server
from test_recorder import PODS, Eventually, a_job

from scheduler.edge.kube import KubeClient
from scheduler.edge.store import ExperienceStore, StoreError
from testbed.cluster import Cluster

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server (package postgresql)"),
    pytest.mark.timeout(240),
]


class Recorder:
    """A recorder process with a store of its own on the shared testbed."""

    def __init__(self, cluster: Cluster, folder: Path, url: str) -> None:
        settings = yaml.safe_load(cluster.settings_file.read_text())
        settings["recorder"] = {"store_url": url, "host": "127.0.0.1", "port": 0}
        (folder / "fairlane.yaml").write_text(yaml.safe_dump(settings))
        port_file, self._log = folder / "port", folder / "log"
        command = [sys.executable, "-m", "scheduler.cli.main", "recorder"]
        command += ["--config", str(folder / "fairlane.yaml"), "--port-file", str(port_file)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--kubeconfig", str(cluster.kubeconfig)], stderr=log)
        deadline_s = time.monotonic() + 60
        while not port_file.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, "no open port"
            time.sleep(0.05)
        self._port, self._token = int(port_file.read_text()), settings["token"]

    def log(self) -> str:
        return self._log.read_text()

    def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        return ask(self._port, method, path, body, authorization=f"Bearer {self._token}")

    def readiness(self) -> str:
        """What /readyz says."""
        reply = self.ask("GET", "/readyz")
        assert (reply.status == 200) == (reply.body == b"ready\n")
        return reply.body.decode().strip()

    def status(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/v1/status").json())

    def send(self, pod_uid: str) -> Reply:
        """A decision, as the extender sends it."""
        return self.ask("POST", "/v1/decisions", msgspec.msgpack.encode(a_batch(a_decision(pod_uid))))

    def end_state(self, name: str) -> str | None:
        reply = self.ask("GET", f"/v1/decisions?pod=default/{name}")
        return (reply.json().get("outcome") or {}).get("end_state") if reply.status == 200 else None


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as one:
        yield one


@pytest.fixture
def recorder(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[str], Recorder]]:
    """Starts recorders, which end with the test."""
    begun: list[Recorder] = []

    def start(url: str) -> Recorder:
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        begun.append(Recorder(cluster, folder, url))
        return begun[-1]

    yield start
    for one in begun:
        one.process.terminate()
        one.process.wait(30)


Start = Callable[[str], Recorder]


async def ends(kube: KubeClient, name: str, eventually: Eventually) -> None:
    """Wait until a job is over, then take its pod away: from now on only who watched knows how it ended."""

    async def over() -> bool:
        return bool(
            msgspec.json.decode(await kube.get(f"{PODS}/{name}"))["status"].get("phase") == "Succeeded"
        )

    await eventually(over)
    await kube.delete(f"{PODS}/{name}")


def tells(recorder: Recorder, part: str) -> Callable[[], Awaitable[bool]]:
    async def told() -> bool:
        return part in recorder.readiness()

    return told


def has(recorder: Recorder, states: dict[str, str]) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return {name: recorder.end_state(name) for name in states} == states

    return there


async def test_a_database_that_is_away_at_the_start_is_waited_for_and_no_outcome_is_lost(
    server: PostgresServer, recorder: Start, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    before = recorder(server.url)
    await eventually(tells(before, "ready"))
    lasting = a_job(cluster, cpu_s=500.0)
    await kube.post(PODS, lasting)

    async def followed() -> bool:
        return before.status()["rows"].get("outcomes", 0) > 0

    await eventually(followed)
    before.process.terminate()
    before.process.wait(30)
    server.stop()

    await kube.delete(f"{PODS}/{lasting['metadata']['name']}")  # nobody sees that
    late = recorder(server.url)
    await eventually(tells(late, "cannot open the experience store: connection failed"))
    assert "Connection refused" in late.readiness()
    assert late.ask("GET", "/healthz").status == 200
    passing = a_job(cluster)
    await kube.post(PODS, passing)
    await ends(kube, passing["metadata"]["name"], eventually)  # seen by who has no store yet
    assert late.send("u1").status == 503

    server.start()
    await eventually(tells(late, "ready"))
    states = {passing["metadata"]["name"]: "succeeded", lasting["metadata"]["name"]: "vanished"}
    await eventually(has(late, states))
    assert late.send("u1").status == 200
    assert late.log().count("the experience store: cannot open") == 1  # not once a second


async def test_a_database_that_goes_away_is_told_though_nothing_is_written_and_all_is_stored_afterwards(
    server: PostgresServer, recorder: Start, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    running = recorder(server.url)
    await eventually(tells(running, "ready"))
    for _ in range(2):  # the first time something may be being written, the second time nothing is
        server.stop()
        await eventually(tells(running, "Connection refused"))
        server.start()
        await eventually(tells(running, "ready"))
    server.stop()
    await eventually(tells(running, "Connection refused"))
    assert "fairlane_recorder_store_writable 0.0" in running.ask("GET", "/metrics").body.decode()
    job = a_job(cluster)
    await kube.post(PODS, job)
    await ends(kube, job["metadata"]["name"], eventually)
    assert running.send("u2").status == 503
    server.start()
    await eventually(tells(running, "ready"))
    await eventually(has(running, {job["metadata"]["name"]: "succeeded"}))
    assert running.status()["outcomes_dropped"] == 0


@pytest.mark.long
async def test_a_database_that_hangs_is_told_and_found_again(
    server: PostgresServer, recorder: Start, eventually: Eventually
) -> None:
    running = recorder(server.url)
    await eventually(tells(running, "ready"))
    for _ in range(2):  # the first time something may be being written, the second time nothing is
        with server.hanging():
            await eventually(tells(running, "the experience store has not answered for"))
            assert running.ask("GET", "/healthz").status == 200
        await eventually(tells(running, "ready"))


async def test_a_wrong_password_and_a_missing_database_are_told_in_the_servers_words(
    server: PostgresServer, recorder: Start, eventually: Eventually
) -> None:
    server.ask("CREATE ROLE guarded LOGIN PASSWORD 'right'", "GRANT ALL ON SCHEMA public TO guarded")
    server.let_in("host all guarded 127.0.0.1/32 scram-sha-256")
    wrong = recorder(server.url.replace("fairlane@", "guarded:s3same@"))
    await eventually(tells(wrong, 'password authentication failed for user "guarded"'))
    missing = recorder(server.url.replace("/postgres", "/nothing"))
    await eventually(tells(missing, 'database "nothing" does not exist'))
    assert "s3same" not in wrong.log() + wrong.readiness() + str(wrong.status())
    server.ask("ALTER ROLE guarded PASSWORD 's3same'", "CREATE DATABASE nothing")
    await eventually(tells(wrong, "ready"))
    await eventually(tells(missing, "ready"))


async def test_a_server_that_insists_on_tls_gets_it_and_is_verified_where_wanted(
    recorder: Start, eventually: Eventually
) -> None:
    with postgres_server() as server:
        authority = server.speak_tls()
        server.let_in("hostssl all all 127.0.0.1/32 trust", "hostnossl all all 127.0.0.1/32 reject")
        await eventually(tells(recorder(server.url), "ready"))
        verified = f"?sslmode=verify-full&sslrootcert={authority}"
        await eventually(tells(recorder(server.url + verified), "ready"))
        await eventually(tells(recorder(server.url + "?sslmode=disable"), "no encryption"))
        unknown = f"?sslmode=verify-full&sslrootcert={certifi.where()}"
        await eventually(tells(recorder(server.url + unknown), "certificate verify failed"))


async def test_a_server_without_a_free_connection_is_told_and_waited_for(
    recorder: Start, eventually: Eventually
) -> None:
    with postgres_server("max_connections=6", "superuser_reserved_connections=0") as server:
        held = [psycopg.connect(server.url) for _ in range(6)]
        waiting = recorder(server.url)
        await eventually(tells(waiting, "too many clients already"))
        for one in held:
            one.close()
        await eventually(tells(waiting, "ready"))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 32 MB; skipped where nothing may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path, url: str) -> None:
    """No room for another file, nor in the pages that the store has already."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass
    store = ExperienceStore(url)
    with contextlib.suppress(StoreError):
        while True:
            store.write_outcomes([an_outcome(uuid.uuid4().hex)], 1.0)
    store.close()


async def test_a_full_disk_is_told_and_what_was_owed_is_stored_when_there_is_room_again(
    server: PostgresServer, recorder: Start, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    folder = server.data.parent / "small"
    folder.mkdir()
    with small_disk(folder) as disk:
        (disk / "space").mkdir()
        server.own(disk / "space")
        server.ask(
            f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'", "CREATE DATABASE small TABLESPACE small"
        )
        url = server.url.replace("/postgres", "/small")
        running = recorder(url)
        await eventually(tells(running, "ready"))
        fill(disk / "ballast", url)
        job = a_job(cluster)
        await kube.post(PODS, job)

        async def refused() -> bool:
            return running.send(uuid.uuid4().hex).status == 503

        await eventually(refused)
        await eventually(tells(running, "No space left on device"))
        await ends(kube, job["metadata"]["name"], eventually)
        failures = running.status()["store_failures"]

        async def tried_again() -> bool:
            return bool(running.status()["store_failures"] >= failures + 2)

        await eventually(tried_again)
        assert running.status()["outcomes_waiting"] > 0
        (disk / "ballast").unlink()
        await eventually(has(running, {job["metadata"]["name"]: "succeeded"}))
        assert running.send(uuid.uuid4().hex).status == 200
        await eventually(tells(running, "ready"))
        server.stop()
