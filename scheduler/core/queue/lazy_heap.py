"""A heap whose items may be moved and removed: old entries stay until they come up or are too many."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Key = tuple[Any, ...]
_SLACK = 16
_FEW = 48
"""Sorting so many at once is quicker than taking them one by one."""


class LazyHeap(Generic[Item]):
    """Items by key, the least first; equal keys in order of the items' last `put`.

    All operations are O(log n) amortised; `in_order` costs O(log n) an item.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Key, int, Item]] = []
        self._current: dict[Item, int] = {}
        self._puts = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, item: Item) -> bool:
        return item in self._current

    def put(self, item: Item, key: Key) -> None:
        """Add an item, or give it another key."""
        self._puts += 1
        self._current[item] = self._puts
        heapq.heappush(self._heap, (key, self._puts, item))
        if len(self._heap) > len(self._current) + len(self._current) // 4 + _SLACK:
            self._heap = [entry for entry in self._heap if self._current.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def remove(self, item: Item) -> None:
        """Take an item out; nothing happens when it is not there."""
        self._current.pop(item, None)

    def first(self) -> tuple[Key, Item] | None:
        """The least key with its item; None when empty."""
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return (self._heap[0][0], self._heap[0][2]) if self._heap else None

    def in_order(self) -> Iterator[tuple[Key, Item]]:
        """All items by key; the heap must not change meanwhile."""
        self.first()
        heap, current = self._heap, self._current
        if len(heap) <= _FEW:
            for key, number, item in sorted(heap):
                if current.get(item) == number:
                    yield key, item
            return
        frontier, size = [(heap[0], 0)], len(heap)
        while frontier:
            (key, number, item), index = frontier[0]
            if current.get(item) == number:
                yield key, item
            child = 2 * index + 1
            if child < size:
                heapq.heapreplace(frontier, (heap[child], child))
                if child + 1 < size:
                    heapq.heappush(frontier, (heap[child + 1], child + 1))
            else:
                heapq.heappop(frontier)
