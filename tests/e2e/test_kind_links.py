"""Links of a real kind cluster: what is asked for is what pods measure, and it can be taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from testbed.kind.cluster import KindCluster
from testbed.kind.links import Link, Links

FETCH = """
import json, sys, time
from urllib.request import urlopen
url, size = sys.argv[1], int(sys.argv[2])
begun = time.monotonic()
count = len(urlopen(f"http://{url}/bytes/{size}", timeout=60).read())
print(json.dumps({"bytes": count, "seconds": time.monotonic() - begun}))
"""
FREE = Link(1000, 1000)


@pytest.fixture(scope="module")
def links(cluster: KindCluster) -> Iterator[Links]:
    links = Links(cluster)
    links.install()
    yield links
    links.remove()


def seconds(cluster: KindCluster, node: str, size: int, source: str = "") -> float:
    """Time to fetch `size` bytes from the control plane's data server, in a pod on `node`."""
    reader = _server(cluster, node, "{.metadata.name}")
    source = source or _server(cluster, cluster.control_plane, "{.status.podIP}") + ":8080"
    words = ["-n", "data", "exec", reader, "--", "python3", "-c", FETCH, source, str(size)]
    said = json.loads(cluster.kubectl(*words))
    assert said["bytes"] == size
    return float(said["seconds"])


def _server(cluster: KindCluster, node: str, field: str) -> str:
    where = ["--field-selector", f"spec.nodeName={node}", "-o", f"jsonpath={{.items[0]{field[1:-1]}}}"]
    return cluster.kubectl("-n", "data", "get", "pods", "-l", "app=data-server", *where).strip()


def test_a_rate_is_what_a_transfer_gets(cluster: KindCluster, links: Links) -> None:
    slow, fast = cluster.workers
    links.apply({slow: Link(20, 20), fast: Link(80, 80)})
    assert seconds(cluster, slow, 10_000_000) == pytest.approx(4.0, rel=0.25)
    assert seconds(cluster, fast, 10_000_000) == pytest.approx(1.0, rel=0.5)


def test_delay_lengthens_a_round_trip(cluster: KindCluster, links: Links) -> None:
    far, near = cluster.workers
    links.apply({far: Link(1000, 1000, delay_ms=100), near: FREE})
    # one round trip to connect, one for the answer
    assert 0.2 <= min(seconds(cluster, far, 1) for _ in range(3)) < 0.4
    assert min(seconds(cluster, near, 1) for _ in range(3)) < 0.1


def test_services_and_names_work_across_delayed_links(cluster: KindCluster, links: Links) -> None:
    links.apply({node: Link(100, 100, delay_ms=20) for node in cluster.workers})
    for node in cluster.workers:
        assert seconds(cluster, node, 1000, "traffic-source.data.svc.cluster.local:8080") < 5.0


def test_competing_readers_take_their_share(cluster: KindCluster, links: Links) -> None:
    busy, idle = cluster.workers
    links.apply({busy: Link(40, 40, readers=2), idle: Link(40, 40)})
    time.sleep(2.0)
    assert seconds(cluster, busy, 10_000_000) > 1.5 * seconds(cluster, idle, 10_000_000)


def test_a_state_can_be_put_back(cluster: KindCluster, links: Links) -> None:
    first, second = cluster.workers
    held = {first: Link(30, 30), second: Link(60, 60)}
    times = []
    for state in (held, {first: FREE, second: FREE}, held):
        links.apply(state)
        times.append(seconds(cluster, first, 8_000_000))
    assert times[0] == pytest.approx(times[2], rel=0.2)
    assert times[1] < 0.5 * times[0]
