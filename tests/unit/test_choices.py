"""Whether kube-scheduler had a choice, and should have asked: what is no fault must not look like one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from placing_builders import JOB, a_pod

from scheduler.core.choices import JUST_ASKED_S, Choices
from scheduler.core.cluster import Cluster
from scheduler.core.wire import Node, Pod

NOW_S = 10_000.0
ROOM = {"cpu": "8", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "4"}


def node(name: str, spec: Any = None, **allocatable: str) -> Node:
    status = {"allocatable": ROOM | allocatable}
    labels = {"kubernetes.io/hostname": name}
    return msgspec.convert(
        {"metadata": {"name": name, "labels": labels}, "spec": spec or {}, "status": status}, Node
    )


def pod(requests: dict[str, str] | None = None, **spec: Any) -> Pod:
    main = {"name": "main", "resources": {"requests": requests or {"cpu": "1"}}}
    given = {"schedulerName": "fairlane", "nodeName": "a", "containers": [main], **spec}
    return msgspec.convert({"metadata": {"name": "p", "uid": "p"}, "spec": given}, Pod)


def seen(one: Pod, *nodes: Node, residents: int = 0, of: Any = JOB, asked_s: float = 0.0) -> int:
    """Choices counted when a pod is bound to node a; so many pods run on b already."""
    cluster = Cluster()
    choices = Choices(cluster)
    choices.set_nodes(nodes or (node("a"), node("b")))
    cluster.set_nodes(nodes or (node("a"), node("b")))
    for number in range(residents):
        cluster.set_pod(a_pod(f"r{number}", of, node="b"))
    choices.bound(one, asked_s, NOW_S)
    assert choices.last_s == (NOW_S if choices.count else 0.0)
    return choices.count


def test_a_pod_that_another_node_could_have_had_is_a_choice() -> None:
    assert seen(pod()) == 1
    assert seen(pod({"cpu": "8", "nvidia.com/gpu": "4"})) == 1


def test_on_a_single_node_there_is_none() -> None:
    assert seen(pod(), node("a")) == 0


@pytest.mark.parametrize(
    "other",
    [
        node("b", {"unschedulable": True}),
        node("b", {"taints": [{"key": "infra", "effect": "NoSchedule"}]}),
        node("b", cpu="500m"),
        node("b", pods="0"),
    ],
    ids=["cordoned", "tainted", "too small", "as many pods as it may have"],
)
def test_a_node_that_cannot_have_it_is_none(other: Node) -> None:
    assert seen(pod(), node("a"), other) == 0


@pytest.mark.parametrize("name", ["a", "b"])
def test_where_a_pod_may_go_is_as_it_says(name: str) -> None:
    assert seen(pod(nodeSelector={"kubernetes.io/hostname": name})) == (name == "b")


def test_a_tolerated_taint_keeps_nobody_away() -> None:
    tainted = node("b", {"taints": [{"key": "infra", "effect": "NoSchedule"}]})
    assert seen(pod(tolerations=[{"operator": "Exists"}]), node("a"), tainted) == 1


def test_a_full_node_is_none_by_whichever_resource_it_is_full() -> None:
    """Whole-node jobs on a full cluster: there is always just the node that became free."""
    assert seen(pod(), residents=4, of=replace(JOB, cpu=2.0)) == 0
    assert seen(pod({"memory": "1Gi"}), residents=4, of=replace(JOB, cpu=0.0, memory_bytes=4.0 * 2**30)) == 0
    gpu = pod({"nvidia.com/gpu": "1"})
    assert seen(gpu, residents=1, of=replace(JOB, cpu=0.0, gpu=4.0)) == 0
    assert seen(gpu, residents=1, of=replace(JOB, cpu=0.0, gpu=3.0)) == 1


def test_of_resources_that_are_not_counted_nothing_is_said() -> None:
    room = {"example.com/licence": "1"}
    assert seen(pod({"example.com/licence": "1"}), node("a", **room), node("b", **room)) == 0


def test_who_asked_just_now_does_ask() -> None:
    assert seen(pod(), asked_s=NOW_S - JUST_ASKED_S) == 0
    assert seen(pod(), asked_s=NOW_S - JUST_ASKED_S - 1) == 1


def test_a_node_that_went_is_none() -> None:
    choices = Choices(Cluster())
    choices.set_nodes([node("a"), node("b")])
    choices.remove_node("b")
    choices.bound(pod(), 0.0, NOW_S)
    assert choices.count == 0
