"""A mirror of a collection misses nothing, whatever happens to the connection and the API server."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from cuttable_link import CuttableLink

from scheduler.edge import gathering
from scheduler.edge import kube as kube_module
from scheduler.edge.kube import KubeClient, Listed
from testbed.cluster import Cluster

Eventually = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.timeout(120)


class _Meta(msgspec.Struct, frozen=True):
    name: str


class ConfigMap(msgspec.Struct, frozen=True):
    """An object that nobody else changes: a number under a name."""

    metadata: _Meta
    data: dict[str, str] = {}

    @property
    def number(self) -> int:
        return int(self.data.get("number", "-1"))


class Collection:
    """Config maps of one namespace, changed over a connection that does not fail."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"

    async def create(self, name: str, number: int) -> None:
        await self._kube.post(self.path, _config_map(name, number))

    async def change(self, name: str, number: int) -> None:
        await self._kube.put(f"{self.path}/{name}", _config_map(name, number))

    async def delete(self, name: str) -> None:
        await self._kube.delete(f"{self.path}/{name}")

    async def count(self, name: str, up_to: int, every_s: float) -> None:
        await self.create(name, 0)
        for number in range(1, up_to + 1):
            await asyncio.sleep(every_s)
            await self.change(name, number)

    async def now(self) -> dict[str, int]:
        return {one.metadata.name: one.number for one in await self._kube.list_all(self.path, ConfigMap)}


class Follower:
    """What a mirror has told so far."""

    def __init__(self) -> None:
        self.lists = 0
        self.items: dict[str, int] = {}
        self.changes: list[tuple[str, str, int]] = []

    async def follow(self, kube: KubeClient, path: str) -> None:
        async for event in kube.mirror(path, ConfigMap):
            if isinstance(event, Listed):
                self.lists += 1
                self.items = {one.metadata.name: one.number for one in event.items}
                continue
            name, number = event.item.metadata.name, event.item.number
            self.changes.append((event.kind, name, number))
            if event.kind == "DELETED":
                del self.items[name]
            else:
                self.items[name] = number

    async def knows_root_certificate(self) -> bool:
        """The cluster puts it into every namespace; the tests are about what comes after it."""
        return "kube-root-ca.crt" in self.items

    def has_told(self, *changes: tuple[str, str, int]) -> Callable[[], Awaitable[bool]]:
        async def told() -> bool:
            return self.changes == list(changes)

        return told


@pytest_asyncio.fixture
async def collection(kube: KubeClient) -> AsyncIterator[Collection]:
    """An empty collection in a namespace of its own."""
    namespace = f"mirror-{uuid.uuid4().hex[:8]}"
    await kube.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    yield Collection(kube, namespace)
    await kube.delete(f"/api/v1/namespaces/{namespace}")


@pytest_asyncio.fixture
async def link(cluster: Cluster) -> AsyncIterator[CuttableLink]:
    """The only way from the mirror to the API server."""
    async with CuttableLink(cluster.layout.ports["apiserver"]) as link:
        yield link


