"""Which score tables are made before anybody asks.

kube-scheduler may ask about a pod whose gate is open at any moment: its table
comes first. Behind a gate thousands may wait, whose turn comes in hours, and a
table is only good for one epoch; so of these a bounded number has one, those
who are next (the pods carry their positions), then those who came first. Any
other is answered by a table of its family or by the prior, and gets its own
when its turn is near, its gate opens, or it is asked about.
"""

from __future__ import annotations

import math
from itertools import islice

from model.placement import Job
from scheduler.core.cluster import Cluster
from scheduler.core.table_keys import KeyFamilies
from scheduler.core.types import PodFacts, TableKey, key_of
from scheduler.core.waiting_pods import is_near

GATED_AHEAD = 32
"""Tables made for pods behind a gate."""
LOOKED_AT = 1024
"""Waiting pods looked at, of each kind, at an epoch."""


class Ahead:
    """Chosen anew at each epoch by `choose`; in between gated pods that come may take places by `admit`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._turns: dict[TableKey, float] = {}

    def choose(self, used: KeyFamilies, most: int) -> dict[TableKey, Job]:
        """Jobs that shall have tables besides those that keep their own because they are `used`."""
        chosen: dict[TableKey, Job] = {}
        self._turns = {}
        waiting = self._cluster.waiting
        for pod in islice(waiting.open(), LOOKED_AT):
            if len(chosen) >= most:
                break
            self._take(pod, used, chosen)
        for pod in waiting.gated(LOOKED_AT):
            if len(chosen) >= most or len(self._turns) >= GATED_AHEAD:
                break
            self._take(pod, used, chosen)
        return chosen

    def has_place(self, pod: PodFacts) -> bool:
        """True when a table may be made for this gated pod: a place is free, or one further back has one."""
        return len(self._turns) < GATED_AHEAD or _turn(pod) < max(self._turns.values())

    def admit(self, pod: PodFacts, key: TableKey) -> TableKey | None:
        """The pod, for which there `has_place`, takes one; the key that lost its own for that, if one did."""
        lost = None
        if key not in self._turns and len(self._turns) >= GATED_AHEAD:
            lost = max(self._turns, key=self._turns.__getitem__)
            del self._turns[lost]
        self._turns[key] = min(_turn(pod), self._turns.get(key, math.inf))
        return lost

    def serves(self, key: TableKey) -> bool:
        """True when one of this key's family has a place."""
        return KeyFamilies(self._turns).serves(key)

    def leave(self, key: TableKey) -> None:
        """A gate of such a pod is open: its table needs no place among the gated ones any more."""
        self._turns.pop(key, None)

    def _take(self, pod: PodFacts, families: KeyFamilies, chosen: dict[TableKey, Job]) -> None:
        job = self._cluster.job_of(pod)
        key = key_of(job)
        is_far = pod.gated and not is_near(pod)
        if families.serves(key) if is_far else families.covers(key):
            return
        families.add(key)
        chosen[key] = job
        if pod.gated:
            self._turns[key] = _turn(pod)


def _turn(pod: PodFacts) -> float:
    return pod.turn or math.inf
