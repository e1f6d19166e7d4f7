"""Prometheus where no URL is given: found by Helm among the Services of a real API server, kept and told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from admission_setup import with_admin
from chart_variants import Object, helm_or_skip

from scheduler.edge.kube import KubeClient, KubeError
from testbed.chart.helm import CHART, Helm
from testbed.cluster import Cluster

RELEASE = "found-system"
INSTALL = ("install", "fairlane", str(CHART), "--namespace", RELEASE)
TRY = ("--dry-run=server", "--take-ownership", "--hide-secret")
"""Helm asks the cluster, and changes nothing; what other tests left there is no obstacle."""
OPERATED = ("monitoring", "prometheus-operated", {"operated-prometheus": "true"}, 9090, "web")
KUBE_PROMETHEUS = (
    "monitoring",
    "prometheus-k8s",
    {
        "app.kubernetes.io/name": "prometheus",
        "app.kubernetes.io/component": "prometheus",
        "app.kubernetes.io/part-of": "kube-prometheus",
    },
    9090,
    "web",
)
STACK = (
    "observability",
    "kps-kube-prometheus-stack-prometheus",
    {"app": "kube-prometheus-stack-prometheus", "release": "kps", "self-monitor": "true"},
    9090,
    9090,
)
COMMUNITY = (
    "metrics",
    "prometheus-server",
    {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"},
    80,
    9091,
)
NO_PROMETHEUS = (
    ("metrics", "prometheus-node-exporter", {"app.kubernetes.io/name": "prometheus"}, 9100, 9100),
    ("openshift-monitoring", "prometheus-operated", {"operated-prometheus": "true"}, 9090, "web"),
    ("monitoring", "prometheus-k8s", {"app": "grafana"}, 9090, "web"),
)
NAMESPACES = ("monitoring", "observability", "metrics", "openshift-monitoring", RELEASE)
Known = tuple[str, str, dict[str, str], int, Any]


class World:
    """A cluster whose Services are those of `have`, and what Helm makes of it."""

    def __init__(self, cluster: Cluster, helm: Helm) -> None:
        self._cluster, self._helm = cluster, helm
        self._made: list[str] = []

    def have(self, *services: Known) -> None:
        self.forget()
        asyncio.run(with_admin(self._cluster, lambda kube: self._make(services, kube)))

    def rendered(self, values: Object | None = None) -> tuple[list[Object], str]:
        """The objects, and what NOTES.txt says."""
        told = self._helm.run(*INSTALL, *TRY, values=values or {})
        manifest, _, notes = told.partition("MANIFEST:")[2].partition("\nNOTES:\n")
        return [one for one in yaml.safe_load_all(manifest) if one], notes

    def keep(self, objects: list[Object]) -> None:
        """What an upgrade would find of an installed release."""
        kept = _named(objects, "ConfigMap", "fairlane-prometheus-found")
        path = f"/api/v1/namespaces/{RELEASE}/configmaps"
        asyncio.run(with_admin(self._cluster, lambda kube: self._put(kube, path, kept)))

    def forget(self) -> None:
        asyncio.run(with_admin(self._cluster, self._remove))

    async def _make(self, services: tuple[Known, ...], kube: KubeClient) -> None:
        for namespace, name, labels, port, target in services:
            ports = [{"name": "http-web" if port == 9090 else "http", "port": port, "targetPort": target}]
            spec = {"selector": {"prometheus": name}, "ports": ports}
            one = {"metadata": {"name": name, "labels": labels}, "spec": spec}
            await self._put(kube, f"/api/v1/namespaces/{namespace}/services", one)

    async def _put(self, kube: KubeClient, path: str, one: Object) -> None:
        await kube.post(path, one)
        self._made.append(f"{path}/{one['metadata']['name']}")

    async def _remove(self, kube: KubeClient) -> None:
        while self._made:
            await kube.delete(self._made.pop())


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster) -> Iterator[None]:
    """Of the Prometheuses, and one for the release."""
    made: list[str] = []

    async def make(kube: KubeClient) -> None:
        for name in NAMESPACES:
            try:
                await kube.post("/api/v1/namespaces", {"metadata": {"name": name}})
                made.append(name)
            except KubeError as error:
                if error.status != 409:
                    raise

    async def remove(kube: KubeClient) -> None:
        for name in made:
            await kube.delete(f"/api/v1/namespaces/{name}")

    asyncio.run(with_admin(cluster, make))
    yield
    asyncio.run(with_admin(cluster, remove))


@pytest.fixture
def world(cluster: Cluster, namespaces: None) -> Iterator[World]:  # noqa: ARG001 - they have to be there
    """A cluster without any Prometheus yet."""
    made = World(cluster, helm_or_skip(cluster.kubeconfig))
    yield made
    made.forget()


def _named(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def _url(objects: list[Object]) -> str:
    text = _named(objects, "ConfigMap", "fairlane-settings")["data"]["fairlane.yaml"]
    return str(json.loads(text)["prometheus"]["url"])


@pytest.mark.parametrize(
    ("service", "url", "whose"),
    [
        (
            STACK,
            "http://kps-kube-prometheus-stack-prometheus.observability.svc:9090",
            "kube-prometheus-stack",
        ),
        (KUBE_PROMETHEUS, "http://prometheus-k8s.monitoring.svc:9090", "kube-prometheus"),
        (COMMUNITY, "http://prometheus-server.metrics.svc:80", "the prometheus chart"),
        (OPERATED, "http://prometheus-operated.monitoring.svc:9090", "the Prometheus operator"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_well_known_prometheus_is_found_and_told(
    service: Known, url: str, whose: str, world: World
) -> None:
    world.have(service)
    objects, notes = world.rendered()
    assert _url(objects) == url
    assert f"Telemetry is read from {url} ({whose}), which was found" in notes
    assert "set settings.prometheus.url" in notes


def test_the_network_lets_the_found_one_be_asked_and_scrape_us_and_no_other(world: World) -> None:
    world.have(COMMUNITY)
    objects, _ = world.rendered()
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "metrics"}},
        "podSelector": {"matchLabels": {"prometheus": "prometheus-server"}},
    }
    asked = _named(objects, "NetworkPolicy", "fairlane-prometheus-found")["spec"]
    assert asked["egress"] == [{"to": [peer], "ports": [{"protocol": "TCP", "port": 9091}]}]
    assert asked["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "scheduler"
    for part, port in (("recorder", 8890), ("scheduler", 8895), ("controller", 8891), ("predictor", 8896)):
        spec = _named(objects, "NetworkPolicy", f"fairlane-{part}-scraped")["spec"]
        assert spec["ingress"] == [{"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}]
    scheduler = _named(objects, "NetworkPolicy", "fairlane-scheduler")["spec"]
    anywhere = [port["port"] for rule in scheduler["egress"] if "to" not in rule for port in rule["ports"]]
    assert anywhere == [443, 6443]


@pytest.mark.parametrize(("service", "scraped"), [(COMMUNITY, "8894"), (STACK, None)], ids=["chart", "stack"])
def test_one_that_goes_by_annotations_finds_our_probe_by_them(
    service: Known, scraped: str | None, world: World
) -> None:
    world.have(service)
    objects, _ = world.rendered({"probe": {"enabled": True}})
    told = _named(objects, "Service", "fairlane-probe")["metadata"].get("annotations", {})
    assert told.get("prometheus.io/port") == scraped


def test_of_several_the_best_known_is_taken_and_the_others_are_told(world: World) -> None:
    world.have(OPERATED, COMMUNITY, STACK, *NO_PROMETHEUS)
    objects, notes = world.rendered()
    assert _url(objects) == "http://kps-kube-prometheus-stack-prometheus.observability.svc:9090"
    passed = "http://prometheus-server.metrics.svc:80, http://prometheus-operated.monitoring.svc:9090"
    assert f"Passed over: {passed}." in notes
    assert "monitoring.labels.release=kps" in notes


def test_an_operators_own_service_beside_the_one_taken_is_no_other(world: World) -> None:
    world.have(OPERATED, KUBE_PROMETHEUS)
    objects, notes = world.rendered()
    assert _url(objects) == "http://prometheus-k8s.monitoring.svc:9090"
    assert "Passed over" not in notes


def test_an_upgrade_keeps_what_was_found_though_a_better_known_one_came(world: World) -> None:
    world.have(COMMUNITY)
    world.keep(world.rendered()[0])
    asyncio.run(with_admin(world._cluster, lambda kube: world._make((STACK,), kube)))
    objects, notes = world.rendered()
    assert _url(objects) == "http://prometheus-server.metrics.svc:80"
    assert "Passed over: http://kps-kube-prometheus-stack-prometheus.observability.svc:9090." in notes


def test_one_that_is_gone_is_replaced_and_told(world: World) -> None:
    world.have(COMMUNITY)
    objects, _ = world.rendered()
    world.have(STACK)
    world.keep(objects)
    objects, notes = world.rendered()
    assert _url(objects) == "http://kps-kube-prometheus-stack-prometheus.observability.svc:9090"
    assert "The one found before, http://prometheus-server.metrics.svc:80, is not there any more." in notes


def test_one_that_is_away_is_not_forgotten_where_there_is_no_other(world: World) -> None:
    world.have(COMMUNITY)
    objects, _ = world.rendered()
    world.have()
    world.keep(objects)
    again, notes = world.rendered()
    assert _url(again) == _url(objects) == "http://prometheus-server.metrics.svc:80"
    assert "is not there now" in notes
    _named(again, "ConfigMap", "fairlane-prometheus-found")


def test_where_there_is_none_it_is_said_what_to_do(world: World) -> None:
    world.have(*NO_PROMETHEUS)
    objects, notes = world.rendered()
    assert _url(objects) == ""
    assert "No Prometheus was found in the cluster" in notes
    assert "bundledPrometheus.enabled=true for a small one of our own" in notes
    names = {one["metadata"]["name"] for one in objects}
    assert not {name for name in names if "found" in name or "scraped" in name}


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"settings": {"prometheus": {"url": "http://mine:9090"}}}, "http://mine:9090"),
        ({"bundledPrometheus": {"enabled": True}}, "http://fairlane-prometheus:9090"),
        ({"prometheusDetection": {"enabled": False}}, ""),
    ],
)
def test_what_the_administrator_says_goes_before_what_is_there(
    values: Object, url: str, world: World
) -> None:
    world.have(STACK)
    objects, notes = world.rendered(values)
    assert _url(objects) == url
    assert "was found" not in notes
    assert "fairlane-prometheus-found" not in {one["metadata"]["name"] for one in objects}


def test_without_a_cluster_to_ask_nothing_is_found(world: World) -> None:
    world.have(STACK)
    assert _url(helm_or_skip().objects({})) == ""
