"""One kind cluster for all tests of this folder. It needs root (or a running Docker) and some minutes.

The host must be as it was once the cluster is down: that is the last check.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.kind import deploy
from testbed.kind.cluster import KindCluster
from testbed.kind.runtime import why_none
from testbed.kind.shell import run


@pytest.fixture(scope="session")
def cluster() -> Iterator[KindCluster]:
    wanted = KindCluster("fairlane-test", workers=2)
    if missing := why_none(wanted.docker):
        pytest.skip(f"no container runtime can be had: {missing}")
    before = traces(wanted)
    with wanted as one:
        deploy.data(one)
        yield one
    assert traces(wanted) == before


def traces(cluster: KindCluster) -> dict[str, list[str]]:
    """What an engine and its containers show of themselves on the host."""
    devices = [line.split(":")[1].split("@")[0].strip() for line in run(["ip", "-o", "link"]).splitlines()]
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return {
        "devices": sorted(devices),
        "routes": run(["ip", "route", "show", "table", "all"]).splitlines(),
        "rules": run(["ip", "rule"]).splitlines(),
        "firewall": [*_rules("filter"), *_rules("nat")],
        "mounts": [one for one in mounts if one.startswith(str(cluster.cache))],
        "processes": sorted(_engines()),
    }


def _rules(table: str) -> list[str]:
    """Everything of a table that is not as it always is."""
    if shutil.which("iptables") is None:
        return []
    lines = run(["iptables", "-w", "-t", table, "-S"]).splitlines()
    return [line for line in lines if not (line.startswith("-P ") and line.endswith(" ACCEPT"))]


def _engines() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = file.read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        if name.startswith(("dockerd", "containerd", "docker-proxy", "kubelet", "relay")):
            yield f"{name} {file.parent.name}"
