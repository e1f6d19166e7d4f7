"""What the API server must hold before a testbed is usable: rights, nodes, and that they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import yaml

from scheduler.edge.kube import KubeClient, KubeError, Listed
from testbed.configuration import rbac_file
from testbed.control import TestbedError
from testbed.nodes import DATA_NODE, Node
from testbed.progress import Task

PARALLEL = 16
READY_S_MAX = 90.0
NODES_PER_S_MIN = 10.0
RIGHTS = "/apis/rbac.authorization.k8s.io/v1"

Value = TypeVar("Value")


class _Meta(msgspec.Struct, frozen=True):
    name: str


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str


class _Taint(msgspec.Struct, frozen=True):
    key: str


class _Status(msgspec.Struct, frozen=True):
    conditions: tuple[_Condition, ...] = ()


class _Spec(msgspec.Struct, frozen=True):
    taints: tuple[_Taint, ...] = ()


class SeenNode(msgspec.Struct, frozen=True):
    """The fields of a node that tell whether pods can be placed on it."""

    metadata: _Meta
    status: _Status = _Status()
    spec: _Spec = _Spec()

    def is_usable(self) -> bool:
        """Ready, and without the taints that keep pods off a node that is not."""
        ready = any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)
        return ready and all(taint.key == DATA_NODE for taint in self.spec.taints)


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine to its end, also when the caller is itself inside an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)  # an interrupt cancels it
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def populate(kubeconfig: str, nodes: Sequence[Node], task: Task, check: Callable[[], None]) -> None:
    """Create the rights of Fairlane's processes and all nodes; return when pods can be placed on them.

    `check` is called now and then and raises when waiting is vain.

    Raises:
        TestbedError: the API server refused something, or the nodes did not become ready in time.
    """
    within_s = READY_S_MAX + len(nodes) / NODES_PER_S_MIN
    async with KubeClient.connect(kubeconfig, parallel=PARALLEL) as kube:
        try:
            async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
                checking = group.create_task(_check_often(check))
                await _fill(kube, nodes)
                await _all_usable(kube, len(nodes), task)
                await _default_account(kube)
                checking.cancel()
        except TimeoutError as error:
            raise TestbedError(
                f"{task.done:,} of {len(nodes):,} nodes were ready after {within_s:.0f} s"
            ) from error
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors


async def _check_often(check: Callable[[], None]) -> None:
    while True:
        await asyncio.to_thread(check)
        await asyncio.sleep(0.5)


async def _fill(kube: KubeClient, nodes: Sequence[Node]) -> None:
    for rights in yaml.safe_load_all(rbac_file().read_text()):
        await _grant(kube, rights)
    queue = iter(nodes)
    await asyncio.gather(*(_create_nodes(kube, queue) for _ in range(PARALLEL)))


async def _grant(kube: KubeClient, rights: dict[str, Any]) -> None:
    namespace, plural = rights["metadata"].get("namespace"), f"{rights['kind'].lower()}s"
    if namespace is None:
        await _create(kube, f"{RIGHTS}/{plural}", rights)
        return
    await _until_there(kube, f"/api/v1/namespaces/{namespace}")
    await _create(kube, f"{RIGHTS}/namespaces/{namespace}/{plural}", rights)


async def _all_usable(kube: KubeClient, count: int, task: Task) -> None:
    usable: set[str] = set()
    async for event in kube.mirror("/api/v1/nodes", SeenNode):
        for node in event.items if isinstance(event, Listed) else (event.item,):
            (usable.add if node.is_usable() else usable.discard)(node.metadata.name)
        task.advance(len(usable))
        if len(usable) >= count:
            return


async def _create_nodes(kube: KubeClient, queue: Iterator[Node]) -> None:
    for node in queue:
        await _create(kube, "/api/v1/nodes", node)


async def _create(kube: KubeClient, collection: str, body: dict[str, Any]) -> None:
    try:
        await kube.post(collection, body)
    except KubeError as error:
        raise TestbedError(f"cannot create {body['kind']} {body['metadata']['name']}: {error}") from error


async def _default_account(kube: KubeClient) -> None:
    """Pods of the default namespace are refused until its service account exists."""
    await _until_there(kube, "/api/v1/namespaces/default/serviceaccounts/default")


async def _until_there(kube: KubeClient, path: str) -> None:
    """Wait for what the API server and its controllers make by themselves."""
    while True:
        try:
            await kube.get(path)
            return
        except KubeError as error:
            if error.status != 404:
                raise TestbedError(f"cannot look for {path}: {error}") from error
        await asyncio.sleep(0.1)
