"""The short way through the HTTP server: the same answers in the same order, however the bytes arrive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec import structs
from uvicorn.server import ServerState

from scheduler.edge import http_server
from scheduler.edge.extender import ExtenderApp
from scheduler.edge.http_server import new_server
from scheduler.edge.prioritizer import Answer
from scheduler.edge.short_way import ShortWayProtocol

LIMIT = 1000


class Echo:
    """Answers each call with its own body, and notes what was done afterwards."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.afterwards: list[bytes] = []

    def prioritize(self, body: bytes) -> Answer:
        self.bodies.append(body)
        return Answer(body, lambda: self.afterwards.append(body))

    def filter(self, body: bytes) -> Answer:
        return structs.replace(self.prioritize(body), body=b"filtered " + body)


class Pipe(asyncio.Transport):
    """What was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection:
    """One connection to an extender whose calls are echoed."""

    def __init__(self, read_timeout_s: float = 2.0) -> None:
        self.echo, self.pipe = Echo(), Pipe()
        limits: dict[str, Any] = {"max_body_bytes": LIMIT, "read_timeout_s": read_timeout_s}
        self.app = ExtenderApp(
            self.echo,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            dict,
            bytes,
            str,
            prefix="/s",
            **limits,
        )
        config = new_server(self.app, protocol=partial(ShortWayProtocol, self.app.short_way)).config
        made: Callable[..., Any] = config.http_protocol_class  # type: ignore[assignment]
        self.protocol = made(config=config, server_state=ServerState(), app_state={})
        self.protocol.connection_made(self.pipe)

    async def send(self, *pieces: bytes) -> bytes:
        for piece in pieces:
            self.protocol.data_received(piece)
        for _ in range(200):
            await asyncio.sleep(0)
        return b"".join(self.pipe.written)


def post(body: bytes, *lines: bytes, path: bytes = b"/s/prioritize", length: int | None = None) -> bytes:
    given = len(body) if length is None else length
    head = [b"POST %s HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % given, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def bodies(written: bytes) -> list[bytes]:
    return [part.rpartition(b"\r\n\r\n")[2] for part in written.split(b"HTTP/1.1 200 OK")[1:]]


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("seed", range(20))
async def test_however_the_bytes_are_cut_each_request_gets_its_answer_in_turn(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [rng.random() < 0.7 for _ in range(12)]
    told = [b'{"n":%d,"names":"%s"}' % (i, 100 * b"x") if call else b"ok\n" for i, call in enumerate(kinds)]
    stream = b"".join(post(body) if call else HEALTH for body, call in zip(told, kinds, strict=True))
    connection, pieces = Connection(), []
    while stream:
        cut = rng.choice([1, 3, 40, 90, 100_000])
        pieces.append(stream[:cut])
        stream = stream[cut:]
    written = await connection.send(*pieces)
    assert bodies(written) == told
    assert connection.echo.afterwards == connection.echo.bodies


async def test_head_and_body_of_an_answer_leave_together() -> None:
    connection = Connection()
    await connection.send(post(b"{}"))
    assert len(connection.pipe.written) == 1


@pytest.mark.parametrize(
    ("line", "closes"), [(b"Connection: close", True), (b"Expect: 100-continue", False), (b"X-Any: 1", False)]
)
async def test_what_a_head_asks_for_is_heeded(line: bytes, closes: bool) -> None:
    connection = Connection()
    written = await connection.send(post(b"{}", line))
    assert bodies(written) == [b"{}"]
    assert connection.pipe.closed == closes
    assert (b"100 Continue" in written) == line.startswith(b"Expect")


async def test_a_body_beyond_the_limit_is_refused_and_one_that_stops_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "LINGER_S", 0.15)
    large = Connection()
    assert b"413" in await large.send(post(b" " * (LIMIT + 1)))
    slow = Connection(read_timeout_s=0.01)
    await slow.send(post(b"{", length=5))
    await asyncio.sleep(0.1)
    assert b"408 Request Timeout" in b"".join(slow.pipe.written)
    assert (slow.pipe.ended, slow.app.refused[408], slow.echo.bodies) == (True, 1, [])
    told = list(slow.pipe.written)
    await slow.send(post(b"{}"))  # nothing more is taken from it
    assert (slow.pipe.written, slow.echo.bodies) == (told, [])
    await asyncio.sleep(0.2)
    assert slow.pipe.closed


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_counted() -> None:
    connection = Connection()
    await connection.send(post(b"{", length=5))
    connection.protocol.connection_lost(None)
    assert connection.app.refused[499] == 1


async def test_a_connection_is_kept_from_the_last_answer_on_and_no_longer() -> None:
    connection = Connection()
    connection.protocol.timeout_keep_alive = 0.2
    await connection.send(HEALTH)
    for _ in range(3):
        await asyncio.sleep(0.12)
        await connection.send(post(b"{}"))
    slow = post(b"{}")
    connection.protocol.data_received(slow[:-1])
    await asyncio.sleep(0.3)
    assert not connection.pipe.closed  # it is the request that takes long
    assert len(bodies(await connection.send(slow[-1:]))) == 5
    await asyncio.sleep(0.1)
    assert not connection.pipe.closed
    await asyncio.sleep(0.4)
    assert connection.pipe.closed


async def test_other_paths_do_not_take_the_short_way() -> None:
    connection = Connection()
    assert b"404" in await connection.send(post(b"{}", path=b"/s/filters"))
    assert connection.echo.bodies == []


async def test_each_path_is_answered_by_its_own_verb() -> None:
    connection, paths = Connection(), (b"/s/filter", b"/s/prioritize", b"/s/filter")
    written = await connection.send(*(post(b"%d" % n, path=path) for n, path in enumerate(paths)))
    assert bodies(written) == [b"filtered 0", b"1", b"filtered 2"]


async def test_a_refusal_names_the_path_that_was_asked() -> None:
    connection = Connection(read_timeout_s=0.01)
    await connection.send(post(b"{}", path=b"/s/filter"), post(b"{", path=b"/s/filter", length=5))
    await asyncio.sleep(0.1)
    assert connection.app.last_refusal.startswith("408 for POST /s/filter:")
