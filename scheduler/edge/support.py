"""What `fairlane support-bundle` gathers: each part's own words, settings, objects, events and logs.

By the rights of who calls it, through the API server: from a laptop as from
anywhere. Parts whose URLs the settings name (a testbed) are asked there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import yaml

from scheduler.config import Settings
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.redaction import bare_object, passwords_in, secret_variables
from scheduler.edge.secret_shapes import GONE
from scheduler.edge.support_bundle import Bundle
from scheduler.edge.support_parts import PATHS, ask_all, ask_parts
from scheduler.edge.support_users import Users, add_queue, add_written
from scheduler.edge.whereabouts import NAMESPACE, OTHERS, OURS, PROBES

LOG_LINES = 5000
TIMEOUT_S, ALL_S = 20.0, 240.0
"""For one answer, and for all."""
OBJECTS_MAX, PROBES_MAX = 500, 20
"""Of one kind; there is a probe on each node."""
SETTINGS = "fairlane-settings"
NEVER = (
    "Secrets, and the values of environment variables",
    "pods, logs and annotations of users' jobs, but for what the queue tells of them",
    "the experience store, the models and the telemetry itself",
)
Object = dict[str, Any]


@dataclass
class Gathered:
    """A bundle that is not redacted yet, the settings that it has secrets of, and the users."""

    bundle: Bundle = field(default_factory=Bundle)
    settings: list[Settings] = field(default_factory=list)
    users: Users = field(default_factory=Users)


async def gather_bundle(settings: Settings, namespace: str, with_users: bool) -> Gathered:
    """All of it, bare of what is secret by its place; what fails, or takes too long, is said in it.

    Without `namespace` it is where our pods are. Names of users are looked for if they are wanted.
    """
    gathered = Gathered(settings=[settings])
    gathered.bundle.add("settings.json", json.dumps(bare_settings(settings), indent=1))
    try:
        async with asyncio.timeout(ALL_S):
            await asyncio.gather(
                _answers(settings, gathered.bundle), _cluster(settings, namespace, gathered, with_users)
            )
    except TimeoutError:
        gathered.bundle.lack("everything else", f"it was not there after {ALL_S:g} s")
    return gathered


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
        with contextlib.suppress(OSError):  # what may not be read here is nowhere in what is gathered here
            if path is not None and path.is_file():
                found.append(path.read_text(encoding="utf-8", errors="replace").strip())
    for url in (settings.recorder.store_url, prometheus.url, prometheus.proxy):
        found += passwords_in(url)
    return [one for one in (*found, *secret_variables(environment)) if one]


def has_urls(settings: Settings) -> bool:
    """Whether the parts can be asked from here, as the settings say."""
    return bool(settings.extender_url or settings.recorder_url or settings.controller_url)


async def _answers(settings: Settings, bundle: Bundle) -> None:
    urls = {
        "extender": settings.extender_url,
        "recorder": settings.recorder_url,
        "controller": settings.controller_url,
    }
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for part, url in urls.items():
            for path in PATHS if url else ():
                await _answer(session, part, url.rstrip("/") + path, bundle)


async def _answer(session: aiohttp.ClientSession, part: str, url: str, bundle: Bundle) -> None:
    name = f"{part}/{url.rpartition('/')[2]}.txt"
    try:
        async with session.get(url) as answer:
            bundle.add(name, await answer.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        bundle.lack(name, f"it does not answer: {error or type(error).__name__}")


async def _cluster(settings: Settings, namespace: str, gathered: Gathered, with_users: bool) -> None:
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    bundle = gathered.bundle
    try:
        async with KubeClient.connect(kubeconfig) as kube:
            namespace = namespace or await _namespace(kube)
            pods = await _objects(kube, namespace, gathered)
            if not has_urls(settings):
                await ask_all(kube, pods, namespace, bundle)
                add_queue(gathered.users, bundle.files.get("queue.json"))
            if with_users:
                await add_written(gathered.users, kube, gathered.settings[-1].controller, namespace)
            await asyncio.gather(_logs(kube, namespace, pods, bundle), ask_parts(kube, pods, bundle))
    except KubeError as error:
        bundle.lack("cluster", error)


async def _namespace(kube: KubeClient) -> str:
    """Where our pods are; where they are by default, if that is not told."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            pods = await kube.list_all("/api/v1/pods", Object, {"labelSelector": OTHERS})
    except (KubeError, TimeoutError):
        return NAMESPACE
    found = {pod["metadata"]["namespace"] for pod in pods}
    return min(found, key=lambda name: (name != NAMESPACE, name), default=NAMESPACE)


