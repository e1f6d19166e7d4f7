"""The score tables in use, by what they depend on; bounded, the least recently used go first."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from model.placement import Job
from scheduler.core.types import Corrections, ScoreTable, TableKey

MEMORY_BYTES_MAX = 512 * 2**20
"""Feature rows kept with the tables; one table for 5,000 nodes takes 4.5 MB."""
PEERS_IDLE_S = 60.0
"""A table for one gang's placed members is dropped so soon after its last use."""

NEAR_SIZE = math.log(1.5)
"""Hinted sizes within this ratio share a table: their times differ by what the prior can tell."""


@dataclass(slots=True, eq=False)
class Entry:
    """A table in use and what changed since it was made."""

    table: ScoreTable
    corrections: Corrections
    used_at_s: float


class ScoreTables:
    """At most `max_tables` tables, fewer in a large cluster; one not used for `idle_s` may be dropped."""

    def __init__(self, max_tables: int, idle_s: float) -> None:
        self._max_tables = max_tables
        self._idle_s = idle_s
        self._entries: OrderedDict[TableKey, Entry] = OrderedDict()
        self._families: dict[TableKey, dict[TableKey, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: TableKey) -> bool:
        return key in self._entries

    def peek(self, key: TableKey) -> ScoreTable | None:
        """The table of exactly this key, without counting as a use."""
        entry = self._entries.get(key)
        return None if entry is None else entry.table

    def find(self, key: TableKey, now_s: float) -> Entry | None:
        """The table of exactly this key."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.used_at_s = now_s
            self._entries.move_to_end(key)
        return entry

    def nearest(self, key: TableKey, now_s: float) -> Entry | None:
        """The table of the same job that differs least: in the gang's placed members, then of the newest
        epoch (a size is corrected for, an old reading is not), then in size."""
        family = self._families.get(key.family())
        if not family:
            return None

        def difference(one: TableKey) -> tuple[bool, int, float]:
            epoch = self._entries[one].table.snapshot.epoch
            return not one.placed_alike(key), -epoch, one.size_distance(key)

        return self.find(min(family, key=difference), now_s)

    def covers(self, key: TableKey) -> bool:
        """True when a table of this key, or of one so near in size that none of its own is worth making."""
        return key in self._entries or any(
            one.placed_alike(key) and one.size_distance(key) <= NEAR_SIZE
            for one in self._families.get(key.family(), ())
        )

    def put(self, table: ScoreTable, now_s: float) -> Entry:
        """Use `table` from now on, instead of the one of the same key."""
        before = self._entries.get(table.key)
        used_at_s = now_s if before is None else before.used_at_s
        entry = self._entries[table.key] = Entry(table, Corrections.none(table), used_at_s)
        self._families.setdefault(table.key.family(), {})[table.key] = None
        while len(self._entries) > max(1, min(self._max_tables, MEMORY_BYTES_MAX // table.features.nbytes)):
            self._drop(next(iter(self._entries)))
        return entry

    def drop_idle(self, now_s: float) -> None:
        """Drop what was not used for long."""
        for key, entry in list(self._entries.items()):
            if entry.used_at_s < now_s - (PEERS_IDLE_S if key.peers else self._idle_s):
                self._drop(key)

    def jobs(self) -> Sequence[Job]:
        """Jobs of all tables, the most recently used first."""
        return [entry.table.job for entry in reversed(self._entries.values())]

    def _drop(self, key: TableKey) -> None:
        del self._entries[key]
        family = self._families[key.family()]
        del family[key]
        if not family:
            del self._families[key.family()]
