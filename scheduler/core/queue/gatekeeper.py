"""Opens scheduling gates in fair order while the cluster has room: events in, actions out."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.core.queue.actions import Action
from scheduler.core.queue.events import Event
from scheduler.core.queue.settings import QueueSettings


class Gatekeeper:
    """Opens the gates of gangs in fair order while the cluster has room.

    `handle` is the only way in; everything else only reads.
    """

    def __init__(self, settings: QueueSettings) -> None:
        raise NotImplementedError

    def handle(self, event: Event, now_s: float) -> list[Action]:
        """Take note of what happened and say what to do now."""
        raise NotImplementedError

    def check_invariants(self) -> None:
        """Raise `InvariantBroken` with the property's name when the state contradicts itself."""
        raise NotImplementedError

    def dump(self) -> Mapping[str, object]:
        """The whole state for people and metrics; changing it changes nothing here."""
        raise NotImplementedError

    def export(self) -> dict[str, object]:
        """What must survive a restart (JSON-able): virtual times, meters, ledger of charges, past runs."""
        raise NotImplementedError

    @classmethod
    def revive(cls, settings: QueueSettings, state: Mapping[str, object]) -> Gatekeeper:
        """A gatekeeper from an export. Then send nodes, GangArrived and GangFound of all pods, and Listed."""
        raise NotImplementedError
