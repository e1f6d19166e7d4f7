"""The recorder as a real process: outcomes from the watch, decisions by HTTP, a store that fails."""

from __future__ import annotations

import io
import json
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pandas as pd
import pytest
import yaml
from placing_builders import a_batch, a_decision
from raw_http import Reply, ask

from model.schema import NAMES
from scheduler.core.records import Batch
from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.demo.jobs import CLASSES, DemoJob, manifest

PODS = "/api/v1/namespaces/default/pods"
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

pytestmark = pytest.mark.timeout(240)


class Recorder:
    """A recorder with its token, asked over HTTP."""

    def __init__(self, cluster: Cluster) -> None:
        settings = yaml.safe_load(cluster.settings_file.read_text())
        self.port = cluster.layout.ports["recorder"]
        self.store = settings["recorder"]["store_url"].removeprefix("sqlite:///")
        self._token = settings["token"]

    def get(self, path: str) -> Reply:
        return ask(self.port, "GET", path, authorization=f"Bearer {self._token}")

    def post(self, body: bytes) -> Reply:
        return ask(self.port, "POST", "/v1/decisions", body, authorization=f"Bearer {self._token}")

    def send(self, batch: Batch) -> Reply:
        return self.post(msgspec.msgpack.encode(batch))

    def status(self) -> dict[str, Any]:
        return ask(self.port, "GET", "/v1/status").json()  # type: ignore[no-any-return]

    def outcome(self, name: str) -> dict[str, Any]:
        """What is known of a pod; empty for nothing."""
        reply = self.get(f"/v1/decisions?pod=default/{name}")
        return reply.json().get("outcome") or {} if reply.status == 200 else {}


@pytest.fixture(scope="module")
def recorder(cluster: Cluster) -> Iterator[Recorder]:
    cluster.process("recorder").restart()
    yield Recorder(cluster)
    cluster.process("recorder").stop()


def a_job(cluster: Cluster, scheduler: str = "fairlane", cpu_s: float = 0.2) -> dict[str, Any]:
    """The manifest of a job that ends by itself within seconds."""
    tiny = replace(
        CLASSES[0].typical, input_bytes=2e7, cpu_s=cpu_s, rounds=2, data_node=cluster.data_node_names[0]
    )
    name = f"job-{uuid.uuid4().hex[:10]}"
    return dict(manifest(DemoJob(CLASSES[0], tiny), name, "default", scheduler, truth=False))


async def started(kube: KubeClient, job: dict[str, Any]) -> str:
    await kube.post(PODS, job)
    return str(job["metadata"]["name"])


@pytest.mark.parametrize("scheduler", ["fairlane", "default-scheduler"])
async def test_a_job_is_followed_to_its_end_whoever_placed_it(
    recorder: Recorder, cluster: Cluster, kube: KubeClient, eventually: Eventually, scheduler: str
) -> None:
    name = await started(kube, a_job(cluster, scheduler))

    async def ended() -> bool:
        return recorder.outcome(name).get("end_state") == "succeeded"

    await eventually(ended)
    seen = recorder.outcome(name)
    assert seen["created_at_s"] - 1 <= seen["bound_at_s"] <= seen["started_at_s"] <= seen["ended_at_s"]
    assert (seen["job_class"], seen["user"]) == (CLASSES[0].name, CLASSES[0].user)
    history = recorder.get(f"/v1/history?class={CLASSES[0].name}&user=nobody").json()
    assert history["classes"][CLASSES[0].name]["count"] >= 1
    assert history["users"]["nobody"]["count"] == 0


