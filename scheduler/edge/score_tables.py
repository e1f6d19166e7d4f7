"""The score tables, by what they depend on: those in use, and those made ahead that nobody asked for yet.

Bounded: of those in use the least recently used goes first, of the others the
oldest. Each kind has half of the room for sure, so that pods that come or wait
in numbers don't drive out what placing uses, nor the other way round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass

from model.placement import Job
from scheduler.core.table_keys import FAR_SIZE, KeyFamilies
from scheduler.core.types import Corrections, ScoreTable, TableKey

MEMORY_BYTES_MAX = 512 * 2**20
"""Feature rows kept with the tables; one table for 5,000 nodes takes 4.5 MB."""
BEHIND_AT_MOST = 2
"""Epochs by which the table of a near size may be older than others of its job."""
PEERS_IDLE_S = 60.0
"""A table for one gang's placed members is dropped so soon after its last use."""


@dataclass(slots=True, eq=False)
class Entry:
    """A table and what changed since it was made."""

    table: ScoreTable
    corrections: Corrections
    used_at_s: float


class ScoreTables:
    """At most `max_tables` tables, fewer in a large cluster; one not used for `idle_s` may be dropped."""

    def __init__(self, max_tables: int, idle_s: float) -> None:
        self._max_tables = max_tables
        self._idle_s = idle_s
        self._entries: dict[TableKey, Entry] = {}
        self._used: OrderedDict[TableKey, None] = OrderedDict()
        self._ahead: OrderedDict[TableKey, None] = OrderedDict()
        self._families = KeyFamilies()
        self._room = max_tables

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ahead_at_most(self) -> int:
        """So many tables that nobody asked for yet are kept whatever is in use."""
        return max(1, self._room // 2)

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
            self._ahead.pop(key, None)
            self._used[key] = None
            self._used.move_to_end(key)
        return entry

    def nearest(self, key: TableKey, now_s: float) -> Entry | None:
        """The table of the same job that differs least: in the gang's placed members; in size by no more than
        a factor, unless it is several epochs old; in epoch (a size is corrected for, an old reading is not);
        then in size."""
        epochs = {one: self._entries[one].table.snapshot.epoch for one in self._families.of(key)}
        if not epochs:
            return None
        newest = max(epochs.values())

        def difference(one: TableKey) -> tuple[bool, bool, int, float]:
            behind, size = newest - epochs[one], one.size_distance(key)
            return not one.placed_alike(key), size > FAR_SIZE or behind > BEHIND_AT_MOST, behind, size

        return self.find(min(epochs, key=difference), now_s)

    def covers(self, key: TableKey) -> bool:
        """True when a table of this key, or of one so near in size that none of its own is worth making."""
        return key in self._entries or self._families.covers(key)

    def serves(self, key: TableKey) -> bool:
        """True when there is a table of this key's family, whatever its sizes."""
        return self._families.serves(key)

    def put(self, table: ScoreTable, now_s: float, *, asked: bool = False) -> Entry:
        """Use `table` from now on, instead of the one of the same key; `asked`: somebody asked for it."""
        before = self._entries.get(table.key)
        used_at_s = now_s if before is None else before.used_at_s
        entry = self._entries[table.key] = Entry(table, Corrections.none(table), used_at_s)
        if before is None:
            self._families.add(table.key)
            self._ahead[table.key] = None
        if asked:
            self.find(table.key, now_s)
        self._room = max(1, min(self._max_tables, MEMORY_BYTES_MAX // table.features.nbytes))
        while len(self._entries) > self._room:
            self._drop(self._least_needed())
        return entry

    def drop_ahead(self, key: TableKey) -> None:
        """Drop the table of this key, if nobody asked for it yet."""
        if key in self._ahead:
            self._drop(key)

    def keep_ahead(self, wanted: Container[TableKey]) -> None:
        """Of the tables that nobody asked for yet drop all but these."""
        for key in [key for key in self._ahead if key not in wanted]:
            self._drop(key)

    def drop_idle(self, now_s: float) -> None:
        """Drop what was not used for long; what nobody asked for yet is dropped by `keep_ahead`."""
        for key in list(self._used):
            if self._entries[key].used_at_s < now_s - (PEERS_IDLE_S if key.peers else self._idle_s):
                self._drop(key)

    def used(self) -> KeyFamilies:
        """Keys of the tables in use; a copy."""
        return KeyFamilies(self._used)

    def jobs(self) -> Sequence[Job]:
        """Jobs of all tables: of those in use, the most recently used first, then of the others."""
        return [self._entries[key].table.job for key in (*reversed(self._used), *self._ahead)]

    def _least_needed(self) -> TableKey:
        ahead_goes = len(self._ahead) > (self.ahead_at_most if self._used else 0)
        return next(iter(self._ahead if ahead_goes else self._used))

    def _drop(self, key: TableKey) -> None:
        del self._entries[key]
        self._used.pop(key, None)
        self._ahead.pop(key, None)
        self._families.remove(key)
