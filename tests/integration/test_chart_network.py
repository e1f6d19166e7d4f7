"""The chart's NetworkPolicies, whole: nothing goes in or out of a pod of ours but what is written here."""

from __future__ import annotations

import json
import re

import pytest
from chart_variants import Object, helm_or_skip, objects_of

from testbed.chart.helm import Helm

OURS = {"app.kubernetes.io/name": "fairlane", "app.kubernetes.io/instance": "fairlane"}
COMPONENT = "app.kubernetes.io/component"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
DENY = "(in) (out)"
NAMES = "(out) out anywhere 53/UDP 53"
RECORDER = "in controller scheduler test train 8890, in clients 8890"
API = "out anywhere 443 6443"
EVERYTHING = {
    "deny": DENY,
    "names": NAMES,
    "scheduler": "(in) (out) in clients 10259 8895, out recorder 8890, out predictor 8889, "
    f"out controller 8891, {API} 9090",
    "controller": "(in) (out) in controller scheduler 8891, in clients 8891, out recorder 8890, "
    f"out controller 8891, {API}",
    "recorder": f"(in) (out) {RECORDER}, {API} 5432",
    "predictor": "(in) (out) in scheduler 8889, in clients 8896",
    "train": "(in) (out) out recorder 8890",
    "probe": "(in) (out) in probe 8893, in clients 8894, out probe 8893",
    "test": f"(in) (out) out recorder 8890, {API}",
}
HINTS = {
    **EVERYTHING,
    "scheduler": f"(in) (out) in clients 10259, {API}",
    "controller": "(in) (out) in controller 8891, in clients 8891 8895, out recorder 8890, "
    f"out controller 8891, out predictor 8889, {API} 9090",
    "recorder": f"(in) (out) in controller test train 8890, in clients 8890, {API} 5432",
    "predictor": "(in) (out) in controller 8889, in clients 8896",
}
QUEUE_ONLY = {
    "deny": DENY,
    "names": NAMES,
    "controller": "(in) (out) in controller 8891, in clients 8891, out recorder 8890, "
    f"out controller 8891, {API}",
    "recorder": f"(in) (out) in controller test 8890, in clients 8890, {API}",
    "test": EVERYTHING["test"],
}
PLACING_ONLY = {
    "deny": DENY,
    "names": NAMES,
    "scheduler": f"(in) (out) in clients 10259 8895, out recorder 8890, out predictor 8889, {API} 9090",
    "recorder": f"(in) (out) in scheduler test train 8890, in clients 8890, {API}",
    "predictor": EVERYTHING["predictor"],
    "train": EVERYTHING["train"],
    "test": EVERYTHING["test"],
}
WEBHOOK = {"admission": f"(in) (out) in anywhere 9443, {API}"}
NO_VOLUME = {
    "train": "(in) (out) out recorder 8890, out anywhere 443",
    "predictor": "(in) (out) in scheduler 8889, in clients 8896, out anywhere 443",
}


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("everything", EVERYTHING),
        ("placement at release", HINTS),
        ("queue only", QUEUE_ONLY),
        ("placing only", PLACING_ONLY),
    ],
)
def test_the_network_lets_through_what_is_written_here_and_nothing_else(
    variant: str, expected: dict[str, str]
) -> None:
    assert _policies(objects_of(variant)) == expected


@pytest.mark.parametrize(("variant", "added"), [("webhook", WEBHOOK), ("no volume", NO_VOLUME)])
def test_what_an_option_needs_is_let_through_too(variant: str, added: dict[str, str]) -> None:
    assert added.items() <= _policies(objects_of(variant)).items()


@pytest.mark.parametrize("variant", ["everything", "placement at release", "queue only", "placing only"])
def test_who_may_ask_is_let_in_and_who_is_let_in_may_ask(variant: str) -> None:
    said = _policies(objects_of(variant))
    asks, answers = set(), set()
    for own, rules in said.items():
        for direction, told, port in re.findall(r"\b(in|out) ([a-z ]+) (\d+)", rules):
            peers = told.split()
            known = {peer for peer in peers if peer not in ("clients", "anywhere")}
            asks |= {(own, peer, port) for peer in known if direction == "out"}
            answers |= {(peer, own, port) for peer in known if direction == "in"}
    assert len(asks) >= 3
    assert asks == answers


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("http://p.m:8080", "443 6443 9090 8080"),
        ("https://p.m/prometheus", "443 6443 9090"),
        ("http://p.m", "443 6443 9090 80"),
        ("http://user@[fd00::1]:9091/a:77", "443 6443 9090 9091"),
    ],
)
@pytest.mark.parametrize(("placement", "who"), [("extender", "scheduler"), ("hint", "controller")])
def test_the_prometheus_of_the_settings_can_be_reached(
    url: str, ports: str, placement: str, who: str, helm: Helm
) -> None:
    settings = {"prometheus": {"url": url}, "controller": {"placement": placement}}
    said = _policies(helm.objects({"settings": settings}))
    assert said[who].endswith(f"out anywhere {ports}")
    assert [name for name, rules in said.items() if "9090" in rules] == [who]


def test_so_can_a_proxy_on_the_way_there(helm: Helm) -> None:
    given = {"url": "http://p:9090", "proxy": "http://proxy:3128"}
    said = _policies(helm.objects({"settings": {"prometheus": given}}))
    assert said["scheduler"].endswith("out anywhere 443 6443 9090 3128")


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Helm; the test is skipped where there is none."""
    return helm_or_skip()


def _policies(objects: list[Object]) -> dict[str, str]:
    """All that the policies say, in words; whatever has no word here stays as it is, and equals nothing."""
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    return {one["metadata"]["name"].removeprefix("fairlane-"): _said(one) for one in policies}


def _said(policy: Object) -> str:
    spec, name = dict(policy["spec"]), policy["metadata"]["name"].removeprefix("fairlane-")
    wanted = OURS if name in ("deny", "names") else {**OURS, COMPONENT: name}
    assert spec.pop("podSelector") == {"matchLabels": wanted}
    types = " ".join({"Ingress": "(in)", "Egress": "(out)"}[one] for one in spec.pop("policyTypes"))
    rules = [
        f"{word} {_peers(rule, peers)} {_ports(rule)}"
        for word, direction, peers in (("in", "ingress", "from"), ("out", "egress", "to"))
        for rule in spec.pop(direction, ())
    ]
    assert spec == {}
    return " ".join(filter(None, (types, ", ".join(rules))))


def _peers(rule: Object, key: str) -> str:
    assert rule.keys() <= {key, "ports"}
    return " ".join(sorted(_peer(one) for one in rule[key])) if key in rule else "anywhere"


def _peer(peer: Object) -> str:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    if peer == {"podSelector": {"matchLabels": {**OURS, COMPONENT: labels.get(COMPONENT)}}}:
        return str(labels[COMPONENT])
    return "clients" if peer == MONITORING else json.dumps(peer)


def _ports(rule: Object) -> str:
    assert all(port.keys() == {"protocol", "port"} for port in rule["ports"])
    kinds = {"TCP": "", "UDP": "/UDP"}
    return " ".join(f"{port['port']}{kinds[port['protocol']]}" for port in rule["ports"])
