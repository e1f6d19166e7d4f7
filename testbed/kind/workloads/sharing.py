"""e. Three users apply three examples of the pages each, all at once, and have different weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean

from testbed.kind.shell import CommandError
from testbed.kind.workloads.examples import Small, saved
from testbed.kind.workloads.figures import PodTimes, times_of
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Unmet
from testbed.kind.workloads.people import Person

FILES = ("my-pod.yaml", "job.yaml", "gang.yaml")
WEIGHTS = {"alice": 3.0, "bob": 1.0, "carol": 1.0}
COMPLETIONS = 8
PODS = 1 + COMPLETIONS + 4
POD_S = 8.0
CPU = "500m"
GATED_S_MAX = 90.0
ENDED_S_MAX = 300.0


async def run(ground: Ground) -> None:
    """The queue is paused while they apply, so that nobody is first."""
    await ground.load(ground.cluster.images.transfer)
    people = [await ground.person(name) for name in WEIGHTS]
    await _queue(ground, paused=True)
    try:
        await _applied(ground, people)
        await _refused(ground, people[0])
        await _queue(ground, paused=False)
        for one in people:
            pods = await ground.all_ended(one.namespace, PODS, ENDED_S_MAX)
            ground.stamped(pods, one.name)
            gang = [life for life in pods if life.label("job-name") == "solve"]
            ground.together(gang)
            ground.see(f"{one.name}: {len(pods)} pods ended well; the gang of {len(gang)} started together")
    finally:
        await ground.kubectl("delete", "fairqueue", "default", "--ignore-not-found")
    _judge(ground, people)


async def _queue(ground: Ground, paused: bool) -> None:
    """As docs/queues.md gives weights."""
    weights = [{"user": user, "weight": weight} for user, weight in WEIGHTS.items()]
    spec = {"defaultWeight": 1, "weights": weights, "paused": paused}
    metadata = {"name": "default"}
    queue = {"apiVersion": "fairlane.dev/v1alpha1", "kind": "FairQueue", "metadata": metadata, "spec": spec}
    await ground.apply([queue])


async def _applied(ground: Ground, people: Sequence[Person]) -> None:
    small = Small(ground.cluster.images.transfer, POD_S, CPU, COMPLETIONS)
    for one in people:
        for name in FILES:
            file = saved(one.kubeconfig.parent, name, small)
            await ground.kubectl("apply", "-f", str(file), by=one)
    namespaces = [one.namespace for one in people]

    def all_wait() -> bool:
        pods = [ground.journal.pods(namespace) for namespace in namespaces]
        return all(len(some) == PODS and not any(life.was_open for life in some) for some in pods)

    await ground.journal.until(all_wait, GATED_S_MAX, lambda: "not all pods wait in the paused queue")
    ground.see(
        f"{len(people)} users (by their own certificates) applied {', '.join(FILES)}: "
        f"{len(people) * PODS} pods wait"
    )


async def _refused(ground: Ground, alice: Person) -> None:
    """Nobody submits as somebody else."""
    forged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "forged", "annotations": {"fairlane.dev/user": "bob"}},
        "spec": {"schedulerName": "fairlane", "containers": [{"name": "main", "image": "none"}]},
    }
    try:
        await ground.kubectl("create", "-f", "-", stdin=json.dumps(forged), by=alice)
    except CommandError as error:
        told = str(error)
        ground.expect(
            "fairlane.dev/user" in told, "alice's pod in bob's name was refused", f"refused, but: {told}"
        )
        return
    raise Unmet("alice could submit a pod in bob's name")


def _judge(ground: Ground, people: Sequence[Person]) -> None:
    """By what was released in turn, which weights order.

    Backfill goes by predicted lengths, and who never ran these jobs has predictions from other jobs of his.
    """
    times = {one.name: [times_of(life.pod) for life in ground.journal.pods(one.namespace)] for one in people}
    waits = {user: mean(pod.queued_s or 0.0 for pod in pods) for user, pods in times.items()}
    in_turn = {user: [pod for pod in pods if not pod.backfilled] for user, pods in times.items()}
    held = held_while_all_wait(in_turn)
    total = sum(held.values()) or 1.0
    told = ", ".join(
        f"{user} (weight {WEIGHTS[user]:g}) waited {waits[user]:.0f} s and held {held[user] / total:.0%},"
        f" {len(times[user]) - len(in_turn[user])} pods backfilled"
        for user in WEIGHTS
    )
    best, *others = WEIGHTS
    ground.expect(
        all(held[best] > held[user] for user in others),
        f"of what was released in turn while all three had something waiting: {told}",
        f"the weight of {best} does not show: {told}",
    )


def held_while_all_wait(times: Mapping[str, Sequence[PodTimes]]) -> dict[str, float]:
    """Pod-seconds from release to end of each user, up to when the first of them has nothing waiting."""
    released = {user: sorted(pod.released_s or 0.0 for pod in pods) for user, pods in times.items()}
    until_s = min(instants[-1] for instants in released.values())
    return {
        user: sum(
            max(0.0, min(pod.ended_s or until_s, until_s) - pod.released_s)
            for pod in pods
            if pod.released_s is not None
        )
        for user, pods in times.items()
    }