@pytest_asyncio.fixture
async def follower(
    cluster: Cluster, collection: Collection, link: CuttableLink, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[Follower]:
    """A mirror over the link that has listed the empty collection."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{link.port}"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    async with _following(str(tmp_path / "kubeconfig"), collection.path) as follower:
        await eventually(follower.knows_root_certificate)
        follower.changes.clear()
        yield follower


@asynccontextmanager
async def _following(kubeconfig: str, path: str) -> AsyncIterator[Follower]:
    follower = Follower()
    async with KubeClient.connect(kubeconfig) as kube:
        task = asyncio.create_task(follower.follow(kube, path))
        try:
            yield follower
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_collection_of_many_pages_is_listed_whole(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "PAGE_SIZE", 7)
    await asyncio.gather(*(collection.create(f"map-{number:02d}", number) for number in range(50)))
    listed = await collection.now()
    assert {name: number for name, number in listed.items() if number >= 0} == {
        f"map-{number:02d}": number for number in range(50)
    }


async def test_changes_are_told_by_kind_and_in_order(
    collection: Collection, follower: Follower, eventually: Eventually
) -> None:
    await collection.create("one", 1)
    await collection.change("one", 2)
    await collection.delete("one")
    await eventually(follower.has_told(("ADDED", "one", 1), ("MODIFIED", "one", 2), ("DELETED", "one", 2)))


async def test_what_changes_while_the_connection_is_cut_is_told_afterwards(
    collection: Collection, follower: Follower, link: CuttableLink, eventually: Eventually
) -> None:
    await collection.create("one", 1)
    await eventually(follower.has_told(("ADDED", "one", 1)))
    link.cut()
    await collection.create("two", 2)
    await collection.change("two", 3)
    await collection.delete("one")
    link.mend()
    missed = [("ADDED", "two", 2), ("MODIFIED", "two", 3), ("DELETED", "one", 1)]
    await eventually(follower.has_told(("ADDED", "one", 1), *missed))
    assert follower.lists == 1  # it resumed where it was


async def test_a_connection_that_is_cut_again_and_again_loses_and_repeats_no_change(
    collection: Collection, follower: Follower, link: CuttableLink, eventually: Eventually
) -> None:
    counting = asyncio.create_task(collection.count("counter", up_to=149, every_s=0.02))
    while not counting.done():
        link.cut()
        link.mend()
        await asyncio.sleep(0.6)
    await counting

    async def up_to_date() -> bool:
        return follower.items.get("counter") == 149

    await eventually(up_to_date)
    assert [number for _, _, number in follower.changes] == list(range(150))
    assert link.connections > 4


async def test_a_burst_is_told_whole_and_in_order_also_when_the_connection_ends_while_it_is_gathered(
    collection: Collection,
    follower: Follower,
    link: CuttableLink,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "EVENTS_AT_ONCE", 1.0)
    monkeypatch.setattr(gathering, "GATHERED_S", 0.3)
    link.cut()  # the next watch has the new limits
    link.mend()
    await collection.count("counter", up_to=60, every_s=0.0)
    link.cut()
    await collection.change("counter", 61)
    link.mend()
    told = [("ADDED", "counter", 0), *(("MODIFIED", "counter", number) for number in range(1, 62))]
    await eventually(follower.has_told(*told))
    assert follower.lists == 1


async def test_a_peer_that_says_nothing_any_more_is_given_up(
    collection: Collection,
    follower: Follower,
    link: CuttableLink,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kube_module, "SILENCE_S", 1.0)
    link.cut()  # the next watch has the shorter patience
    link.mend()
    await collection.create("one", 1)
    await eventually(follower.has_told(("ADDED", "one", 1)))
    link.silence()
    await collection.change("one", 2)
    await asyncio.sleep(0.2)
    link.mend()
    await eventually(follower.has_told(("ADDED", "one", 1), ("MODIFIED", "one", 2)))
    assert follower.lists == 1


async def test_a_paused_api_server_delays_changes_but_loses_none(
    cluster: Cluster, collection: Collection, follower: Follower, eventually: Eventually
) -> None:
    apiserver = cluster.process("kube-apiserver")
    apiserver.pause()
    creation = asyncio.create_task(collection.create("one", 1))
    await asyncio.sleep(1.0)
    assert follower.changes == []
    apiserver.resume()
    await creation
    await eventually(follower.has_told(("ADDED", "one", 1)))


async def test_after_a_restart_that_forgot_the_version_everything_is_listed_anew(
    cluster: Cluster,
    collection: Collection,
    follower: Follower,
    link: CuttableLink,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await collection.create("gone", 1)
    await eventually(follower.has_told(("ADDED", "gone", 1)))
    link.cut()
    await collection.delete("gone")
    await collection.create("new", 2)
    apiserver = cluster.process("kube-apiserver")
    await asyncio.to_thread(apiserver.kill)
    link.mend()  # to where nobody listens
    await asyncio.to_thread(apiserver.restart)  # it remembers changes from its start on only
    await collection.change("new", 3)

    async def up_to_date() -> bool:
        return follower.items == await collection.now()

    await eventually(up_to_date)
    assert follower.lists == 2
    assert "410 Expired" in caplog.text


class WhimsicalServer:
    """Speaks HTTP, but what it says to a watch is not what an API server in good health says."""

    def __init__(self, *watches: bytes) -> None:
        self._watches = itertools.chain(watches, itertools.repeat(b""))
        self.versions: list[str] = []
        self.asked_at_s: list[float] = []

    async def __aenter__(self) -> WhimsicalServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.kubeconfig = {
            "current-context": "one",
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "clusters": [{"name": "one", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "one", "user": {}}],
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "watch=true" in request:
            self.asked_at_s.append(time.monotonic())
            self.versions.append(request.partition("resourceVersion=")[2].partition("&")[0])
            body = next(self._watches)
        else:
            body = b'{"metadata":{"resourceVersion":"1"},"items":[]}'
        # no length: the end of the connection is the end of the answer
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def _following_whims(folder: Path, *watches: bytes) -> AsyncIterator[tuple[WhimsicalServer, Follower]]:
    async with WhimsicalServer(*watches) as server:
        (folder / "kubeconfig").write_text(json.dumps(server.kubeconfig))
        async with _following(str(folder / "kubeconfig"), "/api/v1/configmaps") as follower:
            yield server, follower


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_busy_loop(tmp_path: Path) -> None:
    async with _following_whims(tmp_path) as (server, _follower):
        await asyncio.sleep(2.0)
        assert 2 <= len(server.asked_at_s) <= 5


async def test_a_change_that_was_cut_in_half_is_not_told_and_asked_for_again(
    tmp_path: Path, eventually: Eventually
) -> None:
    first, second = _line("ADDED", "one", 1, version=7), _line("ADDED", "two", 2, version=8)
    async with _following_whims(tmp_path, first + second[:40], second) as (server, follower):
        await eventually(follower.has_told(("ADDED", "one", 1), ("ADDED", "two", 2)))
        assert server.versions[:2] == ["1", "7"]


async def test_an_object_of_another_shape_is_left_out_and_told_in_the_log(
    tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    strange = b'{"type":"ADDED","object":{"metadata":{"name":"odd","resourceVersion":"7"},"data":3}}\n'
    async with _following_whims(tmp_path, strange + _line("ADDED", "one", 1, version=8)) as (_, follower):
        await eventually(follower.has_told(("ADDED", "one", 1)))
    assert "left out /odd, which cannot be read: Expected `object`, got `int`" in caplog.text


@pytest.mark.parametrize("answer", [b"<html>Bad gateway</html>\n", b'{"kind":"Status"}\n', b"\x00\xff\n"])
async def test_an_answer_that_is_no_watch_is_told_and_asked_for_again(
    tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    caplog.set_level(logging.WARNING)
    async with _following_whims(tmp_path, answer, _line("ADDED", "one", 1, version=7)) as (_, follower):
        await eventually(follower.has_told(("ADDED", "one", 1)))
    assert "API server sent what is not a" in caplog.text


def _line(kind: str, name: str, number: int, version: int) -> bytes:
    config_map = _config_map(name, number, resourceVersion=str(version))
    return json.dumps({"type": kind, "object": config_map}).encode() + b"\n"


def _config_map(name: str, number: int, **meta: str) -> dict[str, object]:
    return {"metadata": {"name": name, **meta}, "data": {"number": str(number)}}
