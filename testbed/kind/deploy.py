"""What runs in the cluster beside our release: monitoring and data servers, from manifests/*.yaml.

A manifest names what depends on the cluster as @name@; a name that is left
over is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from testbed.kind.cluster import KindCluster
from testbed.kind.images import HERE
from testbed.kind.shell import CommandError

ROLLOUT_S_MAX = 300


def render(manifest: str, values: Mapping[str, str]) -> str:
    """The text of manifests/MANIFEST.yaml with every @name@ replaced; raises `KeyError` if unknown."""
    text = (HERE / "manifests" / f"{manifest}.yaml").read_text()
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], text)


def apply(cluster: KindCluster, manifest: str, values: Mapping[str, str]) -> None:
    """Apply one manifest and wait until everything in it runs."""
    names = {"control_plane": cluster.control_plane, **values}
    text = render(manifest, names)
    cluster.kubectl("apply", "-f", "-", stdin=text)
    with cluster.progress.task(f"starting {manifest}") as task:
        for namespace in sorted(set(re.findall(r"namespace: ([\w-]+)", text))):
            _wait(cluster, namespace)
    cluster.progress.say(f"{manifest} runs ({task.elapsed_s:.0f} s)")


def remove(cluster: KindCluster, manifest: str, values: Mapping[str, str]) -> None:
    """Delete what `apply` made, and wait until it is gone."""
    names = {"control_plane": cluster.control_plane, **values}
    cluster.kubectl("delete", "--ignore-not-found", "--wait", "-f", "-", stdin=render(manifest, names))


def _wait(cluster: KindCluster, namespace: str) -> None:
    for kind in ("deployment", "daemonset"):
        for name in cluster.kubectl("-n", namespace, "get", kind, "-o", "name").split():
            try:
                cluster.kubectl("-n", namespace, "rollout", "status", name, f"--timeout={ROLLOUT_S_MAX}s")
            except CommandError as error:
                said = cluster.kubectl("-n", namespace, "logs", name, "--all-containers", "--tail=15")
                raise CommandError(f"{name} in {namespace} does not get ready:\n{error}\n{said}") from error


def monitoring(cluster: KindCluster) -> None:
    """Prometheus and node_exporter."""
    images = cluster.images
    cluster.load([images.node_exporter], [images.prometheus])
    apply(cluster, "monitoring", {"prometheus": images.prometheus, "node_exporter": images.node_exporter})


def data(cluster: KindCluster) -> None:
    """Data servers and competing traffic."""
    cluster.load([cluster.images.transfer])
    apply(cluster, "data", {"transfer": cluster.images.transfer})


def surroundings(cluster: KindCluster, gangs: bool = False) -> None:
    """What a release of ours finds on a cluster, and the jobs' namespace; `gangs`: their large images too."""
    images = cluster.images
    jobs = [images.allreduce, images.spark] if gangs else []
    everywhere = [images.transfer, images.node_exporter, images.fairlane, *jobs]
    cluster.load(everywhere, [images.prometheus])
    data(cluster)
    monitoring(cluster)
    apply(cluster, "jobs", {})
