"""Taints keep pods off a node, or would rather; tolerations let them onto it all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_KEEPS_AWAY = frozenset({"NoSchedule", "NoExecute"})
AVOIDED = "PreferNoSchedule"
"""Effect of a taint that keeps nobody away: such a node is for those who have no better one."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration as Kubernetes means it: an empty key with Exists tolerates everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


def kept_away(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> bool:
    """True when one of the taints that keep pods away is not tolerated."""
    return any(taint.effect in _KEEPS_AWAY and not _is_tolerated(taint, tolerations) for taint in taints)


def is_avoided(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> bool:
    """True when one of the taints that would rather keep pods away is not tolerated."""
    return any(taint.effect == AVOIDED and not _is_tolerated(taint, tolerations) for taint in taints)


def _is_tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return any(_tolerates(one, taint) for one in tolerations)


def _tolerates(one: Toleration, taint: Taint) -> bool:
    if one.effect and one.effect != taint.effect:
        return False
    if one.operator == "Exists":
        return one.key in ("", taint.key)
    return one.key == taint.key and one.value == taint.value
