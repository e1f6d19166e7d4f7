"""Pods and gangs as they were last seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from scheduler.core.outcomes import (
    EndState,
    end_state,
    ended_s,
    instant_s,
    parse_time_s,
    scheduled_s,
    started_s,
)
from scheduler.core.queue.events import Gang, GangPod, Shape
from scheduler.core.wire import Pod
from scheduler.core.workloads.membership import FamilyKey, Membership, ObjectRef
from scheduler.core.workloads.rules import RECEIPT
from scheduler.core.workloads.sizes import Size

_Key = TypeVar("_Key", bound=Hashable)
_WELL = (EndState.SUCCEEDED, EndState.RESTARTED)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What the releasing patch wrote: as which gang the pod was released, when, and for how much."""

    gang: str = ""
    released_s: float = math.nan
    charged_work: float = math.nan


_RECEIPT = msgspec.json.Decoder(Receipt)
NO_RECEIPT = Receipt()


@dataclass(frozen=True, slots=True)
class PodRef:
    """What a patch needs to know of a pod; `gate_index` is -1 when our gate is open."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    gate_index: int

    @property
    def gated(self) -> bool:
        """True while our gate is closed."""
        return self.gate_index >= 0


@dataclass(slots=True, eq=False)
class Member:
    """A pod of ours. Times in unix seconds; `started_s` is when it was bound.

    `leaving`: being deleted. `said_*`: what the queue was told already.
    """

    ref: PodRef
    says: Membership
    marks: int
    slot: GangPod
    created_s: float
    node: str = ""
    started_s: float | None = None
    ended_s: float | None = None
    ended_well: bool = False
    leaving: bool = False
    unschedulable: str = ""
    receipt: Receipt = NO_RECEIPT
    family: Family | None = None
    gang: GangState | None = None
    said_started: bool = False
    said_unschedulable: bool = False

    @property
    def uid(self) -> str:
        return self.ref.uid

    @property
    def shape(self) -> Shape:
        return self.slot.shape

    @property
    def over(self) -> bool:
        return self.ended_s is not None

    def look(self, pod: Pod, gate_index: int, now_s: float) -> None:
        """Take note of what changes in a pod's life; what is known stays, because it was seen first."""
        meta, status = pod.metadata, pod.status
        if gate_index < 0 <= self.ref.gate_index or self.receipt is NO_RECEIPT:
            self.receipt = read_receipt(pod) if gate_index < 0 else NO_RECEIPT
        self.ref = PodRef(meta.uid, meta.namespace, meta.name, meta.resourceVersion, gate_index)
        if pod.spec.nodeName and not self.node:
            self.node = pod.spec.nodeName
            bound_s = scheduled_s(status.conditions)
            self.started_s = instant_s(started_s(status) if bound_s is None else bound_s, now_s) or now_s
        self.leaving = bool(meta.deletionTimestamp)
        state = end_state(status)
        if state is not None and not self.over:
            at_s = instant_s(ended_s(status), now_s)
            self.end(now_s if at_s is None else min(at_s, now_s), well=state in _WELL)
        elif self.leaving and not self.node:
            self.end(now_s)  # nothing of it ever ran, and nothing will
        self.unschedulable = "" if self.node else _unschedulable(pod)

    def end(self, at_s: float, *, well: bool = False) -> None:
        """The pod is over; not `well`: failed, evicted, deleted."""
        if not self.over:
            self.ended_s, self.ended_well = at_s, well


@dataclass(slots=True, eq=False)
class GangState:
    """A gang with the pods that are not known to be over, and what the queue was told of it.

    `opened_s`: when the first open gate was seen. `found`: the queue was told
    that gates are open. `fresh`: it may be another gang than was told;
    `touched`: pods to which something happened since.
    """

    uid: str
    flow: str
    job: str
    family: Family | None = None
    pods: dict[str, Member] = field(default_factory=dict)
    arrived_s: float = math.nan
    told: Gang | None = None
    opened_s: float | None = None
    found: bool = False
    fresh: bool = True
    touched: dict[str, Member] = field(default_factory=dict)

    def add(self, member: Member) -> None:
        """A pod belongs to this gang from now on."""
        self.pods[member.uid] = self.touched[member.uid] = member
        member.gang, self.fresh = self, True
        if not self.arrived_s <= member.created_s:
            self.arrived_s = member.created_s if self.told is None else min(self.arrived_s, member.created_s)

    def drop(self, member: Member) -> None:
        """A pod belongs to this gang no more."""
        self.fresh = self.pods.pop(member.uid, None) is not None or self.fresh

    def living(self) -> int:
        """How many of its pods are not over."""
        return sum(not one.over for one in self.pods.values())

    def seated(self) -> int:
        """How many of its pods are to stay; a replacement may come while the lost pod is still ending."""
        return sum(not (one.over or one.leaving) for one in self.pods.values())


