"""Nodes as the queue sees them, and what pods need of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from workload_builders import a_pod

from scheduler.core import wire
from scheduler.core.queue.events import Node, Requirement
from scheduler.core.queue.matching import allowed
from scheduler.core.queue.taints import Taint, Toleration
from scheduler.core.workloads.nodes import ForeignPods, node_event
from scheduler.core.workloads.shapes import Shapes
from scheduler.core.workloads.spark import executors_of, read_properties


def ignore(*_: str) -> None:
    """Complaints are not what this is about."""


def a_node(spec: dict[str, Any] | None = None, ready: str = "True", **status: Any) -> wire.Node:
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    node = {
        "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
        "spec": spec or {},
        "status": {"conditions": conditions, "allocatable": {"cpu": "3900m", "pods": "110"}, **status},
    }
    return msgspec.convert(node, wire.Node)


def test_a_node_is_told_with_all_that_capacity_looks_at() -> None:
    taints = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}]
    node = node_event(a_node({"taints": taints})).node
    assert node == Node(
        "n1",
        {"cpu": 3.9, "pods": 110.0},
        {"disk": "ssd"},
        (Taint("gpu", "yes", "NoSchedule"), Taint("k", "", "NoExecute")),
    )


@pytest.mark.parametrize(
    ("node", "ready", "schedulable"),
    [
        (a_node(), True, True),
        (a_node(ready="False"), False, True),
        (a_node(ready="Unknown"), False, True),
        (a_node(ready=""), True, True),
        (a_node({"unschedulable": True}), True, False),
    ],
)
def test_cordoned_and_unready_nodes_take_nothing(node: wire.Node, ready: bool, schedulable: bool) -> None:
    event = node_event(node)
    assert (event.node.ready, event.node.schedulable) == (ready, schedulable)


def test_an_amount_that_cannot_be_read_counts_as_nothing() -> None:
    node = node_event(a_node(allocatable={"cpu": "many", "memory": "-1", "nvidia.com/gpu": "8"})).node
    assert node.allocatable == {"cpu": 0.0, "memory": 0.0, "nvidia.com/gpu": 8.0}


def test_foreign_pods_add_up_by_node_and_are_told_once() -> None:
    pods = ForeignPods()
    pods.put("a", "n1", (("cpu", 1.0),))
    pods.put("b", "n1", (("cpu", 0.1),))
    (event,) = pods.report()
    assert event.requests == pytest.approx({"cpu": 1.1, "pods": 2.0})
    pods.put("b", "n1", (("cpu", 0.1),))
    assert pods.report() == []
    pods.put("b", "n2", (("cpu", 0.1),))
    assert [event.node for event in pods.report()] == ["n1", "n2"]
    for _ in range(2):
        pods.drop("a")
    pods.drop("b")
    assert [event.requests for event in pods.report()] == [{}, {}]
    assert pods.uids() == []


def shape_of(**spec: Any) -> Any:
    return Shapes().of(a_pod("p", **spec).spec, ignore)


def test_required_affinity_is_kept_and_preferences_are_not() -> None:
    required = {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
        ]
    }
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    shape = shape_of(
        affinity={"nodeAffinity": {**wanted, "preferredDuringSchedulingIgnoredDuringExecution": []}}
    )
    assert shape.affinity == (
        (Requirement("disk", "In", ("ssd",)),),
        (Requirement("metadata.name", "In", ("n1",)),),
    )
    assert allowed(shape, Node("n1", {}))
    assert allowed(shape, Node("n2", {}, {"disk": "ssd"}))
    assert not allowed(shape, Node("n2", {}))


def test_a_field_that_is_not_known_matches_no_label_of_that_name() -> None:
    fields = [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["y"]}]}]
    affinity = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": fields}}
    }
    assert not allowed(shape_of(affinity=affinity), Node("n1", {}, {"spec.x": "y"}))


def test_what_the_api_server_lets_every_pod_tolerate_makes_no_other_shape() -> None:
    """Else no pod would have the shape of its template."""
    given = [
        {
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        },
        {"key": "gpu", "operator": "Exists"},
    ]
    assert shape_of(tolerations=given).tolerations == (Toleration("gpu", "Exists", "", ""),)


def test_equal_shapes_are_one_object() -> None:
    shapes = Shapes()
    one, other = (shapes.of(a_pod(name).spec, ignore) for name in "ab")
    assert one is other


def test_a_properties_file_is_read_as_java_writes_it() -> None:
    text = (
        "#comment\n!another\n  spark.a=1\nspark.b : two words \nspark.c\\=d=x\\:y\n"
        "spark.long=first,\\\n    second\nspark.empty=\nspark.uni=\\u00e4\nspark.path=C\\:\\\\dir\n"
    )
    assert read_properties(text) == {
        "spark.a": "1",
        "spark.b": "two words ",
        "spark.c=d": "x:y",
        "spark.long": "first,second",
        "spark.empty": "",
        "spark.uni": "ä",
        "spark.path": "C:\\dir",
    }


MIB = 2.0**20


@pytest.mark.parametrize(
    ("conf", "cpu", "memory_mib"),
    [
        ({}, 1.0, 1024 + 384),
        ({"spark.executor.memory": "8g", "spark.executor.cores": "4"}, 4.0, 8192 + 819),
        ({"spark.executor.memory": "8g", "spark.executor.memoryOverhead": "1g"}, 1.0, 8192 + 1024),
        ({"spark.executor.memory": "2048", "spark.executor.memoryOverhead": "100"}, 1.0, 2148),
        ({"spark.executor.memory": "8g", "spark.kubernetes.memoryOverheadFactor": "0.5"}, 1.0, 8192 + 4096),
        ({"spark.executor.memory": "2g", "spark.kubernetes.resource.type": "python"}, 1.0, 2048 + 819),
        (
            {"spark.kubernetes.resource.type": "python", "spark.executor.pyspark.memory": "512m"},
            1.0,
            1024 + 409 + 512,
        ),
        ({"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": "1g"}, 1.0, 1024 + 384 + 1024),
        ({"spark.kubernetes.executor.request.cores": "1500m", "spark.executor.cores": "3"}, 1.5, 1408),
    ],
)
def test_executors_request_what_spark_works_out(conf: dict[str, str], cpu: float, memory_mib: float) -> None:
    executors = executors_of(conf, lambda what, why: pytest.fail(f"{what}: {why}"))
    assert dict(executors.shape.requests) == {"cpu": cpu, "memory": memory_mib * MIB}
    assert executors.count == 2


@pytest.mark.parametrize(
    "key",
    [
        "spark.executor.instances",
        "spark.executor.memory",
        "spark.executor.cores",
        "spark.executor.memoryOverheadFactor",
    ],
)
def test_absurd_configuration_is_complained_of_and_counts_as_not_given(key: str) -> None:
    said: list[str] = []
    executors = executors_of({key: "ever so many"}, lambda *said_of: said.append(said_of[0]))
    assert said == [key]
    assert executors == executors_of({}, ignore)
