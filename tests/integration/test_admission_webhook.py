"""The webhook by itself: while it is down, while its certificates change, when somebody spoils its trust."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import math
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admission_setup import DRY, PODS, Installed, installed, pod, start_webhook, with_admin

from scheduler.admission_settings import AdmissionSettings
from scheduler.edge.admission_certificates import FileKeeper, serving_context, trust_patch
from scheduler.edge.certificates import Lives, load, renewed
from scheduler.edge.kube import JSON_PATCH, KubeClient, KubeError
from testbed.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
TEAM = PODS.format("team")
OURS = {"schedulerName": "fairlane"}
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/fairlane"
SHORT = {"ca_s": 24.0, "certificate_s": 12.0, "settle_s": 2.0, "check_s": 0.25}


@pytest.fixture(scope="module")
def failing_closed(cluster: Cluster) -> Iterator[Installed]:
    with installed(cluster, "webhook", timeout_s=2) as state:
        yield state


async def status(state: Installed) -> dict[str, Any]:
    """What the webhook tells of itself."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with (
        aiohttp.ClientSession() as session,
        session.get(state.settings.url + "/v1/status", ssl=context) as answer,
    ):
        told: dict[str, Any] = await answer.json()
        return told


async def test_while_it_is_down_those_who_opt_in_are_refused_and_nobody_else(
    failing_closed: Installed,
) -> None:
    assert failing_closed.process is not None
    async with failing_closed.user("alice") as alice:
        waiting = json.loads(await alice.post(TEAM, pod(**OURS)))
        failing_closed.process.kill()
        try:
            for path in (TEAM, PODS.format("enabled")):
                with pytest.raises(KubeError, match="failed calling webhook"):
                    await alice.post(path, pod(**OURS))
            plain = json.loads(await alice.post(TEAM, pod()))
            await alice.patch(
                f"{TEAM}/{plain['metadata']['name']}", {"metadata": {"annotations": {"a": "b"}}}
            )
            at = f"{TEAM}/{waiting['metadata']['name']}"
            await alice.patch(f"{at}/status", {"status": {"message": "x"}})
            await alice.patch(at, {"metadata": {"labels": {"a": "b"}}})
            with pytest.raises(KubeError, match="failed calling webhook"):
                await alice.patch(at, {"spec": {"schedulingGates": []}})
            await alice.delete(at)
        finally:
            failing_closed.process.restart()
        await _until_gated(alice)


async def _until_gated(kube: KubeClient) -> None:
    for _attempt in range(300):
        try:
            made = json.loads(await kube.post(TEAM + DRY, pod(**OURS)))
        except KubeError:
            await asyncio.sleep(0.1)
            continue
        if made["spec"].get("schedulingGates"):
            return
    raise AssertionError("the webhook did not come back")


async def test_while_it_is_down_and_may_be_ignored_pods_go_past_the_queue(failing_closed: Installed) -> None:
    assert failing_closed.process is not None
    async with failing_closed.user("alice") as alice:
        await _set_policy(alice, "Ignore")
        failing_closed.process.kill()
        try:
            made = json.loads(await alice.post(TEAM + DRY, pod(**OURS)))
            assert "schedulingGates" not in made["spec"]
        finally:
            failing_closed.process.restart()
            await _set_policy(alice, "Fail")
        await _until_gated(alice)


async def _set_policy(kube: KubeClient, policy: str) -> None:
    for plural in ("mutating", "validating"):
        path = HOOKS.replace("mutating", plural)
        hooks = json.loads(await kube.get(path))["webhooks"]
        patch = [
            {"op": "replace", "path": f"/webhooks/{index}/failurePolicy", "value": policy}
            for index in range(len(hooks))
        ]
        await kube.patch(path, patch, JSON_PATCH)
    await asyncio.sleep(1.0)  # the API server takes a moment to learn of it


