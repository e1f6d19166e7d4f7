"""Fairlane beside Kueue, Volcano and YuniKorn in one cluster: what docs/comparison.md says of it.

Their controllers do not run here. What they would do to a pod is done by the test, by the same API: a gate is
taken away, a pod is bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import yaml
from admission_setup import PODS, Installed, Object, installed, pod, with_admin
from docs_blocks import ROOT
from queueing import ask

from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from testbed.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
OURS, KUEUES = "fairlane.dev/queue", "kueue.x-k8s.io/admission"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Installed]:
    """The shared testbed with policies in force and the queue at work."""
    asyncio.run(with_admin(cluster, _known))
    with installed(cluster, "policies", controller="fairlane-controller") as state:
        cluster.process("controller").restart()
        try:
            yield state
        finally:
            cluster.process("controller").stop()


async def _known(kube: KubeClient) -> None:
    try:
        await kube.post(CRDS, yaml.safe_load((ROOT / "manifests" / "fairqueue-crd.yaml").read_text()))
    except KubeError as error:
        if error.status != 409:
            raise


@pytest_asyncio.fixture
async def made(site: Installed) -> AsyncIterator[Callable[[Object, str], Awaitable[str]]]:
    """Creates a pod as alice; its path. They are gone at the end."""
    paths = []
    async with site.user("alice") as alice:

        async def make(body: Object, namespace: str) -> str:
            told = json.loads(await alice.post(PODS.format(namespace), body))
            paths.append(f"{PODS.format(namespace)}/{told['metadata']['name']}")
            return paths[-1]

        yield make
        for path in paths:
            with contextlib.suppress(KubeError):  # gone by the test
                await alice.delete(path + "?gracePeriodSeconds=0")


def asking(annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """A pod that asks for a core."""
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    return pod(annotations, **spec, containers=[container])


async def read(kube: KubeClient, path: str) -> dict[str, Any]:
    return dict(json.loads(await kube.get(path)))


def gates(seen: Object) -> list[str]:
    return [gate["name"] for gate in seen["spec"].get("schedulingGates", [])]


async def until_released(kube: KubeClient, path: str, eventually: Eventually) -> Object:
    """The pod, once our gate is gone and the receipt is there."""

    async def released() -> bool:
        seen = await read(kube, path)
        return OURS not in gates(seen) and "fairlane.dev/receipt" in seen["metadata"]["annotations"]

    await eventually(released)
    return await read(kube, path)


@pytest_asyncio.fixture
async def all_was_seen(made: Any, kube: KubeClient, eventually: Eventually) -> Callable[[], Awaitable[None]]:
    """Waits until a pod that comes now has been released and runs: all that came before was looked at."""

    async def wait() -> None:
        path = await made(asking(schedulerName="fairlane"), "team")
        await until_released(kube, path, eventually)

        async def runs() -> bool:
            return (await read(kube, path))["status"].get("phase") == "Running"

        await eventually(runs)

    return wait


async def charged(cluster: Cluster, name: str, state: str, *, held: bool) -> bool:
    """Whether the pod's gang is charged and in this state, and its user holds something or nothing."""
    told = ask(cluster, "/v1/queue") or {"gangs": []}
    for gang in told["gangs"]:
        if gang["pods"] == [f"team/{name}"] and gang["state"] == state and gang["charged_work"] > 0:
            (flow,) = [one for one in told["flows"] if one["user"] == gang["user"]]
            return bool(flow["held"]) is held
    return False


async def test_a_pod_with_kueues_gate_too_starts_when_both_have_opened_theirs(
    site: Installed, kube: KubeClient, made: Any, eventually: Eventually, all_was_seen: Any
) -> None:
    """It is charged from our release on, and holds a share once it has a node."""
    path = await made(asking(schedulerName="fairlane", schedulingGates=[{"name": KUEUES}]), "team")
    await until_released(kube, path, eventually)

    name = path.rpartition("/")[2]
    await eventually(lambda: charged(site.cluster, name, "opening", held=False))
    await all_was_seen()
    seen = await read(kube, path)
    assert gates(seen) == [KUEUES], "a foreign gate is not ours to open"
    assert "nodeName" not in seen["spec"]
    await kube.patch(path, [{"op": "remove", "path": "/spec/schedulingGates"}], JSON_PATCH)  # as Kueue does

    async def runs() -> bool:
        return (await read(kube, path))["status"].get("phase") == "Running"

    await eventually(runs)
    await eventually(lambda: charged(site.cluster, name, "running", held=True))


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("name", ["volcano", "yunikorn"])
async def test_a_pod_of_another_scheduler_that_did_not_opt_in_is_not_touched(
    kube: KubeClient, made: Any, all_was_seen: Any, name: str
) -> None:
    body = asking(schedulerName=name)
    body["metadata"]["annotations"] = {"scheduling.k8s.io/group-name": "theirs"}
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "theirs"}
    path = await made(body, "team")
    await all_was_seen()
    seen = await read(kube, path)
    assert seen["metadata"]["annotations"] == body["metadata"]["annotations"]
    assert seen["metadata"]["labels"] == body["metadata"]["labels"]
    assert (gates(seen), seen["spec"]["schedulerName"]) == ([], name)
    assert "nodeName" not in seen["spec"], "nobody binds it but its own scheduler"
    assert not [one for one in seen["status"].get("conditions", []) if "fairlane" in one["type"]]
    writers = {one["manager"] for one in seen["metadata"]["managedFields"]}
    assert not [one for one in writers if "fairlane" in one.lower()]


async def test_what_another_scheduler_has_bound_is_counted_as_not_available(
    site: Installed, kube: KubeClient, made: Any, eventually: Eventually
) -> None:
    for node in site.cluster.worker_names:
        path = await made(filling(site.cluster), "team")
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": path.rpartition("/")[2]}}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        await kube.post(f"{path}/binding", {**binding, "target": target})
    ours = await made(asking(schedulerName="fairlane"), "team")

    async def told_that_it_waits() -> bool:
        seen = await read(kube, ours)
        return any(one["type"] == "fairlane.dev/Queued" for one in seen["status"].get("conditions", []))

    await eventually(told_that_it_waits)
    assert gates(await read(kube, ours)) == [OURS]
    await kube.delete(path + "?gracePeriodSeconds=0")
    await until_released(kube, ours, eventually)


def filling(cluster: Cluster) -> Object:
    """A pod of another scheduler that takes all of a node."""
    body = asking(schedulerName="volcano")
    body["spec"]["containers"][0]["resources"]["requests"]["cpu"] = str(cluster.options.node_cpu)
    return body


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("name", ["volcano", "yunikorn"])
async def test_our_queue_with_another_scheduler_opens_the_gate_and_leaves_the_placing_to_it(
    kube: KubeClient, made: Any, eventually: Eventually, all_was_seen: Any, name: str
) -> None:
    path = await made(asking({"queue-name": "default"}, schedulerName=name), "team")
    await until_released(kube, path, eventually)
    await all_was_seen()
    spec = (await read(kube, path))["spec"]
    assert spec["schedulerName"] == name
    assert "nodeName" not in spec
