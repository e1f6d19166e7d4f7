"""Every policy by the name that `--policy` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulator.cluster import Cluster
from simulator.engine import ListScheduler, Policy, Scheduler
from simulator.policies.keyed import Fair, Fifo, Srpt
from simulator.policies.settled import SettledModel, SettledSlackModel, SettledSmallModel
from simulator.policies.users import DominantResourceFairness, UserJobFair
from simulator.policies.virtual_time import (
    ClusterFairQueueing,
    UserWeightedFairQueueing,
    UserWeightedFairQueueingWithFloor,
)

Weights = Mapping[str, float]
ON_A_LIST: dict[str, Callable[[], Policy]] = {
    each.name: each
    for each in (
        Fifo,
        Fair,
        UserJobFair,
        Srpt,
        ClusterFairQueueing,
        UserWeightedFairQueueing,
        UserWeightedFairQueueingWithFloor,
        DominantResourceFairness,
        SettledModel,
        SettledSlackModel,
        SettledSmallModel,
    )
}
"""All that run on a list; the settled ones are the model of our own clock, not the core."""
OURS: dict[str, Mapping[str, Any]] = {"fairlane": {}, "fairlane-slack": {"shortest_first": True}}
"""The production core, by the settings that differ from its own defaults."""
NAMES = (*OURS, *ON_A_LIST)


def known(names: Sequence[str]) -> Sequence[str]:
    """These names, of which each is a policy's.

    Raises:
        ValueError: one is not, or there is none.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"policy {unknown[0]!r} is unknown; there are {', '.join(NAMES)}")
    if not names:
        raise ValueError(f"policy: name at least one of {', '.join(NAMES)}")
    return names


def scheduler_of(name: str, cluster: Cluster, weights: Weights) -> Scheduler:
    """A fresh scheduler of that name on that cluster.

    Raises:
        ValueError: no policy of that name.
    """
    known([name])
    if name in ON_A_LIST:
        return ListScheduler(ON_A_LIST[name](), cluster)
    from simulator.policies.fairlane import FairlaneScheduler

    return FairlaneScheduler(cluster, weights, name=name, **OURS[name])