async def test_who_spoils_the_trust_finds_it_restored(failing_closed: Installed) -> None:
    async with failing_closed.user("alice") as alice:
        spoiled = trust_patch(json.loads(await alice.get(HOOKS)), b"")
        await alice.patch(HOOKS, spoiled, JSON_PATCH)
        bundle = await _mended_bundle(alice)
        await _until_gated(alice)
    assert load(bundle)


async def _mended_bundle(kube: KubeClient) -> bytes:
    """The one bundle that every webhook trusts again.

    Read from the configuration itself: the API server goes on with the old one for a moment, so
    a gated pod proves nothing yet.
    """
    bundles: set[str] = set()
    for _attempt in range(300):
        hooks = json.loads(await kube.get(HOOKS))["webhooks"]
        bundles = {hook["clientConfig"].get("caBundle", "") for hook in hooks}
        if len(bundles) == 1 and all(bundles):
            return base64.b64decode(bundles.pop())
        await asyncio.sleep(0.1)
    raise AssertionError(f"the trust was not restored: {len(bundles)} bundles")


@pytest.fixture(scope="module")
def short_lived(failing_closed: Installed, cluster: Cluster) -> Iterator[Installed]:
    """A second webhook process whose certificates live for seconds, behind the same configurations."""
    assert failing_closed.process is not None
    failing_closed.process.stop()
    secret = f"/api/v1/namespaces/fairlane-system/secrets/{failing_closed.settings.secret}"
    asyncio.run(with_admin(cluster, lambda kube: kube.delete(secret)))
    settings = AdmissionSettings.model_validate({**failing_closed.settings.model_dump(), **SHORT})
    process = start_webhook(cluster, settings)
    yield Installed("webhook", cluster, settings, process)
    process.stop()


async def test_no_call_is_refused_while_certificates_and_cas_are_renewed(short_lived: Installed) -> None:
    failures: list[str] = []
    bundles: set[str] = set()  # of the webhook's configuration: one CA, two, one: a CA has gone and come
    created = 0
    told: dict[str, Any] = {}
    async with short_lived.user("alice") as alice:
        await _until_gated(alice)
        clock = asyncio.get_running_loop().time
        deadline_s, enough_s = clock() + 120, math.inf
        while clock() < enough_s + 2 * SHORT["settle_s"]:  # the last change has come to everybody, too
            assert clock() < deadline_s, (created, len(bundles), told)
            if created > 100 and len(bundles) >= 3 and told["certificates_served"] >= 3:
                enough_s = min(enough_s, clock())
            try:
                made = json.loads(await alice.post(TEAM + DRY, pod(**OURS)))
                assert made["spec"].get("schedulingGates"), "admitted past the webhook"
                created += 1
            except KubeError as error:
                failures.append(str(error))
            bundles.add(json.loads(await alice.get(HOOKS))["webhooks"][0]["clientConfig"]["caBundle"])
            told = await status(short_lived)
            await asyncio.sleep(0.05)
    assert failures == []
    assert told["certificate_failure"] == ""


async def test_a_certificate_given_by_files_is_taken_when_it_changes(tmp_path: Path) -> None:
    lives = Lives(3000.0, 900.0, 60.0)
    one, other = (renewed(None, ("localhost",), datetime.datetime.now(datetime.UTC), lives) for _ in range(2))
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(one.serving.certificate)
    key.write_bytes(one.serving.key)
    context = serving_context()
    keeper = FileKeeper(context, certificate, key, check_s=0.05)
    await keeper.look()
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def trusted(bundle: bytes) -> bool:
        client = ssl.create_default_context(cadata=bundle.decode())
        try:
            _reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname="localhost"
            )
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    assert await trusted(one.bundle)
    following = asyncio.create_task(keeper.run())
    certificate.write_bytes(other.serving.certificate)  # half of a change: told, and the old one serves
    await _until(lambda: "do not belong together" in keeper.failure)
    assert await trusted(one.bundle)
    key.write_bytes(other.serving.key)
    await _until(lambda: not keeper.failure)
    assert await trusted(other.bundle)
    assert not await trusted(one.bundle)
    following.cancel()
    server.close()


async def _until(condition: Callable[[], bool]) -> None:
    for _attempt in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")
