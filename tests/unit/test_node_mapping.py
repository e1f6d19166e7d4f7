"""The ordered list that leads from a series to its node."""

from __future__ import annotations

import pytest

from scheduler.config import Source
from scheduler.edge.node_mapping import Joins, NodeDirectory, NodeIdentity, SeriesMapper, host_part

DIRECTORY = NodeDirectory(
    [
        NodeIdentity("worker-b", ("10.0.0.2", "fd00::2"), "host-b"),
        NodeIdentity("worker-a", ("10.0.0.1",), "host-a.example.com"),
        NodeIdentity("worker-c", ("10.0.0.3",), "host-c"),
    ]
)
A, B, C = 0, 1, 2
JOINS = Joins.read(
    [{"instance": "172.16.0.1:9100", "nodename": "HOST-B"}],
    [
        {"namespace": "mon", "pod": "exporter-x", "node": "worker-c", "pod_ip": "172.16.9.9"},
        {"namespace": "mon", "pod": "exporter-y", "node": "worker-a", "pod_ip": "10.0.0.77"},
    ],
)


def mapper(**settings: object) -> SeriesMapper:
    readings = {"rtt": {"expr": "x", "newest": "x"}}
    source = Source.model_validate({"name": "s", "readings": readings, **settings})
    return SeriesMapper(source, DIRECTORY, JOINS)


@pytest.mark.parametrize(
    ("labels", "position"),
    [
        ({"node": "worker-b"}, B),
        ({"instance": "172.16.0.1:9100"}, B),
        ({"instance": "worker-c:9100"}, C),
        ({"instance": "host-a.example.com:9100"}, A),
        ({"instance": "HOST-A:9100"}, A),
        ({"instance": "10.0.0.3:9100"}, C),
        ({"instance": "[fd00::2]:9100"}, B),
        ({"instance": "http://10.0.0.2:9100/metrics"}, B),
        ({"instance": "x", "host_ip": "10.0.0.2"}, B),
        ({"instance": "x", "namespace": "mon", "pod": "exporter-x"}, C),
        ({"instance": "172.16.9.9:9427"}, C),
        ({"node": "worker-z", "instance": "192.0.2.1:9100"}, -1),
        ({}, -1),
    ],
)
def test_each_way_leads_to_the_node(labels: dict[str, str], position: int) -> None:
    assert mapper().node(labels) == position


def test_ways_are_tried_in_order() -> None:
    labels = {"node": "worker-a", "instance": "10.0.0.2:9100", "host_ip": "10.0.0.3"}
    assert mapper().node(labels) == A
    assert mapper(mapping=["address", "label"]).node(labels) == B
    assert mapper(mapping=["host_ip", "label"]).node(labels) == C


def test_a_way_that_is_not_configured_is_not_taken() -> None:
    assert mapper(mapping=["label"]).node({"instance": "10.0.0.2:9100"}) == -1


def test_the_labels_of_a_source_have_their_own_names() -> None:
    settings = {"node_label": "goldpinger_instance", "target_labels": ["host_ip"], "mapping": ["label"]}
    labels = {"goldpinger_instance": "worker-c", "host_ip": "10.0.0.1", "instance": "10.0.0.2:80"}
    assert (mapper(**settings).node(labels), mapper(**settings).target(labels)) == (C, A)


@pytest.mark.parametrize(
    "target",
    [
        *("worker-b", "host-b", "10.0.0.2", "10.0.0.2:8893", "fd00::2", "[fd00::2]:1"),
        *("[FD00::2]:1", "fd00:0:0:0:0:0:0:2", "[fd00::0002]", "::ffff:10.0.0.2"),
        *("worker-b.", "host-b.:9115", "http://worker-b./"),
    ],
)
def test_a_target_is_found_by_any_name(target: str) -> None:
    assert mapper().target({"target": target}) == B


def test_a_target_given_by_pod_address_is_the_pods_node() -> None:
    assert mapper().target({"target": "172.16.9.9"}) == C


def test_the_next_target_label_is_tried() -> None:
    both = mapper(target_labels=["target", "ip"])
    assert both.target({"target": "name-of-dns", "ip": "10.0.0.3"}) == C
    assert both.target({"target": "name-of-dns", "ip": "192.0.2.3"}) == -1
    assert both.names_target({"ip": "192.0.2.3"})
    assert not both.names_target({"node": "worker-a"})


def test_addresses_of_nodes_and_pods_are_known_however_they_are_spelt() -> None:
    directory = NodeDirectory([NodeIdentity("x", ("FD00:0::0A",)), NodeIdentity("y", ("fd00::b",))])
    assert directory.by_address("fd00::a") == 0
    joins = Joins.read([], [{"namespace": "mon", "pod": "p", "node": "y", "pod_ip": "fd00:0:1::C"}])
    source = Source.model_validate({"name": "s", "readings": {"rtt": {"expr": "x", "newest": "x"}}})
    assert SeriesMapper(source, directory, joins).node({"instance": "[fd00:0:1::000c]:9100"}) == 1


def test_an_address_that_two_nodes_claim_leads_nowhere() -> None:
    twins = NodeDirectory([NodeIdentity("x", ("10.0.0.1",)), NodeIdentity("y", ("10.0.0.1",))])
    assert twins.by_address("10.0.0.1") == -1


def test_a_pod_that_two_nodes_claim_leads_nowhere() -> None:
    pod = {"namespace": "mon", "pod": "exporter-0", "pod_ip": ""}
    moved = Joins.read([], [pod | {"node": "worker-a"}, pod | {"node": "worker-b"}])
    source = Source.model_validate({"name": "s", "readings": {"rtt": {"expr": "x", "newest": "x"}}})
    assert SeriesMapper(source, DIRECTORY, moved).node({"namespace": "mon", "pod": "exporter-0"}) == -1


def test_a_short_name_that_two_nodes_share_leads_nowhere() -> None:
    twins = NodeDirectory([NodeIdentity("a.east.example"), NodeIdentity("a.west.example")])
    assert twins.by_host("a") == -1
    assert twins.by_host("a.west.example") == 1


def test_nodes_named_by_address_have_no_short_name() -> None:
    assert NodeDirectory([NodeIdentity("10.0.0.1")]).by_host("10") == -1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a", "a"),
        ("a:1", "a"),
        ("1.2.3.4:5", "1.2.3.4"),
        ("fd00::2", "fd00::2"),
        ("[::1]:2", "::1"),
        ("", ""),
    ],
)
def test_the_host_of_an_instance(text: str, host: str) -> None:
    assert host_part(text) == host
