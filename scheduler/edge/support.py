"""What `fairlane support-bundle` gathers: each part's own words, settings, objects and logs."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from scheduler.config import Settings
from scheduler.edge.facts import Facts
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.redaction import Redactor, bare_object, secret_variables
from scheduler.edge.secret_shapes import GONE

FILE_BYTES_MAX = 8 * 2**20
"""The end of a longer file is kept: what happened last."""
LOG_LINES = 5000
TIMEOUT_S = 20.0
OURS = "app.kubernetes.io/name=fairlane"
PARTS_PATHS = ("/v1/status", "/metrics", "/readyz")
NEVER = (
    "Secrets, and the values of environment variables",
    "pods, logs and annotations of users' jobs, but for what the queue tells of them",
    "the experience store, the models and the telemetry itself",
)


@dataclass
class Bundle:
    """Files by name, and sentences about what is not among them."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        """Take a file; of one that is too long the beginning goes."""
        if len(text) > FILE_BYTES_MAX:
            self.left_out.append(f"{name}: all but the last {FILE_BYTES_MAX} characters")
            text = text[-FILE_BYTES_MAX:]
        self.files[name] = text


async def gather_bundle(settings: Settings, namespace: str) -> Bundle:
    """All of it, not redacted yet but for what is known by its place; what fails is said in the bundle."""
    bundle = Bundle()
    bundle.add("settings.json", json.dumps(bare_settings(settings), indent=1))
    await asyncio.gather(_answers(settings, bundle), _cluster(settings, namespace, bundle))
    return bundle


def bare_settings(settings: Settings) -> dict[str, Any]:
    """The settings in force; secrets are stars, and headers have names only."""
    told: dict[str, Any] = settings.model_dump(mode="json")
    told["prometheus"]["headers"] = dict.fromkeys(told["prometheus"]["headers"], GONE)
    return told


def secrets_of(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """Every value that is known to be a secret, here."""
    prometheus = settings.prometheus
    given = (settings.token, prometheus.bearer_token, prometheus.password)
    found = [one.get_secret_value() for one in given if one is not None]
    found += prometheus.headers.values()
    for path in (prometheus.bearer_token_file, prometheus.password_file, settings.token_file):
        if path is not None and path.is_file():
            found.append(path.read_text(encoding="utf-8", errors="replace").strip())
    for url in (settings.recorder.store_url, prometheus.url, prometheus.proxy):
        if password := urllib.parse.urlsplit(url).password:
            found += [password, urllib.parse.unquote(password)]
    return [one for one in (*found, *secret_variables(environment)) if one]


def users_of(facts: Facts, bundle: Bundle) -> set[str]:
    """The users that the queue knows, and those that its objects name.

    Raises:
        ValueError: the queue does not answer, so nobody tells whose names logs and events may hold.
    """
    if not facts.queue.answer:
        raise ValueError(f"the queue does not tell its users: {facts.queue.failure or 'it has no URL'}")
    objects = json.loads(bundle.files.get("cluster/fairqueues.json", "{}"))
    return {name for found in (facts.queue.answer, objects) for name in _users_in(found)} - {""}


def _users_in(found: Any) -> Iterator[str]:
    if isinstance(found, list):
        for one in found:
            yield from _users_in(one)
    elif isinstance(found, Mapping):
        for key, value in found.items():
            if key == "user" and isinstance(value, str):
                yield value
            elif key == "users" and isinstance(value, list):
                yield from (one for one in value if isinstance(one, str))
            yield from _users_in(value)


def redacted(bundle: Bundle, redact: Redactor) -> Bundle:
    """The bundle without secrets, with its names of files too."""
    clean = Bundle(left_out=[redact(line) for line in bundle.left_out])
    clean.files = {redact(name): redact(text) for name, text in bundle.files.items()}
    return clean


async def _answers(settings: Settings, bundle: Bundle) -> None:
    urls = {
        "extender": settings.extender_url,
        "recorder": settings.recorder_url,
        "controller": settings.controller_url,
    }
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for part, url in urls.items():
            for path in PARTS_PATHS if url else ():
                await _answer(session, part, url.rstrip("/") + path, bundle)


async def _answer(session: aiohttp.ClientSession, part: str, url: str, bundle: Bundle) -> None:
    name = f"{part}/{url.rpartition('/')[2]}.txt"
    try:
        async with session.get(url) as answer:
            bundle.add(name, await answer.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        bundle.left_out.append(f"{name}: it does not answer: {error or type(error).__name__}")


async def _cluster(settings: Settings, namespace: str, bundle: Bundle) -> None:
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    base = f"/api/v1/namespaces/{namespace}"
    selected = {"labelSelector": OURS}
    wanted = {
        "pods": (f"{base}/pods", selected),
        "deployments": (f"/apis/apps/v1/namespaces/{namespace}/deployments", selected),
        "jobs": (f"/apis/batch/v1/namespaces/{namespace}/jobs", selected),
        "events": (f"{base}/events", {}),
        "leases": (f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", {}),
        "fairqueues": ("/apis/fairlane.dev/v1alpha1/fairqueues", {}),
        "nodes": ("/api/v1/nodes", {}),
    }
    try:
        async with KubeClient.connect(kubeconfig) as kube:
            for name, (path, params) in wanted.items():
                if (text := await _got(kube, path, params, f"cluster/{name}.json", bundle)) is not None:
                    found = msgspec.json.decode(text)
                    bundle.add(f"cluster/{name}.json", json.dumps(bare_object(found), indent=1))
                    if name == "pods":
                        await _logs(kube, base, found, bundle)
    except KubeError as error:
        bundle.left_out.append(f"cluster: {error}")


async def _logs(kube: KubeClient, base: str, pods: Any, bundle: Bundle) -> None:
    async for path, params, name in _containers(base, pods):
        if (text := await _got(kube, path, params, name, bundle)) is not None:
            bundle.add(name, text)


async def _containers(base: str, pods: Any) -> AsyncIterator[tuple[str, dict[str, str], str]]:
    """Where the log of each container of ours is, and how its file is called; before a restart, too."""
    for pod in pods["items"]:
        name = pod["metadata"]["name"]
        for status in pod.get("status", {}).get("containerStatuses", ()):
            params = {"container": status["name"], "tailLines": str(LOG_LINES), "timestamps": "true"}
            path, file = f"{base}/pods/{name}/log", f"logs/{name}-{status['name']}"
            yield path, params, f"{file}.log"
            if status.get("restartCount"):
                yield path, {**params, "previous": "true"}, f"{file}-previous.log"


async def _got(kube: KubeClient, path: str, params: dict[str, str], name: str, bundle: Bundle) -> str | None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return (await kube.get(path, params)).decode(errors="replace")
    except (KubeError, TimeoutError) as error:
        bundle.left_out.append(f"{name}: {error or 'no answer in time'}")
        return None
