"""Jobs run under a link state that is held: as our scheduler places them, and on every choice there is."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from itertools import combinations

from scheduler.edge.kube import KubeClient
from testbed.kind.cluster import KindCluster
from testbed.kind.comparison import Choice, Decision
from testbed.kind.jobs import DEFAULT, OURS, AllReduce, Manifest, Place, Transfer
from testbed.kind.links import State
from testbed.kind.pods import JobError, Pod, Pods
from testbed.kind.spark import EXECUTORS, PAIR_LABEL, Shuffle

TRANSFER_S_MAX = 180.0
GANG_S_MAX = 300.0
SUBMIT_S_MAX = 120.0


def transfer_bytes(state: State, rng: random.Random, target_s: float) -> int:
    """A size that takes about `target_s` on the middle one of the links as they are."""
    shares = sorted(link.receive_mbit / (1 + link.readers) for link in state.values())
    return int(shares[len(shares) // 2] * 1e6 / 8 * target_s * rng.uniform(0.7, 1.3))


class Runs:
    """Creates jobs in the cluster and answers their times."""

    def __init__(self, cluster: KindCluster, pods: Pods, sources: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._pods = pods
        self._sources = sources
        self._data_node = cluster.control_plane
        self._number = 0
        # the recorder knows pods by their names, also those of an earlier run on the same cluster
        self._run = secrets.token_hex(2)

    def transfer(self, input_bytes: int) -> Transfer:
        """A transfer from the control plane's data server: far from every worker."""
        image = self._cluster.images.transfer
        return Transfer(image, self._data_node, self._sources[self._data_node], input_bytes)

    def name(self, kind: str) -> str:
        """A name that no pod had before."""
        self._number += 1
        return f"{kind}-{self._run}-{self._number:03d}"

    async def clear(self) -> None:
        """Take away every job that was run."""
        await self._pods.delete_all()

    async def one(self, job: Transfer, name: str, place: Place) -> float:
        """Run one transfer; its seconds, by its own clock."""
        await self._pods.create(job.manifest(name, place))
        return await self._seconds(name, TRANSFER_S_MAX)

    async def transfer_decision(self, job: Transfer, state: State) -> Decision:
        """Place the transfer by both schedulers and run it on every worker.

        All run at once: each has a link of its own, and the data server's is not limited.
        """
        name = self.name("transfer")
        default = await self._dry(job.manifest(f"{name}-default", Place(DEFAULT)))
        await self._pods.create(job.manifest(name, Place(OURS)))
        ours = await self._pods.bound(name)
        others = [node for node in self._cluster.workers if node != ours]
        truths = [self.one(job, f"{name}-on-{node}", _pinned(node)) for node in others]
        ours_s, *others_s = await asyncio.gather(self._seconds(name, TRANSFER_S_MAX), *truths)
        seconds: dict[Choice, float] = {
            (node,): s for node, s in zip([ours, *others], [ours_s, *others_s], strict=True)
        }
        return Decision("transfer", name, state, (ours,), (default,), seconds)

    async def allreduce(self, job: AllReduce, name: str, places: Sequence[Place]) -> tuple[Choice, float]:
        """Run one training; the nodes of its workers and the seconds of its steps."""
        driver = await self._pods.create(job.driver(name, places[0].truth))
        address = await self._pods.address(driver)
        workers = [job.worker(name, rank, address, place) for rank, place in enumerate(places, 1)]
        names = [await self._pods.create(worker) for worker in workers]
        nodes = [await self._pods.bound(worker) for worker in names]
        seconds = await asyncio.gather(*(self._seconds(one, GANG_S_MAX) for one in [driver, *names]))
        return tuple(sorted(nodes)), max(seconds)

    async def allreduce_decision(self, job: AllReduce, state: State) -> Decision:
        """Place the gang by both schedulers and run it on every pair of workers, one after the other.

        The run on the pair that ours chose is that pair's time, as with transfers.
        """
        name = self.name("allreduce")
        default = await self._dry_gang([job.worker(f"{name}-d", rank, "", Place(DEFAULT)) for rank in (1, 2)])
        ours, ours_s = await self.allreduce(job, name, [Place(OURS)] * 2)
        seconds = {ours: ours_s}
        for number, pair in enumerate(self._pairs(ours)):
            pinned = [_pinned(node) for node in pair]
            _, seconds[pair] = await self.allreduce(job, f"{name}-t{number}", pinned)
        return Decision("allreduce", name, state, ours, default, seconds)

    async def shuffle(
        self, job: Shuffle, name: str, scheduler: str, pair: Choice = ()
    ) -> tuple[Choice, float]:
        """Run one Spark shuffle; its executors' nodes and its seconds."""
        if pair:
            self._label(pair)
        submission = await self._pods.create(job.submission(name, scheduler, in_pair=bool(pair)))
        (await self._pods.end(submission, SUBMIT_S_MAX)).succeeded()
        driver = await self._pods.until(f"{name}-driver", lambda pod: pod.ended, GANG_S_MAX, "it did not end")
        seconds = float(driver.said()["seconds"])
        executors = [pod for pod in self._pods.labelled("spark-role", "executor") if pod.spec.nodeName]
        nodes = tuple(sorted(pod.spec.nodeName for pod in executors))
        if len(set(nodes)) != EXECUTORS:
            raise JobError(
                f"{name}: executors ran on {', '.join(nodes) or 'no node'}, not on {EXECUTORS} nodes"
            )
        return nodes, seconds

    async def warm_up(self, job: Transfer) -> None:
        """Run one job through our scheduler, so that it has a prediction of its class when it counts."""
        await self.one(job, self.name("warm-up"), Place(OURS))

    async def shuffle_decision(self, job: Shuffle, state: State) -> Decision:
        """As `allreduce_decision`, with a real `spark-submit` each time."""
        name = self.name("spark")
        like = AllReduce(self._cluster.images.transfer, job.driver_node, 0, 0)
        default = await self._dry_gang(
            [like.worker(f"{name}-d", rank, "", Place(DEFAULT)) for rank in (1, 2)]
        )
        ours, ours_s = await self.shuffle(job, name, OURS)
        await self.clear()
        seconds = {ours: ours_s}
        for number, pair in enumerate(self._pairs(ours)):
            _, seconds[pair] = await self.shuffle(job, f"{name}-t{number}", DEFAULT, pair)
            await self.clear()
        return Decision("spark", name, state, ours, default, seconds)

    def _pairs(self, without: Choice) -> list[Choice]:
        pairs = [tuple(sorted(pair)) for pair in combinations(self._cluster.workers, 2)]
        return [pair for pair in pairs if pair != without]

    def _label(self, pair: Choice) -> None:
        for node in self._cluster.workers:
            value = "yes" if node in pair else "no"
            self._cluster.kubectl("label", "node", node, f"{PAIR_LABEL}={value}", "--overwrite")

    async def _seconds(self, name: str, timeout_s: float) -> float:
        return float((await self._pods.end(name, timeout_s)).said()["seconds"])

    async def _dry(self, manifest: Manifest) -> str:
        """The node a scheduler gives the pod, which is then taken away before it does anything."""
        name = await self._pods.create(manifest)
        node = await self._pods.bound(name)
        await self._pods.delete(name)
        return node

    async def _dry_gang(self, manifests: Sequence[Manifest]) -> Choice:
        for manifest in manifests:
            manifest["spec"]["containers"][0]["args"] = ["-c", "import time; time.sleep(60)"]
        names = [await self._pods.create(manifest) for manifest in manifests]
        nodes = [await self._pods.bound(name) for name in names]
        for name in names:
            await self._pods.delete(name)
        return tuple(sorted(nodes))


def _pinned(node: str) -> Place:
    return Place(DEFAULT, node, truth=True)


async def data_sources(kube: KubeClient) -> dict[str, str]:
    """host:port of every node's data server."""
    query = {"labelSelector": "app=data-server"}
    servers = await kube.list_all("/api/v1/namespaces/data/pods", Pod, query)
    return {pod.spec.nodeName: f"{pod.status.podIP}:8080" for pod in servers if pod.status.podIP}