async def test_a_job_deleted_while_it_runs_is_no_completion(
    recorder: Recorder, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    name = await started(kube, a_job(cluster, cpu_s=500.0))

    async def runs() -> bool:
        return recorder.outcome(name).get("started_at_s") is not None

    async def gone() -> bool:
        return recorder.outcome(name).get("end_state") == "deleted"

    await eventually(runs)
    await kube.delete(f"{PODS}/{name}")
    await eventually(gone)


async def test_what_happens_while_the_recorder_is_dead_is_found_afterwards(
    recorder: Recorder, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    lasting = await started(kube, a_job(cluster, cpu_s=500.0))

    async def runs() -> bool:
        return recorder.outcome(lasting).get("started_at_s") is not None

    await eventually(runs)
    cluster.process("recorder").kill()
    await kube.delete(f"{PODS}/{lasting}")
    finishing = await started(kube, a_job(cluster))

    async def succeeded() -> bool:
        seen = json.loads(await kube.get(f"{PODS}/{finishing}"))
        return seen["status"].get("phase") == "Succeeded"

    await eventually(succeeded)
    cluster.process("recorder").start()

    async def found() -> bool:
        states = [recorder.outcome(name).get("end_state") for name in (lasting, finishing)]
        return states == ["vanished", "succeeded"]

    await eventually(found)


def test_decisions_are_stored_once_however_often_they_are_sent(recorder: Recorder) -> None:
    batch = a_batch(a_decision(uuid.uuid4().hex))
    before = recorder.status()["rows"].get("decisions", 0)
    for _ in range(2):
        assert recorder.send(batch).json() == {"stored": 1, "missing_tables": []}
    with sqlite3.connect(recorder.store) as store:
        assert store.execute("SELECT count(*) FROM decisions").fetchone()[0] >= before
        uid = batch.decisions[0].pod_uid
        assert store.execute("SELECT count(*) FROM decisions WHERE pod_uid = ?", (uid,)).fetchone() == (1,)


def test_a_table_that_nobody_sent_is_asked_for(recorder: Recorder) -> None:
    orphan = a_decision(uuid.uuid4().hex, table_id="never-sent")
    assert recorder.send(a_batch(orphan, tables=[])).json()["missing_tables"] == ["never-sent"]


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic abc"])
def test_strangers_get_nothing(recorder: Recorder, token: str) -> None:
    for method, path in (("POST", "/v1/decisions"), ("GET", "/v1/examples"), ("GET", "/v1/history")):
        reply = ask(recorder.port, method, path, authorization=token)
        assert (reply.status, "FAIRLANE_TOKEN" in reply.json()["error"]) == (401, True)


def test_bad_requests_are_refused_in_sentences(recorder: Recorder) -> None:
    assert recorder.post(b"rubbish").status == 400
    assert recorder.get("/v1/decisions?pod=nameless").status == 400
    assert recorder.get("/v1/decisions?pod=a/b&limit=x").status == 400
    assert recorder.get("/v1/decisions?pod=default/never-was").status == 404
    assert recorder.get("/v1/examples?format=xml").status == 400
    assert recorder.get("/nothing").status == 404
    assert recorder.get("/v1/history?" + "&".join(f"class={i}" for i in range(300))).status == 400


def test_examples_are_served_as_parquet_and_as_csv(recorder: Recorder) -> None:
    parquet = pd.read_parquet(io.BytesIO(recorder.get("/v1/examples").body))
    csv = pd.read_csv(io.BytesIO(recorder.get("/v1/examples?format=csv").body))
    assert list(parquet.columns) == list(csv.columns)
    assert {*NAMES, "run_s", "ended_at", "job_class"} <= set(parquet.columns)


async def test_a_locked_store_is_told_and_nothing_is_lost(
    recorder: Recorder, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    batch = a_batch(a_decision(uuid.uuid4().hex))
    lock = sqlite3.connect(recorder.store, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    name = await started(kube, a_job(cluster))
    refused = recorder.send(batch)
    assert (refused.status, refused.headers["retry-after"]) == (503, "2")
    assert "locked" in refused.json()["error"]

    async def told() -> bool:
        status = recorder.status()
        return "locked" in status["store_failure"] and status["outcomes_waiting"] > 0 and not status["ready"]

    await eventually(told)
    lock.execute("ROLLBACK")
    lock.close()

    async def recovered() -> bool:
        status = recorder.status()
        return status["ready"] and recorder.outcome(name).get("end_state") == "succeeded"

    await eventually(recovered)
    assert recorder.send(batch).status == 200


def test_metrics_tell_rows_and_failures(recorder: Recorder) -> None:
    metrics = ask(recorder.port, "GET", "/metrics").body.decode()
    assert "fairlane_recorder_outcomes_total" in metrics
    assert "fairlane_recorder_store_writable" in metrics


async def test_pods_that_our_kube_scheduler_does_not_look_at_are_counted_until_it_does(
    recorder: Recorder, cluster: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    async def unseen(count: int) -> bool:
        metrics = ask(recorder.port, "GET", "/metrics").body.decode()
        return f"fairlane_recorder_pods_unseen {count}.0" in metrics

    await eventually(lambda: unseen(0))
    scheduler = cluster.process("fairlane-scheduler")
    scheduler.stop()
    try:
        await started(kube, a_job(cluster))
        await started(kube, a_job(cluster, "default-scheduler"))  # is none of ours
        await eventually(lambda: unseen(1))
    finally:
        scheduler.restart()
    await eventually(lambda: unseen(0))
