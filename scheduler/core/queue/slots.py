"""A cluster of identical slots and gangs of one: what theory and simulations speak of."""

from __future__ import annotations

from scheduler.core.queue.events import Estimate, Gang, GangPod, Node, Shape
from scheduler.core.queue.settings import QueueSettings

SLOT = "slot"
"""The only resource there."""
_ONE = Shape(((SLOT, 1.0),))


def slots_node(slots: int, name: str = "slots") -> Node:
    """One node of so many slots."""
    return Node(name, {SLOT: float(slots)})


def slots_settings(slots: int, **others: object) -> QueueSettings:
    """Settings of a queue measured against so many slots: a gang of one has share 1 / slots."""
    return QueueSettings(reference={SLOT: float(slots)}, **others)  # type: ignore[arg-type]


def slots_gang(
    uid: str,
    flow: str,
    arrived_s: float,
    estimate: Estimate | None,
    width: int = 1,
    job: str = "",
    **others: object,
) -> Gang:
    """A gang of `width` pods of one slot each; its pods are named `uid/0`, `uid/1`, ..."""
    pods = tuple(GangPod(f"{uid}/{index}", _ONE) for index in range(width))
    return Gang(uid, flow, pods, arrived_s, estimate, job=job, **others)  # type: ignore[arg-type]
