"""A token of a user is in wrong hands: what it must not do is tried on real processes, and refused.

The user owns everything in his namespace, which is more than a tenant usually
has. Fairlane's rights are those of the chart; no network policy helps here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml
from admission_kinds import KINDS, STAMP
from admission_setup import PODS, Object, installed, pod, with_admin
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from queueing import token_of
from test_admission import gates, refused, ungating

from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorStub
from model.schema import SCHEMA_VERSION
from scheduler.core.admission import rules as told
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from scheduler.edge.predictions import PredictionClient, PredictionError
from testbed.cluster import Cluster
from testbed.credentials import kubeconfig

MANIFESTS = Path(__file__).parents[2] / "manifests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
QUEUES = "/apis/fairlane.dev/v1alpha1/fairqueues"
SYSTEM = "/api/v1/namespaces/fairlane-system"
TEAM = PODS.format("team")
OTHERS = PODS.format("default")
CONTROLLER = "fairlane-controller"
RECEIPT = "fairlane.dev/receipt"
PARTS = ("recorder", "controller", "predictor", "extender")
WANTS_TOKEN = "the bearer token is missing or wrong: set FAIRLANE_TOKEN"
COLLECTIONS = {
    "ServiceAccount": f"{SYSTEM}/serviceaccounts",
    "Role": RBAC + "/namespaces/{}/roles",
    "RoleBinding": RBAC + "/namespaces/{}/rolebindings",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
}

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Site:
    """A cluster with Fairlane on it; `stolen` is the kubeconfig of a user whose token somebody has."""

    cluster: Cluster
    stolen: Path

    @property
    def token(self) -> str:
        """The stolen token."""
        return str(json.loads(self.stolen.read_text())["users"][0]["user"]["token"])


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    """The shared testbed with admission, the chart's rights, Fairlane's processes, and a user of `team`."""
    rights = [
        _apart(one)
        for one in yaml.safe_load_all((MANIFESTS / "fairlane.yaml").read_text())
        if one and one["kind"] in COLLECTIONS
    ]
    crd = yaml.safe_load((MANIFESTS / "fairqueue-crd.yaml").read_text())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    stolen = cluster.directory / "mallory.kubeconfig"
    with installed(cluster, "policies", controller=CONTROLLER):
        asyncio.run(with_admin(cluster, lambda kube: _made(kube, path, crd)))
        for one in [*rights, *_tenant()]:
            asyncio.run(with_admin(cluster, lambda kube, one=one: _made(kube, _collection(one), one)))
        token = asyncio.run(_steal(cluster))
        url, trusted = cluster.layout.url("apiserver", "https"), cluster.layout.file("ca.crt")
        stolen.write_text(json.dumps(kubeconfig(url, trusted, "mallory", token)))
        for name in PARTS:
            cluster.process(name).restart()
        try:
            yield Site(cluster, stolen)
        finally:
            for name in reversed(PARTS):
                cluster.process(name).stop()
            asyncio.run(with_admin(cluster, lambda kube: _cleared(kube, [*rights, *_tenant()])))


def _apart(one: Object) -> Object:
    """Rights under names of their own: the testbed's processes have rights of the same names."""
    if one["kind"] == "ServiceAccount":
        return one
    named = {**one, "metadata": {**one["metadata"], "name": f"chart-{one['metadata']['name']}"}}
    if one.get("roleRef", {}).get("name", "").startswith("fairlane"):
        named["roleRef"] = {**one["roleRef"], "name": f"chart-{one['roleRef']['name']}"}
    return named


def _tenant() -> list[Object]:
    """A service account that owns all of its namespace."""
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    subject = {"kind": "ServiceAccount", "name": "mallory", "namespace": "team"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "owner"}
    made: list[Object] = [
        {"kind": "ServiceAccount", "metadata": {"name": "mallory"}},
        {"kind": "Role", "metadata": {"name": "owner"}, "rules": everything},
        {"kind": "RoleBinding", "metadata": {"name": "owner"}, "roleRef": role, "subjects": [subject]},
    ]
    for one in made:
        one["metadata"]["namespace"] = "team"
    return made


