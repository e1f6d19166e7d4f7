"""The one error of all readers."""

from __future__ import annotations

from pathlib import Path


class TraceError(Exception):
    """A trace cannot be used; the message names file and line, and says what was expected."""

    @classmethod
    def at(cls, path: Path, line: int, what: str) -> TraceError:
        """The error of one line."""
        return cls(f"{path.name}:{line}: {what}")
