"""A checkpoint that is read is the old state or the new one, whatever answers of the API server get lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.edge import checkpoints as module
from scheduler.edge.checkpoints import Checkpoints, Superseded
from scheduler.edge.kube import KubeError


class ApiServer:
    """ConfigMaps by path. The next write of the head lands and is not answered if `is_mute`."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.is_mute, self.version = False, 0
        self.writes_left = 1_000

    async def get(self, path: str) -> bytes:
        if path not in self.stored:
            raise KubeError(404, "NotFound", path)
        return json.dumps(self.stored[path]).encode()

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.stored:
            raise KubeError(409, "AlreadyExists", name)
        return self._put(name, body)

    async def put(self, path: str, body: dict[str, Any]) -> bytes:
        if path not in self.stored:
            raise KubeError(404, "NotFound", path)
        version = body["metadata"].get("resourceVersion")
        if version and version != self.stored[path]["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", path)
        return self._put(path, body)

    def _put(self, path: str, body: dict[str, Any]) -> bytes:
        if not self.writes_left:
            raise KubeError(0, "Unreachable", "the connection was refused")
        self.writes_left -= 1
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.stored[path] = json.loads(json.dumps(body))
        if self.is_mute and body["data"]:
            self.is_mute = False
            raise KubeError(0, "Timeout", "no answer within 2 s")
        return json.dumps(body).encode()


def checkpoints(server: ApiServer, writer: str = "one") -> Checkpoints:
    return Checkpoints(server, "fair", "state", writer, lambda: True, 2.0)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 16)


def large(number: int) -> dict[str, Any]:
    return {"number": number, "more": [number * step for step in range(20)]}


async def left_without_an_answer(server: ApiServer) -> Checkpoints:
    """Who wrote the second state: it is there, but he does not know."""
    ours = checkpoints(server)
    await ours.write(large(1))
    server.is_mute = True
    with pytest.raises(KubeError):
        await ours.write(large(2))
    return ours


@pytest.mark.parametrize("cut", range(1, 4))
async def test_a_crash_after_a_write_without_an_answer_leaves_a_whole_state(cut: int) -> None:
    server = ApiServer()
    ours = await left_without_an_answer(server)
    server.writes_left = cut
    with pytest.raises(KubeError):
        await ours.write(large(3))
    assert await checkpoints(server, "another").read() == large(2)


async def test_a_write_without_an_answer_that_did_not_land_is_followed_by_others() -> None:
    server = ApiServer()
    ours = checkpoints(server)
    await ours.write(large(1))
    server.writes_left = 1
    with pytest.raises(KubeError):
        await ours.write(large(2))
    server.writes_left = 1_000
    await ours.write(large(3))
    assert await checkpoints(server, "another").read() == large(3)


async def test_the_first_write_without_an_answer_is_found_again() -> None:
    server = ApiServer()
    ours = checkpoints(server)
    server.is_mute = True
    with pytest.raises(KubeError):
        await ours.write(large(1))
    await ours.write(large(2))
    assert await checkpoints(server, "another").read() == large(2)


async def test_a_write_by_another_after_one_without_an_answer_ends_our_turn() -> None:
    server = ApiServer()
    ours = await left_without_an_answer(server)
    theirs = checkpoints(server, "another")
    await theirs.read()
    await theirs.write(large(3))
    with pytest.raises(Superseded):
        await ours.write(large(4))
    assert await checkpoints(server).read() == large(3)