def _collection(one: Object) -> str:
    path = COLLECTIONS[one["kind"]].replace("fairlane-system", one["metadata"].get("namespace", ""))
    return path.format(one["metadata"].get("namespace"))


async def _made(kube: KubeClient, path: str, one: Object) -> None:
    try:
        await kube.post(path, one)
    except KubeError as error:
        if error.status != 409:
            raise


async def _cleared(kube: KubeClient, objects: list[Object]) -> None:
    for one in objects:
        with contextlib.suppress(KubeError):
            await kube.delete(f"{_collection(one)}/{one['metadata']['name']}")


async def _steal(cluster: Cluster) -> str:
    path = "/api/v1/namespaces/team/serviceaccounts/mallory/token"
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        made = json.loads(await kube.post(path, {"spec": {"expirationSeconds": 7200}}))
    return str(made["status"]["token"])


@pytest_asyncio.fixture
async def mallory(site: Site) -> AsyncIterator[KubeClient]:
    async with KubeClient.connect(str(site.stolen)) as connected:
        yield connected


async def waiting(kube: KubeClient) -> str:
    """URL of a new pod that waits."""
    body = pod(schedulerName="fairlane")
    body["spec"]["nodeSelector"] = {"nowhere": "true"}
    made = json.loads(await kube.post(TEAM, body))
    assert gates(made) == [told.GATE]
    return f"{TEAM}/{made['metadata']['name']}"


async def test_it_can_release_no_pod_not_even_its_own(mallory: KubeClient) -> None:
    at = await waiting(mallory)
    made = json.loads(await mallory.get(at))
    for body, kind in ((ungating(made), JSON_PATCH), ({"spec": {"schedulingGates": []}}, None)):
        call = mallory.patch(at, body, kind) if kind else mallory.patch(at, body)
        assert told.RELEASED_BY_HAND in await refused(call)
    bind = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": at.rsplit("/", 1)[1]}}
    bind["target"] = {"kind": "Node", "name": "somewhere"}  # type: ignore[assignment]
    with pytest.raises(KubeError, match=r"scheduling ?[gG]ates"):
        await mallory.post(f"{at}/binding", bind)
    assert told.NAMES_A_NODE in await refused(
        mallory.post(TEAM, pod(schedulerName="fairlane", nodeName="somewhere"))
    )


async def test_it_can_put_no_other_name_on_pods_and_templates(mallory: KubeClient) -> None:
    at = await waiting(mallory)
    stamp = {"metadata": {"annotations": {STAMP: "alice"}}}
    for resource in ("", "/status"):
        assert told.STAMP_CHANGED in await refused(mallory.patch(at + resource, stamp))
    me = "system:serviceaccount:team:mallory"
    assert told.FORGED + me in await refused(
        mallory.post(TEAM, pod({"user": "alice"}, schedulerName="fairlane"))
    )
    for kind in KINDS.values():
        forged = kind.give(kind.make(), user="alice")
        assert told.FORGED + me in await refused(mallory.post(kind.path("team"), forged))
    behalf = pod({"on-behalf-of": "alice"}, schedulerName="fairlane")
    assert told.NOT_A_SUBMITTER + me in await refused(mallory.post(TEAM, behalf))


async def test_it_can_write_no_receipt_which_would_be_believed_after_a_restart(mallory: KubeClient) -> None:
    receipt = json.dumps({"gang": "x", "released_s": 0, "charged_work": -1e300})
    forged = pod({"receipt": receipt}, schedulerName="fairlane")
    assert told.RECEIPT_FORGED in await refused(mallory.post(TEAM, forged))
    at = await waiting(mallory)
    for resource in ("", "/status"):
        body = {"metadata": {"annotations": {RECEIPT: receipt}}}
        assert told.RECEIPT_FORGED in await refused(mallory.patch(at + resource, body))
    name = at.rsplit("/", 1)[1]
    bind = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "annotations": {RECEIPT: receipt}},
        "target": {"kind": "Node", "name": "somewhere"},
    }
    assert told.BOUND_WITH_STAMP in await refused(mallory.post(f"{at}/binding", bind))


