"""Lease, checkpoint and gates against a real API server: what each of them promises by itself."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import pytest
from queueing import GATE, PATH, RECEIPT, SeenPod

from scheduler.core.queue.actions import DeletePods, ReleaseGang, ReleaseReceipt
from scheduler.core.queue.events import Estimate, Event, ReleaseDone, ReleaseFailed, ReleaseHalfFailed
from scheduler.core.workloads.membership import ObjectRef
from scheduler.edge import checkpoints as checkpoints_module
from scheduler.edge import lease as lease_module
from scheduler.edge.checkpoints import CheckpointError, Checkpoints, Superseded
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.lease import Campaign, LeaderLease, Timing
from scheduler.edge.owners import Owners
from scheduler.edge.release import NotLeading, Releases
from testbed.cluster import Cluster

MakePod = Callable[..., dict[str, Any]]
TIMING = Timing(duration_s=3, sure_s=2.0, every_s=0.5, request_s=1.0)

pytestmark = pytest.mark.timeout(120)


class Where(NamedTuple):
    namespace: str
    name: str
    gate_index: int = 0


def _lease(
    kube: KubeClient, name: str, identity: str, clock: Callable[[], float] = time.monotonic
) -> LeaderLease:
    return LeaderLease(kube, "default", name, identity, TIMING, lambda: f"http://{identity}", clock)


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


async def test_of_many_replicas_one_takes_a_new_lease(kube: KubeClient, name: str) -> None:
    replicas = [_lease(kube, name, f"replica-{number}") for number in range(8)]
    taken = await asyncio.gather(*(one.try_once() for one in replicas))
    assert sum(taken) == 1
    assert sum(one.holds() for one in replicas) == 1
    again = await asyncio.gather(*(one.try_once() for one in replicas))
    assert again == taken
    leader = replicas[taken.index(True)]
    assert {one.leader for one in replicas} == {leader.identity}
    assert {one.leader_url for one in replicas} == {f"http://{leader.identity}"}


async def test_a_silent_leader_is_sure_of_nothing_before_another_takes_over(
    kube: KubeClient, name: str
) -> None:
    old, new = _lease(kube, name, "old"), _lease(kube, name, "new")
    assert await old.try_once()
    begun_s, unsure_s = time.monotonic(), math.inf
    while not await new.try_once():
        if not old.holds():
            unsure_s = min(unsure_s, time.monotonic())
        assert time.monotonic() < begun_s + 10
        await asyncio.sleep(0.1)
    taken_s = time.monotonic()
    assert TIMING.sure_s <= unsure_s - begun_s + 0.2
    assert taken_s - unsure_s >= 0.5 * (TIMING.duration_s - TIMING.sure_s)
    assert not old.holds()
    assert not await old.try_once()  # it comes back and finds itself replaced
    assert not old.holds()


async def test_a_lease_given_up_is_taken_at_once(kube: KubeClient, name: str) -> None:
    old, new = _lease(kube, name, "old"), _lease(kube, name, "new")
    assert await old.try_once()
    assert not await new.try_once()
    await old.give_up()
    assert not old.holds()
    assert await new.try_once()
    await old.give_up()  # what is another's is not given up
    assert not await old.try_once()
    assert await new.try_once()


async def test_a_campaign_leads_and_hands_over_at_its_end(cluster: Cluster, name: str) -> None:
    def lease_of(identity: str) -> Callable[[KubeClient], LeaderLease]:
        return lambda kube: _lease(kube, name, identity)

    config = str(cluster.kubeconfig)
    async with Campaign(config, lease_of("second"), 0.3) as second:
        async with Campaign(config, lease_of("first"), 0.3) as first:
            done, _ = await asyncio.wait(
                {asyncio.create_task(first.won()), asyncio.create_task(second.won())},
                timeout=10,
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert done
            assert first.holds() != second.holds()
        async with asyncio.timeout(5):
            await second.won()
        assert second.holds()
        assert not first.holds()


async def test_a_replica_whose_loop_is_stuck_does_not_keep_the_lease(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "STUCK_S", 1.0)
    async with Campaign(str(cluster.kubeconfig), lambda own: _lease(own, name, "stuck"), 0.3) as stuck:
        async with asyncio.timeout(10):
            await stuck.won()
        with ThreadPoolExecutor(1) as elsewhere:
            # while this loop is stuck: as soon as it is not, its replica may well be the first to ask
            other = elsewhere.submit(asyncio.run, _take_later(str(cluster.kubeconfig), name, 2.0))
            time.sleep(2.0)  # noqa: ASYNC251  this is what it is about
            assert other.result(10)
            assert not stuck.holds()
        async with asyncio.timeout(10):
            await stuck.lost()


async def _take_later(kubeconfig: str, name: str, after_s: float) -> bool:
    await asyncio.sleep(after_s)
    async with KubeClient.connect(kubeconfig) as kube:
        return await _lease(kube, name, "other").try_once()


def _checkpoints(kube: Any, name: str, writer: str, holds: Callable[[], bool] = lambda: True) -> Checkpoints:
    return Checkpoints(kube, "default", name, writer, holds, request_s=30.0)


async def test_a_checkpoint_is_read_back_as_written_small_or_in_pieces(
    kube: KubeClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "PIECE_BYTES", 2000)
    written = _checkpoints(kube, name, "a")
    assert await written.read() is None
    for count in (1, 300, 2, 500):
        state = {"nan": math.nan, "uids": [uuid.uuid4().hex for _ in range(count)]}
        await written.write(state)
        read = await _checkpoints(kube, name, "b").read()
        assert read is not None
        assert read["uids"] == state["uids"]
        assert math.isnan(read["nan"])
    with pytest.raises(CheckpointError, match="more than"):
        await written.write({"uids": [uuid.uuid4().hex for _ in range(4000)]})
    assert (await _checkpoints(kube, name, "b").read() or {})["uids"] == state["uids"]


async def test_a_former_leader_cannot_write_over_the_new_ones_checkpoint(kube: KubeClient, name: str) -> None:
    old, new = _checkpoints(kube, name, "old"), _checkpoints(kube, name, "new")
    await old.read()
    await old.write({"by": "old"})
    await new.read()
    await new.write({"by": "new"})
    with pytest.raises(Superseded):
        await old.write({"by": "old again"})
    assert await _checkpoints(kube, name, "any").read() == {"by": "new"}


class SlowAnswer:
    """A client whose second replacement is answered only when `go` is set."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube, self._puts = kube, 0
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)

    async def put(self, path: str, body: Any) -> bytes:
        answer = await self._kube.put(path, body)
        self._puts += 1
        if self._puts == 2:
            self.asked.set()
            await self.go.wait()
        return answer