async def _objects(kube: KubeClient, namespace: str, gathered: Gathered) -> list[Object]:
    """Put the objects into the bundle; our pods."""
    pods: list[Object] = []
    for name, (path, params) in _wanted(namespace).items():
        file = f"cluster/{name}.json"
        if (text := await _got(kube, path, params, file, gathered.bundle)) is None:
            continue
        try:
            found = msgspec.json.decode(text, type=Object)
        except msgspec.DecodeError as error:  # of a login in front of the API server, say
            gathered.bundle.lack(file, f"the answer is no object: {error}")
            continue
        if found.get("metadata", {}).get("continue"):
            gathered.bundle.lack(file, f"all but the first {params['limit']}")
        if name in ("pods", "probes"):
            pods += found.get("items") or ()
        if name == "configmaps":
            _read_settings(found.get("items") or (), gathered)
        gathered.bundle.add(file, json.dumps(bare_object(found), indent=1))
    return pods


def _wanted(namespace: str) -> dict[str, tuple[str, dict[str, str]]]:
    first = {"limit": str(OBJECTS_MAX)}
    selected = {"labelSelector": OURS, **first}
    core, hooks = f"/api/v1/namespaces/{namespace}", "/apis/admissionregistration.k8s.io/v1"
    apps, batch = f"/apis/apps/v1/namespaces/{namespace}", f"/apis/batch/v1/namespaces/{namespace}"
    return {
        "pods": (f"{core}/pods", {"labelSelector": OTHERS, **first}),
        "probes": (f"{core}/pods", {"labelSelector": PROBES, "limit": str(PROBES_MAX)}),
        "configmaps": (f"{core}/configmaps", {"fieldSelector": f"metadata.name={SETTINGS}"}),
        "deployments": (f"{apps}/deployments", selected),
        "daemonsets": (f"{apps}/daemonsets", selected),
        "jobs": (f"{batch}/jobs", selected),
        "cronjobs": (f"{batch}/cronjobs", selected),
        "services": (f"{core}/services", selected),
        "claims": (f"{core}/persistentvolumeclaims", selected),
        "events": (f"{core}/events", first),
        "leases": (f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", first),
        "mutatingwebhooks": (f"{hooks}/mutatingwebhookconfigurations", selected),
        "validatingwebhooks": (f"{hooks}/validatingwebhookconfigurations", selected),
        "fairqueues": ("/apis/fairlane.dev/v1alpha1/fairqueues", first),
        "nodes": ("/api/v1/nodes", first),
        "version": ("/version", {}),
    }


def _read_settings(maps: Sequence[Object], gathered: Gathered) -> None:
    """The release's settings, bare; as text they would have secrets in any shape."""
    for one in maps:
        text = (one.pop("data", None) or {}).get("fairlane.yaml", "")
        try:
            settings = Settings.model_validate(yaml.safe_load(text) or {})
        except (yaml.YAMLError, ValueError) as error:
            why = f"they cannot be read: {type(error).__name__}; `fairlane doctor` beside the parts says more"
            gathered.bundle.lack("cluster/settings.json", why)
            continue
        gathered.settings.append(settings)
        gathered.bundle.add("cluster/settings.json", json.dumps(bare_settings(settings), indent=1))


async def _logs(kube: KubeClient, namespace: str, pods: Sequence[Object], bundle: Bundle) -> None:
    for path, params, name in _containers(f"/api/v1/namespaces/{namespace}", pods):
        if (text := await _got(kube, path, params, name, bundle)) is not None:
            bundle.add(name, text)


def _containers(base: str, pods: Sequence[Object]) -> Iterator[tuple[str, dict[str, str], str]]:
    """Where the log of each container of ours is, and how its file is called; before a restart, too."""
    for pod in pods:
        name = pod["metadata"]["name"]
        for status in pod.get("status", {}).get("containerStatuses") or ():
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
        bundle.lack(name, str(error) or "no answer in time")
        return None
