"""One testbed for all integration tests of a run, and small ways to use it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from admission_setup import admission, alice, bob  # noqa: F401 - fixtures

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.layout import Options
from testbed.progress import Progress

NOT_AT_ONCE = ("predictor", "recorder", "extender", "controller")
PODS = "/api/v1/namespaces/default/pods"
Pod = dict[str, Any]


FIRST = ("faults", "controller", "admission", "telemetry_prometheus", "explain", "testbed_ends", "predictor")
"""Files that take long, by the beginning of their names: begun first, so that none runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts real processes, and mostly waits for them: several files run at once.

    The tests of a file stay together in one worker, in their order, and so do those that install admission,
    of which an API server has one. Each worker has a testbed of its own once a test there wants it.
    """
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.xdist_group(_group(item.path)))
    items.sort(key=lambda item: _rank(item.path))


def _group(path: Path) -> str:
    name = path.stem.removeprefix("test_")
    return "admission" if name.startswith("admission") else name


def _rank(path: Path) -> int:
    name = path.stem.removeprefix("test_")
    return next((rank for rank, first in enumerate(FIRST) if name.startswith(first)), len(FIRST))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Six nodes in three sites with Prometheus and physics; Fairlane's own processes can be started.

    A test that stops or kills something starts it again.
    """
    options = Options(nodes=6, sites=3, scrape_interval_s=1.0, without=NOT_AT_ONCE)
    with Cluster(options, progress=Progress()) as running:
        yield running


@pytest_asyncio.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    """A connection as administrator to the shared testbed."""
    async with KubeClient.connect(str(cluster.kubeconfig)) as connected:
        yield connected


@pytest.fixture
def pod() -> Callable[..., Pod]:
    """Makes the manifest of a pod of one container, to be posted to /api/v1/namespaces/default/pods."""

    def make(
        scheduler: str = "fairlane",
        cpu: str = "1",
        annotations: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Pod:
        container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}
        metadata = {
            "name": f"test-{uuid.uuid4().hex[:10]}",
            "annotations": annotations or {},
            "labels": labels or {},
        }
        spec = {"schedulerName": scheduler, "restartPolicy": "Never", "containers": [container]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    return make


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Waits until an asynchronous condition holds; fails when it does not within 30 s."""

    async def wait(condition: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not await condition():
            assert time.monotonic() < deadline_s, f"not true within {within_s:.0f} s"
            await asyncio.sleep(0.1)

    return wait
