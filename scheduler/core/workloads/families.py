"""Which pods of a family start together, and which one by one.

A closed pod joins the family's gang while that has fewer living pods than its
size; what replaces a lost pod thereby belongs to the running gang. All others
are gangs of one: more executors than the application started with, pods beyond
a pod group's minimum. They wait their turn like anything else of that user, so
nobody grows past the queue under the cover of a gang that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from scheduler.core.quantities import quantity
from scheduler.core.queue.events import Shape
from scheduler.core.types import PREFIX
from scheduler.core.wire import Workload
from scheduler.core.workloads.members import Family, GangState, Member, in_order
from scheduler.core.workloads.membership import FamilyKey, ObjectRef
from scheduler.core.workloads.remarks import Remarks
from scheduler.core.workloads.shapes import Shapes
from scheduler.core.workloads.sizes import MOST, Size, ref_of, size_of


class Families:
    """All families and gangs; remembers which gangs changed since they were last told of."""

    def __init__(self, shapes: Shapes, remarks: Remarks, *, by_namespace: bool = False) -> None:
        """`by_namespace`: gangs are charged to their namespace; who made a pod still tells gangs apart."""
        self._shapes, self._remarks, self._by_namespace = shapes, remarks, by_namespace
        self._families: dict[FamilyKey, Family] = {}
        self._cores: dict[str, GangState] = {}
        self._sizes: dict[ObjectRef, Size | None] = {}
        self._asked: dict[ObjectRef, None] = {}
        self._users: dict[ObjectRef, dict[FamilyKey, None]] = {}
        self._open: dict[FamilyKey, Family] = {}
        self._changed: dict[str, GangState] = {}

    def admit(self, member: Member, parent: Member | None) -> None:
        """A pod that was not placed yet: into its family, or as a gang of one."""
        if parent is not None:
            self._inherit(member, parent)
        key = member.says.family
        if key is None:
            self._alone(member, None)
            return
        family = self._families.get(key)
        if family is None:
            core = GangState(str(key), self._charged(key.flow, key.namespace), str(key))
            family = core.family = Family(key, core)
            self._families[key] = family
            self._cores[core.uid] = core
        family.join(member)
        if member.says.source is not None and member.says.source not in family.refs:
            family.refs.add(member.says.source)
            self._users.setdefault(member.says.source, {})[key] = None
        self._open[key] = family
        if member.over:
            family.finish(member)
            self._seat(family, member)

    def note(self, member: Member) -> None:
        """Something happened to a pod that is placed."""
        if member.gang is not None:
            self._changed[member.gang.uid] = member.gang
            member.gang.touched[member.uid] = member
        if member.family is not None and member.over:
            self._open[member.family.key] = member.family
            member.family.finish(member)
            member.family.core.fresh = True

    def part(self, member: Member) -> None:
        """A closed pod belongs elsewhere from now on."""
        self.note(member)
        if member.gang is not None:
            member.gang.drop(member)
            member.gang = None
            member.said_started = member.said_unschedulable = False
        if member.family is not None:
            self._open[member.family.key] = member.family
            member.family.leave(member)
            member.family = None

    def lose(self, member: Member) -> None:
        """A pod is deleted."""
        member.leaving = True
        self.note(member)

    def learn(self, owner: Workload, group: str) -> None:
        """What an object says of sizes."""
        ref = ref_of(owner, group)
        self._asked.pop(ref, None)

        def complain(what: str, why: str) -> None:
            self._remarks.add(ref.namespace, ref.name, f"{ref.kind}, {what}: {why}", owner.metadata.uid)

        size = size_of(ref, owner, self._shapes, complain)
        self._sizes[ref] = size
        self._look_again(ref)

    def do_without(self, ref: ObjectRef) -> None:
        """An object is not there. Families that know their size keep it."""
        self._asked.pop(ref, None)
        if ref in self._users:
            self._sizes[ref] = None
            self._look_again(ref)
        else:
            self._sizes.pop(ref, None)

    def needs(self) -> frozenset[ObjectRef]:
        """Objects that are asked for and not known."""
        return frozenset(self._asked)

    def counts(self) -> tuple[int, int]:
        """Families, and pods of them that are held back."""
        return len(self._families), sum(len(one.unassigned) for one in self._families.values())

    def gang(self, uid: str) -> GangState | None:
        """A gang that starts as a whole."""
        return self._cores.get(uid)

    def changed(self, state: GangState) -> None:
        """Look at a gang again."""
        self._changed[state.uid] = state

    def take_changed(self) -> list[GangState]:
        """Place what is not placed yet; then the gangs that changed, each once."""
        opened, self._open = self._open, {}
        for family in opened.values():
            self._assign(family)
            if not family.members:
                self._changed[family.core.uid] = family.core
        changed, self._changed = self._changed, {}
        # A pod leaves its old gang before it joins another.
        return sorted(changed.values(), key=lambda state: bool(state.pods))

    def tidy(self, state: GangState) -> None:
        """Forget a family that has no pods left."""
        family = state.family
        if family is not None and not (family.members or family.done or family.core.pods):
            self._drop(family)

    def _drop(self, family: Family) -> None:
        if self._families.get(family.key) is not family:
            return
        del self._families[family.key]
        del self._cores[family.core.uid]
        for ref in family.refs:
            users = self._users[ref]
            del users[family.key]
            if not users:  # the next of that name may be another object
                del self._users[ref]
                self._sizes.pop(ref, None)
                self._asked.pop(ref, None)

    def _look_again(self, ref: ObjectRef) -> None:
        for key in self._users.get(ref, ()):
            self._open[key] = self._families[key]
            self._families[key].waiting.discard(ref)

    def _alone(self, member: Member, family: Family | None) -> None:
        job = str(family.key) if family is not None else member.says.job
        user = family.key.flow if family is not None else member.says.flow
        flow = self._charged(user, member.ref.namespace)
        state = GangState(member.uid, flow, job, family)
        state.add(member)
        self._changed[state.uid] = state

    def _charged(self, user: str, namespace: str) -> str:
        return namespace if self._by_namespace else user

    def _inherit(self, member: Member, driver: Member) -> None:
        """An executor is its driver's user's if the driver's service account made it, and not otherwise."""
        says, namespace = member.says, driver.ref.namespace
        account = f"system:serviceaccount:{namespace}:{driver.says.service_account}"
        if says.flow not in (account, driver.says.flow) or member.ref.namespace != namespace:
            self._remarks.add(
                member.ref.namespace,
                member.ref.name,
                f"it is charged to {says.flow}, not to its driver's user: {account} did not create it",
                member.uid,
            )
            member.says = replace(says, family=None, parent="")
            return
        flow = driver.says.flow
        own = None if says.family is None else says.family._replace(flow=flow)
        key = driver.says.family or own
        member.says = replace(says, flow=flow, family=key, job=str(key) if key is not None else "")

    def _assign(self, family: Family) -> None:
        """Give every pod of the family a gang, if its size is known."""
        size = self._size(family)
        before, family.size = family.size, size or family.size
        if family.size != before:
            family.core.fresh = True
            self._changed[family.core.uid] = family.core
        for member in in_order(family.unassigned.values()):
            if family.size is not None or not member.ref.gated:
                del family.unassigned[member.uid]
                self._seat(family, member)
        if family.core.pods and family.core.opened_s is None:
            self._fill(family)

    def _seat(self, family: Family, member: Member) -> None:
        """Released pods stay what they were released as; while the size is not known, they are the gang."""
        core, size = family.core, family.size
        if member.receipt.gang in (core.uid, member.uid):
            together = member.receipt.gang == core.uid
        elif size is None or member.over:
            together = size is None or size.pods > 1
        else:
            seats = family.seats(member)
            together = size.pods > 1 and core.seated() < seats and (seats > 1 or bool(core.pods))
        if together:
            core.add(member)
            self._changed[core.uid] = core
        else:
            self._alone(member, family)

    def _fill(self, family: Family) -> None:
        """The size grew, or pods were lost, before the gang was released: closed pods beside it join it."""
        core = family.core
        lacking = family.seats(next(iter(core.pods.values()))) - core.seated()
        if lacking <= 0 or len(family.members) == core.living():
            return
        beside = [one for one in family.members.values() if _waits_alone(one, core)]
        for member in in_order(beside)[:lacking]:
            alone = member.gang
            assert alone is not None
            alone.drop(member)
            self._changed[alone.uid] = alone
            core.add(member)
            self._changed[core.uid] = core

    def _size(self, family: Family) -> Size | None:
        """The largest size that a pod names; else what the objects say; None while those are not known."""
        known = [self._known(ref, family) for ref in family.sources]
        told = max((size for size in known if size is not None), key=lambda size: size.pods, default=None)
        if len(family.claims) > 1:
            sizes = ", ".join(str(one) for one in sorted(family.claims))
            sentence = f"gang {family.key.name}: its pods claim different sizes ({sizes}): the largest counts"
            self._remarks.add(family.key.namespace, "", sentence)
        unknown = not family.waiting.isdisjoint(family.sources)
        if family.claims:
            return self._claimed(family, max(family.claims), told, unknown)
        if unknown:
            return family.size
        if told is not None:
            return told
        if family.size is not None:
            return family.size
        if family.sources:
            self._say_unknown(family)
        return Size(1, "nobody gives a size")

    def _known(self, ref: ObjectRef, family: Family) -> Size | None:
        """What the object says, if it is the one that made the family's pods and not another of that name."""
        size = self._sizes.get(ref)
        other = size is not None and ref.kind != "JobSet" and family.key.generation not in ("", size.owner)
        if ref not in self._sizes or (other and ref not in family.asked_again):
            self._asked[ref] = None
            family.waiting.add(ref)
            if other:  # once: the maker of pods that are being deleted may be gone for good
                family.asked_again.add(ref)
        return None if other else size

    def _claimed(self, family: Family, pods: int, told: Size | None, unknown: bool) -> Size | None:
        why = f"its pods claim {pods}"
        if pods > MOST:
            sentence = f"gang {family.key.name}: its pods claim {pods}; at most {MOST} can start together"
            self._remarks.add(family.key.namespace, "", sentence)
        if family.driver is None or pods > MOST:
            return Size(pods, why)
        shape = self._executor_shape(family.driver)
        if shape is None and told is not None and told.executors is not None:
            shape = self._shapes.same(told.executors.shape)
        if shape is None and unknown:
            return None
        if shape is None:
            shape = family.driver.shape
            self._remarks.add(
                family.key.namespace,
                family.driver.ref.name,
                "what its executors will request is not known; as much as the driver is kept for each: "
                f"set {PREFIX}executor-requests, such as cpu=2,memory=4Gi",
                family.driver.uid,
            )
        return Size(pods, why, (shape,) * (pods - 1))

    def _executor_shape(self, driver: Member) -> Shape | None:
        text = driver.says.executors
        if not text:
            return None
        try:
            requests = dict(_requests(text))
        except ValueError as error:
            self._remarks.add(
                driver.ref.namespace, driver.ref.name, f"{PREFIX}executor-requests: {error}", driver.uid
            )
            return None
        return self._shapes.same(replace(driver.shape, requests=tuple(sorted(requests.items()))))

    def _say_unknown(self, family: Family) -> None:
        names = ", ".join(str(ref) for ref in family.sources)
        sentence = (
            f"gang {family.key.name}: {names} cannot be read, so its pods start each by itself; "
            f"set {PREFIX}gang-size if they must start together"
        )
        self._remarks.add(family.key.namespace, "", sentence)


def _waits_alone(member: Member, core: GangState) -> bool:
    gang = member.gang
    if gang is None or gang is core or member.over or not member.ref.gated:
        return False
    return gang.opened_s is None


def _requests(text: str) -> Iterator[tuple[str, float]]:
    for part in text.split(","):
        resource, _, amount = part.partition("=")
        if not resource.strip() or not amount:
            raise ValueError(f"{part!r} is not resource=amount, such as cpu=2")
        value = quantity(amount)
        if value < 0:
            raise ValueError(f"{part!r} is below zero")
        yield resource.strip(), value
