"""What the watch says of pods, turned into the queue's events.

    pod -> ours? -> what it says of itself -> family -> gang -> what is new of that gang -> events
           no: its requests count as foreign usage of its node

Pods of one gang name and one user are a family. If somebody gives the family a
size (the pods' annotation, or the object that made them), so many of it are one
gang, which starts as a whole; the others, and the pods of families without a
size, are gangs of one and parts of one job. As long as an object that knows the
size has not been seen, closed pods are held back: see `needs`.

Events may come late, doubled or out of order, lists may be older than what the
watch has said; `resourceVersion` tells which is newer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core import wire
from scheduler.core.queue.events import Event, GangPod, Listed
from scheduler.core.requests import requests_of
from scheduler.core.workloads.families import Families
from scheduler.core.workloads.members import (
    GangState,
    Member,
    PodRef,
    created_s,
    in_order,
    marks_of,
)
from scheduler.core.workloads.membership import ObjectRef, membership_of
from scheduler.core.workloads.nodes import ForeignPods
from scheduler.core.workloads.remarks import Remark, Remarks
from scheduler.core.workloads.rules import USER, Rules
from scheduler.core.workloads.shapes import Shapes
from scheduler.core.workloads.telling import tell

GONE_KEPT = 20_000
"""Deleted pods remembered, so that late words about them are recognised."""


@dataclass(frozen=True, slots=True)
class GangView:
    """A gang for people: `uid` is the queue's, `size` how many pods start together, `why` who says so.

    `held`: its pods are not in the queue yet, because its size is not known.
    """

    uid: str
    name: str
    namespace: str
    user: str
    job: str
    pods: tuple[PodRef, ...]
    size: int
    why: str
    held: bool = False


class Assembly:
    """What the watch says of pods, turned into the queue's events.

    Gangs that had ended before `since_s` (the time of the checkpoint that the
    queue was revived from) when they are first seen are not charged any more.
    """

    def __init__(self, rules: Rules, since_s: float = math.inf) -> None:
        self._rules = rules
        self._since_s = since_s
        self.heard_s = math.nan
        """When anything was last heard; what a list misses had gone since, nobody knows when."""
        self._shapes = Shapes()
        self._remarks = Remarks()
        self._foreign = ForeignPods()
        self._members: dict[str, Member] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._orphans: dict[str, dict[str, Member]] = {}
        self._families = Families(self._shapes, self._remarks, by_namespace=rules.by_namespace)

    def set_pod(self, pod: wire.Pod, now_s: float) -> list[Event]:
        """A pod was added or modified."""
        self._take(pod, now_s)
        return self._news(now_s)

    def remove_pod(self, uid: str, now_s: float) -> list[Event]:
        """A pod was deleted. Its last state, where it came with that word, goes to `set_pod` before."""
        self._lose(uid, now_s)
        self._gone[uid] = None
        if len(self._gone) > GONE_KEPT:
            self._gone.popitem(last=False)
        return self._news(now_s)

    def set_pods(self, pods: Iterable[wire.Pod], now_s: float) -> list[Event]:
        """A complete list: what is there is told again, what is gone ends, and `Listed` comes last."""
        listed = sorted(pods, key=lambda pod: (pod.metadata.creationTimestamp or "", pod.metadata.name))
        present = {pod.metadata.uid for pod in listed}
        for pod in listed:
            self._take(pod, now_s)
        last_s = now_s if math.isnan(self.heard_s) else min(self.heard_s, now_s)
        for uid in [uid for uid in (*self._members, *self._foreign.uids()) if uid not in present]:
            self._lose(uid, last_s)
        self._foreign.tell_all_again()
        for member in self._members.values():
            if member.gang is not None:
                self._families.changed(member.gang)
        events = self._news(now_s, listing=True)
        told = (
            one.gang.uid
            for one in self._members.values()
            if one.gang is not None and one.gang.told is not None
        )
        return [*events, Listed(frozenset(told))]

    def set_owner(self, owner: wire.Workload, now_s: float, group: str = "") -> list[Event]:
        """An object that knows the size of gangs was added or modified.

        `group`: of its API, for items of a list, which come without their apiVersion.
        """
        self._families.learn(owner, group)
        return self._news(now_s)

    def remove_owner(self, ref: ObjectRef, now_s: float) -> list[Event]:
        """An object is gone, is not there, or cannot be read: pods held back for it start each by itself.

        Some are made seconds after their pods: look again for a while before.
        """
        self._families.do_without(ref)
        return self._news(now_s)

    @property
    def needs(self) -> frozenset[ObjectRef]:
        """Objects that pods are held back for: answer each by `set_owner` or `remove_owner`."""
        return self._families.needs()

    def take_remarks(self) -> list[Remark]:
        """What people should be told, each once; it is forgotten here then."""
        return self._remarks.take()

    def pod_of(self, uid: str) -> PodRef | None:
        """A pod of ours that is not known to be deleted."""
        member = self._members.get(uid)
        return None if member is None else member.ref

    def gang_of(self, uid: str) -> GangView | None:
        """The gang of a pod (uid); None for a pod that is not ours, or is over."""
        member = self._members.get(uid)
        if member is None:
            return None
        if member.gang is not None:
            return _view(member.gang)
        return _view_held(member)

    def gang(self, uid: str) -> GangView | None:
        """A gang by the queue's uid."""
        state = self._families.gang(uid)
        if state is None:
            member = self._members.get(uid)
            state = member.gang if member is not None and member.gang is not None else None
        return None if state is None or state.uid != uid else _view(state)

    def gang_named(self, namespace: str, name: str) -> GangView | None:
        """A gang by its name, else by that of one of its pods; looks at every pod."""
        alone: GangView | None = None
        for uid, member in self._members.items():
            family = member.family.key if member.family is not None else None
            if family is not None and (family.namespace, family.name) == (namespace, name):
                return self.gang_of(uid)
            if (member.ref.namespace, member.ref.name) == (namespace, name):
                alone = self.gang_of(uid) or alone
        return alone

    def sizes(self) -> dict[str, int]:
        """How much is remembered, for metrics and tests; `held`: pods held back."""
        families, held = self._families.counts()
        return {
            "pods": len(self._members),
            "families": families,
            "foreign": len(self._foreign.uids()),
            "held": held + sum(len(one) for one in self._orphans.values()),
        }

    def _take(self, pod: wire.Pod, now_s: float) -> None:
        uid = pod.metadata.uid
        if not uid:
            self._remarks.add(pod.metadata.namespace, "", "a pod without uid was reported; it is left out")
            return
        known = self._members.get(uid)
        if uid in self._gone or (known is not None and _older(pod, known)):
            return
        if known is None and not self._rules.ours(pod):
            self._take_foreign(pod)
            return
        self._foreign.drop(uid)
        if known is None:
            known = self._meet(pod, now_s)
        elif known.ref.gated:
            self._look_closely(known, pod)
        was_over = known.over
        known.look(pod, self._rules.gate_index(pod), now_s)
        if not was_over or known.leaving:
            self._place(known)

    def _take_foreign(self, pod: wire.Pod) -> None:
        meta, spec = pod.metadata, pod.spec
        ended = pod.status.phase in ("Succeeded", "Failed")
        node = "" if ended else spec.nodeName or ""
        requests = tuple(sorted(requests_of(spec, self._complain(meta)).items())) if node else ()
        self._foreign.put(meta.uid, node, requests)
        self._adopt(meta.uid)

    def _meet(self, pod: wire.Pod, now_s: float) -> Member:
        meta = pod.metadata
        complain = self._complain(meta)
        if not self._rules.by_namespace and USER not in (meta.annotations or {}):
            sentence = (
                f"pods come without the {USER} stamp, so they are charged to the namespace: "
                "admission did not see them"
            )
            self._remarks.add(meta.namespace, "", sentence)
        shape = self._shapes.of(pod.spec, complain)
        says = membership_of(pod, complain)
        ref = PodRef(meta.uid, meta.namespace, meta.name, meta.resourceVersion, self._rules.gate_index(pod))
        member = Member(ref, says, marks_of(pod), GangPod(meta.uid, shape), created_s(pod, now_s))
        self._members[meta.uid] = member
        return member

    def _look_closely(self, member: Member, pod: wire.Pod) -> None:
        """A closed pod may still be edited: its nodes, its labels, its annotations."""
        complain = self._complain(pod.metadata)
        shape = self._shapes.of(pod.spec, complain)
        if shape != member.shape:
            member.slot = GangPod(member.uid, shape)
            if member.gang is not None:
                member.gang.fresh = True
        marks = marks_of(pod)
        if marks != member.marks:
            member.marks = marks
            says = membership_of(pod, complain)
            if says != member.says:
                self._families.part(member)
                self._disown(member)
                member.says = says

    def _place(self, member: Member) -> None:
        """Find the member's gang, or note what has happened to it there."""
        if member.gang is not None or member.family is not None:
            self._families.note(member)
            return
        parent = member.says.parent
        if parent and member.ref.gated and not self._known(parent):
            self._orphans.setdefault(parent, {})[member.uid] = member
            return
        self._families.admit(member, self._members.get(parent) if parent else None)
        self._adopt(member.uid)

    def _known(self, uid: str) -> bool:
        return uid in self._members or uid in self._foreign or uid in self._gone

    def _adopt(self, parent: str) -> None:
        """Executors that waited for their driver to be seen."""
        for orphan in in_order(self._orphans.pop(parent, {}).values()):
            self._families.admit(orphan, self._members.get(parent))

    def _disown(self, member: Member) -> None:
        """It waits no longer for the driver that it named."""
        siblings = self._orphans.get(member.says.parent)
        if siblings is not None:
            siblings.pop(member.uid, None)
            if not siblings:
                del self._orphans[member.says.parent]

    def _lose(self, uid: str, now_s: float) -> None:
        self._foreign.drop(uid)
        member = self._members.pop(uid, None)
        if member is None:
            return
        self._disown(member)
        member.end(now_s)
        self._families.lose(member)

    def _news(self, now_s: float, *, listing: bool = False) -> list[Event]:
        events: list[Event] = [*self._foreign.report()]
        for state in self._families.take_changed():
            events += tell(state, now_s, listing=listing, since_s=self._since_s)
            self._families.tidy(state)
        self.heard_s = now_s
        return events

    def _complain(self, meta: wire.Meta) -> Complainer:
        return Complainer(self._remarks, meta)


