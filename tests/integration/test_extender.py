"""The extender as a real process: what kube-scheduler gets, and what bad requests cannot break."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from raw_http import Reply, ask, request, wire

from scheduler.edge.http_server import HEAD_BYTES_MAX
from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster

PATH = "/scheduler/prioritize"
PODS = "/api/v1/namespaces/default/pods"
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def port(cluster: Cluster) -> Iterator[int]:
    """Port of an extender that has telemetry, next to a recorder."""
    for name in ("recorder", "extender"):
        cluster.process(name).restart()
    yield cluster.layout.ports["extender"]
    for name in ("extender", "recorder"):
        cluster.process(name).stop()


@pytest.fixture
async def informed(port: int, eventually: Eventually) -> int:
    """The port, once the extender has opinions."""

    async def ready() -> bool:
        return ask(port, "GET", "/readyz").status == 200 and len(prioritized(port, uuid.uuid4().hex)) > 0

    await eventually(ready)
    return port


def call(nodes: list[str], uid: str = "", **annotations: str) -> bytes:
    """The body of a prioritize call, as kube-scheduler sends it."""
    meta = {
        "name": "p",
        "namespace": "default",
        "uid": uid or uuid.uuid4().hex,
        "annotations": {f"fairlane.dev/{key.replace('_', '-')}": value for key, value in annotations.items()},
        "creationTimestamp": None,
    }
    pod = {"metadata": meta, "spec": {"schedulerName": "fairlane", "containers": []}, "status": {}}
    return json.dumps({"Pod": pod, "Nodes": None, "NodeNames": nodes}).encode()


def prioritized(port: int, uid: str = "", nodes: int = 6) -> list[dict[str, Any]]:
    body = call([f"node-{number:02d}" for number in range(1, nodes + 1)], uid, job_class="test")
    answer = ask(port, "POST", PATH, body)
    assert answer.status == 200
    return answer.json()  # type: ignore[no-any-return]


def test_the_best_nodes_are_listed_with_whole_numbers(informed: int) -> None:
    scores = prioritized(informed)
    assert 1 <= len(scores) <= 5
    assert [one["Score"] for one in scores].count(10) == 1
    assert scores[0]["Score"] == 10
    assert all(isinstance(one["Score"], int) and one["Host"].startswith("node-") for one in scores)


def test_asked_to_filter_it_keeps_the_node_that_it_would_list_first(informed: int) -> None:
    nodes = [f"node-{number:02d}" for number in range(1, 7)]
    kept = ask(informed, "POST", "/scheduler/filter", call(nodes, uid := uuid.uuid4().hex, job_class="test"))
    assert kept.status == 200
    # the first call counts the pod on its node, so the two are asked about the same pod: it leaves itself out
    assert kept.json() == {"NodeNames": [prioritized(informed, uid)[0]["Host"]]}


def test_asked_to_filter_it_keeps_near_ties_too_for_a_pod_with_preferences(informed: int) -> None:
    asked = json.loads(
        call([f"node-{number:02d}" for number in range(1, 7)], uid := uuid.uuid4().hex, job_class="test")
    )
    term = {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    nodes = {"preferredDuringSchedulingIgnoredDuringExecution": [term]}
    asked["Pod"]["spec"]["affinity"] = {"nodeAffinity": nodes}
    kept = ask(informed, "POST", "/scheduler/filter", json.dumps(asked).encode()).json()["NodeNames"]
    assert kept == [one["Host"] for one in prioritized(informed, uid) if one["Score"] >= 9]


def test_asked_to_filter_without_an_opinion_it_keeps_all(informed: int) -> None:
    for names in ([], ["stranger"], ["stranger", "no-node"]):
        assert ask(informed, "POST", "/scheduler/filter", call(names)).json() == {"NodeNames": names}


def test_one_connection_carries_many_calls_and_each_answer_comes_in_one_piece(informed: int) -> None:
    with wire(informed) as connection:
        replies: list[Reply] = []
        for _ in range(200):
            connection.send(request("POST", PATH, call(["node-01", "node-02"])))
            replies.append(connection.reply())
    assert {reply.status for reply in replies} == {200}
    assert {reply.parts for reply in replies} == {1}
    assert all("transfer-encoding" not in reply.headers for reply in replies)


def test_calls_in_pieces_calls_in_one_piece_and_other_requests_share_a_connection(informed: int) -> None:
    body = call(["node-01", "node-02"])
    whole, other = request("POST", PATH, body), request("GET", "/healthz")
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{len(body):x}\r\n"
    chunked = head.encode() + body + b"\r\n0\r\n\r\n"
    with wire(informed) as connection:
        for cut in (3, 30, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
            connection.send(whole[:cut])
            time.sleep(0.05)
            connection.send(whole[cut:])
            assert len(connection.reply().json()) >= 1
        for sent, status in ((other, 200), (chunked, 200), (whole, 200), (request("POST", PATH, b"{"), 400)):
            connection.send(sent)
            assert connection.reply().status == status
    with wire(informed) as connection:
        connection.send(3 * whole)
        told = b""
        while told.count(b"HTTP/1.1 200") < 3:
            told += connection.socket.recv(65536)
    assert told.count(b'"Score":10') == 3


@pytest.mark.parametrize("nodes", [[], ["stranger"], ["stranger", "no-node"]])
def test_nodes_that_nobody_knows_get_no_opinion(informed: int, nodes: list[str]) -> None:
    assert ask(informed, "POST", PATH, call(nodes)).json() == []


BAD: dict[str, tuple[bytes, int, str]] = {
    "no JSON": (request("POST", PATH, b"{"), 400, "not ExtenderArgs"),
    "no body": (request("POST", PATH), 400, "not ExtenderArgs"),
    "wrong type": (request("POST", PATH, b'{"Pod":[],"NodeNames":[]}'), 400, "not ExtenderArgs"),
    "whole nodes": (request("POST", PATH, b'{"Pod":{},"Nodes":{}}'), 400, "nodeCacheCapable: true"),
    "deep": (request("POST", PATH, b'{"Pod":' + b"[" * 100_000), 400, "not ExtenderArgs"),
    "get": (request("GET", PATH), 405, "is a POST"),
    "get filter": (request("GET", "/scheduler/filter"), 405, "is a POST"),
    "no JSON to filter": (request("POST", "/scheduler/filter", b"{"), 400, "not ExtenderArgs"),
    "bind": (request("POST", "/scheduler/bind", b"{}"), 404, "remove bindVerb"),
    "unknown path": (request("GET", "/secret"), 404, "nothing at /secret"),
    "post status": (request("POST", "/v1/status"), 405, "is a GET"),
    "too large": (request("POST", PATH, b" " * (5 * 2**20)), 413, "larger than"),
    "much too large": (request("POST", PATH, b" " * (40 * 2**20)), 413, "larger than"),
    "no HTTP": (b"\x16\x03\x01\x02\x00rubbish\r\n\r\n", 400, "Invalid HTTP"),
    "long head": (request("GET", "/", x="y" * (2 * HEAD_BYTES_MAX)), 431, "head exceeds"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_a_clear_4xx_and_the_next_call_is_answered(informed: int, name: str) -> None:
    sent, status, why = BAD[name]
    with wire(informed) as connection:
        connection.send(sent)
        reply = connection.reply()
    assert (reply.status, why in reply.body.decode()) == (status, True), reply
    assert prioritized(informed)


def test_a_head_may_be_as_long_as_the_limit_and_not_a_byte_longer(informed: int) -> None:
    for method, path, body in (("GET", "/healthz", b""), ("POST", PATH, call(["node-01"]))):
        room = HEAD_BYTES_MAX - len(request(method, path, body, x="")) + len(body)
        for beyond, status in ((0, 200), (1, 431)):
            assert ask(informed, method, path, body, x="y" * (room + beyond)).status == status


def test_the_answer_reaches_also_a_client_that_goes_on_sending(informed: int) -> None:
    with wire(informed) as connection:
        connection.send(BAD["long head"][0])
        time.sleep(0.3)  # it has been answered
        for _ in range(3):
            connection.send(b"x" * HEAD_BYTES_MAX)
            time.sleep(0.1)
        assert connection.reply().status == 431
        assert connection.is_closed()


def test_a_wrong_verb_is_told_which_is_right(informed: int) -> None:
    assert ask(informed, "PUT", PATH).headers["allow"] == "POST"


def test_a_slow_body_is_ended_and_harms_nobody(informed: int) -> None:
    with wire(informed) as slow:
        slow.send(request("POST", PATH, b"", content_length="1000") + b'{"Pod"')
        assert prioritized(informed)
        reply = slow.reply()
        assert (reply.status, slow.is_closed()) == (408, True)
    assert "not complete after 2 s" in reply.json()["error"]


def test_a_slow_head_is_ended_and_harms_nobody(informed: int) -> None:
    with wire(informed) as slow:
        slow.send(b"POST /sched")
        assert prioritized(informed)
        reply = slow.reply()
        assert (reply.status, slow.is_closed()) == (408, True)


def test_a_client_that_goes_away_in_the_middle_harms_nobody(informed: int) -> None:
    for sent in (b"POST", request("POST", PATH, b"", content_length="1000") + b"{"):
        with wire(informed) as leaving:
            leaving.send(sent)
    assert prioritized(informed)


def test_refusals_are_counted_and_told(informed: int) -> None:
    ask(informed, "POST", "/scheduler/bind", b"{}")
    status = ask(informed, "GET", "/v1/status").json()
    assert status["refused"]["404"] >= 1
    assert "remove bindVerb" in status["last_refusal"]
    assert 'fairlane_extender_refused_total{status="404"}' in ask(informed, "GET", "/metrics").body.decode()


def test_a_burst_is_spread_because_answers_count_before_the_watch_tells(informed: int) -> None:
    """Alike pods that read much must not all be sent to the one best node.

    How many of them it takes depends on the network of the moment: a link that is much faster than the paths
    to it carries several before it is the narrow part.
    """
    nodes = [f"node-{number:02d}" for number in range(1, 7)]
    job = {"job_class": f"heavy-{uuid.uuid4().hex}", "input_bytes": "10Gi"}
    best = {ask(informed, "POST", PATH, call(nodes, **job)).json()[0]["Host"] for _ in range(24)}
    assert len(best) >= 2


async def test_kube_scheduler_asks_and_follows(
    informed: int, kube: KubeClient, pod: Callable[..., dict[str, Any]], eventually: Eventually
) -> None:
    before = ask(informed, "GET", "/v1/status").json()["calls"]
    manifest = pod("fairlane", annotations={"fairlane.dev/job-class": "followed"})
    name = manifest["metadata"]["name"]
    await kube.post(PODS, manifest)

    async def bound() -> bool:
        seen = json.loads(await kube.get(f"{PODS}/{name}"))
        return bool(seen["spec"].get("nodeName"))

    await eventually(bound)
    assert ask(informed, "GET", "/v1/status").json()["calls"] > before
    await kube.delete(f"{PODS}/{name}")


async def test_decisions_wait_for_a_recorder_that_is_away(
    informed: int, cluster: Cluster, eventually: Eventually
) -> None:
    cluster.process("recorder").kill()
    sent = ask(informed, "GET", "/v1/status").json()["decisions"]["sent"]
    for _ in range(20):
        assert prioritized(informed)

    async def told() -> bool:
        status = ask(informed, "GET", "/v1/status").json()
        return bool(status["recorder_failure"]) and status["decisions"]["waiting"] >= 20

    await eventually(told)
    cluster.process("recorder").start()

    async def delivered() -> bool:
        status = ask(informed, "GET", "/v1/status").json()
        return status["decisions"]["waiting"] == 0 and status["decisions"]["sent"] >= sent + 20

    await eventually(delivered)