FORBIDDEN = [
    ("reads the pods of others", "get", OTHERS),
    ("reads queues", "get", QUEUES),
    ("makes a queue", "post", QUEUES),
    ("gives itself a weight", "patch", f"{QUEUES}/default"),
    ("changes the status of a queue", "patch", f"{QUEUES}/default/status"),
    ("reads the shared token", "get", f"{SYSTEM}/secrets/fairlane-token"),
    ("changes what was charged", "patch", f"{SYSTEM}/configmaps/fairlane-controller"),
    ("becomes the controller", "post", f"{SYSTEM}/serviceaccounts/fairlane-controller/token"),
    ("enters the controller", "post", f"{SYSTEM}/pods/any/exec"),
    ("removes a policy", "delete", "{}/validatingadmissionpolicies/fairlane-guard-pods"),
    ("unbinds a policy", "delete", "{}/validatingadmissionpolicybindings/fairlane-guard-pods"),
    ("takes its namespace out", "patch", "/api/v1/namespaces/fairlane-system"),
]


@pytest.mark.parametrize(("what", "method", "path"), FORBIDDEN, ids=[one[0] for one in FORBIDDEN])
async def test_kubernetes_itself_forbids_that_it(
    mallory: KubeClient, what: str, method: str, path: str
) -> None:
    path = path.format("/apis/admissionregistration.k8s.io/v1")
    body: Object = {"metadata": {"name": "x"}, "spec": {}}
    arguments = (path,) if method in ("get", "delete") else (path, body)
    with pytest.raises(KubeError) as caught:
        await getattr(mallory, method)(*arguments)
    assert caught.value.status == 403, what
    assert 'User "system:serviceaccount:team:mallory" cannot' in caught.value.message


