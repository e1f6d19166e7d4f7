"""Everything the queue knows, and how gangs come to wait and cease to.

Each step keeps the order of release, the room taken and the gang's record in
agreement; what happened and what to do about it is decided elsewhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from scheduler.core.queue.actions import Report, Trouble
from scheduler.core.queue.backfill import Reservation
from scheduler.core.queue.capacity import Capacity, Trial
from scheduler.core.queue.estimates import PastRuns
from scheduler.core.queue.events import Estimate, Gang, Shape
from scheduler.core.queue.fair_clock import FairClock
from scheduler.core.queue.fair_order import FairOrder
from scheduler.core.queue.gangs import GangRecord, Phase, complete, promised_pods, share_of
from scheduler.core.queue.levels import Path, Place
from scheduler.core.queue.ordered import Ordered
from scheduler.core.queue.settings import QueueSettings

ENDED_KEPT = 50_000
"""Ended gangs remembered, so that late and doubled events about them change nothing."""
PLACES_COUNTED = 32
"""How far a gang's place is counted when it arrives; further back it is told when it is asked for."""
FORMS_KEPT = 10_000
_Key = TypeVar("_Key", bound=Hashable)
Form = tuple[tuple[Shape, int], ...]


@dataclass(slots=True)
class Hold:
    """A class of gangs that kube-scheduler could not place: others of it wait until then."""

    until_s: float
    uid: str
    reason: str


