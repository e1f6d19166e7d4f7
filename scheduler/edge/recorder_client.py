"""Talks to the recorder over HTTP: decisions go in, histories and receipts come out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from model import protocol
from model.placement import RunHistory
from scheduler.core.receipts import Receipt
from scheduler.core.records import Batch, BatchReply
from scheduler.settings_section import web_address

TIMEOUT_S = 5.0
URL_CHARACTERS = 16_000
"""Asked for at once; a server takes four times as much with all headers."""
MESSAGEPACK = "application/msgpack"

Answer = TypeVar("Answer")


class RecorderError(Exception):
    """The recorder could not be reached (`status` 0) or refused; the message says why.

    `permanent` refusals fail again however often they are sent.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def permanent(self) -> bool:
        """The request itself is at fault."""
        return self.status in (400, 404, 405, 413, 415, 422)


class HistoryAnswer(msgspec.Struct, frozen=True):
    """Answer of `GET /v1/history`: summed-up completions per job class and per user.

    What is not known of a history is left out of the JSON, which has no NaN.
    """

    classes: dict[str, RunHistory]
    users: dict[str, RunHistory]


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


class RecorderClient:
    """A connection to one recorder. Use `async with RecorderClient.connect(url, token) as recorder`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, token: str, timeout_s: float = TIMEOUT_S
    ) -> AsyncIterator[RecorderClient]:
        """Connect lazily; `token` may be empty where the recorder asks for none.

        Raises:
            RecorderError: the URL is none.
        """
        try:
            named = web_address(url)
        except ValueError as error:
            raise RecorderError(0, f"the recorder: {error}") from error
        if not named:
            raise RecorderError(0, "the recorder has no URL")
        headers = dict([protocol.own()]) | ({"Authorization": f"Bearer {token}"} if token else {})
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield cls(session, url)

    async def send(self, batch: Batch) -> BatchReply:
        """Store a batch of decisions; returns once it is stored."""
        body = msgspec.msgpack.encode(batch)
        content = await self._request(
            "POST", "/v1/decisions", data=body, headers={"Content-Type": MESSAGEPACK}
        )
        return _decoded(content, BatchReply)

    async def histories(self, classes: Sequence[str], users: Sequence[str]) -> HistoryAnswer:
        """Completions of these job classes and users, summed up."""
        found = HistoryAnswer({}, {})
        for some in _fitting([("class", one) for one in classes] + [("user", one) for one in users]):
            answer = _decoded(await self._request("GET", "/v1/history", params=some), HistoryAnswer)
            found.classes.update(answer.classes)
            found.users.update(answer.users)
        return found

    async def receipt(self, namespace: str, name: str, limit: int) -> Receipt:
        """Why a pod is where it is, with its `limit` best candidates; 404 when nothing is known."""
        params = [("pod", f"{namespace}/{name}"), ("limit", str(limit))]
        return _decoded(await self._request("GET", "/v1/decisions", params=params), Receipt)

    async def status(self) -> dict[str, Any]:
        """What the recorder tells of itself."""
        return _decoded(await self._request("GET", "/v1/status"), dict[str, Any])

    async def examples(self) -> bytes:
        """The table of examples, as Parquet."""
        return await self._request("GET", "/v1/examples", params=[("format", "parquet")])

    async def _request(self, method: str, path: str, **options: Any) -> bytes:
        try:
            async with self._session.request(method, self._url + path, **options) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise RecorderError(0, f"the recorder at {self._url} cannot be reached: {why}") from error
        if answer.status >= 400:
            raise RecorderError(answer.status, f"the recorder answered {answer.status}: {_why(content)}")
        return content


def _fitting(wanted: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """In pieces of which each fits into one URL: a name of 253 characters may have three thousand there."""
    some: list[tuple[str, str]] = []
    length = 0
    for kind, name in wanted:
        needs = len(quote(name, safe="")) + len(kind) + 2
        if some and length + needs > URL_CHARACTERS:
            yield some
            some, length = [], 0
        some.append((kind, name))
        length += needs
    if some:
        yield some


def _why(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Refusal).error
    except msgspec.DecodeError:
        return content[:200].decode(errors="replace")


def _decoded(content: bytes, wanted: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(content, type=wanted)
    except msgspec.DecodeError as error:
        raise RecorderError(0, f"the recorder's answer is not a {wanted.__name__}: {error}") from error
