"""Keys of score tables by family: which table can stand in for which."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from scheduler.core.types import TableKey

NEAR_SIZE = math.log(1.5)
"""Hinted sizes within this ratio share a table: their times differ by what the prior can tell."""

FAR_SIZE = math.log(2.0)
"""Beyond this ratio what a size makes of a time is guesswork, more than a somewhat older reading is."""


class KeyFamilies:
    """A set of keys, grouped by what an estimate cannot correct."""

    def __init__(self, keys: Iterable[TableKey] = ()) -> None:
        self._families: dict[TableKey, dict[TableKey, None]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: TableKey) -> None:
        """`key` is in it from now on."""
        self._families.setdefault(key.family(), {})[key] = None

    def remove(self, key: TableKey) -> None:
        """`key`, which is in it, is not any more."""
        family = self._families[key.family()]
        del family[key]
        if not family:
            del self._families[key.family()]

    def of(self, key: TableKey) -> Collection[TableKey]:
        """All keys of the family of this one."""
        return self._families.get(key.family(), ())

    def covers(self, key: TableKey) -> bool:
        """True when it has this key, or one so near in size that no table of its own is worth making."""
        return any(one.placed_alike(key) and one.size_distance(key) <= NEAR_SIZE for one in self.of(key))

    def serves(self, key: TableKey) -> bool:
        """True when it has a key of this family, whatever its sizes."""
        return any(one.placed_alike(key) for one in self.of(key))
