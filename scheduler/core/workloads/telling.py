"""What the queue is told of one gang: the difference between what is there and what it was told."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scheduler.core.queue.events import (
    Event,
    Gang,
    GangArrived,
    GangChanged,
    GangEnded,
    GangFound,
    GangWithdrawn,
    PodEnded,
    PodStarted,
    Shape,
    Unschedulable,
)
from scheduler.core.workloads.members import GangState, Member

HALF_OPEN_S = 10.0
"""The gates of a gang are opened one after another; if it takes longer, the queue looks after it again."""


def tell(state: GangState, now_s: float, *, listing: bool, since_s: float) -> list[Event]:
    """Events that bring the queue up to date about a gang.

    `listing`: everything is said again. Pods that had ended before `since_s`
    when they were first seen are old news; so are whole gangs of them.
    """
    touched, state.touched = state.touched, {}
    news = [one for one in touched.values() if one.uid in state.pods]
    if not state.pods:
        return list(_close(state, None, now_s))
    if state.told is None:
        _forget_old(state, since_s)
        if all(one.over for one in state.pods.values()) and max(_ends(state)) < since_s:
            return list(_old_news(state))
    if state.opened_s is None and any(_opened(one) for one in news):
        state.opened_s = now_s
    if state.opened_s is None:
        return list(_waiting(state, news, listing, now_s))
    return list(_released(state, news, listing, now_s))


def _waiting(state: GangState, news: list[Member], listing: bool, now_s: float) -> Iterator[Event]:
    """No gate is open. A pod that is gone ends: the queue may have asked to open it already."""
    last = None
    for member in [one for one in news if one.over]:
        last = member
        state.drop(member)
        if state.told is not None:
            yield PodEnded(state.uid, member.uid, member.ended_s, lost=True)
    if not state.pods:
        yield from _close(state, last, now_s)
        return
    gang, told = _gang(state), state.told
    if listing or gang != told:
        state.told = gang
        yield GangArrived(gang)


def _released(state: GangState, news: list[Member], listing: bool, now_s: float) -> Iterator[Event]:
    gang, told = _gang(state), state.told
    closed = _closed(state) if listing or not state.found else frozenset()
    if (
        told is None
        or (listing and state.living())
        or (not state.found and _worth_finding(state, closed, now_s))
    ):
        state.found = True
        yield from _found(state, gang, closed)
    elif gang is not told and {pod.uid for pod in gang.pods} - {pod.uid for pod in told.pods}:
        yield GangChanged(gang)
    state.told = gang
    for member in news:
        yield from _news_of(state, member)
    over = [one for one in news if one.over]
    for member in over:
        state.drop(member)
        ran_from_s = member.started_s if member.node else None
        yield PodEnded(state.uid, member.uid, member.ended_s, not member.ended_well, ran_from_s)
    if not state.pods:
        yield from _close(state, over[-1], now_s)


def _closed(state: GangState) -> frozenset[str]:
    return frozenset(uid for uid, one in state.pods.items() if one.ref.gated and not one.over)


def _worth_finding(state: GangState, closed: frozenset[str], now_s: float) -> bool:
    return not closed or (state.opened_s is not None and now_s > state.opened_s + HALF_OPEN_S)


def _found(state: GangState, gang: Gang, closed: frozenset[str]) -> Iterator[Event]:
    """As often as there are different starts: one event has one start for all its pods."""
    receipts = sorted(
        (one.receipt.released_s, one.receipt.charged_work)
        for one in state.pods.values()
        if not math.isnan(one.receipt.released_s)
    )
    released_s, charged_work = receipts[0] if receipts else (math.nan, math.nan)
    starts: dict[float | None, dict[str, str]] = {}
    for member in state.pods.values():
        if member.node and not member.over:
            starts.setdefault(member.started_s, {})[member.uid] = member.node
            member.said_started = True
    for started_s in sorted(starts, key=lambda at_s: at_s or 0.0) or [None]:
        yield GangFound(gang, starts.get(started_s, {}), started_s, released_s, charged_work, closed)


def _news_of(state: GangState, member: Member) -> Iterator[Event]:
    if member.over:
        return
    if member.node and not member.said_started:
        member.said_started = True
        yield PodStarted(state.uid, member.uid, member.node, member.started_s)
    if member.unschedulable and not member.said_unschedulable and not member.ref.gated:
        member.said_unschedulable = True
        yield Unschedulable(state.uid, member.unschedulable)


def _close(state: GangState, last: Member | None, now_s: float) -> Iterator[Event]:
    """No pod is left. Said even where the ends of all pods were: some may never have come (promised ones)."""
    if state.told is not None:
        at_s = now_s if last is None else last.ended_s
        if last is not None and last.ended_well:
            yield GangEnded(state.uid, at_s, last.started_s)
        else:
            yield GangWithdrawn(state.uid, at_s)
    state.told, state.opened_s, state.found, state.arrived_s = None, None, False, math.nan


def _forget_old(state: GangState, since_s: float) -> None:
    """Of a gang that lives, what ended long ago is nothing that the queue can count any more."""
    if any(not one.over for one in state.pods.values()):
        for member in [one for one in state.pods.values() if one.over and (one.ended_s or 0.0) < since_s]:
            state.drop(member)


def _old_news(state: GangState) -> Iterator[Event]:
    """All had ended when they were first seen; only a queue that remembers charging them is interested."""
    ran = [one.started_s for one in state.pods.values() if one.started_s is not None]
    if ran:
        yield GangEnded(state.uid, max(_ends(state)), min(ran))
    state.pods.clear()


def _ends(state: GangState) -> Iterator[float]:
    return (one.ended_s for one in state.pods.values() if one.ended_s is not None)


def _opened(member: Member) -> bool:
    return bool(member.node) or not (member.ref.gated or member.over)


def _gang(state: GangState) -> Gang:
    """The gang as the queue knows gangs; without an estimate, which is not ours to make."""
    if not state.fresh and state.told is not None:
        return state.told
    state.fresh = False
    members = list(state.pods.values())
    first = next((one for one in members if one.says.driver), members[0])
    size = state.family.size if state.family is not None and state.family.core is state else None
    hints = [one.says.hint_s for one in members if not math.isnan(one.says.hint_s)]
    return Gang(
        state.uid,
        state.flow,
        tuple([one.slot for one in members]),
        state.arrived_s,
        job=state.job,
        priority=max(one.says.priority for one in members),
        size=max(1, state.family.seats(first)) if state.family is not None and size is not None else 0,
        promised=_promised(state, size.promised, size.pods) if size is not None else (),
        job_class=first.says.job_class,
        hint_s=max(hints, default=math.nan),
        recreates=all(one.says.recreates for one in members),
    )


def _promised(state: GangState, shapes: tuple[Shape, ...], pods: int) -> tuple[Shape, ...]:
    """Pods that are still to come, once those that do not wait for them are there."""
    return shapes[: max(0, pods - state.living())] if shapes else ()
