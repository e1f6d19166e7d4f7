"""The fair queue at work, for as long as this replica leads: watches in, decisions, changes out.

    nodes, pods, owners, FairQueue --watches--> assembly (pods -> gangs) --events--> inbox
    inbox --all at once--> Gatekeeper.handle_all --actions--> releases, deletions, announcements
                                                    releases --what came of them--> inbox

One task takes the inbox and asks the core; nothing else changes the core. What
came in meanwhile is taken together, so that under load there is one decision
for many events. Everything lives for one term of leading: the next term begins
from the checkpoint and the API server, as after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scheduler.config import ControllerSettings
from scheduler.core.plans import PlanRequest
from scheduler.core.queue.actions import Action, DeletePods, ReleaseGang, Report, Settled
from scheduler.core.queue.events import (
    Event,
    Promoted,
    QueueConfigured,
    QueuePaused,
    QueueResumed,
    Tick,
)
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.invariants import InvariantBroken
from scheduler.core.queue.lateness import LatenessRecord
from scheduler.core.queue.receipts import QueueView
from scheduler.core.queue.settings import QueueSettings
from scheduler.edge.announcements import TELLABLE, About, Announcements
from scheduler.edge.checkpointing import Checkpointing
from scheduler.edge.checkpoints import Checkpoints
from scheduler.edge.controller_state import OTHER_FLOWS, ControllerState, revived
from scheduler.edge.controller_stats import ControllerStats
from scheduler.edge.estimates import Estimates
from scheduler.edge.expected_starts import ExpectedStarts
from scheduler.edge.fair_queue import Configured, base_settings, configured
from scheduler.edge.feeds import Feeds
from scheduler.edge.hints import Hints
from scheduler.edge.kube import KubeClient
from scheduler.edge.queue_status import keep_status, status_of
from scheduler.edge.release import NotLeading, Releases, release_sentence
from scheduler.edge.waking import woken_within

CLOCKS_S = 120.0
"""By which clocks of machines, and words about ends, may be late: what ended so long before the checkpoint
is settled in it. Less than `ENDED_KEPT_S`, so that what ended since is not settled twice."""
HEARD_S_MAX = 5.0
"""The core hears of what was done by hand before it is written down; so long is waited for that."""
REQUEST_PART = 0.35
"""Of the lease that a change may last: what is in flight must end before another replica may act."""

log = logging.getLogger(__name__)


class Refused(Exception):
    """An administrator's wish cannot be fulfilled; the message says why."""


