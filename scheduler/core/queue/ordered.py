"""Items in the order of their keys, in sorted blocks: quick to change, quickest to read from the front."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Key = tuple[Any, ...]
BLOCK = 512
"""A block of twice as many is cut in two: moving so many pointers costs less than one comparison more."""


class Ordered(Generic[Item]):
    """Items by key, the least first; equal keys in order of the items' last `put`.

    Adding, moving and removing cost O(log n) comparisons, reading O(1) an item.
    """

    __slots__ = ("_blocks", "_keys", "_lasts", "_puts")

    def __init__(self) -> None:
        self._keys: dict[Item, tuple[Key, int]] = {}
        self._blocks: list[list[tuple[Key, int, Item]]] = []
        self._lasts: list[tuple[Key, int]] = []
        self._puts = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: Item) -> bool:
        return item in self._keys

    def put(self, item: Item, key: Key) -> None:
        """Add an item, or give it another key."""
        self.remove(item)
        self._puts += 1
        self._keys[item] = (key, self._puts)
        at = min(bisect_left(self._lasts, (key, self._puts)), len(self._blocks) - 1)
        if at < 0:
            self._blocks.append([(key, self._puts, item)])
            self._lasts.append((key, self._puts))
            return
        block = self._blocks[at]
        insort(block, (key, self._puts, item))
        self._lasts[at] = block[-1][:2]
        if len(block) > 2 * BLOCK:
            self._blocks.insert(at + 1, block[BLOCK:])
            del block[BLOCK:]
            self._lasts.insert(at, block[-1][:2])

    def remove(self, item: Item) -> None:
        """Take an item out; nothing happens when it is not there."""
        known = self._keys.pop(item, None)
        if known is None:
            return
        at = bisect_left(self._lasts, known)
        block = self._blocks[at]
        del block[bisect_left(block, known)]
        if block:
            self._lasts[at] = block[-1][:2]
        else:
            del self._blocks[at], self._lasts[at]

    def key(self, item: Item) -> Key | None:
        """The key of an item; None when it is not there."""
        known = self._keys.get(item)
        return None if known is None else known[0]

    def first(self) -> tuple[Key, Item] | None:
        """The least key with its item; None when empty."""
        if not self._blocks:
            return None
        key, _, item = self._blocks[0][0]
        return key, item

    def items(self) -> Iterable[Item]:
        """All items in order; nothing may change meanwhile."""
        if len(self._keys) == 1:
            return (self._blocks[0][0][2],)
        return (item for block in self._blocks for _, _, item in block)

    def in_order(self) -> Iterator[tuple[Key, Item]]:
        """All items by key; nothing may change meanwhile."""
        for block in self._blocks:
            for key, _, item in block:
                yield key, item
