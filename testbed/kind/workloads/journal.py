"""Every pod that was ever there, as the watch told it: pods that are gone, and what must happen only once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from scheduler.core.workloads.rules import RECEIPT
from scheduler.edge.kube import KubeClient, Listed
from testbed.kind.workloads.figures import Object, is_gated

PODS = "/api/v1/pods"


class Unmet(Exception):
    """What a scenario expected did not come about; the message says what was seen instead."""


@dataclass(slots=True)
class Life:
    """A pod as it was last seen, and what was seen of it before."""

    pod: Object
    gone: bool = False
    was_gated: bool = False
    was_open: bool = False
    gated_again: bool = False
    receipts: list[str] = field(default_factory=list)
    """Different receipts, in their order: a second one is a second release."""

    def see(self, pod: Object) -> None:
        """The pod is like this now."""
        self.pod = pod
        gated = is_gated(pod)
        self.gated_again |= gated and self.was_open
        self.was_gated |= gated
        self.was_open |= not gated
        receipt = (pod["metadata"].get("annotations") or {}).get(RECEIPT)
        if receipt is not None and receipt not in self.receipts:
            self.receipts.append(receipt)

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])

    @property
    def phase(self) -> str:
        """Its phase when it was last seen."""
        return str(self.pod.get("status", {}).get("phase", ""))

    @property
    def ended(self) -> bool:
        """True when it will not run any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    def label(self, name: str) -> str:
        """The value of a label; empty without it."""
        return str((self.pod["metadata"].get("labels") or {}).get(name, ""))


class Journal:
    """Follows the pods of the whole cluster."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._lives: dict[str, Life] = {}
        self._changed = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def follow(cls, kube: KubeClient) -> AsyncIterator[Journal]:
        """Watch for as long as the block runs."""
        journal = cls(kube)
        watching = asyncio.create_task(journal._watch())
        try:
            yield journal
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    def pods(self, namespace: str, label: str = "", value: str = "") -> list[Life]:
        """Pods that are or were in a namespace, as they came; with a label, those that carry the value."""
        found = [life for life in self._lives.values() if life.pod["metadata"]["namespace"] == namespace]
        return [life for life in found if not label or life.label(label) == value]

    async def until(self, test: Callable[[], bool], within_s: float, else_say: Callable[[], str]) -> None:
        """Wait until `test` holds, asked again at every change; raises `Unmet` after `within_s`."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(test)
        except TimeoutError as error:
            raise Unmet(f"{else_say()} (after {within_s:.0f} s)") from error

    async def _watch(self) -> None:
        async for event in self._kube.mirror(PODS, Object):
            async with self._changed:
                if isinstance(event, Listed):
                    self._list(list(event.items))
                else:
                    self._see(event.item).gone |= event.kind == "DELETED"
                self._changed.notify_all()

    def _list(self, pods: list[Object]) -> None:
        present = {self._see(pod).pod["metadata"]["uid"] for pod in pods}
        for uid, life in self._lives.items():
            life.gone |= uid not in present

    def _see(self, pod: Object) -> Life:
        life = self._lives.setdefault(pod["metadata"]["uid"], Life(pod))
        life.see(pod)
        return life
