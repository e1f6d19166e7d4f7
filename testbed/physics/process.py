"""Runs the world against a real API server: pods in, completions and readings out.

Follows nodes and pods, moves every running pod forward by what the true
state allows, marks it Succeeded when its work is done, and serves the
exporters. For pods that ask for it, writes what the job would have taken on
every node: the ground truth that placements are judged by.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from aiohttp import web
from prometheus_client.registry import Collector

from scheduler.edge.kube import STRATEGIC_PATCH, Changed, KubeClient, KubeError, Listed
from testbed.physics import exporters
from testbed.physics.jobs import TICK_S, JobSpec, Run, advance, flows, run_s_on_every_node, spent
from testbed.physics.world import NodeSpec, World

JOB_ANNOTATION = "testbed.fairlane.dev/job"
"""JSON of a `JobSpec`: what the pod truly does. The predictor never reads it."""
TRUTH_ANNOTATION = "testbed.fairlane.dev/truth"
STORE_LABEL = "fairlane.dev/data"
ZONE_LABEL = "topology.kubernetes.io/zone"
NIC_LABEL = "fairlane.dev/nic-class"
GANG_ANNOTATION = "fairlane.dev/gang"

log = logging.getLogger(__name__)


class _Meta(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletionTimestamp: str | None = None


class _NodeStatus(msgspec.Struct, frozen=True):
    capacity: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True):
    """The fields of a node that the world needs."""

    metadata: _Meta
    status: _NodeStatus = _NodeStatus()


class _Container(msgspec.Struct):
    name: str
    image: str = ""


class _PodSpec(msgspec.Struct, frozen=True):
    nodeName: str = ""
    containers: list[_Container] = []


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class Pod(msgspec.Struct, frozen=True):
    """The fields of a pod that the world needs."""

    metadata: _Meta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class Physics:
    """The world's clock and its link to one API server."""

    def __init__(self, kube: KubeClient, seed: int, began_at_s: float, truth: IO[str] | None) -> None:
        self._kube = kube
        self._seed = seed
        self._began_at_s = began_at_s
        self._truth = truth
        self._specs: dict[str, NodeSpec] = {}
        self._pods: dict[str, tuple[Pod, float]] = {}
        self._runs: dict[str, Run] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._rebuild()

    def _rebuild(self) -> None:
        """A world over the nodes known now; every node's own series depend on its name alone."""
        self.world = World(self._seed, [self._specs[name] for name in sorted(self._specs)])
        self.counters = exporters.Counters(self.world)
        rng = np.random.default_rng([self._seed, 1])
        self.measurements = exporters.Measurements(self.world, rng)

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return time.time() - self._began_at_s

    async def follow_nodes(self) -> None:
        """Keep the set of nodes; a change rebuilds the world (running pods keep their progress)."""
        async for event in self._kube.mirror("/api/v1/nodes", Node):
            specs = _specs_after(self._specs, event)
            if specs != self._specs:
                names = {run.uid: self.world.nodes[run.node].name for run in self._runs.values()}
                data = {run.uid: run.data for run in self._runs.values()}
                stores = {i: spec.name for i, spec in enumerate(self.world.nodes)}
                self._specs = specs
                self._rebuild()
                self._relocate(names, {uid: stores.get(i, "") for uid, i in data.items()})

    def _relocate(self, nodes: Mapping[str, str], data: Mapping[str, str]) -> None:
        for uid, run in list(self._runs.items()):
            if nodes[uid] not in self.world.index:
                del self._runs[uid]
                continue
            run.node, run.data = self.world.index[nodes[uid]], self.world.index.get(data[uid], -1)

    async def follow_pods(self) -> None:
        """Keep the pods that run on emulated nodes."""
        async for event in self._kube.mirror("/api/v1/pods", Pod):
            if isinstance(event, Listed):
                kept = {pod.metadata.uid for pod in event.items}
                for uid in set(self._pods) - kept:
                    self._forget(uid)
            for pod in event.items if isinstance(event, Listed) else [event.item]:
                self._see(pod, isinstance(event, Changed) and event.kind == "DELETED")

    def _see(self, pod: Pod, deleted: bool) -> None:
        uid = pod.metadata.uid
        if deleted or pod.status.phase in ("Succeeded", "Failed"):
            self._forget(uid)
        elif (
            pod.status.phase == "Running" and pod.spec.nodeName in self.world.index and uid not in self._pods
        ):
            self._begin(pod)

    def _begin(self, pod: Pod) -> None:
        try:
            job = _job_of(pod)
        except msgspec.DecodeError as error:
            log.error("pod %s: bad %s: %s", pod.metadata.name, JOB_ANNOTATION, error)
            return
        if job is None or pod.spec.nodeName not in self.world.index:
            return
        uid, now_s = pod.metadata.uid, self.now_s
        if self._truth and pod.metadata.annotations.get(TRUTH_ANNOTATION) == "true":
            self._write_truth(pod, job, now_s)
        node, data = self.world.index[pod.spec.nodeName], self.world.index.get(job.data_node, -1)
        gang = pod.metadata.annotations.get(GANG_ANNOTATION, "")
        self._pods[uid] = (pod, time.time())
        self._runs[uid] = Run.begin(uid, node, data, gang, job)

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._runs.pop(uid, None)

    def _write_truth(self, pod: Pod, job: JobSpec, now_s: float) -> None:
        assert self._truth is not None
        gang = pod.metadata.annotations.get(GANG_ANNOTATION, "")
        others = list(self._runs.values())
        row = {
            "pod_uid": pod.metadata.uid,
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "node": pod.spec.nodeName,
            "at_s": self._began_at_s + now_s,
            "run_s": run_s_on_every_node(self.world, job, now_s, others, gang),
            "standing_s": run_s_on_every_node(self.world, job, now_s, others, gang, standing_still=True),
        }
        self._truth.write(json.dumps(row) + "\n")
        self._truth.flush()

    async def tick(self) -> None:
        """Move the world forward for ever; readings are taken once a round."""
        last_s, round_s = self.now_s, 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self.now_s
            if self.world.nodes:
                self._step(now_s, now_s - last_s)
                if now_s - round_s >= exporters.ROUND_S:
                    readers = flows(list(self._runs.values()), len(self.world.nodes)).readers
                    self.measurements.measure(self.world.at(now_s), readers, now_s, time.time())
                    round_s = now_s
            last_s = now_s

    def _step(self, now_s: float, seconds: float) -> None:
        state = self.world.at(now_s)
        runs = list(self._runs.values())
        received = advance(self.world, state, runs, seconds)
        computing, job_bytes = spent(runs, received, len(self.world.nodes))
        self.counters.add(self.world, state, computing, job_bytes, seconds)
        for run in runs:
            if not run.phase:
                self._finish(run.uid)

    def _finish(self, uid: str) -> None:
        pod, started_s = self._pods[uid]
        del self._runs[uid]
        task = asyncio.create_task(self._complete(pod, started_s))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _complete(self, pod: Pod, started_s: float) -> None:
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/status"
        body = {"metadata": {"uid": pod.metadata.uid}, "status": _succeeded(pod, started_s, time.time())}
        for attempt in range(8):
            try:
                await self._kube.patch(path, body, STRATEGIC_PATCH)
                return
            except KubeError as error:
                if error.status in (404, 409):
                    return  # deleted meanwhile, or another pod of that name
                await asyncio.sleep(0.2 * 2**attempt)
        log.error("pod %s could not be marked as succeeded", pod.metadata.name)


