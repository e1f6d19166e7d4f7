"""The API server as raw JSON: requests, paged lists and watches that never go deaf.

Authentication and TLS come from the official client's configuration loaders;
the objects are decoded with msgspec into structs that hold only the fields
used, because the official models cost ten times as much a pod.

A mirror is the one correct way to follow a collection: list in pages, watch
from the list's resource version with bookmarks, resume at the last version
seen after every end of stream, list again after 410 Gone, and wait with
growing jittered pauses after errors, also when the server ends every watch at
once. Both ends bound the time of one watch, and silence counts as an error: a
dead peer would hang it for ever, because it never says that it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

from scheduler.edge.gathering import gathered

Item = TypeVar("Item")
Params = Mapping[str, str]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

PAGE_SIZE = 500
WATCH_S = 270.0
"""How long the server may keep one watch open."""
SILENCE_S = 130.0
"""A watch that says nothing for so long is dead: the server sends a bookmark about every minute."""
SHORT_WATCH_S = 1.0
"""A watch that ends sooner without a word counts as an error, or asking again would be a busy loop."""
BACKOFF_S_MAX = 5.0
"""An API server that is back is heard within this; a handful of processes that ask do not burden it."""
GONE = 410
"""The resource version is too old to resume from: list again."""

log = logging.getLogger(__name__)


class KubeError(Exception):
    """The API server refused a request or could not be reached (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Listed(Generic[Item]):
    """The whole collection as of one resource version; replaces all known before."""

    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Changed(Generic[Item]):
    """One change of the collection; `kind` is ADDED, MODIFIED or DELETED."""

    kind: str
    item: Item


@dataclass(slots=True)
class Line:
    """Whether a mirror hears the server: `failure` says why not, and is empty while it does."""

    failure: str = "nothing was listed yet"


class _Meta(msgspec.Struct):
    namespace: str = ""
    name: str = ""
    resourceVersion: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _Meta
    items: list[msgspec.Raw] | None = None


class _WatchLine(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: _Meta


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0


class KubeClient:
    """A connection to one API server. Use `async with KubeClient.connect() as kube`."""

    def __init__(self, session: aiohttp.ClientSession, configuration: Configuration) -> None:
        self._session = session
        self._configuration = configuration

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: str | None = None, parallel: int = 32) -> AsyncIterator[KubeClient]:
        """Connect by `kubeconfig`, else KUBECONFIG or ~/.kube/config, else the pod's service account.

        Raises:
            KubeError: no usable configuration was found.
        """
        configuration = await load_configuration(kubeconfig)
        async with _session(configuration, parallel) as session:
            yield cls(session, configuration)

    async def get(self, path: str, params: Params | None = None) -> bytes:
        """GET `path`; the body."""
        return await self._request("GET", path, params=params)

    async def post(self, path: str, body: object) -> bytes:
        """Create an object under the collection `path`."""
        return await self._request("POST", path, body)

    async def put(self, path: str, body: object) -> bytes:
        """Replace the object at `path`."""
        return await self._request("PUT", path, body)

    async def patch(
        self, path: str, body: object, content_type: str = MERGE_PATCH, params: Params | None = None
    ) -> bytes:
        """Patch the object at `path`."""
        return await self._request("PATCH", path, body, content_type, params)

    async def delete(self, path: str, params: Params | None = None, body: object = None) -> bytes:
        """Delete the object at `path` (or the collection); `body`: DeleteOptions, e.g. preconditions."""
        return await self._request("DELETE", path, body, params=params)

    @asynccontextmanager
    async def socket(
        self, path: str, params: Sequence[tuple[str, str]], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A web socket at `path`, for as long as it is used.

        Raises:
            KubeError: the server refuses, or cannot be reached.
        """
        try:
            async with self._session.ws_connect(
                f"{path}?{urlencode(params)}",
                headers=await self._headers(),
                protocols=[protocol],
                max_msg_size=0,
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            told = HTTPStatus(error.status).phrase  # its answer, with a sentence, is not to be had
            raise KubeError(error.status, told, f"no connection is opened to {path}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(0, "Unreachable", f"API server: {type(error).__name__}: {error}") from error

    async def list_all(self, path: str, item_type: type[Item], params: Params | None = None) -> list[Item]:
        """All items of the collection at `path`, read in pages."""
        items, _version = await self._list(path, msgspec.json.Decoder(item_type), params or {})
        return items

    async def mirror(
        self, path: str, item_type: type[Item], params: Params | None = None, line: Line | None = None
    ) -> AsyncIterator[Listed[Item] | Changed[Item]]:
        """Follow the collection at `path` for ever: `Listed` after each (re)list, then each `Changed`.

        Errors are logged and retried with growing, jittered pauses; the
        iterator ends only when its task is cancelled. `line` tells meanwhile
        whether the server can be heard.
        """
        line = line or Line()
        decoder = msgspec.json.Decoder(item_type)
        version, failures = "", 0
        while True:
            try:
                if not version:
                    items, version = await self._list(path, decoder, params or {})
                    line.failure = ""
                    yield Listed(items)
                async for seen_version, change in self._watch(path, decoder, params or {}, version, line):
                    version, failures = seen_version, 0
                    if change is not None:
                        yield change
            except KubeError as error:
                if error.status == GONE:
                    version = ""
                failures += 1
                line.failure = str(error)
                pause_s = min(BACKOFF_S_MAX, 0.2 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
                log.warning("watch of %s: %s; again in %.1f s", path, error, pause_s)
                await asyncio.sleep(pause_s)

    async def _list(
        self, path: str, decoder: msgspec.json.Decoder[Item], params: Params
    ) -> tuple[list[Item], str]:
        items: list[Item] = []
        token = ""
        while True:
            query = {**params, "limit": str(PAGE_SIZE)} | ({"continue": token} if token else {})
            page = _decode(await self.get(path, query), _Page)
            items.extend(item for raw in page.items or () if (item := _item(raw, decoder)) is not None)
            token = page.metadata.continue_
            if not token:
                return items, page.metadata.resourceVersion

    async def _watch(
        self, path: str, decoder: msgspec.json.Decoder[Item], params: Params, version: str, line: Line
    ) -> AsyncIterator[tuple[str, Changed[Item] | None]]:
        served_s = WATCH_S * random.uniform(0.8, 1.0)
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(served_s)),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S)
        headers, is_silent, begun_s = await self._headers(), True, time.monotonic()
        try:
            async with self._session.get(_url(path, query), headers=headers, timeout=timeout) as answer:
                if answer.status != 200:
                    raise _error(answer.status, await answer.read())
                line.failure = ""
                async for text in _lines(gathered(answer)):
                    is_silent = False
                    yield _change(text, decoder)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(0, "Unreachable", f"{type(error).__name__}: {error}") from error
        if is_silent and time.monotonic() - begun_s < SHORT_WATCH_S:
            raise KubeError(0, "ShortWatch", "the server ended the watch at once")

    async def _request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        params: Params | None = None,
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = await self._headers() | ({"Content-Type": content_type} if data is not None else {})
        try:
            async with self._session.request(
                method, _url(path, params), data=data, headers=headers
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(0, "Unreachable", f"API server: {type(error).__name__}: {error}") from error
        if answer.status >= 400:
            raise _error(answer.status, content)
        return content

    async def _headers(self) -> dict[str, str]:
        try:  # reads the token's file again now and then
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (kubernetes_config.ConfigException, OSError) as error:
            raise KubeError(0, "NoToken", f"the token cannot be read: {error}") from error
        return {"Authorization": token} if token else {}


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """The client configuration from a file, the environment or the pod's service account.

    Raises:
        KubeError: none of them is usable; the message says what to do.
    """
    configuration, loaders = Configuration(), cast(Any, kubernetes_config)  # which has no types
    named = kubeconfig or os.environ.get("KUBECONFIG", "")
    if named and not _has_file(named):
        raise _unusable(f"there is no file {named}")
    try:
        if kubeconfig or _has_file(kubernetes_config.KUBE_CONFIG_DEFAULT_LOCATION):
            await loaders.load_kube_config(kubeconfig, client_configuration=configuration)
        else:  # asked for by name: `load_config` would warn in every pod that there is no file
            loaders.load_incluster_config(client_configuration=configuration)
    except (kubernetes_config.ConfigException, OSError) as error:
        raise _unusable(error) from error
    except Exception as error:  # the loader takes the file for well formed, and raises what comes of that
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise _unusable(f"{kubeconfig or 'the file'} is no kubeconfig: {what}") from error
    return configuration


def _unusable(why: object) -> KubeError:
    hint = "pass --kubeconfig, set KUBECONFIG, or run inside a pod with a service account"
    return KubeError(0, "NoConfiguration", f"no usable Kubernetes configuration ({why}); {hint}")


def _session(configuration: Configuration, parallel: int) -> aiohttp.ClientSession:
    """Raises KubeError when the address or the certificates of the configuration are not usable."""
    timeout = aiohttp.ClientTimeout(total=60, sock_connect=10)
    try:
        connector = aiohttp.TCPConnector(limit=parallel + 16, ssl=_tls(configuration))
        return aiohttp.ClientSession(configuration.host, connector=connector, timeout=timeout)
    except (OSError, ValueError) as error:
        raise _unusable(f"server {configuration.host}: {error}") from error


def _has_file(paths: str) -> bool:
    """Whether one of the listed files is there (KUBECONFIG may be a list)."""
    return any(one and Path(one).expanduser().exists() for one in paths.split(os.pathsep))


def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
    if not str(configuration.host).startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # API servers made by kubeadm and by the server itself have CA certificates without key usage
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _url(path: str, params: Params | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


_DECODERS = {wanted: msgspec.json.Decoder(wanted) for wanted in (_Page, _WatchLine, _Versioned, _Status)}


def _decode(content: bytes | msgspec.Raw, wanted: type[Any]) -> Any:
    try:
        return _DECODERS[wanted].decode(content)
    except msgspec.DecodeError as error:
        raise KubeError(
            0, "BadAnswer", f"API server sent what is not a {wanted.__name__}: {error}"
        ) from error


def _error(status: int, content: bytes) -> KubeError:
    try:
        told = msgspec.json.decode(content, type=_Status)
    except msgspec.DecodeError:
        told = _Status(message=content[:200].decode(errors="replace"))
    return KubeError(status, told.reason, told.message)


def _change(line: bytes, decoder: msgspec.json.Decoder[Item]) -> tuple[str, Changed[Item] | None]:
    event = _decode(line, _WatchLine)
    if event.type == "ERROR":
        told = _decode(event.object, _Status)
        raise KubeError(told.code, told.reason, told.message)
    item = None if event.type == "BOOKMARK" else _item(event.object, decoder)
    told = getattr(getattr(item, "metadata", None), "resourceVersion", "")  # most items are read with it
    version = told or _decode(event.object, _Versioned).metadata.resourceVersion
    return version, None if item is None else Changed(event.type, item)


def _item(raw: msgspec.Raw, decoder: msgspec.json.Decoder[Item]) -> Item | None:
    """The object; None, told in the log, when it has not the wanted shape: one must not hide all others."""
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        about = _decode(raw, _Versioned).metadata
        log.error("left out %s/%s, which cannot be read: %s", about.namespace, about.name, error)
        return None


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of any length: the stream's own line reader refuses those beyond its buffer."""
    kept: list[bytes] = []
    async for chunk in pieces:
        head, *tail = chunk.split(b"\n")
        kept.append(head)
        for piece in tail:
            if line := b"".join(kept):
                yield line
            kept = [piece]
