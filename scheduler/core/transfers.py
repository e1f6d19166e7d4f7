"""When the inputs of the pods on each node are expected to be there.

Transfers to one node share its link. How much of them is left depends on their
sum and not on who is served first (the unfinished work of a queue, Lindley
1952): a transfer moves the end of all by its own length, counted from the end
of the others, or from its begin where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec


class _Transfer(msgspec.Struct, frozen=True):
    node: str
    began_s: float
    seconds: float


class Transfers:
    """Transfers of pods that were sent to a node; times in unix s."""

    def __init__(self) -> None:
        self._of: dict[str, _Transfer] = {}
        self._until_s: dict[str, float] = {}

    def begin(self, uid: str, node: str, seconds: float, began_s: float) -> None:
        """The pod takes up the link for `seconds`; not known when that is NaN."""
        self.undo(uid)
        if math.isnan(seconds):
            return
        self._of[uid] = _Transfer(node, began_s, seconds)
        self._until_s[node] = max(self._until_s.get(node, -math.inf), began_s) + seconds

    def undo(self, uid: str) -> None:
        """It did not come to that."""
        one = self._of.pop(uid, None)
        if one is not None:
            self._until_s[one.node] -= one.seconds

    def move(self, uid: str, node: str) -> None:
        """The pod is on this node, whatever was expected."""
        one = self._of.get(uid)
        if one is not None and one.node != node:
            self.begin(uid, node, one.seconds, one.began_s)

    def end(self, uid: str) -> None:
        """The pod is gone; the others have shared with it and go on until they would have."""
        self._of.pop(uid, None)

    def forget_node(self, node: str) -> None:
        """The node is gone; should it come back, nobody knows what its pods still receive."""
        self._until_s.pop(node, None)
        self._of = {uid: one for uid, one in self._of.items() if one.node != node}

    def until_s(self, node: str, uids: Iterable[str]) -> float:
        """When these pods on the node have what they receive; NaN when nobody knows of one of them."""
        if not all(uid in self._of for uid in uids):
            return math.nan
        return self._until_s.get(node, -math.inf)
