"""Taints keep pods off a node; tolerations let them onto it all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_KEEPS_AWAY = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration as Kubernetes means it: an empty key with Exists tolerates everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node; PreferNoSchedule keeps nobody away."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


def kept_away(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> bool:
    """True when one of the taints is not tolerated."""
    return any(
        taint.effect in _KEEPS_AWAY and not any(_tolerates(one, taint) for one in tolerations)
        for taint in taints
    )


def _tolerates(one: Toleration, taint: Taint) -> bool:
    if one.effect and one.effect != taint.effect:
        return False
    if one.operator == "Exists":
        return one.key in ("", taint.key)
    return one.key == taint.key and one.value == taint.value
