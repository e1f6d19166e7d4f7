"""Charges: what a gang owes from its release to its settlement, and the room it takes meanwhile.

Each step keeps the order of release, the room taken and the gang's record in
agreement; what happened and what to do about it is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scheduler.core.queue.actions import ReleaseGang, ReleaseReceipt, Report, Settled
from scheduler.core.queue.capacity import Placement
from scheduler.core.queue.events import Estimate, Gang, GangPod
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.gangs import GangRecord, Phase, requests_of
from scheduler.core.queue.levels import Place
from scheduler.core.queue.settings import QueueSettings
from scheduler.core.queue.waiting import ENDED_KEPT, WaitingRoom

_NOTHING = 1e-12


@dataclass(slots=True)
class Restored:
    """An open charge from a checkpoint whose gang was not seen since. As in `GangRecord`.

    `running`: start and share of each pod that ran; what else was used is the work of the pods that `ended`.
    """

    place: Place
    estimate: Estimate
    group: str
    job_class: str
    share: float
    charged_work: float
    used_work: float
    held_share: float
    counted_s: float
    released_s: float
    started_s: float | None
    tag: float
    position: int
    backfilled: bool
    pods: tuple[str, ...]
    ended: tuple[str, ...]
    ended_work: float
    running: dict[str, tuple[float, float]]


class Book(WaitingRoom):
    """The queue's state with the steps of released gangs."""

    def __init__(self, settings: QueueSettings, clock: Callable[[float], FairClock] = FairClock) -> None:
        super().__init__(settings, clock)
        self.restored: dict[str, Restored] = {}
        self.carried: dict[str, float] = {}
        """Pods that the gang they had at the checkpoint has no more, and until when it counted them."""

    def release(
        self, record: GangRecord, placement: Placement, *, tag: float, backfilled: bool
    ) -> ReleaseGang:
        """Charge a waiting gang, take room for it if there is any, and open its gates."""
        self._count_waiting(record, -1)
        self.order.charge(record.place, self.now_s)
        self._begin(record, self.now_s, record.place.work)
        record.tag, record.backfilled = tag, backfilled
        if not placement:
            self.roomless[record.gang.uid] = None
        self.keep_room(record.wanted(), placement)
        return self.open(record, list(record.gang.pods), placement)

    def keep_room(self, pods: list[GangPod], placement: Placement) -> None:
        """Count pods where they are planned."""
        for pod in pods:
            if pod.uid in placement:
                self.capacity.plan(pod, placement[pod.uid])

    def unplaced(self, record: GangRecord) -> list[GangPod]:
        """Pods of a released gang that may start, or are promised, and that no room is kept for."""
        closed = {pod.uid for pod in record.missing()}
        return [
            pod
            for pod in record.wanted()
            if not (pod.uid in record.started or pod.uid in closed or self.capacity.node_of(pod.uid))
        ]

    def adopt(self, record: GangRecord, released_s: float, work: float) -> None:
        """Charge a gang that was found released; one that waits here stops waiting."""
        waited = record.waits
        if waited:
            self._count_waiting(record, -1)
        self.leave_aside(record)
        if not waited and math.isfinite(work) and work >= 0:
            record.place = Place(
                record.place.uid, record.place.path, record.place.job, record.place.arrived_s, work
            )
        self.order.charge(record.place, self.now_s, waited=waited)
        self._begin(record, released_s if math.isfinite(released_s) else self.now_s, record.place.work)

    def open(
        self, record: GangRecord, pods: list[GangPod], placement: Placement, *, completing: bool = False
    ) -> ReleaseGang:
        """Ask to open the gates of these pods of a charged gang."""
        record.asked.update(pod.uid for pod in pods)
        record.asked_s = self.now_s
        self.set_deadline(record)
        receipt = ReleaseReceipt(
            self.now_s,
            record.charged_work,
            record.share,
            record.tag,
            record.position,
            record.estimate,
            {pod.uid: placement[pod.uid] for pod in pods if pod.uid in placement},
            record.backfilled,
        )
        uids = tuple(pod.uid for pod in pods)
        return ReleaseGang(record.gang.uid, record.gang.flow, uids, receipt, completing)

    def start(self, record: GangRecord, pod: GangPod, node: str, at_s: float) -> None:
        """A pod of a charged gang is bound to a node."""
        if pod.uid in record.ended:
            return
        if node:
            self.capacity.put(pod.uid, node, pod.shape.requests)
        if pod.uid in record.started:
            return
        at_s = min(max(at_s, self.carried.get(pod.uid, -math.inf)), self.now_s)
        record.asked.add(pod.uid)
        record.open.add(pod.uid)
        record.count_until(self.now_s)
        change = record.bind(pod, at_s, self.settings.reference)
        late = change * (self.now_s - at_s)
        record.used_work += late
        self.order.hold(record.place.path, change, 1, late, self.now_s)
        if record.started_s is None:
            record.started_s, record.phase = at_s, Phase.RUNNING
            self.expect_end(record)
        self.look_out(record)

    def stop(self, record: GangRecord, pod: GangPod, at_s: float) -> None:
        """A pod of a charged gang has ended; it gives its room back."""
        if pod.uid in record.ended:
            return
        self.capacity.drop(pod.uid)
        if pod.uid not in record.started:
            record.ended.add(pod.uid)
            return
        at_s = min(max(at_s, record.started[pod.uid]), self.now_s)
        record.count_until(self.now_s)
        change = record.unbind(pod, self.settings.reference)
        late = change * (self.now_s - at_s)
        record.used_work = max(0.0, record.used_work + late)
        record.ended_work -= change * (at_s - record.started[pod.uid])
        self.order.hold(record.place.path, change, -1, late, self.now_s)
        self.look_out(record)

    def settle(self, record: GangRecord, at_s: float, *, vanished: bool = False) -> Settled:
        """A charged gang is done with: what it used replaces its charge; its record is gone."""
        ran_to_end = record.all_ended() and record.started_s is not None and not vanished
        ran = frozenset(record.started.keys() | record.ended)
        for pod in record.wanted():
            if pod.uid in record.pods:
                self.stop(record, pod, at_s)
            self.capacity.drop(pod.uid)
        self.order.settle(record.place, record.used_work, self.now_s)
        path, gang = record.place.path, record.gang
        self.received[path] = self.received.get(path, 0.0) + record.used_work
        self._vacate(record)
        finished_s = max(min(at_s, self.now_s), record.started_s or -math.inf)
        if ran_to_end and record.started_s is not None:
            self.runs.ended(gang, max(0.0, finished_s - record.started_s), record.estimate.p50_s)
        self._drop(record)
        self._bury(gang.uid, frozenset(record.pods), ran)
        return Settled(
            gang.uid,
            gang.flow,
            record.place.job[1],
            gang.group,
            gang.job_class,
            gang.arrived_s,
            record.released_s,
            record.started_s,
            finished_s,
            record.share,
            record.charged_work,
            record.used_work,
            record.estimate,
            record.backfilled,
            vanished,
            record.requests,
        )

    def charge_overrun(self, record: GangRecord) -> None:
        """A running gang that has used more than its charge pays the rest now."""
        if record.used_work > record.charged_work:
            self.order.overrun(record.place, record.used_work, self.now_s)
            record.charged_work = record.used_work

    def take_back(self, record: GangRecord) -> list[Report]:
        """Nothing of a released gang was opened: it waits again as if it had not been charged."""
        for pod in record.wanted():
            self.capacity.drop(pod.uid)
        self._vacate(record)
        again = self.learn_again(record, record.gang)
        # It waits again before its charge is gone, so that its flow is not lifted in between.
        reports = self.join(again, again=True)
        self.order.settle(record.place, record.used_work, self.now_s)
        return reports

    def give_up_room(self, record: GangRecord) -> None:
        """Others may use the room of a released gang; where its pods are bound all the same, they count.

        Where an autoscaler brings nodes for it, those are still its.
        """
        for pod in record.wanted():
            self.capacity.drop(pod.uid)
        if self.settings.release_head_after_s == math.inf:
            self.roomless.pop(record.gang.uid, None)
        self.look_again = True

    def give_up_promised(self, record: GangRecord) -> None:
        """Pods that were promised will not come; their room is free."""
        for pod in record.stand_ins:
            self.capacity.drop(pod.uid)
        record.stand_ins.clear()
        self.look_again = True

    def resume(self, gang: Gang) -> GangRecord | None:
        """The record of a gang that is charged according to a checkpoint; None for any other."""
        info = self.restored.pop(gang.uid, None)
        if info is None:
            return None
        record = self.learn(gang, info.estimate)
        record.place, record.share, record.tag = info.place, info.share, info.tag
        record.position, record.backfilled = info.position, info.backfilled
        self._begin(record, info.released_s, info.charged_work)
        if info.started_s is not None:
            record.phase, record.started_s = Phase.RUNNING, info.started_s
            self.expect_end(record)
        self._count_anew(record, info)
        return record

    def _count_anew(self, record: GangRecord, info: Restored) -> None:
        """Pods that ran at the checkpoint count from their starts: only their ends will tell what they used.

        What is not there any more had gone when it was last seen, or is of another gang, which counts it.
        """
        gone = {uid for uid in info.running.keys() - record.pods.keys() if not self._counted_elsewhere(uid)}
        self.carried.update(dict.fromkeys(gone, info.counted_s))
        running = ((started_s, share) for uid, (started_s, share) in info.running.items() if uid in gone)
        record.used_work = record.ended_work = info.ended_work + sum(
            share * (info.counted_s - started_s) for started_s, share in running
        )
        record.ended = {uid for uid in info.ended if uid in record.pods}
        self.order.hold(record.place.path, 0.0, 0, record.used_work - info.used_work, self.now_s)
        for uid in [uid for uid in info.running if uid in record.pods]:
            self.start(record, record.pods[uid], "", info.running[uid][0])

    def _counted_elsewhere(self, pod: str) -> bool:
        """True for a pod that another gang has now: labels may be edited while a release is under way."""
        return pod in self.ran or bool(self.capacity.node_of(pod))

    def refund_unreleased(self, uid: str) -> None:
        """A gang charged according to a checkpoint waits with closed gates: it was never released."""
        info = self.restored.pop(uid, None)
        if info is not None:
            self.order.settle(info.place, info.used_work, self.now_s)

    def end_restored(self, uid: str, at_s: float, started_s: float | None) -> list[Settled]:
        """A gang charged according to a checkpoint ended before it was seen again."""
        info = self.restored.pop(uid, None)
        if info is None:
            return []
        if info.started_s is None and started_s is not None:
            info = replace(info, started_s=started_s, counted_s=started_s, held_share=info.share)
        actual = info.used_work
        if info.started_s is not None:  # it may have ended, unheard of, before the checkpoint was made
            actual = max(0.0, actual + info.held_share * (at_s - info.counted_s))
        path = info.place.path
        self.order.hold(path, 0.0, 0, actual - info.used_work, self.now_s)
        self.order.settle(info.place, actual, self.now_s)
        self.received[path] = self.received.get(path, 0.0) + actual
        self._bury(uid, frozenset(info.pods), frozenset({*info.running, *info.ended}))
        return [
            Settled(
                uid, path[-1], info.place.job[1], info.group, info.job_class, info.place.arrived_s,
                info.released_s, info.started_s, at_s, info.share, info.charged_work, actual,
                info.estimate, info.backfilled, vanished=True,
            )
        ]  # fmt: skip

    def end_of_revival(self) -> list[Settled]:
        """All pods were listed: what was charged and is not there ended when it was last seen."""
        settled = [
            one
            for uid, info in list(self.restored.items())
            for one in self.end_restored(uid, max(info.counted_s, info.released_s), None)
        ]
        self.carried.clear()
        self.order.end_of_revival(self.now_s)
        self.no_room_since_s = {uid: at_s for uid, at_s in self.no_room_since_s.items() if uid in self.gangs}
        self.promoted = {uid: None for uid in self.promoted if uid in self.gangs}
        return settled

    def _begin(self, record: GangRecord, released_s: float, work: float) -> None:
        record.phase, record.released_s, record.charged_work = Phase.OPENING, released_s, work
        record.pods = {pod.uid: pod for pod in record.gang.pods}
        record.requests = requests_of(record.gang)
        record.counted_s = self.now_s
        path = record.place.path
        self.occupied[path] = self.occupied.get(path, 0.0) + record.share
        self.expect_end(record)
        self.promoted.pop(record.gang.uid, None)
        self.no_room_since_s.pop(record.gang.uid, None)
        if self.reservation is not None and self.reservation.uid == record.gang.uid:
            self.reservation = None

    def expect_end(self, record: GangRecord) -> None:
        """Note when a charged gang will probably have ended."""
        began_s = record.released_s if record.started_s is None else record.started_s
        self.ends.put(record.gang.uid, (began_s + self.lasts_s(record),))

    def look_out(self, record: GangRecord) -> None:
        """Note when a running gang will have used up its charge."""
        if record.held_share > 0:
            left_s = max(0.0, record.charged_work - record.used_work) / record.held_share
            self.overruns.put(record.gang.uid, (self.now_s + left_s,))
        else:
            self.overruns.remove(record.gang.uid)

    def _vacate(self, record: GangRecord) -> None:
        path = record.place.path
        # Pods without requests hold no share: the path may be gone with the last one that did.
        left = self.occupied.pop(path, 0.0) - record.share
        if left > _NOTHING:
            self.occupied[path] = left
        for heap in (self.ends, self.overruns):
            heap.remove(record.gang.uid)
        self.missing.pop(record.gang.uid, None)
        self.roomless.pop(record.gang.uid, None)
        self._give_up_reservation(record.gang.uid)
        self.look_again = True

    def dig_up(self, gang: Gang) -> None:
        """Pods that wait did not end with the gang they were of: one of this uid, or each by itself."""
        pods = {pod.uid for pod in gang.pods}
        for uid in (pods | {gang.uid}) & self.ended.keys():
            self.ended[uid] -= pods

    def _bury(self, uid: str, pods: frozenset[str], ran: frozenset[str]) -> None:
        self.ended[uid] = self.ended.pop(uid, frozenset()) | pods
        self.ran |= ran & pods
        if len(self.ended) > ENDED_KEPT:
            self.ran -= self.ended.popitem(last=False)[1]
