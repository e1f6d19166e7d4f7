"""FairQueue objects: good ones are taken, bad ones are refused with a sentence, kubectl shows how they do."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from scheduler.edge.kube import KubeClient, KubeError, _tls, load_configuration
from testbed.cluster import Cluster

PATH = "/apis/fairlane.dev/v1alpha1/fairqueues"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD_FILE = Path(__file__).parents[2] / "manifests" / "fairqueue-crd.yaml"
FULL: dict[str, Any] = {
    "nodes": {
        "selector": {"pool": "batch"},
        "tolerations": [
            {"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"operator": "Exists"},
        ],
    },
    "flowKey": "User",
    "defaultWeight": 1,
    "weights": [
        {"user": "alice", "weight": 2},
        {"user": "system:serviceaccount:a:b", "weight": 0.5},
    ],
    "orderInsideUser": "PriorityThenFair",
    "backfill": {"enabled": True, "quantile": 0.9},
    "limits": {"waitingGangsPerUser": 1000, "sharePerUserWhileOthersWait": 0.5, "runTime": "24h"},
    "timeouts": {"incomplete": "10m", "halfOpen": "60s", "start": "1h30m", "promise": "0.5s"},
    "autoscaler": {"releaseHeadAfter": "2m"},
    "paused": False,
}


@pytest_asyncio.fixture
async def queues(kube: KubeClient) -> AsyncIterator[KubeClient]:
    """An API server that knows FairQueues."""
    crd = yaml.safe_load(CRD_FILE.read_text())
    try:
        await kube.post(CRDS, crd)
    except KubeError as error:
        if error.status != 409:
            raise
    for _attempt in range(100):
        status = json.loads(await kube.get(f"{CRDS}/{crd['metadata']['name']}")).get("status", {})
        if any(
            one["type"] == "Established" and one["status"] == "True" for one in status.get("conditions") or []
        ):
            break
        await asyncio.sleep(0.1)
    yield kube
    await kube.delete(PATH)


def queue(spec: dict[str, Any], name: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "fairlane.dev/v1alpha1",
        "kind": "FairQueue",
        "metadata": {"name": name or f"q-{uuid.uuid4().hex[:8]}"},
        "spec": spec,
    }


async def test_the_schema_is_structural_and_names_are_accepted(queues: KubeClient) -> None:
    found = json.loads(await queues.get(f"{CRDS}/fairqueues.fairlane.dev"))["status"]["conditions"]
    states = {one["type"]: one["status"] for one in found}
    assert states["NamesAccepted"] == "True"
    assert states.get("NonStructuralSchema", "False") == "False"


async def test_a_full_specification_is_kept_as_it_is_and_an_empty_one_gets_defaults(
    queues: KubeClient,
) -> None:
    made = json.loads(await queues.post(PATH, queue(FULL)))
    assert made["spec"] == FULL
    made = json.loads(await queues.post(PATH, queue({})))
    assert made["spec"] == {"flowKey": "User", "defaultWeight": 1, "paused": False}


DURATION = "must be a duration above zero such as 90s, 10m or 1h30m"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"defaultWeight": 0}, "defaultWeight must be above 0"),
    ({"defaultWeight": -1}, "defaultWeight must be above 0"),
    ({"defaultWeight": 1e7}, "at most 1000000"),
    ({"defaultWeight": "2"}, "must be of type number"),
    ({"weights": [{"user": "a", "weight": 0}]}, "a weight must be above 0"),
    ({"weights": [{"user": "a", "weight": -2.5}]}, "a weight must be above 0"),
    ({"weights": [{"user": "a"}]}, "weight: Required value"),
    ({"weights": [{"user": "", "weight": 1}]}, "weights[0].user"),
    ({"weights": [{"user": "a", "weight": 1}, {"user": "a", "weight": 2}]}, "Duplicate value"),
    ({"flowKey": "Label"}, 'supported values: "User", "Namespace"'),
    ({"orderInsideUser": "Fifo"}, 'supported values: "PriorityThenFair", "PriorityThenArrival"'),
    ({"backfill": {"quantile": 0.7}}, "ends are predicted at 0.5 and 0.9; choose one of them"),
    ({"limits": {"waitingGangsPerUser": 0}}, "waitingGangsPerUser must be a whole number from 1 to 1000000"),
    ({"limits": {"waitingGangsPerUser": 1.5}}, "must be of type integer"),
    ({"limits": {"sharePerUserWhileOthersWait": 0}}, "sharePerUserWhileOthersWait must be above 0"),
    (
        {"limits": {"sharePerUserWhileOthersWait": 1.5}},
        "sharePerUserWhileOthersWait must be above 0 and at most 1",
    ),
    ({"limits": {"runTime": "soon"}}, f"limits.runTime {DURATION}"),
    ({"timeouts": {"incomplete": "0s"}}, f"timeouts.incomplete {DURATION}"),
    ({"timeouts": {"halfOpen": ""}}, f"timeouts.halfOpen {DURATION}"),
    ({"timeouts": {"start": "-5m"}}, f"timeouts.start {DURATION}"),
    ({"timeouts": {"promise": "999999h"}}, f"timeouts.promise {DURATION}"),
    ({"timeouts": {"promise": 90}}, "must be of type string"),
    ({"autoscaler": {"releaseHeadAfter": "x"}}, f"autoscaler.releaseHeadAfter {DURATION}"),
    ({"nodes": {"tolerations": [{"effect": "NoSchedule"}]}}, "without a key the operator must be Exists"),
    (
        {"nodes": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "with the operator Exists there is no value",
    ),
    ({"paused": "yes"}, "must be of type boolean"),
]


@pytest.mark.parametrize(("spec", "sentence"), BAD)
async def test_a_bad_specification_is_refused_with_a_sentence(
    queues: KubeClient, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(KubeError) as caught:
        await queues.post(PATH, queue(spec))
    assert caught.value.status == 422
    assert sentence in caught.value.message


async def test_an_unknown_field_is_refused_when_the_client_asks_for_strictness(queues: KubeClient) -> None:
    with pytest.raises(KubeError, match="unknown field"):
        await queues.post(f"{PATH}?fieldValidation=Strict", queue({"weigths": []}))


async def test_a_queue_without_specification_or_with_a_name_no_pod_can_give_is_refused(
    queues: KubeClient,
) -> None:
    body = queue({})
    del body["spec"]
    with pytest.raises(KubeError, match="spec: Required value"):
        await queues.post(PATH, body)
    for name in ("a.b", "q" * 64):
        with pytest.raises(KubeError, match="at most 63 characters and no dots"):
            await queues.post(PATH, queue({}, name))


async def test_the_flow_key_of_a_queue_stays(queues: KubeClient) -> None:
    made = json.loads(await queues.post(PATH, queue({"flowKey": "Namespace"})))
    at = f"{PATH}/{made['metadata']['name']}"
    with pytest.raises(KubeError, match="flowKey cannot change"):
        await queues.patch(at, {"spec": {"flowKey": "User"}})
    changed = json.loads(await queues.patch(at, {"spec": {"weights": [{"user": "team", "weight": 3}]}}))
    assert changed["spec"]["weights"] == [{"user": "team", "weight": 3}]


async def test_status_is_written_apart_from_the_specification(queues: KubeClient, cluster: Cluster) -> None:
    name = json.loads(await queues.post(PATH, queue(FULL)))["metadata"]["name"]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "gangs are released",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    flow = {"user": "alice", "weight": 2, "entitled": 0.667, "received": 0.5, "waiting": 3, "running": 1}
    status = {"users": 7, "waiting": 12, "running": 4, "held": 0.83, "flows": [flow], "conditions": [ready]}
    body = {"spec": {"paused": True}, "status": status}
    kept = json.loads(await queues.patch(f"{PATH}/{name}/status", body))
    assert kept["status"] == status
    assert kept["spec"]["paused"] is False
    shown = await _table(cluster, name)
    assert shown == {
        "Name": name,
        "Paused": False,
        "Users": 7,
        "Waiting": 12,
        "Running": 4,
        "Held": 0.83,
        "Ready": "True",
        "Why": "gangs are released",
        "Age": shown["Age"],
    }


async def _table(cluster: Cluster, name: str) -> dict[str, Any]:
    """The columns that `kubectl get` prints: the API server makes them."""
    configuration = await load_configuration(str(cluster.kubeconfig))
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    connector = aiohttp.TCPConnector(ssl=_tls(configuration))
    async with aiohttp.ClientSession(configuration.host, connector=connector, headers=headers) as session:
        table = json.loads(await KubeClient(session, configuration).get(f"{PATH}/{name}"))
    columns = [one["name"] for one in table["columnDefinitions"]]
    return dict(zip(columns, table["rows"][0]["cells"], strict=True))
