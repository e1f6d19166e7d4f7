"""What arrived lately, and futures drawn from it: circular blocks of each user's own recent past.

A future is a row of blocks of time. For each block and user a piece of the
window as long is drawn, anywhere and around its end, and what that user
submitted in it is submitted again at the same distances. So a user's rate,
his sizes, his bursts and which gangs make a job stay his own, and nothing has
to be assumed about their distributions (a circular block bootstrap, by user).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from scheduler.core.queue.events import Estimate, Gang, GangPod

WINDOW_S = 3600.0
KEPT = 2000
BLOCKS = 8
"""Into so many blocks is the window cut."""
OBSERVED_LEAST_S = 60.0
"""What was watched for less than this says nothing about rates."""


class Chance(Protocol):
    """Where random numbers come from, such as `random.Random(seed)`."""

    def random(self) -> float:
        """A number from 0 up to, but not including, 1."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """Gangs (with the estimates they got) that arrived from `since_s` to `until_s`, in order of time."""

    since_s: float
    until_s: float
    gangs: tuple[Gang, ...]

    @property
    def observed_s(self) -> float:
        """How long was watched."""
        return self.until_s - self.since_s

    @property
    def tells(self) -> bool:
        """True when it was watched for long enough to say what will come."""
        return self.observed_s >= OBSERVED_LEAST_S


class RecentArrivals:
    """The gangs that arrived within the last `window_s`, at most `most` of them."""

    def __init__(self, since_s: float, window_s: float = WINDOW_S, most: int = KEPT) -> None:
        self._since_s, self._window_s, self._most = since_s, window_s, most
        self._gangs: OrderedDict[str, Gang] = OrderedDict()

    def note(self, gang: Gang, estimate: Estimate) -> None:
        """A gang is there, new or changed; one that came before the watching began tells nothing."""
        if gang.arrived_s < self._since_s:
            return
        self._gangs[gang.uid] = replace(gang, estimate=estimate)
        if len(self._gangs) > self._most:
            _, oldest = self._gangs.popitem(last=False)
            self._since_s = max(self._since_s, oldest.arrived_s)

    def past(self, now_s: float) -> Past:
        """What is known now."""
        self._since_s = max(self._since_s, now_s - self._window_s)
        for uid in [uid for uid, gang in self._gangs.items() if gang.arrived_s < self._since_s]:
            del self._gangs[uid]
        gangs = sorted(self._gangs.values(), key=lambda gang: gang.arrived_s)
        return Past(self._since_s, now_s, tuple(gangs))


def draw_arrivals(past: Past, chance: Chance) -> Iterator[Gang]:
    """Gangs that may arrive from `past.until_s` on, in order of time, without end (nothing, if none came)."""
    of_user: dict[str, list[Gang]] = {}
    for gang in past.gangs:
        of_user.setdefault(gang.flow, []).append(gang)
    block_s, block = past.observed_s / BLOCKS, 0
    while of_user:
        begin_s = past.until_s + block * block_s
        drawn = [
            each for user in of_user for each in _block(past, of_user[user], begin_s, block_s, block, chance)
        ]
        yield from sorted(drawn, key=lambda gang: (gang.arrived_s, gang.uid))
        block += 1


def _block(
    past: Past, gangs: list[Gang], begin_s: float, block_s: float, block: int, chance: Chance
) -> Iterator[Gang]:
    offset_s = chance.random() * past.observed_s
    for gang in gangs:
        after_s = (gang.arrived_s - past.since_s - offset_s) % past.observed_s
        if after_s < block_s:
            uid, job = f"future/{block}/{gang.uid}", f"future/{block}/{gang.job}" if gang.job else ""
            pods = tuple(GangPod(f"future/{block}/{pod.uid}", pod.shape) for pod in gang.pods)
            yield replace(gang, uid=uid, job=job, pods=pods, arrived_s=begin_s + after_s)
