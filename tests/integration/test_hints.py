"""Placement written at release: a gang's plan in the patch that opens its gates; a real kube-scheduler."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml
from placing import publish, registry
from queueing import GATE, PATH, RECEIPT, ask

from scheduler.core.affinity import PREFERRED, REQUIRED, Binds
from scheduler.core.plans import PodPlan
from scheduler.core.queue.actions import ReleaseGang, ReleaseReceipt
from scheduler.core.queue.events import Estimate, Event, ReleaseDone, ReleaseFailed
from scheduler.edge.kube import STRATEGIC_PATCH, KubeClient
from scheduler.edge.release import Releases
from testbed.cluster import Cluster
from testbed.configuration import FAIRLANE_SCHEDULER, laid_over, scheduler_config

Pod = dict[str, Any]
MakePod = Callable[..., Pod]
Eventually = Callable[..., Awaitable[None]]
HINTS = {"controller": {"placement": "hint", "lease_s": 6, "tick_s": 1.0, "announce_s": 1.0}}
GANG = 4

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def hinting(cluster: Cluster, trained: Path) -> Iterator[Cluster]:
    """The shared testbed with placement written at release; a kube-scheduler of ours that asks nobody."""
    publish(trained, registry(cluster))
    asks_nobody = scheduler_config(cluster.options, cluster.layout, ours=True, hints=True)
    files = {
        cluster.layout.file("fairlane-scheduler.yaml"): asks_nobody,
        cluster.settings_file: laid_over(yaml.safe_load(cluster.settings_file.read_text()), HINTS),
    }
    before = {path: path.read_text() for path in files}
    for path, content in files.items():
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    names = ("fairlane-scheduler", "recorder", "predictor", "extender", "controller")
    for name in names:
        cluster.process(name).restart()
    yield cluster
    for name in reversed(names[1:]):
        cluster.process(name).stop()
    for path, text in before.items():
        path.write_text(text)
    cluster.process("fairlane-scheduler").restart()


class Gangs:
    """Submits gangs of gated pods, and looks at them."""

    def __init__(self, cluster: Cluster, kube: KubeClient, pod: MakePod) -> None:
        self.cluster, self._kube, self._pod = cluster, kube, pod

    async def submit(self, size: int = GANG) -> list[str]:
        gang = f"gang-{uuid.uuid4().hex[:6]}"
        notes = {
            "fairlane.dev/user": "ana",
            "fairlane.dev/gang": gang,
            "fairlane.dev/gang-size": str(size),
            "fairlane.dev/job-class": "etl",
            "fairlane.dev/data-nodes": self.cluster.data_node_names[0],
            "fairlane.dev/input-bytes": "20000000",
        }
        bodies = [self._pod(annotations=notes) for _ in range(size)]
        for body in bodies:
            body["spec"]["schedulingGates"] = [{"name": GATE}]
            await self._kube.post(PATH, body)
        return [body["metadata"]["name"] for body in bodies]

    async def now(self, names: list[str]) -> list[Pod]:
        return [msgspec.json.decode(await self._kube.get(f"{PATH}/{name}")) for name in names]

    async def bound(self, names: list[str]) -> bool:
        return all(pod["spec"].get("nodeName") for pod in await self.now(names))

    async def until_planned(self, eventually: Eventually) -> None:
        """Gangs are released with a hint that the model made."""

        async def planned() -> bool:
            names = await self.submit(1)
            await eventually(lambda: self.bound(names))
            status = ask(self.cluster, "/v1/status", self.cluster.layout.ports["extender"]) or {}
            return status.get("plans_by_reason", {}).get("none", 0) > 0

        await eventually(planned, within_s=60.0)


@pytest.fixture
async def gangs(hinting: Cluster, kube: KubeClient, pod: MakePod) -> AsyncIterator[Gangs]:
    yield Gangs(hinting, kube, pod)
    await kube.delete(PATH, {"gracePeriodSeconds": "0"})


def receipt_of(pod: Pod) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(pod["metadata"]["annotations"][RECEIPT])
    return told


def explain(cluster: Cluster, what: str) -> str:
    argv = [
        sys.executable,
        "-m",
        "scheduler.cli.main",
        "explain",
        what,
        "--config",
        str(cluster.settings_file),
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


async def test_a_gang_lands_where_the_releasing_patch_says(gangs: Gangs, eventually: Eventually) -> None:
    await gangs.until_planned(eventually)
    names = await gangs.submit()
    await eventually(lambda: gangs.bound(names))
    pods = await gangs.now(names)
    planned = [receipt_of(pod)["hint"][0][0] for pod in pods]
    assert [pod["spec"]["nodeName"] for pod in pods] == planned
    for pod in pods:
        terms = pod["spec"]["affinity"]["nodeAffinity"][PREFERRED]
        named = [(term["preference"]["matchFields"][0]["values"][0], term["weight"]) for term in terms]
        assert named == [(node, 10 * score) for node, score in receipt_of(pod)["hint"]]
        assert named[0][1] == 100

    async def told() -> bool:
        said = await asyncio.to_thread(explain, gangs.cluster, f"pod/default/{names[0]}")
        return f"The pod runs on {planned[0]}, as planned" in said and "written as preferred" in said

    await eventually(told)
    of_gang = await asyncio.to_thread(explain, gangs.cluster, f"gang/default/{names[0]}")
    assert "At its release: planned on " in of_gang, of_gang


async def test_without_a_predictor_and_without_a_planner_gangs_are_released(
    gangs: Gangs, eventually: Eventually
) -> None:
    await gangs.until_planned(eventually)
    predictor, extender = (gangs.cluster.process(name) for name in ("predictor", "extender"))
    predictor.kill()
    names = await gangs.submit()
    await eventually(lambda: gangs.bound(names))
    assert all("hint" in receipt_of(pod) for pod in await gangs.now(names))  # last tables, or the prior
    extender.kill()
    names = await gangs.submit()
    await eventually(lambda: gangs.bound(names))
    for pod in await gangs.now(names):
        assert "cannot be reached" in receipt_of(pod)["no_hint"]
        assert "affinity" not in pod["spec"]
    of_gang = await asyncio.to_thread(explain, gangs.cluster, f"gang/default/{names[0]}")
    assert "At its release: no hint was written, because the extender at" in of_gang, of_gang
    predictor.start()
    extender.start()


async def test_with_nothing_known_of_any_node_there_is_no_hint_and_it_is_said(
    gangs: Gangs, eventually: Eventually
) -> None:
    prometheus, extender = (gangs.cluster.process(name) for name in ("prometheus", "extender"))
    prometheus.stop()
    try:
        extender.stop()
        extender.start(wait=False)

        async def answers() -> bool:
            return (ask(gangs.cluster, "/v1/status", gangs.cluster.layout.ports["extender"]) or {}).get(
                "nodes", 0
            ) > 0

        await eventually(answers)

        async def told() -> bool:
            names = await gangs.submit(1)
            await eventually(lambda: gangs.bound(names))
            (pod,) = await gangs.now(names)
            return receipt_of(pod).get("no_hint") == "no telemetry of any candidate was known"

        await eventually(told)
    finally:
        prometheus.start()
        extender.wait_ready()


class Where(NamedTuple):
    namespace: str
    name: str
    gate_index: int = 0


class Hinted:
    """Gated pods of another scheduler, released with a plan of two nodes."""

    def __init__(self, kube: KubeClient, pod: MakePod) -> None:
        self._kube, self._pod = kube, pod
        self.told: list[Event] = []

    async def released(
        self,
        affinity: dict[str, Any] | None,
        plan: PodPlan,
        *,
        binds: Binds = "nobody",
        nominates: bool = False,
        scheduler: str = "nobody",
        flow: str = "alice",
    ) -> Pod:
        """The pod as it is afterwards; with a real scheduler, once that has bound it."""
        body = self._pod(scheduler=scheduler, annotations={"kept": "yes"})
        body["spec"] |= {"schedulingGates": [{"name": GATE}]} | ({"affinity": affinity} if affinity else {})
        made = msgspec.json.decode(await self._kube.post(PATH, body))
        uid, where = made["metadata"]["uid"], Where("default", made["metadata"]["name"])

        async def planned(_: ReleaseGang) -> dict[str, PodPlan]:
            return {uid: plan}

        releases = Releases(
            self._kube,
            lambda: True,
            {uid: where}.get,
            self.told.append,
            parallel=8,
            request_s=5.0,
            plan=planned,
            binds=binds,
            nominates=nominates,
        )
        receipt = ReleaseReceipt(1.0, 0.25, 0.125, 0.5, 3, Estimate(1.0, 2.0, 3.0, "hint"), {uid: "node-01"})
        await releases.release(ReleaseGang("gang", flow, (uid,), receipt))
        now = await self._now(where.name)
        while scheduler != "nobody" and not now["spec"].get("nodeName"):
            await asyncio.sleep(0.1)
            now = await self._now(where.name)
        await self._kube.delete(f"{PATH}/{where.name}")
        if now["spec"].get("schedulingGates"):
            return now
        assert self.told[-1:] == [ReleaseDone("gang", (uid,))]
        assert receipt_of(now)["node"] == (plan.nodes[0][0] if plan.nodes else "node-01")
        return now

    async def _now(self, name: str) -> Pod:
        now: Pod = msgspec.json.decode(await self._kube.get(f"{PATH}/{name}"))
        return now


@pytest.fixture
def hinted(hinting: Cluster, kube: KubeClient, pod: MakePod) -> Iterator[Hinted]:
    controller = hinting.process("controller")
    controller.stop()  # it would release these pods by itself
    yield Hinted(kube, pod)
    controller.start()
    controller.wait_ready()


TWO = PodPlan("", [("node-02", 10), ("node-03", 9)], ours=False)
BROUGHT = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}
        ]
    },
    "nodeAffinity": {
        PREFERRED: [{"weight": 7, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]
    },
}


async def test_affinity_that_the_pod_brought_stays_beside_the_hint(hinted: Hinted) -> None:
    now = await hinted.released(BROUGHT, TWO, binds="nobody")
    affinity = now["spec"]["affinity"]
    assert affinity["podAntiAffinity"] == BROUGHT["podAntiAffinity"]
    assert [term["weight"] for term in affinity["nodeAffinity"][PREFERRED]] == [7, 100, 90]
    assert REQUIRED not in affinity["nodeAffinity"]


async def test_a_plan_that_binds_needs_several_nodes_and_a_pod_that_is_not_ours(hinted: Hinted) -> None:
    def binding(pod: Pod) -> list[str]:
        terms = pod["spec"]["affinity"]["nodeAffinity"].get(REQUIRED, {"nodeSelectorTerms": []})
        return [term["matchFields"][0]["values"][0] for term in terms["nodeSelectorTerms"]]

    assert binding(await hinted.released(None, TWO, binds="others")) == ["node-02", "node-03"]
    for plan in (replace_plan(TWO, ours=True), replace_plan(TWO, nodes=[("node-02", 10)])):
        assert binding(await hinted.released(None, plan, binds="others")) == []


async def test_a_plan_that_binds_all_binds_ours_too(hinted: Hinted) -> None:
    now = await hinted.released(None, replace_plan(TWO, ours=True), binds="all")
    assert len(now["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]) == 2


def replace_plan(plan: PodPlan, **changed: Any) -> PodPlan:
    return msgspec.structs.replace(plan, **changed)


async def test_a_hint_that_the_api_server_refuses_costs_the_hint_and_not_the_release(hinted: Hinted) -> None:
    refused = replace_plan(TWO, nodes=[("node-02", 11)])  # a weight of 110
    now = await hinted.released(None, refused, binds="nobody")
    assert "affinity" not in now["spec"]


async def test_the_best_node_is_nominated_and_tried_alone(hinted: Hinted, hinting: Cluster) -> None:
    assert "nominatedNodeName" not in (await hinted.released(None, TWO))["status"]
    assert (await hinted.released(None, TWO, nominates=True))["status"]["nominatedNodeName"] == "node-02"
    scored = scores_run(hinting)
    for node in ("node-02", "node-03", "node-04"):
        plan = replace_plan(TWO, nodes=[(node, 1)], ours=True)
        pod = await hinted.released(None, plan, nominates=True, scheduler=FAIRLANE_SCHEDULER)
        assert pod["spec"]["nodeName"] == node
    assert scores_run(hinting) == scored


async def test_a_nominated_node_that_cannot_take_the_pod_holds_nobody_up(
    hinted: Hinted, kube: KubeClient
) -> None:
    path = "/api/v1/nodes/node-02"
    await kube.patch(path, {"spec": {"unschedulable": True}}, STRATEGIC_PATCH)
    try:
        plan = replace_plan(TWO, ours=True)
        pod = await hinted.released(None, plan, nominates=True, scheduler=FAIRLANE_SCHEDULER)
    finally:
        await kube.patch(path, {"spec": {"unschedulable": False}}, STRATEGIC_PATCH)
    assert pod["spec"]["nodeName"] == "node-03"


async def test_no_room_is_kept_for_a_pod_whose_gate_could_not_be_opened(hinted: Hinted) -> None:
    too_large_a_receipt = "f" * 300_000
    now = await hinted.released(None, TWO, nominates=True, flow=too_large_a_receipt)
    assert isinstance(hinted.told[-1], ReleaseFailed)
    assert now["spec"]["schedulingGates"]
    assert "nominatedNodeName" not in now["status"]


def scores_run(cluster: Cluster) -> float:
    """How often our kube-scheduler has scored nodes: not when there is only one that may be."""
    request = urllib.request.Request(
        f"https://127.0.0.1:{cluster.layout.ports['fairlane_scheduler']}/metrics",
        headers={"Authorization": f"Bearer {cluster.layout.file('prometheus.token').read_text().strip()}"},
    )
    with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10) as answer:
        told = answer.read().decode()
    name = 'scheduler_framework_extension_point_duration_seconds_count{extension_point="Score"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in told.splitlines() if line.startswith(name))
