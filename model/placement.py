"""What is to be placed, and onto what: the inputs of the features besides telemetry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

FRAMEWORKS: tuple[str, ...] = ("batch", "spark", "torch", "mpi", "ray")
"""Known frameworks; a job of any other counts as `batch`."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Past run times of one job class or one user, in log seconds; NaN where there are none."""

    count: int = 0
    mean_log_s: float = math.nan
    ewma_log_s: float = math.nan
    last_log_s: float = math.nan
    std_log_s: float = math.nan


NO_HISTORY = RunHistory()


@dataclass(frozen=True, slots=True)
class Job:
    """One pod to place, seen as a member of its gang.

    `data_nodes` are the nodes that hold its input, `peer_nodes` those on
    which members of its gang run already, `driver_node` the gang's driver.
    Hints (`input_bytes`, `shuffle_bytes`, `expected_s`) are NaN when not given.
    """

    job_class: str
    user: str = ""
    framework: str = "batch"
    gang: str = ""
    gang_size: int = 1
    cpu: float = 0.0
    memory_bytes: float = 0.0
    gpu: float = 0.0
    input_bytes: float = math.nan
    shuffle_bytes: float = math.nan
    expected_s: float = math.nan
    image: str = ""
    data_nodes: tuple[str, ...] = ()
    peer_nodes: tuple[str, ...] = ()
    driver_node: str = ""
    class_history: RunHistory = NO_HISTORY
    user_history: RunHistory = NO_HISTORY


class NodeFacts(msgspec.Struct, frozen=True):
    """What the API server knows of one node and of the pods that run on it.

    `requested_cpu` is the sum of the requests of its unfinished pods;
    `network_heavy` counts residents with a declared input or shuffle volume;
    `receiving_until_s` is the unix time at which their inputs are expected to
    be there, NaN when that is not known.
    """

    zone: str = ""
    nic_class: str = ""
    allocatable_cpu: float = math.nan
    requested_cpu: float = 0.0
    residents: int = 0
    network_heavy: int = 0
    receiving_until_s: float = math.nan
    residents_by_framework: Mapping[str, int] = MappingProxyType({})
    images: frozenset[str] = frozenset()

    def transfer_left_s(self, now_s: float) -> float:
        """Seconds until the inputs of its residents are there: 0 for none, NaN when not known."""
        return max(self.receiving_until_s - now_s, 0.0) if self.network_heavy else 0.0


NOWHERE = NodeFacts()
"""Stands for the facts of a name without any."""

ClusterView = Mapping[str, NodeFacts]
"""Facts of every node by name; a name without facts is unknown."""
