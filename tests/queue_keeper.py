"""A gatekeeper that tests talk to, and short ways to make events and to read actions."""

from __future__ import annotations

from scheduler.core.queue.actions import Action, ReleaseGang, Report, Settled, Trouble
from scheduler.core.queue.events import Estimate, Event, Gang, GangArrived, NodeSet
from scheduler.core.queue.gangs import Phase
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings


class Queue:
    """A gatekeeper of so many slots; `at` sends an event and keeps all actions."""

    def __init__(self, slots: int = 1, **knobs: object) -> None:
        self.keeper = Gatekeeper(slots_settings(slots, **knobs))
        self.actions: list[Action] = []
        self.at(0, NodeSet(slots_node(slots)))

    def at(self, now_s: float, *events: Event) -> list[Action]:
        found = [action for event in events for action in self.keeper.handle(event, now_s)]
        self.actions += found
        return found

    @property
    def reserved(self) -> str:
        """The gang that has the reservation; empty when none has."""
        found = self.keeper.dump().reserved
        return found[0] if found is not None else ""

    def phase(self, uid: str) -> Phase | None:
        receipt = self.keeper.explain(uid)
        return receipt.phase if receipt is not None else None


def gang(
    uid: str, flow: str = "u", lasts_s: float = 10.0, width: int = 1, at_s: float = 0.0, **more: object
) -> Gang:
    return slots_gang(uid, flow, at_s, Estimate.exactly(lasts_s), width, **more)


def arrive(uid: str, flow: str = "u", **more: object) -> GangArrived:
    return GangArrived(gang(uid, flow, **more))  # type: ignore[arg-type]


def released(actions: list[Action]) -> list[str]:
    return [action.uid for action in actions if isinstance(action, ReleaseGang)]


def troubles(actions: list[Action]) -> list[Trouble]:
    return [action.trouble for action in actions if isinstance(action, Report)]


def settled(actions: list[Action]) -> list[Settled]:
    return [action for action in actions if isinstance(action, Settled)]
