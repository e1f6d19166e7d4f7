"""Real gangs on a real kind cluster: they run where they were put, and feel the links between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from scheduler.edge.kube import KubeClient
from testbed.kind import deploy
from testbed.kind.cluster import KindCluster
from testbed.kind.jobs import DEFAULT, NAMESPACE, AllReduce, Place
from testbed.kind.links import Link, Links
from testbed.kind.pods import Pods
from testbed.kind.runs import Runs
from testbed.kind.spark import Shuffle


@pytest.fixture(scope="module")
def links(cluster: KindCluster) -> Iterator[Links]:
    cluster.load([cluster.images.allreduce, cluster.images.spark])
    deploy.apply(cluster, "jobs", {})
    links = Links(cluster)
    links.install()
    yield links
    links.remove()


def timed(cluster: KindCluster, kind: str) -> tuple[tuple[str, ...], float]:
    """Run one gang on both workers; its nodes and seconds."""

    async def run() -> tuple[tuple[str, ...], float]:
        async with (
            KubeClient.connect(str(cluster.kubeconfig)) as kube,
            Pods.follow(kube, NAMESPACE) as pods,
        ):
            await pods.delete_all()
            runs = Runs(cluster, pods, {})
            if kind == "spark":
                job = Shuffle(cluster.images.spark, cluster.control_plane, rows=60_000)
                return await runs.shuffle(job, runs.name(kind), DEFAULT, cluster.workers)
            training = AllReduce(cluster.images.allreduce, cluster.control_plane, 400_000, 6)
            places = [Place(DEFAULT, node, truth=True) for node in cluster.workers]
            return await runs.allreduce(training, runs.name(kind), places)

    return asyncio.run(run())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["allreduce", "spark"])
def test_a_gang_on_slow_links_takes_longer(cluster: KindCluster, links: Links, kind: str) -> None:
    times = []
    for mbit in (400, 20):
        links.apply({node: Link(mbit, mbit) for node in cluster.workers})
        nodes, seconds = timed(cluster, kind)
        assert nodes == tuple(sorted(cluster.workers))
        times.append(seconds)
    assert times[1] > 1.5 * times[0]
