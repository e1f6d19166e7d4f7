"""An extender that kube-scheduler does not ask knows whether it should have been asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from one_process import serving, told

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.ports import Reservation

PODS = "/api/v1/namespaces/default/pods"
Eventually = Callable[..., Awaitable[None]]
Made = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def port(cluster: Cluster, tmp_path: Path, eventually: Eventually) -> AsyncIterator[int]:
    """Where an extender of which the testbed's kube-scheduler does not know tells of itself."""
    ports = Reservation()
    (port,) = ports.take(1)
    settings = yaml.safe_load(cluster.settings_file.read_text())
    changed = {**settings, "extender": {**settings["extender"], "metrics_port": port}}
    with serving(
        "extender", tmp_path, changed, "--kubeconfig", str(cluster.layout.file("extender.kubeconfig"))
    ):

        async def watches() -> bool:
            return told(port, "/v1/status")[0] == 200 and status(port)["nodes"] > 1

        await eventually(watches, 60)
        yield port
    ports.close()


def status(port: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(port, "/v1/status")[1])
    return found


async def bound(kube: KubeClient, manifest: dict[str, Any], eventually: Eventually) -> None:
    name = manifest["metadata"]["name"]
    await kube.post(PODS, manifest)

    async def on_a_node() -> bool:
        return bool(json.loads(await kube.get(f"{PODS}/{name}"))["spec"].get("nodeName"))

    await eventually(on_a_node)
    await kube.delete(f"{PODS}/{name}")


async def test_a_binding_counts_only_where_several_nodes_could_have_had_the_pod(
    port: int, kube: KubeClient, pod: Made, eventually: Eventually
) -> None:
    pinned = pod("fairlane")
    pinned["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "node-01"}
    for _ in range(2):
        await bound(kube, {**pinned, "metadata": pod()["metadata"]}, eventually)
    await asyncio.sleep(1)
    assert status(port)["choices_unasked"] == 0
    await bound(kube, pod("fairlane"), eventually)

    async def counted() -> bool:
        return status(port)["choices_unasked"] == 1

    await eventually(counted)
    assert status(port)["calls"] == 0
    assert "fairlane_extender_choices_unasked_total 1.0" in told(port, "/metrics")[1]
