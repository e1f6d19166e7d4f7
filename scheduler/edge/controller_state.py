"""What a controller must not forget: the core's export, and what administrators did by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler.core.queue.checkpoint_versions import check
from scheduler.core.queue.events import QueueConfigured
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.usage import UsageBook

VERSION, READABLE_BY, OLDEST = 1, 1, 1
"""Of what is written around the core's export, which has versions of its own (`checkpoint_versions`)."""
ENDED_KEPT_S = 300.0
"""Gangs that ended so long before a checkpoint are known to be settled by their pods' times alone."""


OTHER_FLOWS = (
    "the FairQueue's flowKey is another one now: what users or namespaces had received so far is forgotten, "
    "and what runs is charged by its receipts"
)
"""Why a core's export cannot be used."""
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What reading a checkpoint raises that is not what we wrote; with it the queue would never begin."""
_NOBODYS: dict[tuple[str, ...], float] = {("",): 1.0}


@dataclass(slots=True)
class ControllerState:
    """`at_s`: when it was written; `paused` and `weights` (by user): by hand; `core`: a gatekeeper's export,
    whose flows are users or, `by_namespace`, namespaces; `usage`: who used what.

    Of the gangs that ended, which the core remembers by the ten thousand, only
    those of the last minutes are kept: pods that ended before are known by
    their times to have been settled (`Feeds`).
    """

    at_s: float
    paused: bool = False
    weights: dict[str, float] = field(default_factory=dict)
    core: dict[str, Any] | None = None
    by_namespace: bool = False
    usage: UsageBook = field(init=False)
    _settled_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.usage = UsageBook(self.at_s)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ControllerState:
        """From what `told` gave.

        Raises:
            ValueError: it is of a version that we cannot read.
        """
        check(plain, OLDEST, VERSION)
        core = plain["core"]
        state = cls(
            plain["at_s"], plain["paused"], dict(plain["weights"]), core, plain.get("by_namespace", False)
        )
        if "usage" in plain:
            state.usage = UsageBook.revive(plain["usage"])
        state._settled_s = {uid: plain["at_s"] for uid, *_ in core["ended"]}
        return state

    def settled(self, uid: str, now_s: float) -> None:
        """A gang was settled now."""
        self._settled_s.pop(uid, None)
        self._settled_s[uid] = now_s

    def told(self, core: dict[str, Any], now_s: float) -> dict[str, Any]:
        """Plain values of all of it; `core` is the gatekeeper's export as of now."""
        self._forget(now_s)
        kept = [gang for gang in core["ended"] if gang[0] in self._settled_s]
        return {
            "version": VERSION,
            "readable_by": READABLE_BY,
            "at_s": now_s,
            "paused": self.paused,
            "weights": self.weights,
            "by_namespace": self.by_namespace,
            "usage": self.usage.export(),
            "core": {**core, "ended": kept, "paused": False},
        }

    def _forget(self, now_s: float) -> None:
        for uid, settled_s in list(self._settled_s.items()):
            if settled_s >= now_s - ENDED_KEPT_S:
                break
            del self._settled_s[uid]


def revived(settings: QueueSettings, core: dict[str, Any] | None, now_s: float) -> tuple[Gatekeeper, str]:
    """The gatekeeper of an export, or an empty one; why the export could not be used, empty if it could."""
    if core is None:
        return Gatekeeper(settings), ""
    try:
        # with other weights, so that those in force replace the checkpoint's
        keeper = Gatekeeper.revive(replace(settings, weights=_NOBODYS), core)
        keeper.handle(QueueConfigured(settings), now_s)
    except DAMAGE as error:
        told = f"the checkpoint cannot be used: {error!r}; charges come from the pods' receipts"
        return Gatekeeper(settings), told
    return keeper, ""
