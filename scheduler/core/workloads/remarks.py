"""What people should be told about pods: each sentence once."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

REMARKS_KEPT = 10_000
"""Sentences remembered so as not to be repeated; as many wait to be taken at most."""


class Remark(NamedTuple):
    """A sentence about a pod; about the namespace when `name` is empty."""

    namespace: str
    name: str
    sentence: str
    uid: str = ""


class Remarks:
    """Collects remarks until they are taken."""

    def __init__(self) -> None:
        self._said: OrderedDict[Remark, None] = OrderedDict()
        self._new: list[Remark] = []

    def add(self, namespace: str, name: str, sentence: str, uid: str = "") -> None:
        """Say it, unless it was said."""
        remark = Remark(namespace, name, sentence, uid)
        if remark in self._said:
            return
        self._said[remark] = None
        if len(self._said) > REMARKS_KEPT:
            self._said.popitem(last=False)
        if len(self._new) < REMARKS_KEPT:
            self._new.append(remark)

    def take(self) -> list[Remark]:
        """Those added since the last time."""
        taken, self._new = self._new, []
        return taken
