"""Commands in containers, as `kubectl exec` runs them: through the API server and the kubelet.

Not through the API server's proxy to a pod's port: network policies, ours
too, let the API server in nowhere but at the webhook, and the extender listens
on its pod's loopback. What a kubelet starts is inside the pod already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.whereabouts import Place

PROTOCOL = "v4.channel.k8s.io"
OUT, ERROR, ENDED = 1, 2, 3
"""The first byte of a message says what it is of."""
BYTES_MAX = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed; `failure` is empty where it ended with exit code 0."""

    printed: str
    complained: str
    failure: str


async def run_in(kube: KubeClient, at: Place, words: Sequence[str], within_s: float) -> Ended:
    """Run a command in a container, to its end.

    Raises:
        KubeError: it could not be started, did not end in time, or says too much.
    """
    asked = [("command", word) for word in words]
    asked += [("container", at.container), ("stdout", "true"), ("stderr", "true")]
    path = f"/api/v1/namespaces/{at.namespace}/pods/{at.pod}/exec"
    said: dict[int, bytearray] = {channel: bytearray() for channel in (OUT, ERROR, ENDED)}
    try:
        async with asyncio.timeout(within_s), kube.socket(path, asked, PROTOCOL) as socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data:
                    said.setdefault(message.data[0], bytearray()).extend(message.data[1:])
                if sum(map(len, said.values())) > BYTES_MAX:
                    raise KubeError(0, "TooLong", f"`{words[0]}` printed more than {BYTES_MAX} bytes")
    except TimeoutError as error:
        raise KubeError(0, "Timeout", f"`{words[0]}` did not end within {within_s:g} s") from error
    out, complained = (said[channel].decode(errors="replace") for channel in (OUT, ERROR))
    return Ended(out, complained, _failure(bytes(said[ENDED])))


def _failure(told: bytes) -> str:
    try:
        status: dict[str, Any] = msgspec.json.decode(told)
    except msgspec.DecodeError:
        return "the connection ended before the command did"
    return "" if status.get("status") == "Success" else str(status.get("message", "it failed"))
