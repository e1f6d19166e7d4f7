"""Settings of one fair queue; validated when made, so that a wrong one is never in force."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.core.queue.taints import Toleration


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What an administrator decides about a queue.

    `reference`: capacity by resource that shares are measured against (share
    1.0 = all of it); fixed, whatever nodes come and go. `weights` by path of
    the flow: (user,), in a grouped queue (group,) and (group, user).
    `lag_limit_share_s`: the credit a waiting flow can have at most, in
    share-seconds. `max_waiting_per_flow`: gangs of a flow beyond it are turned
    away until there is a place again. `by_arrival_inside_user`: a user's jobs go in
    order of arrival and not by his fair clock. `node_tolerations`: a node with a
    taint beyond these is not the queue's; None: taints concern the pods alone.
    `backfill_quantile`: which predicted end is relied on. `run_time_s`: how long a
    gang may run. `release_head_after_s`: for how long the first in line may have no
    room before it is released as Pending, so that an autoscaler sees it.
    `shortest_first`: the shortest job goes first as long as
    every earlier deadline stays feasible; `stretch` makes those deadlines
    longer by that fraction. `invariants_every`: full checks after every n-th
    event, 0 for never.

    Raises `ValueError` with the setting's name when a value makes no sense.
    """

    reference: Mapping[str, float]
    name: str = "default"
    weights: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    default_weight: float = 1.0
    grouped: bool = False
    by_arrival_inside_user: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_tolerations: tuple[Toleration, ...] | None = None
    backfill: bool = True
    backfill_quantile: float = 0.9
    shortest_first: bool = False
    stretch: float = 0.0
    lag_limit_share_s: float = 600.0
    depth: int = 200
    max_waiting_per_flow: int = 100_000
    max_share_while_others_wait: float = math.inf
    run_time_s: float = math.inf
    release_head_after_s: float = math.inf
    incomplete_timeout_s: float = 600.0
    half_open_timeout_s: float = 60.0
    start_timeout_s: float = 600.0
    promise_timeout_s: float = 600.0
    invariants_every: int = 1

    def __post_init__(self) -> None:
        if not self.reference or not all(0 < amount < math.inf for amount in self.reference.values()):
            raise ValueError(
                f"reference must name resources with amounts above 0, not {dict(self.reference)}"
            )
        for path, weight in {(): self.default_weight, **self.weights}.items():
            if not 0 < weight < math.inf:
                raise ValueError(f"weight of {'/'.join(path) or 'everybody'} must be above 0, not {weight}")
        positive = ("lag_limit_share_s", "depth", "max_waiting_per_flow", "max_share_while_others_wait")
        timeouts = ("incomplete_timeout_s", "half_open_timeout_s", "start_timeout_s", "promise_timeout_s")
        for name in (*positive, *timeouts, "run_time_s", "release_head_after_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.backfill_quantile not in (0.5, 0.9):
            raise ValueError(f"backfill_quantile must be 0.5 or 0.9, not {self.backfill_quantile}")
        if self.stretch < 0 or self.invariants_every < 0:
            raise ValueError("stretch and invariants_every must not be below 0")
