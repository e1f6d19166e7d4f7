"""Pods of one namespace, created and followed until they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from scheduler.edge.kube import KubeClient, KubeError, Listed

BOUND_S_MAX = 60.0
GONE_S_MAX = 60.0
MESSAGE_CHARS = 600
"""Of a failed job's last words, so many are told."""
NOW = {"gracePeriodSeconds": "0"}


class JobError(RuntimeError):
    """A job of the comparison did not get a node, failed or ran past its time."""


class _Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct):
    nodeName: str = ""


class _Terminated(msgspec.Struct):
    exitCode: int = 0
    message: str = ""
    reason: str = ""


class _State(msgspec.Struct):
    terminated: _Terminated | None = None


class _Container(msgspec.Struct):
    state: _State


class _Status(msgspec.Struct):
    phase: str = ""
    podIP: str = ""
    reason: str = ""
    message: str = ""
    containerStatuses: list[_Container] = []


class Pod(msgspec.Struct):
    """The fields of a pod that are used here."""

    metadata: _Meta
    spec: _Spec
    status: _Status

    @property
    def ended(self) -> bool:
        """True when it will not run any more."""
        return self.status.phase in ("Succeeded", "Failed")

    def said(self) -> dict[str, Any]:
        """The JSON of its termination message; raises `JobError` where it failed or said nothing."""
        message = self.succeeded()
        try:
            return dict(json.loads(message))
        except ValueError as error:
            raise JobError(f"pod {self.metadata.name} said {message!r}, not JSON") from error

    def succeeded(self) -> str:
        """Its termination message; raises `JobError` with it where the pod failed."""
        ends = [one.state.terminated for one in self.status.containerStatuses if one.state.terminated]
        if self.status.phase != "Succeeded" or not ends:
            told = "; ".join(f"{end.reason} {end.exitCode} {end.message[-MESSAGE_CHARS:]}" for end in ends)
            raise JobError(f"pod {self.metadata.name}: {self.status.phase} {self.status.message} {told}")
        return ends[0].message


@dataclass
class Pods:
    """The pods of `namespace` as the watch tells them."""

    kube: KubeClient
    namespace: str

    def __post_init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._changed = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def follow(cls, kube: KubeClient, namespace: str) -> AsyncIterator[Pods]:
        """Watch the namespace for as long as the block runs."""
        pods = cls(kube, namespace)
        watching = asyncio.create_task(pods._watch())
        try:
            yield pods
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    @property
    def path(self) -> str:
        """The collection's path."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    async def create(self, manifest: dict[str, Any]) -> str:
        """Create a pod; its name."""
        await self.kube.post(self.path, manifest)
        return str(manifest["metadata"]["name"])

    async def bound(self, name: str) -> str:
        """The node that the pod gets."""
        pod = await self.until(
            name, lambda pod: bool(pod.spec.nodeName), BOUND_S_MAX, "no scheduler bound it"
        )
        return pod.spec.nodeName

    async def address(self, name: str) -> str:
        """The pod's address, once it runs."""
        pod = await self.until(name, lambda pod: bool(pod.status.podIP), BOUND_S_MAX, "it got no address")
        return pod.status.podIP

    async def end(self, name: str, timeout_s: float) -> Pod:
        """The pod when it has ended."""
        return await self.until(name, lambda pod: pod.ended, timeout_s, "it did not end")

    def labelled(self, label: str, value: str) -> list[Pod]:
        """Pods that carry the label."""
        return [pod for pod in self._pods.values() if pod.metadata.labels.get(label) == value]

    async def until(self, name: str, test: Callable[[Pod], bool], timeout_s: float, else_say: str) -> Pod:
        """The pod as soon as `test` holds; raises `JobError` after `timeout_s`."""

        def holds() -> bool:
            return name in self._pods and test(self._pods[name])

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(holds)
                return self._pods[name]
        except TimeoutError as error:
            known = self._pods.get(name)
            phase = known.status.phase if known else "not there"
            raise JobError(f"pod {name}: {else_say} within {timeout_s:.0f} s ({phase})") from error

    async def delete(self, name: str) -> None:
        """Delete the pod at once; it may be gone already."""
        with contextlib.suppress(KubeError):
            await self.kube.delete(f"{self.path}/{name}", NOW)

    async def delete_all(self) -> None:
        """Delete every pod of the namespace and wait until they are gone; raises `JobError` after a while."""
        await self.kube.delete(self.path, NOW)
        try:
            async with asyncio.timeout(GONE_S_MAX), self._changed:
                await self._changed.wait_for(lambda: not self._pods)
        except TimeoutError as error:
            left = ", ".join(sorted(self._pods))
            raise JobError(f"deleted pods stay longer than {GONE_S_MAX:.0f} s: {left}") from error

    async def _watch(self) -> None:
        async for event in self.kube.mirror(self.path, Pod):
            async with self._changed:
                if isinstance(event, Listed):
                    self._pods = {pod.metadata.name: pod for pod in event.items}
                elif event.kind == "DELETED":
                    self._pods.pop(event.item.metadata.name, None)
                else:
                    self._pods[event.item.metadata.name] = event.item
                self._changed.notify_all()
