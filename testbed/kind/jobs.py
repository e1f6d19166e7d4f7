"""Manifests of the jobs that are placed and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "jobs"
OURS = "fairlane"
DEFAULT = "default-scheduler"
HOSTNAME = "kubernetes.io/hostname"
GANG_LABEL = "gang"
FLOAT_BYTES = 4
TORCH_PORT = 29500

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """How a pod gets its node: by the named scheduler, or `node` itself.

    A pod of a `truth` run carries no hints: neither the model nor the history
    of its class may learn from it.
    """

    scheduler: str = OURS
    node: str = ""
    truth: bool = False


def pod(
    name: str,
    image: str,
    args: Sequence[str],
    env: Mapping[str, str],
    annotations: Mapping[str, str],
    place: Place,
) -> Manifest:
    """A pod that runs once; annotations get our prefix."""
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "schedulerName": place.scheduler,
        "containers": [
            {
                "name": "job",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                # a job that fails tells why in its status: nobody reads its log
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "args": list(args),
                "env": [{"name": key, "value": value} for key, value in env.items()],
                "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
            }
        ],
    }
    if place.node:
        spec["nodeName"] = place.node
    known = {"job-class": "truth"} if place.truth else annotations
    given = {f"fairlane.dev/{key}": value for key, value in known.items()}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": given}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Transfer:
    """Fetches `input_bytes` from the data server of `data_node`, which listens at `source`."""

    image: str
    data_node: str
    source: str
    input_bytes: int

    def manifest(self, name: str, place: Place) -> Manifest:
        """The pod."""
        hints = {
            "job-class": "transfer",
            "user": "e2e",
            "input-bytes": str(self.input_bytes),
            "data-nodes": self.data_node,
        }
        env = {"SOURCE": self.source, "INPUT_BYTES": str(self.input_bytes)}
        return pod(name, self.image, ["/jobs/transfer.py"], env, hints, place)


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Data-parallel training on three nodes: rank 0 on the driver's, two more where they are placed."""

    image: str
    driver_node: str
    parameters: int
    steps: int
    size: int = 3

    def driver(self, gang: str, truth: bool) -> Manifest:
        """Rank 0, on the driver's node."""
        return self._rank(gang, 0, "0.0.0.0", Place(DEFAULT, self.driver_node, truth))

    def worker(self, gang: str, rank: int, driver_address: str, place: Place) -> Manifest:
        """One of the other ranks, never two on a node."""
        manifest = self._rank(gang, rank, driver_address, place)
        manifest["spec"]["affinity"] = apart(gang)
        return manifest

    def _rank(self, gang: str, rank: int, driver_address: str, place: Place) -> Manifest:
        # a ring moves each gradient about twice over every link
        moved = 2 * FLOAT_BYTES * self.parameters * self.steps
        hints = {
            "job-class": "allreduce",
            "user": "e2e",
            "framework": "torch",
            "gang": gang,
            "gang-size": str(self.size),
            "shuffle-bytes": str(moved),
        }
        env = {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.size),
            "MASTER_ADDR": driver_address,
            "MASTER_PORT": str(TORCH_PORT),
            "STEPS": str(self.steps),
            "PARAMETERS": str(self.parameters),
        }
        manifest = pod(f"{gang}-{rank}", self.image, ["/jobs/train.py"], env, hints, place)
        manifest["metadata"]["labels"] = {GANG_LABEL: gang}
        return manifest


def apart(gang: str) -> Manifest:
    """Affinity that keeps the pods of a gang on different nodes."""
    term = {"labelSelector": {"matchLabels": {GANG_LABEL: gang}}, "topologyKey": HOSTNAME}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
