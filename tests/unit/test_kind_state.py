"""What `status` tells of a kind cluster, from the API server's own words."""

from __future__ import annotations

from typing import Any

from testbed.kind.state import part_of


def thing(kind: str, status: dict[str, Any], replicas: int = 1) -> dict[str, Any]:
    meta = {"name": "probe", "namespace": "fairlane"}
    return {"kind": kind, "metadata": meta, "status": status, "spec": {"replicas": replicas}}


def test_a_node_is_complete_only_while_it_is_ready() -> None:
    ready = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]
    lost = [{"type": "Ready", "status": "Unknown"}]
    assert part_of(thing("Node", {"conditions": ready})).complete
    assert not part_of(thing("Node", {"conditions": lost})).complete


def test_a_deployment_without_any_ready_pod_does_not_say_so_and_is_incomplete() -> None:
    part = part_of(thing("Deployment", {"replicas": 1}))
    assert (part.name, part.ready, part.complete) == ("fairlane/probe", 0, False)


def test_a_daemon_set_wants_a_pod_on_every_node_it_was_given() -> None:
    assert not part_of(thing("DaemonSet", {"numberReady": 3, "desiredNumberScheduled": 4})).complete
    assert part_of(thing("DaemonSet", {"numberReady": 4, "desiredNumberScheduled": 4})).complete
