"""The queue's checkpoint on the API server: a ConfigMap, and more of them when it is large.

On the API server and not in the experience store, because then nothing but
the API server has to be up for the queue to go on, every replica reaches it,
and its versions keep a former leader from writing over a newer one's state: a
write names the version it replaces, and before each request of it the lease
is asked for, since pieces are replaced without a version.

The state is compressed JSON, cut into pieces. All but the first go into
ConfigMaps of a slot (`a`, `b` in turn), then the head, which names the slot,
is written with the first piece: a reader sees the old state or the new one,
never half of each. A small queue costs one write.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.lease import answered_within

PIECE_BYTES = 640 * 1024
"""Of compressed state in one ConfigMap; base64 makes it a third larger, and 1 MiB is allowed."""
PIECES_MAX = 16
_COLLECTION = "/api/v1/namespaces/{namespace}/configmaps"


class CheckpointError(Exception):
    """The checkpoint cannot be read or written; the message says why and what to do."""


class Superseded(CheckpointError):
    """Another replica wrote a checkpoint meanwhile: this one is not the leader any more."""


class _Meta(msgspec.Struct, frozen=True):
    resourceVersion: str = ""


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    data: dict[str, str] | None = None
    binaryData: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(_ConfigMap)


class Checkpoints:
    """Reads and writes the state under one name; read first, then write.

    `holds` is asked before each change, none of which lasts longer than `request_s`.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        writer: str,
        holds: Callable[[], bool],
        request_s: float,
    ) -> None:
        self._kube, self._name, self._writer = kube, name, writer
        self._holds, self._request_s = holds, request_s
        self._collection = _COLLECTION.format(namespace=namespace)
        self._version, self._slot = "", "a"
        self._unanswered = False
        self.size_bytes = 0

    async def read(self) -> dict[str, Any] | None:
        """The state that was written last; None when none ever was.

        Raises:
            CheckpointError: it is there and cannot be used.
            KubeError: the API server does not answer.
        """
        head = await self._get(self._name)
        if head is None:
            return None
        told = head.data or {}
        self._version, self._slot = head.metadata.resourceVersion, told.get("slot", "a")
        packed = _piece(head)
        for number in range(1, int(told.get("pieces", "1"))):
            part = await self._get(self._part(self._slot, number))
            packed += b"" if part is None else _piece(part)
        return await asyncio.to_thread(_unpacked, packed, self._name)

    async def write(self, state: dict[str, Any]) -> None:
        """Replace the state.

        Raises:
            Superseded: somebody else wrote since, or may.
            CheckpointError: it is too large.
            KubeError: the API server refused or does not answer.
        """
        if self._unanswered:
            await self._look_again()
        packed = await asyncio.to_thread(_packed, state)
        pieces = [packed[at : at + PIECE_BYTES] for at in range(0, len(packed), PIECE_BYTES)]
        if len(pieces) > PIECES_MAX:
            raise CheckpointError(
                f"the checkpoint has {len(packed):,} bytes, more than {PIECES_MAX * PIECE_BYTES:,}: "
                "split the cluster's users over several queues"
            )
        slot = "b" if self._slot == "a" else "a"
        for number, piece in enumerate(pieces[1:], 1):
            await self._put_part(self._part(slot, number), piece)
        self._unanswered = True
        await self._put_head(pieces[0], {"slot": slot, "pieces": str(len(pieces)), "writer": self._writer})
        self._slot, self.size_bytes, self._unanswered = slot, len(packed), False

    async def _look_again(self) -> None:
        """Which slot counts after a head that was not answered: what counts must not be written over."""
        head = await self._get(self._name)
        version = "" if head is None else head.metadata.resourceVersion
        if version != self._version:
            told = {} if head is None else head.data or {}
            if told.get("writer") != self._writer:
                raise Superseded("another replica wrote the checkpoint, or somebody deleted it")
            self._version, self._slot = version, told.get("slot", "a")
        self._unanswered = False

    def _part(self, slot: str, number: int) -> str:
        return f"{self._name}-{slot}-{number}"

    async def _put_part(self, name: str, piece: bytes) -> None:
        body = _body(name, piece, {})
        try:
            await self._change(self._kube.put(f"{self._collection}/{name}", body))
        except KubeError as error:
            if error.status != 404:
                raise
            await self._change(self._kube.post(self._collection, body))

    async def _put_head(self, piece: bytes, data: dict[str, str]) -> None:
        body = _body(self._name, piece, data)
        try:
            answer = await self._replace(body)
        except KubeError as error:
            if error.status not in (404, 409) or not await self._is_own():
                raise _superseded(error) from error
            answer = await self._replace(body)  # an earlier write arrived, but its answer did not
        self._version = _DECODER.decode(answer).metadata.resourceVersion

    async def _replace(self, body: dict[str, Any]) -> bytes:
        if not self._version:
            return await self._change(self._kube.post(self._collection, body))
        body["metadata"]["resourceVersion"] = self._version
        return await self._change(self._kube.put(f"{self._collection}/{self._name}", body))

    async def _change(self, request: Coroutine[Any, Any, bytes]) -> bytes:
        if not self._holds():
            request.close()
            raise Superseded("the lease ran out")
        return await answered_within(self._request_s, request)

    async def _is_own(self) -> bool:
        """True when what is there now was written by this replica; its version is taken over."""
        head = await self._get(self._name)
        if head is None or (head.data or {}).get("writer") != self._writer:
            return False
        self._version = head.metadata.resourceVersion
        return True

    async def _get(self, name: str) -> _ConfigMap | None:
        try:
            return _DECODER.decode(await self._kube.get(f"{self._collection}/{name}"))
        except KubeError as error:
            if error.status == 404:
                return None
            raise


def _superseded(error: KubeError) -> Exception:
    if error.status in (404, 409):
        return Superseded("another replica wrote the checkpoint, or somebody deleted it")
    return error


def _body(name: str, piece: bytes, data: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "fairlane"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": data,
        "binaryData": {"state": b64encode(piece).decode()},
    }


def _piece(part: _ConfigMap) -> bytes:
    return b64decode((part.binaryData or {}).get("state", ""))


def _packed(state: dict[str, Any]) -> bytes:
    text = json.dumps(state, separators=(",", ":"))  # with NaN, which msgspec writes as null
    return zlib.compress(text.encode(), 6)


def _unpacked(packed: bytes, name: str) -> dict[str, Any]:
    try:
        state = json.loads(zlib.decompress(packed))
    except (zlib.error, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint {name} cannot be read ({error}): delete that ConfigMap to start without it"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"the checkpoint {name} holds no state: delete that ConfigMap")
    return state