class WaitingRoom:
    """The queue's state and the steps of gangs that are not released; `now_s` never goes back."""

    def __init__(self, settings: QueueSettings, clock: Callable[[float], FairClock] = FairClock) -> None:
        self.settings = settings
        self.now_s = -math.inf
        self.weights = dict(settings.weights)
        depth = 2 if settings.grouped else 1
        self.order = FairOrder(depth, settings.lag_limit_share_s, self.weight_of, clock)
        self.order.order_jobs_by_arrival(settings.by_arrival_inside_user)
        self.capacity = Capacity(settings.node_selector, settings.node_tolerations)
        self.runs = PastRuns()
        self.gangs: dict[str, GangRecord] = {}
        self.ended: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.ran: set[str] = set()
        """Of the pods that ended those that ran: their work is counted, whichever gang they are told of."""
        self.received: dict[Path, float] = {}
        self.occupied: dict[Path, float] = {}
        self.waiting_of: dict[Path, int] = {}
        self.ends: Ordered[str] = Ordered()
        self.overruns: Ordered[str] = Ordered()
        self.deadlines: Ordered[str] = Ordered()
        self.infeasible: dict[str, None] = {}
        self.turned_away: dict[Path, Ordered[str]] = {}
        """Gangs beyond their flow's `max_waiting_per_flow`, oldest first: they count nothing."""
        self.missing: dict[str, None] = {}
        self.promoted: dict[str, None] = {}
        self.holds: dict[object, Hold] = {}
        self.roomless: dict[str, None] = {}
        """Released gangs with pods that no room is kept for yet; what becomes free is theirs first."""
        self.no_room_since_s: dict[str, float] = {}
        """Since when a waiting gang that was first in line has had no room; only where that matters."""
        self.watched_s = -math.inf
        self.waiting_forms: dict[int, Ordered[str]] = {}
        self.form_pods: dict[int, Form] = {}
        self.reservation: Reservation | None = None
        self.paused = False
        self.arrived: list[str] = []
        self.look_again = True
        self.nodes_seen = 0
        self.highest_virtual_time = -math.inf
        self._forms: dict[Form, int] = {}
        self._form_ids = 0
        self._feasible: dict[int, float] = {}

    def weight_of(self, path: Path) -> float:
        """A flow's entitlement."""
        return self.weights.get(path, self.settings.default_weight)

    def path_of(self, gang: Gang) -> Path:
        """The gang's flow, from the top."""
        return (gang.group, gang.flow) if self.settings.grouped else (gang.flow,)

    def lasts_s(self, record: GangRecord) -> float:
        """For how long a gang is expected to run: by the quantile relied on, and no longer than it may."""
        estimate = record.estimate
        likely_s = estimate.p50_s if self.settings.backfill_quantile == 0.5 else estimate.p90_s
        return min(likely_s, self.settings.run_time_s)

    def learn(self, gang: Gang, estimate: Estimate | None = None) -> GangRecord:
        """A record of a gang that was not known (or has changed: then with its frozen estimate)."""
        known = estimate or self.runs.estimate(gang)
        share = share_of(gang, self.settings.reference)
        place = Place(
            gang.uid,
            self.path_of(gang),
            (gang.priority, gang.job or gang.uid),
            gang.arrived_s,
            share * known.p50_s,
        )
        record = GangRecord(
            gang, place, self._form(gang), share, known, seen_s=self.now_s, since_s=self.now_s
        )
        record.stand_ins = promised_pods(gang)
        self.gangs[gang.uid] = record
        return record

    def learn_again(self, record: GangRecord, gang: Gang) -> GangRecord:
        """A fresh record of a gang that is not charged (any more); estimate, age and what was told stay."""
        self.part(record)
        again = self.learn(gang, record.estimate)
        again.since_s, again.position = record.since_s, record.position
        again.reported, again.failures = record.reported, record.failures
        return again

    def join(self, record: GangRecord, *, again: bool = False) -> list[Report]:
        """Let a gang wait if it is complete, would fit the empty queue and its flow has room for it.

        Otherwise say why not. `again`: it waited before, and is not turned away.
        """
        if not complete(record.gang):
            record.phase = Phase.INCOMPLETE
            self.set_deadline(record)
            return []
        self.deadlines.remove(record.gang.uid)
        if not self.feasible(record):
            record.phase = Phase.INFEASIBLE
            self.infeasible[record.gang.uid] = None
            return self.tell(record, Trouble.INFEASIBLE, _infeasible(record))
        path = record.place.path
        if not again and not self.has_place(path):
            record.phase = Phase.TURNED_AWAY
            self.turned_away.setdefault(path, Ordered()).put(record.gang.uid, record.place.order)
            return self.tell(record, Trouble.REFUSED, too_many(self.settings.max_waiting_per_flow))
        record.phase = Phase.WAITING
        self.order.arrive(record.place, self.now_s)
        self._count_waiting(record, 1)
        position, record.tag = self.order.find(record.place, min(self.settings.depth, PLACES_COUNTED))
        record.position = record.position or position
        self.arrived.append(record.gang.uid)
        return []

    def part(self, record: GangRecord) -> None:
        """Take a gang that is not released out of wherever it waits; its record stays."""
        self.leave_aside(record)
        self.deadlines.remove(record.gang.uid)
        if record.waits:
            self.order.withdraw(record.place, self.now_s)
            self._count_waiting(record, -1)
            record.phase = Phase.INCOMPLETE
            self._give_up_reservation(record.gang.uid)

    def leave_aside(self, record: GangRecord) -> None:
        """A gang that was infeasible or turned away is that no longer."""
        self.infeasible.pop(record.gang.uid, None)
        away = self.turned_away.get(record.place.path)
        if away is not None:
            away.remove(record.gang.uid)
            if not away:
                del self.turned_away[record.place.path]

    def has_place(self, path: Path) -> bool:
        """True while one more gang of this flow may wait."""
        return self.waiting_of.get(path, 0) < self.settings.max_waiting_per_flow

    def take_turned_away(self) -> list[Report]:
        """Let those wait that there is a place for now."""
        reports: list[Report] = []
        for path in [path for path in self.turned_away if self.has_place(path)]:
            while self.has_place(path) and (first := self._oldest_away(path)) is not None:
                self.leave_aside(first)
                reports += self.join(first)
        return reports

    def _oldest_away(self, path: Path) -> GangRecord | None:
        first = self.turned_away[path].first() if path in self.turned_away else None
        return self.gangs[first[1]] if first is not None else None

    def forget(self, record: GangRecord) -> None:
        """A gang that was not released is gone."""
        self.part(record)
        self._drop(record)

    def tell(self, record: GangRecord, trouble: Trouble, sentence: str) -> list[Report]:
        """A report about a gang, once per kind of trouble."""
        if trouble in record.reported:
            return []
        record.reported.add(trouble)
        return [Report(record.gang.uid, trouble, sentence)]

    def feasible(self, record: GangRecord) -> bool:
        """True when the gang would fit the queue's nodes if nothing of ours ran, or more may come."""
        return self.settings.release_head_after_s < math.inf or self.fits_empty(record)

    def fits_empty(self, record: GangRecord) -> bool:
        """True when the gang would fit the nodes there are if nothing of ours ran (or there are none)."""
        known = self._feasible.get(record.form)
        if known is not None and (known < 0 or known == self.capacity.node_changes):
            return known < 0
        if not self.capacity.usable:
            return True
        trial = Trial(self.capacity)
        trial.empty()
        found = trial.place(record.wanted()) is not None
        self._feasible[record.form] = -1.0 if found else self.capacity.node_changes
        return found

    def doubt(self, record: GangRecord) -> None:
        """The gang found no time at which it fits: its feasibility is looked at anew."""
        self._feasible.pop(record.form, None)

    def hold_key(self, gang: Gang) -> object:
        """What gangs that kube-scheduler treats alike have in common."""
        return (gang.flow, gang.job_class) if gang.job_class else self._form(gang)

    def set_deadline(self, record: GangRecord) -> None:
        """Note when this gang has to be looked at, if nothing happens to it before."""
        settings, due = self.settings, []
        if record.phase is Phase.INCOMPLETE and Trouble.INCOMPLETE not in record.reported:
            due.append(record.since_s + settings.incomplete_timeout_s)
        if record.released:
            if record.half_open_since_s is not None and Trouble.HALF_OPEN not in record.reported:
                due.append(record.half_open_until_s(settings.half_open_timeout_s))
            if not record.all_started() and Trouble.NOT_STARTED not in record.reported:
                due.append(record.released_s + settings.start_timeout_s)
            if record.started_s is not None and settings.run_time_s < math.inf:
                due.append(max(record.started_s + settings.run_time_s, record.stop_again_s))
            if record.stand_ins:
                due.append((record.started_s or record.released_s) + settings.promise_timeout_s)
        if due:
            self.deadlines.put(record.gang.uid, (min(due),))
        else:
            self.deadlines.remove(record.gang.uid)

    def _drop(self, record: GangRecord) -> None:
        uid = record.gang.uid
        del self.gangs[uid]
        for group in (self.infeasible, self.missing, self.promoted, self.no_room_since_s, self.roomless):
            group.pop(uid, None)
        for heap in (self.ends, self.overruns, self.deadlines):
            heap.remove(uid)
        self._give_up_reservation(uid)
        for key in [key for key, hold in self.holds.items() if hold.uid == uid]:
            del self.holds[key]
            self.look_again = True

    def _give_up_reservation(self, uid: str) -> None:
        if self.reservation is not None and self.reservation.uid == uid:
            self.reservation, self.look_again = None, True

    def _count_waiting(self, record: GangRecord, change: int) -> None:
        _add(self.waiting_of, record.place.path, change)
        of_form = self.waiting_forms.setdefault(record.form, Ordered())
        if change > 0:
            of_form.put(record.gang.uid, (self.lasts_s(record),))
        else:
            of_form.remove(record.gang.uid)
        if not of_form:
            del self.waiting_forms[record.form]

    def _form(self, gang: Gang) -> int:
        counts: dict[Shape, int] = {}
        for pod in [*gang.pods, *promised_pods(gang)]:
            counts[pod.shape] = counts.get(pod.shape, 0) + 1
        form = tuple(counts.items())
        if form not in self._forms:
            if len(self._forms) >= FORMS_KEPT:
                self._forms.clear()
                self._feasible.clear()
                self.form_pods = {one: self.form_pods[one] for one in self.waiting_forms}
            self._form_ids += 1
            self._forms[form] = self._form_ids
            self.form_pods[self._form_ids] = form
        return self._forms[form]


def _add(counts: dict[_Key, int], key: _Key, change: int) -> None:
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]


def too_many(limit: int) -> str:
    """What a gang is told that is turned away."""
    return (
        f"its user has {limit} gangs waiting, as many as the queue takes of one: it is taken as soon as one "
        "of them has started or is withdrawn; submit fewer at once, or have max_waiting_per_flow raised"
    )


def _infeasible(record: GangRecord) -> str:
    pods = len(record.wanted())
    what = "the pod does" if pods == 1 else f"the {pods} pods together do"
    return (
        f"{what} not fit the queue's nodes even when nothing else runs: lower the requests, "
        "change selector, affinity or tolerations, or add nodes"
    )