@dataclass(slots=True, eq=False)
class Family:
    """Pods that go by one name: those of the gang that starts together, and others released one by one.

    `members` live. `claims` counts the sizes that they name, `sources` the
    objects that know it, `refs` all that ever did, `waiting` those that
    are being asked. `done`: who made pods that ended well and still exist;
    their maker makes them no more.
    """

    key: FamilyKey
    core: GangState
    members: dict[str, Member] = field(default_factory=dict)
    unassigned: dict[str, Member] = field(default_factory=dict)
    claims: Counter[int] = field(default_factory=Counter)
    sources: Counter[ObjectRef] = field(default_factory=Counter)
    done: dict[str, str] = field(default_factory=dict)
    done_by: Counter[str] = field(default_factory=Counter)
    refs: set[ObjectRef] = field(default_factory=set)
    waiting: set[ObjectRef] = field(default_factory=set)
    asked_again: set[ObjectRef] = field(default_factory=set)
    driver: Member | None = None
    size: Size | None = None

    def join(self, member: Member) -> None:
        """A pod goes by this name."""
        self.members[member.uid] = self.unassigned[member.uid] = member
        member.family = self
        if member.says.claimed:
            self.claims[member.says.claimed] += 1
        if member.says.source is not None:
            self.sources[member.says.source] += 1
        if member.says.driver:
            self.driver = member

    def leave(self, member: Member) -> None:
        """A pod is over, or goes by another name; what it said of the size counts no more."""
        if self.members.pop(member.uid, None) is None:
            return
        self.unassigned.pop(member.uid, None)
        _less(self.claims, member.says.claimed)
        _less(self.sources, member.says.source)
        if self.driver is member:
            self.driver = None

    def finish(self, member: Member) -> None:
        """A pod is over."""
        self.leave(member)
        if member.ended_well and member.says.maker and not member.leaving:
            if member.uid not in self.done:
                self.done[member.uid] = member.says.maker
                self.done_by[member.says.maker] += 1
        else:
            _less(self.done_by, self.done.pop(member.uid, None))

    def seats(self, member: Member) -> int:
        """How many pods can be there at once, now that some of the same maker have done their part."""
        size = self.size.pods if self.size is not None else 0
        return size - self.done_by[member.says.maker]


def _less(counter: Counter[_Key], key: _Key | None) -> None:
    if key is not None and key in counter:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def read_receipt(pod: Pod) -> Receipt:
    """The receipt of an open pod; an empty one for a pod that slipped past, or whose receipt is none."""
    text = (pod.metadata.annotations or {}).get(RECEIPT)
    if not text:
        return NO_RECEIPT
    try:
        return _RECEIPT.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return NO_RECEIPT


def marks_of(pod: Pod) -> int:
    """Changes when a pod's labels or annotations do."""
    meta = pod.metadata
    return hash((frozenset((meta.annotations or {}).items()), frozenset((meta.labels or {}).items())))


def created_s(pod: Pod, now_s: float) -> float:
    """When the pod was created, as near as can be known."""
    at_s = instant_s(parse_time_s(pod.metadata.creationTimestamp), now_s)
    return now_s if at_s is None else min(at_s, now_s)


def in_order(members: Iterable[Member]) -> list[Member]:
    """Open ones first, so that what is released keeps its place; then by age."""
    return sorted(members, key=lambda one: (one.ref.gated, one.created_s, len(one.ref.name), one.ref.name))


def _unschedulable(pod: Pod) -> str:
    """In kube-scheduler's words; empty while it has not given up on the pod."""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return (
                (condition.message or condition.reason or "") if condition.reason == "Unschedulable" else ""
            )
    return ""
