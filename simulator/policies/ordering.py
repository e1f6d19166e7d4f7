"""A heap whose keys change: every policy is a key on it."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Key = tuple[Any, ...]


class Ordering(Generic[Item]):
    """Items by key, smallest first; a new key leaves the old entry in the heap until that surfaces."""

    def __init__(self) -> None:
        self._keys: dict[Item, Key] = {}
        self._heap: list[tuple[Key, int, Item]] = []
        self._entries = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: Item) -> bool:
        return item in self._keys

    def put(self, item: Item, key: Key) -> None:
        """In, or to its new place."""
        self._keys[item] = key
        self._entries += 1
        heapq.heappush(self._heap, (key, self._entries, item))

    def drop(self, item: Item) -> None:
        """Out, if it is in."""
        self._keys.pop(item, None)

    def first(self) -> Item | None:
        """The item of smallest key, or None."""
        while self._heap:
            key, _, item = self._heap[0]
            if self._keys.get(item) == key:
                return item
            heapq.heappop(self._heap)
        return None
