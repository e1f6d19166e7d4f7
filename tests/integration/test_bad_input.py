"""Whatever comes in at a door: no crash, and always an answer that its reader can use."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
from bad_inputs import FIRST, counts, damaged_bytes, damaged_texts
from recorded_runs import feature_rows, small_model
from uvicorn.server import ServerState

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulation"))

from test_placing import NODES, Stage
from test_short_way import Pipe

from model.proto import predictor_pb2 as pb
from model.registry import Registry
from model.schema import NAMES, SCHEMA_VERSION
from model.serve import PredictorServer, ServerSettings
from scheduler.admission_settings import AdmissionSettings
from scheduler.edge.admission import AdmissionApp, rules_of
from scheduler.edge.extender import ExtenderApp
from scheduler.edge.http_server import new_server
from scheduler.edge.short_way import ShortWayProtocol

Object = dict[str, Any]
LIMIT = 4 * 2**20


async def answered(app: Any, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a POST, by the ASGI protocol."""
    sent: list[Object] = []

    async def receive() -> Object:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    assert [one["type"] for one in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


POD: Object = {
    "metadata": {
        "name": "p",
        "namespace": "team",
        "uid": "u1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "x"},
        "ownerReferences": [{"kind": "Job", "name": "etl", "uid": "o", "controller": True}],
        "annotations": {
            "fairlane.dev/job-class": "etl",
            "fairlane.dev/user": "alice",
            "fairlane.dev/data-nodes": "a,b",
            "fairlane.dev/input-bytes": "10Gi",
            "fairlane.dev/shuffle-bytes": "5e9",
            "fairlane.dev/expected-duration": "1h30m",
            "fairlane.dev/gang": "g",
            "fairlane.dev/gang-size": "3",
            "fairlane.dev/framework": "spark",
        },
    },
    "spec": {
        "schedulerName": "fairlane",
        "priority": 5,
        "schedulingGates": [{"name": "fairlane.dev/queue"}],
        "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}],
        "containers": [
            {"name": "m", "image": "i:1", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}
        ],
    },
    "status": {"phase": "Pending"},
}
CALL: Object = {"Pod": POD, "Nodes": None, "NodeNames": list(NODES)}


async def _stage() -> Stage:
    stage = Stage()
    await stage.epoch()
    stage.place()
    await stage.settle()
    return stage


class _Offered(msgspec.Struct):
    """Of a call only what its answer is about: bytes that are no text are passed over where nobody reads."""

    NodeNames: list[str] | None = None


def _extender(stage: Stage) -> ExtenderApp:
    return ExtenderApp(
        stage.prioritizer, None, dict, bytes, str, prefix="/s", max_body_bytes=LIMIT, read_timeout_s=2.0
    )


async def _told(path: str, count: int) -> AsyncIterator[tuple[int, set[str], Any]]:
    """Number, offered nodes and answer of each damaged call that is answered; others are refused."""
    stage = await _stage()
    app, seen = _extender(stage), {200: 0, 400: 0}
    for number, body in damaged_texts("extender", [CALL], count):
        status, told = await answered(app, path, body)
        seen[status] += 1
        if status == 400:
            assert msgspec.json.decode(told)["error"], number
            continue
        offered = msgspec.json.decode(body, type=_Offered).NodeNames or ()
        yield number, set(offered), msgspec.json.decode(told)
        if number % 100 == 0:
            await stage.settle()  # the tables that were asked for are made, of whatever came in
    assert min(seen.values()) > 0  # damage alone would not have come far


@pytest.mark.parametrize("count", counts(400, 100_000))
async def test_the_extender_ranks_or_refuses(count: int) -> None:
    async for number, offered, told in _told("/s/prioritize", count):
        for one in told:
            assert set(one) == {"Host", "Score"}, number
            assert one["Host"] in offered, number
            assert type(one["Score"]) is int, number
            assert 0 <= one["Score"] <= 10, number


@pytest.mark.parametrize("count", counts(400, 100_000))
async def test_the_extender_keeps_nodes_that_were_offered_or_refuses(count: int) -> None:
    async for number, offered, told in _told("/s/filter", count):
        assert set(told["NodeNames"]) <= offered, number
        assert bool(told["NodeNames"]) == bool(offered), number


@pytest.mark.parametrize("count", counts(400, 100_000))
async def test_the_http_server_answers_or_hangs_up(count: int) -> None:
    app = _extender(await _stage())
    config = new_server(app, protocol=partial(ShortWayProtocol, app.short_way)).config
    made: Callable[..., Any] = config.http_protocol_class  # type: ignore[assignment]
    body = json.dumps(CALL).encode()
    head = b"POST /s/prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    good = [head + body, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 2 * (head + body)]
    statuses: set[bytes] = set()
    for number in range(FIRST, FIRST + count):
        rng, pipe = random.Random(f"http {number}"), Pipe()
        protocol = made(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(pipe)
        sent = damaged_bytes(rng, rng.choice(good))
        cut = rng.randint(0, len(sent))
        for piece in (sent[:cut], sent[cut:]):
            if piece and not pipe.is_closing():
                protocol.data_received(piece)
        await _quiet()
        protocol.connection_lost(None)
        answer = b"".join(pipe.written)
        assert not answer or answer.startswith(b"HTTP/1.1 "), number
        statuses |= {answer[9:12]} - {b""}
    await _quiet()
    assert {b"200", b"400"} <= statuses <= {b"200", b"400", b"404", b"405", b"408", b"413", b"431"}


async def _quiet() -> None:
    """Let everything happen that the last input caused."""
    for _ in range(6):
        await asyncio.sleep(0)


class _Namespaces:
    """Labels of one namespace."""

    async def labels(self, name: str) -> dict[str, str]:
        return {"fairlane.dev/queue-name": "gpu"} if name == "team" else {}


def _review(resource: str, group: str, now: Object | None, before: Object | None = None) -> Object:
    request = {
        "uid": "r1",
        "resource": {"group": group, "version": "v1", "resource": resource},
        "namespace": "team",
        "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
        "object": now,
        "oldObject": before,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


_JOB: Object = {"metadata": {"name": "j"}, "spec": {"template": {"metadata": {}, "spec": POD["spec"]}}}
_SET: Object = {
    "metadata": {"name": "s"},
    "spec": {"replicatedJobs": [{"name": "a", "template": {"spec": {"template": _JOB["spec"]["template"]}}}]},
}
REVIEWS = [
    _review("pods", "", POD),
    _review("pods", "", POD, {**POD, "spec": {**POD["spec"], "schedulingGates": []}}),
    _review("pods", "", {**POD, "metadata": {"name": "p"}, "spec": {**POD["spec"], "schedulingGates": []}}),
    _review("jobs", "batch", _JOB),
    _review("jobs", "batch", _JOB, _JOB),
    _review("jobsets", "jobset.x-k8s.io", _SET),
    _review("bindings", "", {"metadata": {"name": "p"}, "target": {"name": "n"}}),
]


@pytest.mark.parametrize("count", counts(400, 100_000))
async def test_admission_judges_or_refuses(count: int) -> None:
    rules = rules_of(AdmissionSettings(kinds=("jobsets",)))
    limits: Object = {"max_body_bytes": LIMIT, "read_timeout_s": 2.0}
    app = AdmissionApp(rules, _Namespaces(), dict, bytes, str, **limits)  # type: ignore[arg-type]
    seen = {200: 0, 400: 0}
    for number, body in damaged_texts("admission", REVIEWS, count):
        path = ("/mutate", "/validate", "/mutate/enabled", "/validate/enabled")[number % 4]
        status, told = await answered(app, path, body)
        seen[status] += 1
        decoded = msgspec.json.decode(told)
        if status == 400:
            assert decoded["error"], number
        else:
            _check_review(decoded, json.loads(body)["request"]["uid"])
    assert min(seen.values()) > 0


def _check_review(told: Object, uid: str) -> None:
    response = told["response"]
    assert told["kind"] == "AdmissionReview"
    assert response["uid"] == uid
    if not response["allowed"]:
        assert response["status"]["message"]
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="))):
        assert operation["op"] in ("add", "replace", "remove")
        assert operation["path"].startswith("/")


@pytest.fixture
async def predictor(tmp_path: Path) -> Any:
    """A predictor with a model, and raw calls to it."""
    registry = Registry(str(tmp_path / "models"))
    registry.publish(small_model())
    server = PredictorServer(ServerSettings(registry.url))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel.unary_unary("/fairlane.predictor.v1.Predictor/Predict")
    await server.stop()


@pytest.mark.parametrize("count", counts(400, 50_000))
async def test_the_predictor_predicts_or_refuses(
    predictor: Callable[[bytes], Awaitable[bytes]], count: int
) -> None:
    rows = feature_rows(3)
    answers = 0
    for number in range(FIRST, FIRST + count):
        rng = random.Random(f"grpc {number}")
        request = pb.PredictRequest(
            schema_version=SCHEMA_VERSION if rng.random() < 0.9 else rng.randint(-(2**31), 2**31 - 1),
            nodes=[rng.choice(("a", "b", "", "ä" * 99)) for _ in range(rng.choice((0, 1, 3, 3, 3)))],
            features=_features(rng, rows),
            contributions=rng.random() < 0.5,
            job_class=rng.choice(("c", "", "x" * 999)),
        )
        sent = request.SerializeToString()
        sent = damaged_bytes(rng, sent) if rng.random() < 0.3 else sent
        try:
            told = pb.PredictReply.FromString(await predictor(sent))
        except grpc.aio.AioRpcError as error:
            _check_refusal(number, error)
            continue
        answers += 1
        low, middle, high = (np.array(each) for each in (told.p10_s, told.p50_s, told.p90_s))
        assert np.isfinite(np.stack([low, middle, high])).all(), number
        assert ((low > 0) & (low <= middle) & (middle <= high)).all(), number
    assert answers > 0


def _check_refusal(number: int, error: grpc.aio.AioRpcError) -> None:
    expected = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    garbled = "Error parsing message" in str(error.details())  # no protobuf: gRPC itself says so, as UNKNOWN
    assert garbled or error.code() in expected, (number, error.code(), error.details())
    assert error.details(), number


def _features(rng: random.Random, rows: Any) -> bytes:
    """Rows of three nodes, with odd values here and there, or bytes that are no rows."""
    changed = rows.copy()
    for _ in range(rng.randint(0, 20)):
        at = rng.randrange(3), rng.randrange(len(NAMES))
        changed[at] = rng.choice(
            (math.nan, 0.0, -1.0, 1e300, -1e300, 5e-324, math.inf, rng.uniform(-1e3, 1e3))
        )
    text: bytes = changed.astype("<f8").tobytes()
    return text if rng.random() < 0.9 else rng.randbytes(rng.choice((0, 1, 8, len(text))))
