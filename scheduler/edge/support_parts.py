"""What each part says of itself, for the support bundle: asked inside its own container.

So no way from here to the parts is needed but the API server, whatever
network policies say, and the token for the queue stays where it is: `fairlane
queue` finds it in the environment of the container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.pod_commands import run_in
from scheduler.edge.support_bundle import Bundle
from scheduler.edge.whereabouts import CONTROLLER, KNOW_ALL, Place, not_found, place, places

PATHS = ("/v1/status", "/metrics", "/readyz")
PORTS = {
    "extender": ("http", "metrics"),
    "predictor": ("http", "metrics"),
    "probe": ("http", "metrics"),
    "controller": ("http", "http"),
    "recorder": ("http", "http"),
    "admission": ("https", "https"),
}
"""Scheme, and the name of the port at which a container tells of itself."""
WORDS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "doctor.json": (KNOW_ALL, ("doctor", "-o", "json")),
    "status.json": (KNOW_ALL, ("status", "-o", "json")),
    "queue.json": ((CONTROLLER,), ("queue", "-o", "json", "--limit", "1000")),
}
"""Files, where they are made, and by which command of ours."""
ASK = """
import json, ssl, sys, urllib.error, urllib.request
own = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
opener = urllib.request.build_opener(own, urllib.request.ProxyHandler({}))
told = {}
for path in sys.argv[2:]:
    try:
        told[path] = opener.open(sys.argv[1] + path, timeout=10).read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        told[path] = error.read().decode(errors="replace")
    except OSError as error:
        told[path + " failed"] = str(error)
print(json.dumps(told))
"""
"""Run by the Python of the container, so that it fits every version of Fairlane."""
TIMEOUT_S = 40.0
"""A part that answers none of the three is waited for so long."""
AT_ONCE = 8


async def ask_parts(kube: KubeClient, pods: Sequence[Mapping[str, Any]], bundle: Bundle) -> None:
    """Ask every container of ours that tells of itself."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(at: Place, url: str) -> None:
        async with gate:
            await _ask(kube, at, url, bundle)

    await asyncio.gather(*(ask(at, url) for at, url in _told_at(pods)))


async def ask_all(
    kube: KubeClient, pods: Sequence[Mapping[str, Any]], namespace: str, bundle: Bundle
) -> None:
    """What `fairlane doctor`, `status` and `queue` say, run where all parts can be reached."""
    for name, (containers, words) in WORDS.items():
        if (at := place(pods, containers)) is None:
            bundle.lack(name, not_found(containers, namespace))
            continue
        try:
            ended = await run_in(kube, at, ("fairlane", *words), TIMEOUT_S)
        except KubeError as error:
            bundle.lack(name, f"`fairlane {words[0]}` in {at.pod}: {error}")
            continue
        if ended.printed.lstrip().startswith("{"):  # with trouble to tell the exit code is 1
            bundle.add(name, ended.printed)
        else:
            bundle.lack(
                name, f"`fairlane {words[0]}` in {at.pod}: {ended.complained.strip() or ended.failure}"
            )


def _told_at(pods: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Place, str]]:
    running = {(at.pod, at.container): at for at in places(pods)}
    for pod in pods:
        for container in pod["spec"].get("containers", ()):
            at = running.get((pod["metadata"]["name"], container["name"]))
            scheme, wanted = PORTS.get(container["name"], ("", ""))
            for port in container.get("ports", ()):
                if at is not None and port.get("name") == wanted:
                    yield at, f"{scheme}://127.0.0.1:{port['containerPort']}"


async def _ask(kube: KubeClient, at: Place, url: str, bundle: Bundle) -> None:
    where = f"{at.container}/{at.pod}"
    try:
        ended = await run_in(kube, at, ("python3", "-c", ASK, url, *PATHS), TIMEOUT_S)
        told = msgspec.json.decode(ended.printed, type=dict[str, str])
    except KubeError as error:
        bundle.lack(where, f"it could not be asked inside its container: {error}")
        return
    except msgspec.DecodeError:
        bundle.lack(where, f"it could not be asked: {ended.complained.strip()[-500:] or ended.failure}")
        return
    for path in PATHS:
        name = f"{where}-{path.rpartition('/')[2]}.txt"
        if path in told:
            bundle.add(name, told[path])
        else:
            bundle.lack(name, f"it does not answer: {told.get(f'{path} failed', 'nothing was told')}")