class Complainer:
    """Says of a pod what could not be understood of it."""

    def __init__(self, remarks: Remarks, meta: wire.Meta) -> None:
        self._remarks, self._meta = remarks, meta

    def __call__(self, what: str, why: str) -> None:
        self._remarks.add(self._meta.namespace, self._meta.name, f"{what}: {why}", self._meta.uid)


def _older(pod: wire.Pod, known: Member) -> bool:
    """True for a state of the pod that is not newer than the one known."""
    ours, theirs = known.ref.resource_version, pod.metadata.resourceVersion
    return ours.isdigit() and theirs.isdigit() and int(theirs) < int(ours)


def _view(state: GangState) -> GangView:
    members = list(state.pods.values())
    family = state.family
    size = family.size if family is not None and family.core is state else None
    first = members[0].ref if members else None
    return GangView(
        state.uid,
        family.key.name if family is not None else (first.name if first else ""),
        family.key.namespace if family is not None else (first.namespace if first else ""),
        state.flow,
        state.job,
        tuple(one.ref for one in members),
        size.pods if size is not None else 1,
        size.why if size is not None else "",
    )


def _view_held(member: Member) -> GangView | None:
    family = member.family
    if member.over:
        return None
    if family is None:
        ref, says, why = member.ref, member.says, "its driver has not been seen"
        return GangView(ref.uid, ref.name, ref.namespace, says.flow, says.job, (ref,), 1, why, held=True)
    held = tuple(one.ref for one in family.unassigned.values())
    waits = ", ".join(str(ref) for ref in family.sources)
    why = f"its size is not known: {waits} has not been seen"
    key = family.key
    return GangView(str(key), key.name, key.namespace, key.flow, str(key), held, 0, why, held=True)
