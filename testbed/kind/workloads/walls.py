"""h. On a network that enforces NetworkPolicies, ours let through what Fairlane needs, and nothing else.

Whether the pods' network enforces them is tried, and where it does not, kube-router's controller does for
the time of the scenario. Every process of ours starts anew behind the walls: an open connection would stay.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from testbed.chart.helm import NAMESPACE
from testbed.kind import deploy, release
from testbed.kind.shell import CommandError
from testbed.kind.workloads.figures import Object
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Unmet

DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
OURS = "app.kubernetes.io/name=fairlane"
COMPONENT = "app.kubernetes.io/component"
SERVED = 8080
ANSWER_S_MAX = 3.0
ENFORCED_S_MAX = 15.0
READY_S_MAX = 120
HEALTHY_S_MAX = 90.0
AGAIN_S = 2.0
NO_MODEL = "no model was published yet"
"""What a predictor says that was reached, on a cluster where nothing was learnt."""
CALL = f"""
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(at):
    try:
        socket.create_connection(tuple(at), timeout={ANSWER_S_MAX}).close()
    except OSError:
        return False
    return True
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(answers, json.loads(sys.argv[1])))))
"""


@dataclass(frozen=True, slots=True)
class Door:
    """A port that a pod listens on."""

    component: str
    port: int
    address: str

    @property
    def name(self) -> str:
        """The component and the port."""
        return f"{self.component}:{self.port}"


@dataclass(frozen=True, slots=True)
class Caller:
    """A pod that connections are tried from, as `kubectl exec` names it."""

    namespace: str
    name: str
    container: str = ""

    async def reaches(self, ground: Ground, doors: Sequence[Door]) -> list[Door]:
        """The doors that take a connection from this pod."""
        within = ["-c", self.container] if self.container else []
        asked = json.dumps([(door.address, door.port) for door in doors])
        words = ["-n", self.namespace, "exec", self.name, *within, "--", "python3", "-c", CALL, asked]
        told = json.loads(await ground.kubectl(*words))
        return [door for door, answers in zip(doors, told, strict=True) if answers]


async def run(ground: Ground) -> None:
    """Walls, then whether all works behind them, then who gets through."""
    await ground.load(ground.cluster.images.transfer)
    stranger = (await ground.person("mallory")).namespace
    scraper, walled = ground.namespace("scraper"), ground.namespace("walled")
    await ground.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": walled}}])
    await ground.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scraper}}])
    for namespace in (stranger, scraper, walled):
        await _server(ground, namespace)
    callers = [Caller(stranger, "server"), Caller(scraper, "server")]
    clients = [_namespace("monitoring"), _namespace(scraper)]
    async with _enforced(ground, callers[0], walled):
        await ground.in_thread(
            lambda: release.install(ground.cluster, other={"networkPolicies": {"clients": clients}})
        )
        try:
            await _anew(ground)
            await _works(ground)
            await _kept_out(ground, *callers)
            await _kept_in(ground, stranger)
        finally:
            await ground.in_thread(lambda: release.install(ground.cluster))


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


async def _server(ground: Ground, namespace: str) -> None:
    container = {
        "name": "main",
        "image": ground.cluster.images.transfer,
        "imagePullPolicy": "IfNotPresent",
        "args": ["/jobs/data_server.py"],
        "ports": [{"containerPort": SERVED}],
        "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    await ground.patiently("get", "serviceaccount", "default", "-n", namespace, within_s=20.0)
    metadata = {"name": "server", "namespace": namespace}
    await ground.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])
    words = ["wait", "--for=condition=Ready", "pod/server", f"--timeout={READY_S_MAX}s"]
    await ground.kubectl("-n", namespace, *words, timeout_s=READY_S_MAX + 10)


@asynccontextmanager
async def _enforced(ground: Ground, caller: Caller, walled: str) -> AsyncIterator[None]:
    """Policies are enforced within the block; before and after it is as it was."""
    (door,) = await _doors(ground, "-n", walled)

    async def shut() -> bool:
        return not await caller.reaches(ground, [door])

    async def is_open() -> bool:
        return not await shut()

    await _await(is_open, ENFORCED_S_MAX, "a server without a policy is not reached")
    deny = ["-n", walled, "-f", "-"]
    await ground.kubectl("apply", *deny, stdin=json.dumps(DENY))
    try:
        ours = not await _comes_true(shut, ENFORCED_S_MAX)
        if ours:
            await ground.load(ground.cluster.images.policies)
            await ground.in_thread(lambda: deploy.apply(ground.cluster, "policies", _image(ground)))
        try:
            await _await(shut, ENFORCED_S_MAX, "policies are not enforced")
            await ground.kubectl("delete", *deny, stdin=json.dumps(DENY))
            await _await(is_open, ENFORCED_S_MAX, "a server whose policy is gone is not reached")
            by = "kube-router's controller" if ours else "this pod network"
            ground.see(f"policies are enforced by {by}: a server is shut by one, and open without it")
            yield
        finally:
            if ours:
                await ground.in_thread(lambda: deploy.remove(ground.cluster, "policies", _image(ground)))
    finally:
        await ground.kubectl("delete", *deny, "--ignore-not-found", stdin=json.dumps(DENY))


def _image(ground: Ground) -> dict[str, str]:
    return {"policies": ground.cluster.images.policies}


async def _anew(ground: Ground) -> None:
    """Start every process of ours anew."""
    words = ["-n", NAMESPACE, "rollout"]
    named = (
        await ground.kubectl("-n", NAMESPACE, "get", "deploy,daemonset", "-l", OURS, "-o", "name")
    ).split()
    await ground.kubectl(*words, "restart", *named)
    for name in named:
        try:
            await ground.kubectl(
                *words, "status", name, f"--timeout={READY_S_MAX}s", timeout_s=READY_S_MAX + 10
            )
        except CommandError as error:
            raise Unmet(f"{name} does not get ready behind the walls: {error}") from error
    ground.see(f"started anew behind the walls, and ready: {', '.join(sorted(named))}")


async def _works(ground: Ground) -> None:
    """Telemetry, prediction, queue, recorder and training, each over connections made just now."""
    told = (await ground.in_thread(lambda: release.try_it(ground.cluster))).splitlines()
    ground.see(f"helm test: {told[-1] if told else 'passed'}")
    problems: list[str] = []

    async def healthy() -> bool:
        problems[:] = await _problems(ground)
        return not problems

    if not await _comes_true(healthy, HEALTHY_S_MAX):
        raise Unmet(f"fairlane doctor: {'; '.join(problems)}")
    ground.see("fairlane doctor, beside the extender: no problem")
    said, _ = await ground.in_thread(lambda: release.train(ground.cluster))
    ground.see(f"training read what the recorder has: {said.strip().splitlines()[0]}")


async def _problems(ground: Ground) -> list[str]:
    words = [
        "exec",
        "deploy/fairlane-scheduler",
        "-c",
        "extender",
        "--",
        "sh",
        "-c",
        "fairlane doctor -o json || true",
    ]
    told = json.loads(await ground.kubectl("-n", NAMESPACE, *words))
    problems = [one["sentence"] for one in told["findings"] if one["level"] == "problem"]
    return [one for one in problems if NO_MODEL not in one]


async def _kept_out(ground: Ground, stranger: Caller, scraper: Caller) -> None:
    """No pod but those that are named gets through to a port of ours."""
    doors = await _doors(ground, "-n", NAMESPACE, "-l", OURS)
    servers = await _doors(ground, "-n", scraper.namespace)
    reached = await stranger.reaches(ground, [*doors, *servers])
    ground.expect(
        reached == servers,
        f"a user's pod gets through to none of {len(doors)} ports: {_names(doors)}",
        f"a user's pod gets through to {_names(reached)}, and should to {_names(servers)}",
    )
    let_in = await scraper.reaches(ground, doors)
    wanted = await _scraped(ground, doors)
    ground.expect(
        {door.name for door in let_in} == wanted,
        f"who may scrape gets through to {_names(let_in)}",
        f"who may scrape gets through to {_names(let_in)}, and should to {', '.join(sorted(wanted))}",
    )


async def _kept_in(ground: Ground, stranger: str) -> None:
    """Who gets into a process of ours cannot call whom he likes from it."""
    outside = await _doors(ground, "-n", stranger)
    probes = await _doors(ground, "-n", NAMESPACE, "-l", f"{OURS},{COMPONENT}=probe")
    others = [door for door in probes if door.port == min(one.port for one in probes)]
    probe = Caller(NAMESPACE, "daemonset/fairlane-probe")
    reached = await probe.reaches(ground, [*others, *outside])
    ground.expect(
        set(reached) == set(others),
        f"from a probe {len(others)} probes are reached, and nobody's server",
        f"from a probe {_names(reached)} are reached",
    )
    predictor = Caller(NAMESPACE, "deploy/fairlane-predictor")
    reached = await predictor.reaches(ground, [*outside, *probes])
    ground.expect(
        not reached, "from the predictor nobody is reached", f"from the predictor: {_names(reached)}"
    )


async def _doors(ground: Ground, *words: str) -> list[Door]:
    """The ports that the containers of running pods declare."""
    pods = (await ground.read("pods", *words, "--field-selector=status.phase=Running"))["items"]
    return [
        Door(
            pod["metadata"].get("labels", {}).get(COMPONENT, "server"),
            port["containerPort"],
            pod["status"]["podIP"],
        )
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


async def _scraped(ground: Ground, doors: Sequence[Door]) -> set[str]:
    """The doors that the chart's NetworkPolicies open for other namespaces, by name."""
    found = (await ground.read("networkpolicy", "-n", NAMESPACE))["items"]
    opened = {
        f"{policy['spec']['podSelector']['matchLabels'].get(COMPONENT)}:{port['port']}"
        for policy in found
        for rule in policy["spec"].get("ingress", ())
        if any("namespaceSelector" in peer for peer in rule.get("from", ()))
        for port in rule["ports"]
    }
    return opened & {door.name for door in doors}


def _names(doors: Sequence[Door]) -> str:
    return ", ".join(sorted({door.name for door in doors})) or "nothing"


async def _comes_true(holds: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + within_s
    while not await holds():
        if clock() > deadline_s:
            return False
        await asyncio.sleep(AGAIN_S)
    return True


async def _await(holds: Callable[[], Awaitable[bool]], within_s: float, else_say: str) -> None:
    if not await _comes_true(holds, within_s):
        raise Unmet(f"{else_say} after {within_s:.0f} s")
