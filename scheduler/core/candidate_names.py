"""The candidates of a call by name: thousands, mostly the same as in the call before, in another order."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from weakref import ReferenceType, ref

import msgspec

from scheduler.core.wire import BadRequest, ExtenderArgs

NAME_LISTS_KEPT = 8
"""Lists of candidates remembered; with 5,000 nodes each takes about 0.5 MB."""
LONG_BYTES = 4096
"""A list of more is not read before somebody needs all of it."""
UNREAD_BYTES_MAX = 16 * 2**20
"""Lists that nobody needed yet may take up so much."""
_NAMES = msgspec.json.Decoder(list[str] | None)
_UNUSUAL = (b"[", b"{", b"\\")
"""What no list of node names has inside; such a list is read at once, and perhaps refused."""


class OfferedNames:
    """The names that one call offers, in the order of the first call that offered them."""

    def __init__(self, raw: bytes, read: Callable[[bytes], tuple[str, ...]]) -> None:
        self._raw, self._read = raw, read
        self._names: tuple[str, ...] | None = None
        self._failure: BadRequest | None = None

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Self:
        """These, which need not be read."""
        made = cls(b"", lambda _raw: names)
        made.all()
        return made

    @property
    def are_read(self) -> bool:
        """False for a long list, until somebody needed all of it."""
        return self._names is not None

    @property
    def unread_bytes(self) -> int:
        """How much a list takes up that is not read."""
        return len(self._raw)

    def hold(self, name: str) -> bool:
        """True if `name` is one of them; of a list that is not read."""
        return b'"%b"' % name.encode() in self._raw

    def all(self) -> tuple[str, ...]:
        """All of them, each once; the same object for the same nodes.

        Raises:
            BadRequest: they are not a list of names.
        """
        if self._failure is not None:
            raise self._failure
        if self._names is None:
            try:
                self._names = self._read(self._raw)
            except BadRequest as error:
                self._failure = error
                raise
            finally:
                self._raw = b""
        return self._names


class CandidateNames:
    """Reads the names of candidates; the same object for the same nodes, however they are ordered.

    kube-scheduler looks at nodes in parallel and lists them as they pass: their order may differ from call
    to call, and says nothing. So what follows from the names is worked out once for all of these calls.
    """

    def __init__(self, limit: int = NAME_LISTS_KEPT) -> None:
        self._limit = limit
        self._known: OrderedDict[frozenset[str], tuple[str, ...]] = OrderedDict()
        self._unread: deque[tuple[int, ReferenceType[OfferedNames]]] = deque()
        self._unread_bytes = 0

    def of(self, args: ExtenderArgs) -> OfferedNames:
        """The candidates of a call, which names each of them once; a long list is not read yet.

        Raises:
            BadRequest: they are not a list of names, which is not seen of a long one that looks like it.
        """
        raw = bytes(args.NodeNames)
        offered = OfferedNames(raw, self._read)
        if len(raw) <= LONG_BYTES or raw[:2] != b'["' or any(raw.find(mark, 1) > 0 for mark in _UNUSUAL):
            offered.all()
        return offered

    def put_off(self, names: OfferedNames) -> None:
        """They are needed later. Where many are, the oldest are read now: that takes up less memory."""
        if names.are_read:
            return
        self._unread.append((names.unread_bytes, ref(names)))
        self._unread_bytes += names.unread_bytes
        while self._unread_bytes > UNREAD_BYTES_MAX:
            size, oldest = self._unread.popleft()
            self._unread_bytes -= size
            if (left := oldest()) is not None:
                with suppress(BadRequest):  # who needs them is told again
                    left.all()

    def _read(self, raw: bytes) -> tuple[str, ...]:
        try:
            names = _NAMES.decode(raw) or []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not ExtenderArgs: {error} (NodeNames)") from error
        for known, kept in reversed(self._known.items()):
            if len(kept) == len(names) and known.issuperset(names):
                self._known.move_to_end(known)
                return kept
        # decisions keep them until they are recorded: of each name one object, however many lists have it
        kept = tuple(map(sys.intern, names))
        self._known[frozenset(kept)] = kept
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return kept
