"""One testbed for all integration tests of a worker, and small ways to use it."""

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
from placing import trained  # noqa: F401 - fixture

from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.layout import Options
from testbed.progress import Progress

NOT_AT_ONCE = ("predictor", "recorder", "extender", "controller")
PODS = "/api/v1/namespaces/default/pods"
Pod = dict[str, Any]


LONG = ("telemetry_prometheus", "predictor", "chart_rendered")
"""Files that take long, without `test_`: begun first, so that none runs alone at the end."""


@pytest.hookimpl(tryfirst=True)  # xdist writes down the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts real processes, and mostly waits for them: several files run at once.

    The tests of a file stay together, in their order, and so do all files that use the shared testbed, in two
    halves, which are begun before all others: they take longer than the rest, and one after the other longer
    than a second testbed costs.
    """
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    sharing = {item.path for item in here if _uses_shared_testbed(item)}
    halves = {path: f"testbed-{number % 2}" for number, path in enumerate(sorted(sharing))}
    for item in here:
        item.add_marker(pytest.mark.integration)
        item.add_marker(pytest.mark.xdist_group(halves.get(item.path, item.path.stem)))
    items.sort(key=lambda item: 0 if item.path in sharing else _place(item.path))


def _uses_shared_testbed(item: pytest.Item) -> bool:
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return "cluster" in fixtures and not hasattr(item.module, "cluster")  # type: ignore[attr-defined]


def _place(path: Path) -> int:
    """Which of LONG a file is, from 1 on; further on for all others."""
    name = path.stem.removeprefix("test_")
    return 1 + (LONG.index(name) if name in LONG else len(LONG))


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
