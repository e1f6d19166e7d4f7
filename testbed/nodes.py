"""The Node objects of a testbed: workers in sites, and one data node per site."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from testbed.layout import Options

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
NIC_CLASS = "fairlane.dev/nic-class"
DATA_NODE = "fairlane.dev/data"

NIC_CLASSES = ("3g", "5g", "10g")
"""Rates in Gbit/s that were measured between real pods (testbed/data)."""
NIC_SHARES = (0.3, 0.4, 0.3)

NODE_INFO_FIELDS = (
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
)
NODE_INFO = {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.37.0-simulated"}

Node = dict[str, Any]


def site_name(number: int) -> str:
    """`site-a` for 0, and so on."""
    return f"site-{chr(ord('a') + number)}"


def nodes(options: Options) -> list[Node]:
    """All nodes: the workers, site by site, then the data nodes.

    A data node (`store-site-a`, tainted so that no pod lands there) is where
    the site's input lies: jobs read from it over the network.
    """
    draw = random.Random(options.seed)
    workers = [_worker(options, name, number, draw) for number, name in enumerate(worker_names(options))]
    stores = [_store(options, name, number) for number, name in enumerate(data_node_names(options))]
    return workers + stores


def worker_names(options: Options) -> list[str]:
    """Names of the nodes that pods can run on."""
    width = max(2, len(str(options.nodes)))
    return [f"node-{number + 1:0{width}d}" for number in range(options.nodes)]


def data_node_names(options: Options) -> list[str]:
    """Names of the data nodes, one per site."""
    return [f"store-{site_name(number)}" for number in range(options.sites)]


def _worker(options: Options, name: str, number: int, draw: random.Random) -> Node:
    site = site_name(number * options.sites // options.nodes)
    nic = draw.choices(NIC_CLASSES, NIC_SHARES)[0]
    return _node(options, name, site, nic, _address(number))


def _store(options: Options, name: str, number: int) -> Node:
    node = _node(options, name, site_name(number), NIC_CLASSES[-1], _address(options.nodes + number))
    node["metadata"]["labels"][DATA_NODE] = "true"
    node["spec"]["taints"] = [{"key": DATA_NODE, "value": "true", "effect": "NoSchedule"}]
    return node


def _node(options: Options, name: str, site: str, nic: str, address: str) -> Node:
    """A node that is ready from the start; from then on its lease tells (KWOK renews it)."""
    capacity = {
        "cpu": str(options.node_cpu),
        "memory": options.node_memory,
        "pods": str(options.node_pods),
        "ephemeral-storage": "1Ti",
    }
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": _labels(name, site, nic)},
        "spec": {},
        "status": {
            "phase": "Running",
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": addresses,
            "conditions": _conditions(),
            "nodeInfo": {field: NODE_INFO.get(field, "simulated") for field in NODE_INFO_FIELDS},
        },
    }


def _conditions() -> list[dict[str, str]]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    bad = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
    return [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated", **times},
        *({"type": one, "status": "False", "reason": "None", "message": "simulated", **times} for one in bad),
    ]


def _labels(name: str, site: str, nic: str) -> dict[str, str]:
    platform = {"os": "linux", "arch": "amd64"}
    return {
        HOSTNAME: name,
        ZONE: site,
        NIC_CLASS: nic,
        **{f"kubernetes.io/{key}": value for key, value in platform.items()},
        **{f"beta.kubernetes.io/{key}": value for key, value in platform.items()},  # as kubelets set both
        "node-role.kubernetes.io/worker": "",
        "type": "kwok",
    }


def _address(number: int) -> str:
    """An address per node, outside the pods' range: 10.77.0.1 and up."""
    high, low = divmod(number, 250)
    return f"10.77.{high}.{low + 1}"