def serve(physics: Physics) -> web.Application:
    """`/EXPORTER/NODE/metrics` for every node, and `/targets` for Prometheus' HTTP service discovery."""

    async def metrics(request: web.Request) -> web.Response:
        node = physics.world.index.get(request.match_info["node"])
        if node is None or request.match_info["exporter"] not in exporters.EXPORTERS:
            raise web.HTTPNotFound
        published = physics.measurements.published
        if published is None or physics.measurements.is_silent(node, physics.now_s):
            raise web.HTTPServiceUnavailable
        collector: Collector
        match request.match_info["exporter"]:
            case "node":
                collector = exporters.NodeExporter(physics.world, physics.counters, node, time.time())
            case "ping":
                collector = exporters.PingExporter(physics.world, published, node)
            case _:
                collector = exporters.Probe(physics.world, published, node)
        text = exporters.render(collector)
        return web.Response(body=text, content_type="text/plain")

    async def targets(request: web.Request) -> web.Response:
        found = [
            {"targets": [request.host], "labels": _target_labels(exporter, spec.name)}
            for spec in physics.world.nodes
            for exporter in exporters.EXPORTERS
        ]
        return web.json_response(found)

    app = web.Application()
    app.add_routes([web.get("/{exporter}/{node}/metrics", metrics), web.get("/targets", targets)])
    return app


def _target_labels(exporter: str, node: str) -> dict[str, str]:
    return {"__metrics_path__": f"/{exporter}/{node}/metrics", "node": node, "job": exporter}


async def run(kubeconfig: str, seed: int, port: int, port_file: Path | None, truth_file: Path | None) -> None:
    """Run until cancelled."""
    truth = truth_file.open("a") if truth_file else None
    async with KubeClient.connect(kubeconfig) as kube:
        physics = Physics(kube, seed, time.time(), truth)
        runner = web.AppRunner(serve(physics), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        if port_file:
            _announce(port_file, runner.addresses[0][1])
        async with asyncio.TaskGroup() as tasks:
            for work in (physics.follow_nodes(), physics.follow_pods(), physics.tick()):
                tasks.create_task(work)


def _announce(port_file: Path, port: int) -> None:
    port_file.write_text(str(port))


def _specs_after(specs: Mapping[str, NodeSpec], event: Listed[Node] | Changed[Node]) -> dict[str, NodeSpec]:
    if isinstance(event, Listed):
        return {node.metadata.name: spec_of(node) for node in event.items}
    after = dict(specs)
    if event.kind == "DELETED":
        after.pop(event.item.metadata.name, None)
    else:
        after[event.item.metadata.name] = spec_of(event.item)
    return after


def spec_of(node: Node) -> NodeSpec:
    """What the world makes of a node's labels and capacity."""
    labels = node.metadata.labels
    cores = int(node.status.capacity.get("cpu", "16"))
    return NodeSpec(
        name=node.metadata.name,
        site=labels.get(ZONE_LABEL, ""),
        nic_class=labels.get(NIC_LABEL, "3g"),
        store=STORE_LABEL in labels,
        cores=cores,
    )


def _job_of(pod: Pod) -> JobSpec | None:
    text = pod.metadata.annotations.get(JOB_ANNOTATION)
    return msgspec.json.decode(text, type=JobSpec) if text else None


def _succeeded(pod: Pod, started_s: float, ended_s: float) -> dict[str, object]:
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": _rfc3339(started_s),
        "finishedAt": _rfc3339(ended_s),
    }
    containers = [
        {
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated, "running": None},
        }
        for container in pod.spec.containers
    ]
    return {"phase": "Succeeded", "containerStatuses": containers}


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
