"""What a scenario stands on: the cluster, its users, the journal of pods, and a list of what was seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scheduler.edge.kube import KubeClient
from testbed.kind import deploy
from testbed.kind.cluster import KindCluster
from testbed.kind.shell import CommandError
from testbed.kind.workloads.figures import Object, released_s
from testbed.kind.workloads.journal import Journal, Life, Unmet
from testbed.kind.workloads.people import Person, person

GPU = "nvidia.com/gpu"
GPUS = 2
"""Of each worker: nobody has any here, so an extended resource is written into the nodes' status."""
OPERATED_CRDS = (
    "sparkapplications.sparkoperator.k8s.io",
    "pytorchjobs.kubeflow.org",
    "jobsets.jobset.x-k8s.io",
)
GONE_S_MAX = 90
KNOWN_S_MAX = 30.0
AGAIN_S = 2.0

Found = TypeVar("Found")


@dataclass
class Ground:
    """One scenario's; `run` ends the names of its namespaces, which no run before had."""

    cluster: KindCluster
    kube: KubeClient
    journal: Journal
    run: str
    letter: str
    saw: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    def see(self, sentence: str) -> None:
        """Something that was seen, for whoever watches and for the report."""
        self.saw.append(sentence)
        self.cluster.progress.say(f"{self.letter}: {sentence}")

    def expect(self, holds: bool, sentence: str, else_say: str) -> None:
        """See the sentence if it holds; raises `Unmet` with the other one if not."""
        if not holds:
            raise Unmet(else_say)
        self.see(sentence)

    async def person(self, name: str) -> Person:
        """A user of that name, with a namespace of his own."""
        namespace = self.namespace(name)
        return await asyncio.to_thread(person, self.cluster, name, namespace)

    def namespace(self, name: str) -> str:
        """The name of a namespace of this scenario, which is taken away at its end."""
        found = f"{self.letter}-{name}-{self.run}"
        self.namespaces.append(found)
        return found

    async def kubectl(
        self, *words: str, stdin: str | None = None, by: Person | None = None, timeout_s: float = 120.0
    ) -> str:
        """What kubectl printed, as the administrator or `by` a user with his own certificate."""
        who = ["--kubeconfig", str(by.kubeconfig)] if by is not None else []  # the last one counts
        return await asyncio.to_thread(self.cluster.kubectl, *words, *who, stdin=stdin, timeout_s=timeout_s)

    async def apply(self, objects: Sequence[Object], by: Person | None = None, like: str = "") -> None:
        """`kubectl apply` by a user, by the administrator, or `like` a service account (impersonated)."""
        as_ = ["--as", like] if like else []
        await self.kubectl("apply", "-f", "-", *as_, stdin=_listed(objects), by=by)

    async def read(self, *words: str) -> Any:
        """What `kubectl get WORDS` tells, as JSON."""
        return json.loads(await self.kubectl("get", *words, "-o", "json"))

    async def in_thread(self, act: Callable[[], Found]) -> Found:
        """What a call that takes long answers, while the journal goes on."""
        return await asyncio.to_thread(act)

    async def load(self, *images: str) -> None:
        """Put images into every node."""
        await asyncio.to_thread(self.cluster.load, images)

    async def operated(self, objects: Sequence[Object]) -> None:
        """Make the kinds of the operators that are stood in for known, until such `objects` are taken.

        For some seconds after a kind is established, policies that change objects do not know it:
        the API server refuses those that they are about.
        """
        await asyncio.to_thread(deploy.apply, self.cluster, "operated", {})
        await self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *OPERATED_CRDS)
        words = ["create", "--dry-run=server", "-f", "-"]
        await self.patiently(*words, stdin=_listed(objects), within_s=KNOWN_S_MAX)

    async def gpus(self, each: int = GPUS) -> None:
        """Write so many GPUs into the status of each worker; the queue and the scheduler count them."""
        patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(each)}]
        for node in self.cluster.workers:
            words = ["patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch)]
            await self.kubectl(*words)

    async def all_ended(self, namespace: str, count: int, within_s: float) -> list[Life]:
        """The pods of a namespace once at least `count` are known and all have ended well."""

        def ended() -> bool:
            pods = self.journal.pods(namespace)
            return len(pods) >= count and all(life.ended for life in pods)

        await self.journal.until(ended, within_s, lambda: f"not all ended: {self.states(namespace)}")
        pods = self.journal.pods(namespace)
        if failed := [life.name for life in pods if life.phase != "Succeeded"]:
            raise Unmet(f"pods of {namespace} did not end well: {', '.join(failed)}")
        return pods

    def states(self, namespace: str) -> str:
        """The pods of a namespace and their phases, in a line."""
        found = [f"{life.name} {life.phase}{' gone' * life.gone}" for life in self.journal.pods(namespace)]
        return ", ".join(found) or "no pod was made"

    def stamped(self, pods: Sequence[Life], user: str) -> None:
        """Every pod was gated at its creation and is the user's; raises `Unmet` if not."""
        for life in pods:
            told = (life.pod["metadata"].get("annotations") or {}).get("fairlane.dev/user", "nobody")
            if told != user or not life.was_gated:
                raise Unmet(
                    f"{life.name} is {told}'s and gated: {life.was_gated}; it should wait as {user}'s"
                )

    def together(self, pods: Sequence[Life]) -> float:
        """When the pods were released, all at once; raises `Unmet` where they were not."""
        times = {released_s(life.pod["metadata"].get("annotations") or {}) for life in pods}
        (released,) = times if len(times) == 1 else (None,)
        if released is None:
            raise Unmet(f"not released at once: {', '.join(life.name for life in pods)}: {times}")
        return released

    async def clear(self) -> None:
        """Take the scenario's namespaces away."""
        words = ["delete", "namespace", *self.namespaces, "--ignore-not-found", f"--timeout={GONE_S_MAX}s"]
        if self.namespaces:
            await self.kubectl(*words, timeout_s=GONE_S_MAX + 30)

    async def patiently(self, *words: str, within_s: float, **given: Any) -> str:
        """As `kubectl`, again and again while it fails: for an API server that comes back."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while True:
            try:
                return await self.kubectl(*words, **given)
            except CommandError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                await asyncio.sleep(AGAIN_S)


def _listed(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
