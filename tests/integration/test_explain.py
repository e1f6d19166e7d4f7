"""`fairlane explain` on pods that were really placed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from placing import publish, registry

from scheduler.core.ranking import NEAR_TIE
from scheduler.edge.kube import KubeClient
from testbed.cluster import Cluster
from testbed.demo.jobs import CLASSES, DemoJob, manifest

PODS = "/api/v1/namespaces/default/pods"
TRIES = 60
"""Whether the best has near ties is up to the telemetry of the moment."""
Eventually = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def placing(cluster: Cluster, trained: Path) -> Iterator[Cluster]:
    """The shared testbed with a model that was trained, and all of ours running."""
    publish(trained, registry(cluster))
    for name in ("recorder", "predictor", "extender"):
        cluster.process(name).restart()
    yield cluster
    for name in ("extender", "predictor", "recorder"):
        cluster.process(name).stop()


def explain(cluster: Cluster, pod: str, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "scheduler.cli.main", "explain", f"pod/{pod}"]
    argv += ["--config", str(cluster.settings_file), *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def told(cluster: Cluster, name: str, *more: str) -> dict[str, Any]:
    ended = explain(cluster, f"default/{name}", "-o", "json", *more)
    return json.loads(ended.stdout) if ended.returncode == 0 else {}


async def placed_by_model(cluster: Cluster, kube: KubeClient, eventually: Eventually) -> str:
    """Name of a pod that the model placed and that has ended."""
    spec = replace(
        CLASSES[0].typical, input_bytes=2e7, cpu_s=0.2, rounds=2, data_node=cluster.data_node_names[0]
    )
    names: list[str] = []

    async def done() -> bool:
        if names and (seen := told(cluster, names[-1])) and seen["result"].startswith("It ran for"):
            if (seen["decision"] or {}).get("model_version"):
                return True
            # decided before the first table of the model was there, or the decision is still on its way
            names.clear()
        if not names:
            names.append(f"explained-{uuid.uuid4().hex[:8]}")
            job: Any = manifest(DemoJob(CLASSES[0], spec), names[-1], "default", "fairlane", truth=False)
            await kube.post(PODS, job)
        return False

    await eventually(done, within_s=120.0)
    return names[-1]


@pytest.fixture(scope="module")
def already() -> list[str]:
    """The pod of `name`, once there is one: the tests only read what is recorded of it."""
    return []


@pytest.fixture
async def name(placing: Cluster, kube: KubeClient, eventually: Eventually, already: list[str]) -> str:
    """Name of a pod that the model placed and that has ended."""
    if not already:
        already.append(await placed_by_model(placing, kube, eventually))
    return already[0]


def test_a_placement_is_explained_from_the_sentence_to_the_readings(placing: Cluster, name: str) -> None:
    text = explain(placing, f"default/{name}").stdout
    assert text.startswith("The pod was placed on node-0")
    assert "It ran for" in text
    assert "Readings of node-0" in text
    assert "chosen" in text

    seen = told(placing, name)
    chosen = next(one for one in seen["candidates"] if one["node"] == seen["chosen_node"])
    assert chosen["score"] == 10
    assert chosen["p10_s"] < chosen["p50_s"] < chosen["p90_s"]
    assert seen["mattered"]
    assert seen["decision"]["model_version"] in text
    assert len(seen["candidates"]) == 6

    alone = told(placing, name, "--limit", "1")
    assert [one["node"] for one in alone["candidates"]] == [seen["chosen_node"]]


async def decided(cluster: Cluster, kube: KubeClient, eventually: Eventually, **spec: Any) -> dict[str, Any]:
    """The receipt of a pod with this in its specification, once it is bound and its decision recorded."""
    pod = f"explained-{uuid.uuid4().hex[:8]}"
    made: Any = manifest(DemoJob(CLASSES[0], CLASSES[0].typical), pod, "default", "fairlane", truth=False)
    await kube.post(PODS, {**made, "spec": {**made["spec"], **spec}})

    async def recorded() -> bool:
        seen = told(cluster, pod)
        return bool(seen and seen["decision"] and seen["chosen_node"])

    await eventually(recorded)
    return told(cluster, pod)


async def test_a_pod_that_fits_one_node_only_is_explained_too(
    placing: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    only = {"kubernetes.io/hostname": placing.worker_names[2]}
    for _ in range(TRIES):
        seen = await decided(placing, kube, eventually, nodeSelector=only)
        if (
            seen["decision"]["reason"] != "no_telemetry"
        ):  # right after the start this node may not be measured
            break
        await asyncio.sleep(1.0)
    assert seen["chosen_node"] == placing.worker_names[2]
    assert seen["decision"]["candidates"] == 1
    assert "the only node that kube-scheduler offered; its time was predicted at" in seen["sentence"]


def near_ties(seen: dict[str, Any]) -> set[str]:
    """The nodes of a receipt that count as the best and its near ties."""
    return {one["node"] for one in seen["candidates"] if (one["score"] or 0) >= NEAR_TIE}


async def test_of_near_ties_a_pod_gets_the_one_that_it_prefers(
    placing: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    for _ in range(TRIES):
        seen = await decided(placing, kube, eventually)
        wanted = max(near_ties(seen) - {seen["decision"]["recommended"]}, default="")
        if not wanted:
            continue
        terms = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [wanted]}]
        likes = [{"weight": 100, "preference": {"matchExpressions": terms}}]
        affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": likes}}
        seen = await decided(placing, kube, eventually, affinity=affinity)
        near = near_ties(seen)
        assert seen["chosen_node"] in near
        assert seen["chosen_node"] == wanted or wanted not in near
        if wanted in near and wanted != seen["decision"]["recommended"]:
            return
    pytest.fail("no node was a near tie twice and not the best")


async def test_of_near_ties_a_pod_gets_one_that_has_no_objection(
    placing: Cluster, kube: KubeClient, eventually: Eventually
) -> None:
    taint = {"key": "spare", "effect": "PreferNoSchedule"}
    for _ in range(TRIES):
        best = (await decided(placing, kube, eventually))["decision"]["recommended"]
        await kube.patch(f"/api/v1/nodes/{best}", {"spec": {"taints": [taint]}})
        try:
            seen = await decided(placing, kube, eventually)
        finally:
            await kube.patch(f"/api/v1/nodes/{best}", {"spec": {"taints": None}})
        if seen["decision"]["recommended"] == best and len(near_ties(seen)) > 1:
            assert seen["chosen_node"] in near_ties(seen) - {best}
            return
    pytest.fail("no tainted node was the best of several near ties")


def test_without_a_predictor_it_says_what_it_cannot_tell(placing: Cluster, name: str) -> None:
    seen = told(placing, name, "--predictor", "127.0.0.1:1")
    assert seen["mattered"] == []
    assert "which readings mattered is not known: predictor 127.0.0.1:1" in seen["mattered_note"]


def test_the_store_tells_the_same_as_the_recorder(placing: Cluster, name: str) -> None:
    url = yaml.safe_load(placing.settings_file.read_text())["recorder"]["store_url"]
    assert told(placing, name, "--store", url) == told(placing, name)


def test_what_cannot_be_explained_ends_with_a_reason(placing: Cluster) -> None:
    unknown = explain(placing, "default/never-was")
    assert (unknown.returncode, "nothing is recorded of pod" in unknown.stderr) == (1, True)
    misspelt = explain(placing, "never-was")
    assert (misspelt.returncode, "pod/NAMESPACE/NAME" in misspelt.stderr) == (2, True)
    away = explain(placing, "default/x", "--recorder", "http://127.0.0.1:1")
    assert (away.returncode, "cannot be reached" in away.stderr) == (1, True)
    nowhere = explain(placing, "default/x", "--store", "sqlite:////nowhere/x.db")
    assert (nowhere.returncode, "there is no experience store" in nowhere.stderr) == (1, True)
