"""What a stream can write: where the locale has no UTF-8, words of users hold letters that it lacks."""

from __future__ import annotations

from typing import TextIO


def has_all_letters(stream: TextIO | None) -> bool:
    """False where letters may lack; also where there is no stream, as without a terminal's standard error."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