def called(url: str, method: str, token: str = "", password: str = "") -> tuple[int, str]:
    """Status and body of a plain HTTP request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if password:
        headers["Authorization"] = "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
    request = urllib.request.Request(url, b"{}" if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


API = [
    ("controller", "GET", "/v1/queue"),
    ("controller", "GET", "/v1/queue?user=alice"),
    ("controller", "GET", "/v1/gangs?name=default/train"),
    ("controller", "GET", "/v1/gangs/default/train"),
    ("controller", "GET", "/v1/usage?user=alice"),
    ("controller", "POST", "/v1/pause"),
    ("controller", "POST", "/v1/resume"),
    ("controller", "POST", "/v1/weights"),
    ("controller", "POST", "/v1/gangs/default/train/promote"),
    ("recorder", "GET", "/v1/decisions?pod=default/train-0"),
    ("recorder", "POST", "/v1/decisions"),
    ("recorder", "GET", "/v1/history?user=alice"),
    ("recorder", "GET", "/v1/examples?format=csv"),
    ("recorder", "GET", "/v1/outcomes?format=csv"),
]


@pytest.mark.parametrize(("part", "method", "path"), API, ids=[f"{one[1]} {one[2]}" for one in API])
def test_our_apis_tell_it_nothing_and_do_nothing_for_it(
    site: Site, part: str, method: str, path: str
) -> None:
    url = site.cluster.layout.url(part) + path
    for token in ("", site.token, token_of(site.cluster)[:-1]):
        status, said = called(url, method, token)
        assert status == 401, said
        assert json.loads(said)["error"] == WANTS_TOKEN
    assert served(url, method, token_of(site.cluster)) not in (401, 503)  # the call itself is a real one


def served(url: str, method: str, token: str) -> int:
    """Its status, asked again while nobody leads: a queue that was paused must be resumed by the next."""
    for _attempt in range(60):
        status, _ = called(url, method, token)
        if status != 503:
            break
        time.sleep(0.5)
    return status


def test_a_browser_may_read_by_password_and_nothing_else(site: Site) -> None:
    """It sends the password again by itself, also when the page of somebody else makes it call."""
    url = site.cluster.layout.url("controller")
    for path in ("/v1/queue", "/v1/usage"):
        assert called(url + path, "GET", password=token_of(site.cluster))[0] == 200
        assert called(url + path, "GET", password=site.token)[0] == 401
    for path in ("/v1/pause", "/v1/weights"):
        assert called(url + path, "POST", password=token_of(site.cluster))[0] == 401


def test_what_every_process_tells_everybody_names_no_pod(site: Site, kube_pods: list[str]) -> None:
    for part in ("controller", "recorder", "extender"):
        for path in ("/v1/status", "/metrics", "/healthz"):
            status, said = called(site.cluster.layout.url(part) + path, "GET")
            assert status == 200
            assert not [name for name in kube_pods if name in said]


@pytest_asyncio.fixture
async def kube_pods(mallory: KubeClient) -> list[str]:
    """Names of pods that wait in the queue."""
    return [(await waiting(mallory)).rsplit("/", 1)[1] for _ in range(2)]


async def test_the_model_server_answers_only_those_who_know_the_token(site: Site) -> None:
    address = f"127.0.0.1:{site.cluster.layout.ports['predictor']}"
    for token in ("", site.token):
        async with PredictionClient(address, 20, token) as client:
            with pytest.raises(PredictionError, match=WANTS_TOKEN) as caught:
                await client.current_model()
            assert caught.value.code == "UNAUTHENTICATED"
    async with PredictionClient(address, 20, token_of(site.cluster)) as client:
        answered = await asyncio.gather(client.current_model(), return_exceptions=True)
        assert WANTS_TOKEN not in str(answered)  # there may be a model or none


async def test_every_call_of_the_model_server_but_health_wants_the_token(site: Site) -> None:
    address = f"127.0.0.1:{site.cluster.layout.ports['predictor']}"
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        request = pb.PredictRequest(schema_version=SCHEMA_VERSION, nodes=["a"], features=b"x" * 8)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PredictorStub(channel).Predict(request, timeout=20)
        _unauthenticated(caught.value)
    # grpc.aio tells "Internal error from Core" for a stream that was refused before its first
    # message had left; the blocking client tells the server's own status always.
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([asked]), timeout=20))
        _unauthenticated(caught.value)


def _unauthenticated(refusal: Any) -> None:
    assert refusal.code() == grpc.StatusCode.UNAUTHENTICATED
    assert refusal.details() == WANTS_TOKEN


def test_the_extender_cannot_be_reached_but_over_loopback(site: Site) -> None:
    """kube-scheduler cannot authenticate, so nobody but its pod may be able to connect."""
    port = site.cluster.layout.ports["extender"]
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)
    for one in yaml.safe_load_all((MANIFESTS / "fairlane.yaml").read_text()):
        if one and one["metadata"]["name"] == "fairlane-settings":
            assert yaml.safe_load(one["data"]["fairlane.yaml"])["extender"]["host"] == "127.0.0.1"
        if one and one["kind"] == "Service":
            assert all(port["port"] != 8888 for port in one["spec"]["ports"])


@pytest.mark.parametrize(
    ("part", "danger"),
    [
        ("controller", "others could pause the queue"),
        ("recorder", "others could write into the store"),
        ("predictor", "others could ask for predictions"),
    ],
)
def test_without_a_token_a_process_does_not_listen_where_others_could_call(part: str, danger: str) -> None:
    command = [sys.executable, "-m", "scheduler.cli.main", part, "--host", "0.0.0.0", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert f"{danger} on 0.0.0.0: set FAIRLANE_TOKEN, or listen on 127.0.0.1" in ended.stderr