class Term:
    """One term of leading. `run` once; the rest reads, or takes the wishes of administrators.

    `holds` is asked before every change of the cluster. With a `planner_url` placement is written at release.
    """

    def __init__(
        self,
        own: ControllerSettings,
        kube: KubeClient,
        checkpoints: Checkpoints,
        holds: Callable[[], bool],
        stats: ControllerStats,
        estimates: Estimates,
        clock: Callable[[], float] = time.time,
        planner_url: str = "",
    ) -> None:
        self._own, self._kube, self._holds = own, kube, holds
        self._clock, self._estimates = clock, estimates
        self.stats = stats
        self.state = ControllerState(at_s=clock())
        self.keeper: Gatekeeper | None = None
        self.feeds = Feeds(kube, own, self.tell, clock)
        self._inbox: list[Event] = []
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self._heard.set()
        self._configured = Configured(base_settings(own, {"pods": 1.0}), False, ())
        self._paused = False
        self._kept = Checkpointing(
            checkpoints, self._told, lambda: self.unready, holds, stats, own.checkpoint_s
        )
        self.lateness = LatenessRecord()
        self.expected = ExpectedStarts(
            lambda: self.keeper,
            clock(),
            gangs=own.expected_gangs,
            every_s=own.expected_every_s,
            share=own.expected_core_share,
        )
        where = self.feeds.pod_of
        request_s = REQUEST_PART * own.lease_s
        self.hints = Hints(planner_url, self._room_of, self._answer, own.plan_timeout_s)
        self.releases = Releases(
            kube,
            holds,
            where,
            self._answer,
            parallel=own.parallel,
            request_s=request_s,
            plan=self.hints.of,
            binds=own.hint_binds,
            nominates=own.hint_nominates,
        )
        self.announcements = Announcements(
            kube,
            holds,
            where,
            lambda: self.keeper.gangs(limit=TELLABLE) if self.keeper else (),
            self.expected.of,
            every_s=own.announce_s,
            per_s=own.announcements_per_s,
        )

    async def run(self) -> None:
        """Keep the queue until cancelled or until another replica may lead.

        Raises:
            NotLeading: another replica leads or may lead.
            KubeError: the API server was not there at the beginning.
        """
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self.feeds.nodes())
                await self._begin()
                self._tasks.create_task(self._decide())
                self._tasks.create_task(self.hints.run())
                self._tasks.create_task(self.feeds.workloads())
                self._tasks.create_task(self.feeds.owners())
                self._tasks.create_task(self.feeds.queue_object(self._own.queue, self._obey))
                self._tasks.create_task(self._tick())
                self._tasks.create_task(self._check())
                self._tasks.create_task(self._kept.run())
                self._tasks.create_task(self.announcements.run())
                self._tasks.create_task(self._estimates.run())
                self._tasks.create_task(self.expected.run())
                self._tasks.create_task(
                    keep_status(self._kube, self._own.queue, self._status, self._own.announce_s)
                )
        except* NotLeading as several:
            raise NotLeading(str(several.exceptions[0])) from several
        finally:
            await self._kept.last_word()

    @property
    def unready(self) -> str:
        """Why the queue cannot decide; empty when it can."""
        return "the queue is being rebuilt" if self.keeper is None else self.feeds.unready

    @property
    def paused(self) -> bool:
        """True while nothing is released, by hand or by the FairQueue object."""
        return self._paused

    @property
    def name(self) -> str:
        """The queue's."""
        return self._own.queue

    @property
    def complaints(self) -> tuple[str, ...]:
        """What of the FairQueue object could not be used."""
        return self._configured.complaints

    def tell(self, events: Sequence[Event]) -> None:
        """Something happened; the core will hear of it at once."""
        if events:  # many reports about pods say nothing new to the queue, those of its own conditions too
            self._inbox.extend(events)
            self._heard.clear()
            self._wake.set()

    def pause(self, paused: bool) -> None:
        """Hold all releases, or let them go on."""
        if not paused and self._configured.paused:
            raise Refused(f"the FairQueue {self._own.queue!r} says paused: true; change it there")
        self.state.paused = paused
        self._apply_pause()

    def set_weight(self, user: str, weight: float | None) -> None:
        """Give a user another weight than declared; None: the declared one again."""
        if weight is None:
            self.state.weights.pop(user, None)
        else:
            self.state.weights[user] = weight
        self.tell([QueueConfigured(self._settings())])

    def promote(self, uid: str) -> None:
        """Put a waiting gang before all others."""
        receipt = self.keeper.explain(uid) if self.keeper else None
        if receipt is None:
            raise Refused(f"no gang {uid!r} is known")
        if receipt.phase != "waiting":
            raise Refused(f"gang {uid!r} does not wait: {receipt.why}")
        self.tell([Promoted(uid)])

    async def keep(self) -> str:
        """Write down what was done by hand at once. Returns why that was not possible; empty if it was.

        Raises:
            NotLeading: another replica leads or may lead.
        """
        heard = await woken_within(self._heard, HEARD_S_MAX)
        unheard = "" if heard else f"the queue was too busy to hear of it for {HEARD_S_MAX:.0f} s"
        return await self._kept.write() or unheard

    def audit(self, what: str) -> None:
        """Leave an event about something an administrator did."""
        log.info("by hand: %s", what)
        self.announcements.event(self._queue_object(), "ByHand", what)

    async def _begin(self) -> None:
        """The gatekeeper: from the checkpoint, else from the nodes there are."""
        state, trouble = await self._kept.read(self._clock())
        self._obey(await self.feeds.read_queue_object(self._own.queue))
        reference = (state.core or {}).get("reference") or self._own.reference
        if state.by_namespace != self._configured.by_namespace:
            trouble = trouble or (OTHER_FLOWS if state.core else "")
            state = ControllerState(state.at_s, state.paused, by_namespace=not state.by_namespace)
        if not reference:
            reference = await self.feeds.capacity(self._configured.settings)
        self._configured = self._configured_with(reference)
        settings = self._settings()
        keeper, unusable = revived(settings, state.core, self._clock())
        if unusable:
            self._kept.complain(unusable)
        self.state, self.keeper = state, keeper
        if self._own.reference and dict(self._own.reference) != dict(reference):
            self._configured = self._configured_with(self._own.reference)
            self.tell([QueueConfigured(self._settings())])
        self.feeds.begin(state.at_s - CLOCKS_S, by_namespace=state.by_namespace)
        if trouble:
            self.announcements.event(self._queue_object(), "CheckpointLost", trouble, warning=True)
        self._apply_pause()

    async def _decide(self) -> None:
        """The only task that lets the core decide."""
        assert self.keeper is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            events, self._inbox = self._inbox, []
            begun_s = time.perf_counter()
            for action in self.keeper.handle_all(self._estimates.inform(events), self._clock()):
                self._act(action)
            if not self._inbox:
                self._heard.set()
            self.lateness.follow(events, self.keeper, self._clock())
            self.expected.follow(events)
            if any(isinstance(event, Tick) for event in events):
                self._observe(self.keeper.dump())
            self.stats.handled(events, time.perf_counter() - begun_s)
            await asyncio.sleep(0)

    def _observe(self, view: QueueView) -> None:
        self.lateness.resize(view.usable)
        self.state.usage.observed(view, self._clock())

    def _act(self, action: Action) -> None:
        match action:
            case ReleaseGang():
                self.stats.released(action)
                self.expected.released(action.uid, self._clock())
                self._tasks.create_task(self._release(action))
            case DeletePods():
                self.announcements.of_pod(action.pods[0], "Deleted", action.reason, warning=True)
                self._tasks.create_task(self.releases.delete(action))
            case Report():
                self._report(action)
            case Settled():
                self.state.settled(action.uid, self._clock())
                self.state.usage.settled(action)
                self.stats.settled(action)
                verdict = self.lateness.ended(action, self._clock())
                if verdict is not None:
                    self.stats.judged(verdict)
                log.info(
                    "gang %s ended: %.6g charged, %.6g used",
                    action.uid,
                    action.charged_work,
                    action.actual_work,
                )

    async def _release(self, action: ReleaseGang) -> None:
        await self.releases.release(action)
        if not action.completing and action.pods:
            told = release_sentence(action, self.hints.said_of(action.uid))
            self.announcements.of_pod(action.pods[0], "Released", told)

    def _room_of(self, wanted: Mapping[str, Collection[str]]) -> PlanRequest:
        assert self.keeper is not None
        return self.keeper.room_of(wanted)

    def _answer(self, event: Event) -> None:
        self.tell([event])

    def _report(self, report: Report) -> None:
        self.stats.troubles[report.trouble] += 1
        log.warning("%s: %s: %s", report.uid or "queue", report.trouble, report.sentence)
        receipt = self.keeper.explain(report.uid) if report.uid and self.keeper else None
        reason = "".join(word.capitalize() for word in report.trouble.split())
        if receipt is None or not receipt.pods:
            sentence = f"gang {report.uid}: {report.sentence}" if report.uid else report.sentence
            self.announcements.event(self._queue_object(), reason, sentence, warning=True)
        else:
            self.announcements.of_pod(receipt.pods[0], reason, report.sentence, warning=True)

    def _queue_object(self) -> About:
        return About("FairQueue", "", self._own.queue, api_version="fairlane.dev/v1alpha1")

    def _obey(self, spec: dict[str, Any] | None) -> None:
        """The FairQueue object was read or has changed."""
        self.feeds.spec = spec or {}
        self._configured = self._configured_with(self._configured.settings.reference)
        for complaint in self._configured.complaints:
            log.warning("FairQueue %s: %s", self._own.queue, complaint)
        if self.keeper is not None:
            if self._configured.by_namespace != self.state.by_namespace:
                raise NotLeading(OTHER_FLOWS)  # the next term, which is mine again, begins with the others
            self.tell([QueueConfigured(self._settings())])
            self._apply_pause()

    def _configured_with(self, reference: Any) -> Configured:
        return configured(self.feeds.spec, base_settings(self._own, reference))

    def _status(self) -> dict[str, Any] | None:
        if self.keeper is None or self.feeds.generation is None or not self._holds():
            return None
        return status_of(self.keeper.dump(), self.feeds.generation, self.unready, self.complaints)

    def _settings(self) -> QueueSettings:
        by_hand: dict[tuple[str, ...], float] = {(user,): it for user, it in self.state.weights.items()}
        declared = self._configured.settings
        return replace(declared, weights={**declared.weights, **by_hand})

    def _apply_pause(self) -> None:
        paused = self.state.paused or self._configured.paused
        if paused != self._paused:
            self._paused = paused
            self.tell([QueuePaused() if paused else QueueResumed()])

    async def _tick(self) -> None:
        """Time passes for the core only while pods can be seen: it settles what vanished by the last tick."""
        while True:
            await asyncio.sleep(self._own.tick_s)
            if not self.feeds.unready:
                self.tell([Tick()])
            for remark in self.feeds.take_remarks():
                log.warning("%s/%s: %s", remark.namespace, remark.name or "*", remark.sentence)
                self.announcements.remark(remark)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._own.check_s)
            try:
                if self.keeper is not None:
                    self.keeper.check_invariants()
            except InvariantBroken as error:
                self.stats.invariant_failures += 1
                self.stats.broken_invariant = str(error)
                log.error("the queue contradicts itself, please report this: %s", error)

    def _told(self) -> dict[str, Any]:
        assert self.keeper is not None
        return self.state.told(self.keeper.export(), self._clock())
