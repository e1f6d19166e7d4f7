"""Where the pods of a gang should go, asked when it is released: the hint that its releasing patch carries.

The process that scores nodes for kube-scheduler is asked for the plan of the
whole gang, several gangs at a time and one request after the other, so that
each is planned on what the one before has left. A request without an answer after
`timeout_s` releases all that wait for one without a hint, and that is said.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import msgspec

from model import protocol
from scheduler.core.plans import PATH, PODS_AT_ONCE, PlanReply, PlanRequest, PodPlan
from scheduler.core.queue.actions import ReleaseGang
from scheduler.core.queue.events import Event, Planned
from scheduler.core.receipts import why_not

RETRY_S, RETRY_S_MAX = 0.5, 10.0
"""After a failure nobody waits for another so long; it doubles, with jitter."""
REMEMBERED = 20_000
"""Gangs of which it is remembered what was planned."""
NO_ROOM = "it was released without room, so that nodes come for it"
GONE = "it was over before it was planned"
_REPLY = msgspec.json.Decoder(PlanReply)

log = logging.getLogger(__name__)


class PlanError(Exception):
    """There is no plan; the message says why."""


class _Wish(NamedTuple):
    action: ReleaseGang
    answer: asyncio.Future[Mapping[str, PodPlan]]

    def settle(self, plans: Mapping[str, PodPlan]) -> None:
        if not self.answer.done():
            self.answer.set_result(plans)

    def give_up(self, why: str) -> None:
        self.settle(_nothing(self.action, why))


@dataclass(slots=True)
class HintStats:
    """Counts since the start: pods with a hint, and without one by why; what was the last failure."""

    hinted: int = 0
    unhinted: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    failures: int = 0
    failure: str = ""
    """Why the last request brought no plan; empty when it did."""


class Hints:
    """Plans of gangs that are being released; with an empty `url` there are none.

    `room_of` tells what is free for these pods, by gang, `tell` is called with where they are expected.
    """

    def __init__(
        self,
        url: str,
        room_of: Callable[[Mapping[str, Collection[str]]], PlanRequest],
        tell: Callable[[Event], None],
        timeout_s: float,
    ) -> None:
        self._url, self._room_of, self._tell, self._timeout_s = url.rstrip("/"), room_of, tell, timeout_s
        self._waiting: deque[_Wish] = deque()
        self._wake = asyncio.Event()
        self._again_s = 0.0
        self._pause_s = RETRY_S
        self._sentences: OrderedDict[str, str] = OrderedDict()
        self.stats = HintStats()

    @property
    def wanted(self) -> bool:
        """True when placement is written at release."""
        return bool(self._url)

    def said_of(self, uid: str) -> str:
        """What was planned for a released gang, in a sentence; empty when that is not known."""
        return self._sentences.get(uid, "")

    async def of(self, action: ReleaseGang) -> Mapping[str, PodPlan]:
        """A plan for each pod of the gang, some of them empty; in no case an error."""
        if not self.wanted:
            return {}
        plans = await self._asked(action)
        self._remember(action, plans)
        return plans

    async def run(self) -> None:
        """Ask for plans until cancelled."""
        if not self.wanted:
            return
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, headers=[protocol.own()]) as session:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._ask(session, self._next())

    async def _asked(self, action: ReleaseGang) -> Mapping[str, PodPlan]:
        if not action.receipt.placement:
            return _nothing(action, NO_ROOM)
        if time.monotonic() < self._again_s:
            return _nothing(action, self.stats.failure)
        wish = _Wish(action, asyncio.get_running_loop().create_future())
        self._waiting.append(wish)
        self._wake.set()
        return await wish.answer

    def _next(self) -> list[_Wish]:
        """The first that wait, at least one."""
        some = [self._waiting.popleft()]
        pods = len(some[0].action.pods)
        while self._waiting and (pods := pods + len(self._waiting[0].action.pods)) <= PODS_AT_ONCE:
            some.append(self._waiting.popleft())
        return some

    async def _ask(self, session: aiohttp.ClientSession, some: list[_Wish]) -> None:
        room = self._room_of({wish.action.uid: wish.action.pods for wish in some})
        try:
            plans = await self._request(session, room) if room.pods else {}
        except PlanError as error:
            self._failed(str(error))
            for wish in (*some, *self._waiting):
                wish.give_up(self.stats.failure)
            self._waiting.clear()
            return
        self.stats.failure, self._pause_s = "", RETRY_S
        for wish in some:
            mine = {uid: plans[uid] for uid in wish.action.pods if uid in plans}
            nodes = {uid: plan.nodes[0][0] for uid, plan in mine.items() if plan.nodes}
            if nodes:
                self._tell(Planned(wish.action.uid, nodes))
            wish.settle(_nothing(wish.action, GONE) | mine)
        await asyncio.sleep(0)  # the core hears of these before it is asked what is free for the next

    async def _request(self, session: aiohttp.ClientSession, room: PlanRequest) -> dict[str, PodPlan]:
        self.stats.requests += 1
        try:
            async with session.post(self._url + PATH, data=msgspec.json.encode(room)) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            why = str(error) or type(error).__name__
            raise PlanError(f"the extender at {self._url} cannot be reached: {why}") from error
        if answer.status != 200:
            told = content[:200].decode(errors="replace")
            raise PlanError(f"the extender at {self._url} answered {answer.status}: {told}")
        try:
            return {plan.uid: plan for plan in _REPLY.decode(content).pods}
        except msgspec.DecodeError as error:
            raise PlanError(f"the answer of the extender at {self._url} is no plan: {error}") from error

    def _failed(self, why: str) -> None:
        if not self.stats.failure:
            log.warning("gangs are released without a hint: %s", why)
        self.stats.failure = why
        self.stats.failures += 1
        self._again_s = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(RETRY_S_MAX, 2 * self._pause_s)

    def _remember(self, action: ReleaseGang, plans: Mapping[str, PodPlan]) -> None:
        for plan in plans.values():
            if plan.nodes:
                self.stats.hinted += 1
            else:
                self.stats.unhinted[plan.reason] += 1
        while len(self.stats.unhinted) > 100:
            self.stats.unhinted.popitem()
        self._sentences[action.uid] = sentence(plans.values())
        if len(self._sentences) > REMEMBERED:
            self._sentences.popitem(last=False)


def sentence(plans: Iterable[PodPlan]) -> str:
    """What was planned for a gang, for people."""
    found = list(plans)
    nodes = Counter(plan.nodes[0][0] for plan in found if plan.nodes)
    lacking = [plan for plan in found if not plan.nodes]
    told = ", ".join(f"{node} ({count} pods)" if count > 1 else node for node, count in nodes.items())
    some = f" for {len(lacking)} of its {len(found)} pods" if nodes else ""
    parts = [f"planned on {told}"] if nodes else []
    parts += [f"no hint was written{some}, because {why_not(lacking[0].reason)}"] if lacking else []
    return "; ".join(parts)


def _nothing(action: ReleaseGang, why: str) -> dict[str, PodPlan]:
    return {uid: PodPlan(uid, reason=why) for uid in action.pods}
