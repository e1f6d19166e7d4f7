"""Pods that wait for a node, by how soon kube-scheduler may ask about them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from scheduler.core.types import PodFacts

NEAR_TURNS = 32
"""Up to this position in the queue a gated pod counts as one of the next."""


class WaitingPods:
    """Those with an open gate may be asked about at any moment; of the gated ones, those who are next."""

    def __init__(self) -> None:
        self._open: dict[str, PodFacts] = {}
        self._gated: dict[str, PodFacts] = {}
        self._near: dict[str, PodFacts] = {}
        self._gangs: dict[str, dict[str, PodFacts]] = {}

    def __iter__(self) -> Iterator[PodFacts]:
        return chain(self._open.values(), self._gated.values())

    def put(self, pod: PodFacts) -> None:
        """It waits, as it is now."""
        mine, other = (self._gated, self._open) if pod.gated else (self._open, self._gated)
        before = mine.get(pod.uid) or other.pop(pod.uid, None)
        if before is not None and before.gang != pod.gang:
            self._leave_gang(before)
        mine[pod.uid] = pod
        if is_near(pod):
            self._near[pod.uid] = pod
        else:
            self._near.pop(pod.uid, None)
        if pod.gang:
            self._gangs.setdefault(pod.gang, {})[pod.uid] = pod

    def remove(self, uid: str) -> None:
        """It does not wait any more."""
        self._near.pop(uid, None)
        before = self._open.pop(uid, None) or self._gated.pop(uid, None)
        if before is not None:
            self._leave_gang(before)

    def of_gang(self, gang: str) -> Iterator[PodFacts]:
        """Those of one gang."""
        return iter(self._gangs.get(gang, {}).values())

    def open(self) -> Iterator[PodFacts]:
        """Those with an open gate, in order of arrival."""
        return iter(self._open.values())

    @property
    def open_count(self) -> int:
        """How many those are."""
        return len(self._open)

    def gated(self, most: int) -> Iterator[PodFacts]:
        """So many of those behind a gate: the next ones by their turns, then others in order of arrival."""
        near = sorted(self._near.values(), key=lambda pod: pod.turn)
        return islice(chain(near, self._gated.values()), most)

    def _leave_gang(self, pod: PodFacts) -> None:
        members = self._gangs.get(pod.gang, {})
        members.pop(pod.uid, None)
        if not members:
            self._gangs.pop(pod.gang, None)


def is_near(pod: PodFacts) -> bool:
    """True for a gated pod whose turn is near."""
    return pod.gated and 0 < pod.turn <= NEAR_TURNS
