"""From the labels of a Prometheus series to a node of the cluster. Pure.

Exporters name nodes in many ways. The ways are tried in the order that the
source gives (docs/telemetry.md), by default:

1. `label`     the node label of the source is a node's name,
2. `nodename`  node_uname_info of the same instance names the node,
3. `host`      the host part of `instance` is a node's name or hostname,
4. `address`   the host part of `instance` is a node's InternalIP,
5. `host_ip`   the label `host_ip`, or kube_pod_info of the series' pod or pod
               address, leads to the node.

A name or address that two nodes claim leads nowhere: a reading of the wrong
node is worse than an unknown one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from scheduler.config import Source

Labels = Mapping[str, str]
Key = TypeVar("Key")
Value = TypeVar("Value")
UNKNOWN = -1
"""The position of a node that the cluster does not have."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What the API server says a node is called: its name, InternalIPs and hostname label."""

    name: str
    addresses: tuple[str, ...] = ()
    hostname: str = ""


class NodeDirectory:
    """Positions of the cluster's nodes, by name, hostname and InternalIP."""

    def __init__(self, nodes: Iterable[NodeIdentity]) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.name))
        self.names = tuple(node.name for node in self.nodes)
        self._by_name = {node.name: i for i, node in enumerate(self.nodes)}
        self._by_address = _unique(
            (one_spelling(a), i) for i, node in enumerate(self.nodes) for a in node.addresses
        )
        self._by_hostname = _unique((h, i) for i, node in enumerate(self.nodes) for h in _hostnames(node))

    def by_name(self, text: str) -> int:
        """Position of the node called `text`; -1 if there is none."""
        return self._by_name.get(text, UNKNOWN)

    def by_host(self, text: str) -> int:
        """Position of the node whose name or hostname is `text`, in any case; -1 if there is none."""
        position = self._by_name.get(text.lower(), UNKNOWN)
        return position if position >= 0 else self._by_hostname.get(text.lower(), UNKNOWN)

    def by_address(self, text: str) -> int:
        """Position of the node with the InternalIP `text`; -1 if there is none."""
        return self._by_address.get(one_spelling(text), UNKNOWN)


@dataclass(frozen=True)
class Joins:
    """What other series say about instances and pods."""

    nodename_of_instance: Mapping[str, str] = field(default_factory=dict)
    """From node_uname_info."""
    node_of_pod: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """From kube_pod_info: (namespace, pod) -> node."""
    node_of_pod_address: Mapping[str, str] = field(default_factory=dict)
    """From kube_pod_info: pod IP -> node."""

    @classmethod
    def read(cls, uname: Iterable[Labels], pods: Sequence[Labels]) -> Joins:
        """From the labels of the series of node_uname_info and kube_pod_info.

        A pod with host network has the node's own address, so all such pods agree.
        """
        return cls(
            _unique((s.get("instance", ""), s.get("nodename", "")) for s in uname),
            _unique(((s.get("namespace", ""), s.get("pod", "")), s.get("node", "")) for s in pods),
            _unique((one_spelling(s.get("pod_ip", "")), s.get("node", "")) for s in pods),
        )


class SeriesMapper:
    """Finds the node, or the two nodes of a pair, that a series of one source is about."""

    def __init__(self, source: Source, directory: NodeDirectory, joins: Joins) -> None:
        self._source = source
        self._directory = directory
        self._joins = joins
        steps: dict[str, Callable[[Labels], int]] = {
            "label": self._by_label,
            "nodename": self._by_nodename,
            "host": lambda labels: directory.by_host(self._instance_host(labels)),
            "address": lambda labels: directory.by_address(self._instance_host(labels)),
            "host_ip": self._by_pod,
        }
        self._steps = [steps[name] for name in source.mapping]
        self._known: dict[tuple[str | None, ...], int] = {}
        self._relevant = (source.node_label, source.instance_label, "instance", "host_ip", "namespace", "pod")

    def node(self, labels: Labels) -> int:
        """Position of the node (of a pair: its source) that the series is about; -1 if unknown."""
        key = tuple(map(labels.get, self._relevant))
        position = self._known.get(key)
        if position is None:
            position = self._known[key] = _first(self._steps, labels)
        return position

    def target(self, labels: Labels) -> int:
        """Position of the far end of a pair; -1 if no target label names a node."""
        key = tuple(map(labels.get, self._source.target_labels))
        position = self._known.get(("target", *key))
        if position is None:
            position = self._known[("target", *key)] = _first([self._by_anything], *filter(None, key))
        return position

    def names_target(self, labels: Labels) -> bool:
        """Whether the series says anything about a far end, known or not."""
        return any(labels.get(label) for label in self._source.target_labels)

    def _by_label(self, labels: Labels) -> int:
        return self._directory.by_name(labels.get(self._source.node_label, ""))

    def _by_nodename(self, labels: Labels) -> int:
        return self._directory.by_host(self._joins.nodename_of_instance.get(labels.get("instance", ""), ""))

    def _by_pod(self, labels: Labels) -> int:
        position = self._directory.by_address(labels.get("host_ip", ""))
        if position >= 0:
            return position
        pod = (labels.get("namespace", ""), labels.get("pod", ""))
        node = self._joins.node_of_pod.get(pod, "")
        return self._directory.by_name(node or self._pod_node(self._instance_host(labels)))

    def _by_anything(self, text: str) -> int:
        host = host_part(text)
        for look_up in (self._directory.by_host, self._directory.by_address):
            if (position := look_up(host)) >= 0:
                return position
        return self._directory.by_name(self._pod_node(host))

    def _pod_node(self, address: str) -> str:
        return self._joins.node_of_pod_address.get(one_spelling(address), "")

    def _instance_host(self, labels: Labels) -> str:
        return host_part(labels.get(self._source.instance_label, ""))


def host_part(text: str) -> str:
    """The host of `host`, `host:port`, `[v6]:port`, `v6` or a URL."""
    text = text.split("://", 1)[-1].split("/", 1)[0]
    if text.startswith("["):
        return text[1:].split("]", 1)[0]
    host, colon, port = text.rpartition(":")
    host = host if colon and port.isdigit() and ":" not in host else text
    return host.removesuffix(".")  # a name that resolvers are to complete no further


@lru_cache(maxsize=65_536)
def one_spelling(address: str) -> str:
    """The address as the API server writes it: people write IPv6 in many ways. Other text as it is."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address.lower())
    except ValueError:
        return address
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)


def _first(steps: Sequence[Callable[..., int]], *subjects: object) -> int:
    for subject in subjects:
        for step in steps:
            if (position := step(subject)) >= 0:
                return position
    return UNKNOWN


def _hostnames(node: NodeIdentity) -> set[str]:
    names = {name.lower() for name in (node.name, node.hostname) if name}
    return names | {name.split(".", 1)[0] for name in names if not name[0].isdigit()}


def _unique(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, Value]:
    """Only the keys that all pairs agree on, the empty key never."""
    values: dict[Key, set[Value]] = {}
    for key, value in pairs:
        if key:
            values.setdefault(key, set()).add(value)
    return {key: next(iter(those)) for key, those in values.items() if len(those) == 1}