async def test_a_former_leader_does_not_spoil_the_pieces_of_the_new_ones_checkpoint(
    kube: KubeClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces are replaced without a version; so the lease is asked for before each."""
    monkeypatch.setattr(checkpoints_module, "PIECE_BYTES", 2000)
    states = [{"uids": [uuid.uuid4().hex for _ in range(500)], "by": by} for by in ("first", "new", "old")]
    slow, lease = SlowAnswer(kube), {"held": True}
    new, old = _checkpoints(kube, name, "new"), _checkpoints(slow, name, "old", lambda: lease["held"])
    for _ in range(2):  # so that both slots have pieces
        await new.write(states[0])
    await old.read()
    writing = asyncio.create_task(old.write(states[2]))
    await slow.asked.wait()
    lease["held"] = False
    await new.read()
    await new.write(states[1])
    slow.go.set()
    with pytest.raises(Superseded):
        await writing
    assert await _checkpoints(kube, name, "any").read() == states[1]


async def test_a_write_whose_answer_was_lost_does_not_depose_its_writer(kube: KubeClient, name: str) -> None:
    checkpoints = _checkpoints(kube, name, "writer")
    await checkpoints.write({"number": 1})
    checkpoints._version, version = "", checkpoints._version
    await checkpoints.write({"number": 2})
    checkpoints._version = version  # as if the answer to the second write had been lost
    await checkpoints.write({"number": 3})
    assert await checkpoints.read() == {"number": 3}


class Gates:
    """Gated pods, and what `Releases` tells of them."""

    def __init__(self, kube: KubeClient, pod: MakePod) -> None:
        self.kube, self._pod = kube, pod
        self.where: dict[str, Where] = {}
        self.told: list[Event] = []
        self.leads = True
        self.releases = Releases(
            kube, lambda: self.leads, self.where.get, self.told.append, parallel=8, request_s=5.0
        )

    async def create(self, gates: tuple[str, ...] = (GATE,), annotations: bool = True) -> str:
        body = self._pod(annotations={"kept": "yes"} if annotations else {})
        body["spec"]["schedulingGates"] = [{"name": gate} for gate in gates]
        body["spec"]["nodeSelector"] = {"nowhere": "at-all"}
        made = msgspec.json.decode(await self.kube.post(PATH, body), type=SeenPod)
        self.where[made.metadata.uid] = Where("default", made.metadata.name)
        return made.metadata.uid

    async def now(self, uid: str) -> SeenPod:
        return msgspec.json.decode(await self.kube.get(f"{PATH}/{self.where[uid].name}"), type=SeenPod)

    async def release(self, *pods: str) -> None:
        estimate = Estimate(1.0, 2.0, 3.0, "hint")
        receipt = ReleaseReceipt(1234.5, 0.25, 0.125, 0.5, 3, estimate, {pods[0]: "node-01"})
        await self.releases.release(ReleaseGang("gang", "alice", pods, receipt))


@pytest.fixture
async def gates(kube: KubeClient, pod: MakePod) -> AsyncIterator[Gates]:
    made = Gates(kube, pod)
    yield made
    for where in made.where.values():
        await kube.delete(f"{PATH}/{where.name}")


async def test_one_patch_opens_our_gate_alone_and_writes_the_receipt(gates: Gates) -> None:
    uids = [
        await gates.create(),
        await gates.create(("other.dev/gate", GATE, "third.dev/gate")),
        await gates.create(annotations=False),
    ]
    await gates.release(*uids)
    assert gates.told == [ReleaseDone("gang", tuple(uids))]
    left = [[gate.name for gate in (await gates.now(uid)).spec.schedulingGates] for uid in uids]
    assert left == [[], ["other.dev/gate", "third.dev/gate"], []]
    assert (await gates.now(uids[0])).metadata.annotations["kept"] == "yes"
    for uid, node in zip(uids, ("node-01", "", ""), strict=True):
        receipt = msgspec.json.decode((await gates.now(uid)).metadata.annotations[RECEIPT])
        assert receipt["gang"] == "gang"
        assert (receipt["released_s"], receipt["charged_work"]) == (1234.5, 0.25)
        assert (receipt["position"], receipt["estimate"]["source"], receipt["node"]) == (3, "hint", node)


async def test_opening_an_open_gate_is_no_failure(gates: Gates) -> None:
    uid = await gates.create()
    await gates.release(uid)
    await gates.release(uid)
    assert gates.told == [ReleaseDone("gang", (uid,))] * 2
    assert gates.releases.stats.patched == 1


async def test_a_pod_of_the_same_name_is_not_the_pod(gates: Gates, kube: KubeClient) -> None:
    first, second = await gates.create(), await gates.create()
    gone = gates.where.pop(first)
    await kube.delete(f"{PATH}/{gone.name}")
    gates.where[first] = gates.where[second]  # the name belongs to another pod now
    await gates.release(first)
    assert isinstance(gates.told[0], ReleaseFailed)
    assert (await gates.now(second)).gated
    await gates.releases.delete(DeletePods("gang", (first,), "it cannot start"))
    assert (await gates.now(second)).gated
    del gates.where[first]


async def test_what_could_not_be_opened_is_told_and_the_rest_is_open(gates: Gates, kube: KubeClient) -> None:
    uids = [await gates.create() for _ in range(3)]
    await kube.delete(f"{PATH}/{gates.where[uids[1]].name}")
    await gates.release(*uids)
    [told] = gates.told
    assert isinstance(told, ReleaseHalfFailed)
    assert told.released == (uids[0], uids[2])
    del gates.where[uids[1]]


async def test_nothing_is_changed_once_another_may_lead(gates: Gates) -> None:
    uid = await gates.create()
    gates.leads = False
    with pytest.raises(NotLeading):
        await gates.release(uid)
    with pytest.raises(NotLeading):
        await gates.releases.delete(DeletePods("gang", (uid,), "it cannot start"))
    assert (await gates.now(uid)).gated


async def test_an_object_that_is_made_after_its_pods_is_waited_for_and_one_that_never_is_is_missing(
    kube: KubeClient, name: str
) -> None:
    """spark-submit makes the ConfigMap of a driver when the driver is there."""
    late, never = (ObjectRef("", "ConfigMap", "default", f"{name}-{one}") for one in ("late", "never"))
    answers: list[str] = []
    patience_s, begun_s = 3.0, time.monotonic()
    owners = Owners(
        kube,
        lambda owner, _group: answers.append(owner.metadata.name),
        lambda ref: answers.append(f"no {ref.name} after {patience_s <= time.monotonic() - begun_s}"),
        patience_s,
    )
    running = asyncio.create_task(owners.run())
    owners.want([late, never])
    await asyncio.sleep(0.7)
    await kube.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": late.name}, "data": {}})
    while len(answers) < 2:
        assert time.monotonic() < begun_s + 30
        await asyncio.sleep(0.1)
    running.cancel()
    await kube.delete(f"/api/v1/namespaces/default/configmaps/{late.name}")
    assert answers == [late.name, f"no {never.name} after True"]


async def test_an_object_is_found_in_a_version_that_its_group_does_not_prefer(
    kube: KubeClient, name: str
) -> None:
    """As the PodGroup of scheduling.k8s.io, beside whose v1beta1 there is a v1 with PriorityClass alone."""
    group = f"{name}.example.com"
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind, version in (("Class", "v1"), ("PodGroup", "v1beta1")):
        plural = f"{kind.lower()}s"
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": plural, "singular": kind.lower(), "kind": kind}
        spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
        meta = {"name": f"{plural}.{group}"}
        body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        await kube.post(definitions, {**body, "metadata": meta, "spec": spec})
    made = {"apiVersion": f"{group}/v1beta1", "kind": "PodGroup", "metadata": {"name": "g"}}
    await answers_within_20_s(lambda: kube.post(f"/apis/{group}/v1beta1/namespaces/default/podgroups", made))
    found: list[str] = []
    ref = ObjectRef(group, "PodGroup", "default", "g")
    owners = Owners(
        kube,
        lambda owner, _group: found.append(owner.metadata.name),
        lambda ref: found.append(f"no {ref}"),
    )
    running = asyncio.create_task(owners.run())
    owners.want([ref])
    begun_s = time.monotonic()
    while not found:
        assert time.monotonic() < begun_s + 30
        await asyncio.sleep(0.1)
    running.cancel()
    for plural in ("classs", "podgroups"):
        await kube.delete(f"{definitions}/{plural}.{group}")
    assert set(found) == {"g"}


async def answers_within_20_s(ask: Callable[[], Awaitable[bytes]]) -> None:
    """A new kind is served some moments after it was made."""
    begun_s = time.monotonic()
    while True:
        try:
            await ask()
            return
        except KubeError:
            assert time.monotonic() < begun_s + 20
            await asyncio.sleep(0.2)
