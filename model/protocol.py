"""Which of our processes understand one another, whatever they speak over.

Every request between them, and every answer, names the protocol version of
who sent it, by HTTP header or gRPC metadata. It is the minor number of the
release, so that versions one minor apart work together while an upgrade is
under way; further apart, the one that is asked refuses. Who names none is
taken for the version before, as are kube-scheduler, browsers and curl.
"""

from __future__ import annotations

PROTOCOL = 1
HEADER = "fairlane-protocol"
TOLERATED = 1
"""Versions of difference."""
NOTHING_PUBLISHED = "no model was published yet"
"""In the predictor's refusal before the first training: nothing is broken then."""


def own() -> tuple[str, str]:
    """What we add to requests and answers: name and value."""
    return HEADER, str(PROTOCOL)


def spoken(told: str | None) -> int | None:
    """The version in a header's value, `told` None where there was none; None for what is no version."""
    if told is None:
        return PROTOCOL - 1
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 10 else None


def tolerated(one: int, other: int) -> bool:
    """True when both understand one another."""
    return abs(one - other) <= TOLERATED


def refusal(part: str, told: str | None) -> str:
    """Why a caller is refused by this `part`; empty when it is understood."""
    theirs = spoken(told)
    if theirs is None:
        return f"{HEADER} must be a version, not {str(told)[:50]!r}"
    if tolerated(theirs, PROTOCOL):
        return ""
    older = "caller" if theirs < PROTOCOL else part
    return (
        f"this {part} speaks protocol {PROTOCOL}, the caller {theirs}; they may be {TOLERATED} apart; "
        f"upgrade the {older}, so that all parts are of one release"
    )
