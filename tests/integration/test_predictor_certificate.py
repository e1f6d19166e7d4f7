"""The predictor's certificate as the chart has it kept: by the recorder, with the recorder's rights.

Recorder and predictor are processes, the API server is real. There are no
kubelets: `Mount` does what one does with a mounted Secret.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission_setup import with_admin
from cuttable_link import CuttableLink

from scheduler.edge.certificates import load, made_at
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.predictions import PredictionClient, PredictionError
from testbed.cluster import Cluster, Process
from testbed.credentials import kubeconfig

Object = dict[str, Any]
MANIFEST = Path(__file__).parents[2] / "manifests" / "fairlane.yaml"
NAMESPACE, ACCOUNT, SECRET = "kept", "fairlane-recorder", "fairlane-predictor-certificates"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKEN = "shared by our own"
SHORT = {"ca_s": 20.0, "certificate_s": 18.0, "settle_s": 3.0, "check_s": 0.25}
MINUTE = {"ca_s": 60.0, "certificate_s": 20.0, "settle_s": 3.0, "check_s": 0.25}
ROTATIONS = 2
CALLS_PER_CONNECTION = 20
NOTICED_S = 0.5
"""A client knows within this that its connection is gone: a call sent before would be lost with it."""
PATIENCE_S = 60.0

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Cluster]:
    """The testbed with what the chart makes for this: the empty Secret, the recorder's account and rights."""
    asyncio.run(with_admin(cluster, _install))
    yield cluster
    asyncio.run(with_admin(cluster, _uninstall))


async def _install(kube: KubeClient) -> None:
    await kube.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    base = f"{RBAC}/namespaces/{NAMESPACE}"
    await kube.post(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", _of_the_chart("ServiceAccount", ACCOUNT)
    )
    await kube.post(f"{base}/roles", _of_the_chart("Role", ACCOUNT))
    await kube.post(f"{base}/rolebindings", _of_the_chart("RoleBinding", ACCOUNT))
    await kube.post(f"{RBAC}/clusterroles", _of_the_chart("ClusterRole", ACCOUNT))
    await kube.post(f"{RBAC}/clusterrolebindings", _of_the_chart("ClusterRoleBinding", ACCOUNT))


async def _uninstall(kube: KubeClient) -> None:
    for kind in ("clusterrolebindings", "clusterroles"):
        await kube.delete(f"{RBAC}/{kind}/{NAMESPACE}-recorder")
    await kube.delete(f"/api/v1/namespaces/{NAMESPACE}")


def _of_the_chart(kind: str, name: str) -> Object:
    """An object of the chart, in the namespace of this test."""
    made = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one and one["kind"] == kind]
    (found,) = (one for one in made if one["metadata"]["name"] == name)
    if kind.startswith("Cluster"):
        found["metadata"]["name"] = f"{NAMESPACE}-recorder"
    else:
        found["metadata"]["namespace"] = NAMESPACE
    for subject in found.get("subjects", ()):
        subject["namespace"] = NAMESPACE
    if kind == "ClusterRoleBinding":
        found["roleRef"]["name"] = f"{NAMESPACE}-recorder"
    return found


@asynccontextmanager
async def as_recorder(cluster: Cluster) -> AsyncIterator[Path]:
    """A kubeconfig of the recorder's service account, and the Secret as it is after the installation."""
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        await kube.post(SECRETS, _of_the_chart("Secret", SECRET))
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        made = json.loads(await kube.post(path, {"spec": {"expirationSeconds": 7200}}))
        url, trusted = cluster.layout.url("apiserver", "https"), cluster.layout.file("ca.crt")
        file = cluster.directory / "kept-recorder.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(kubeconfig(url, trusted, ACCOUNT, made["status"]["token"])))
        try:
            yield file
        finally:
            await kube.delete(f"{SECRETS}/{SECRET}")


@dataclass
class Mount:
    """Some keys of the Secret as files: as a kubelet does it, all are replaced at once, and later."""

    folder: Path
    keys: Sequence[str]
    every_s: float
    late_s: float = 0.0
    """The longest time from when something was made to when it lay here."""
    history: list[dict[str, bytes]] = field(default_factory=list)

    async def refresh(self, kube: KubeClient) -> None:
        """Until cancelled."""
        while True:
            data = json.loads(await kube.get(f"{SECRETS}/{SECRET}")).get("data") or {}
            found = {key: base64.b64decode(data[key]) for key in self.keys if key in data}
            if found and (not self.history or found != self.history[-1]):
                self._put(found)
            await asyncio.sleep(self.every_s)

    def _put(self, found: dict[str, bytes]) -> None:
        version = self.folder / f"..{len(self.history)}"
        version.mkdir(parents=True)
        for key, text in found.items():
            (version / key).write_bytes(text)
        new = self.folder / "..new"
        new.symlink_to(version.name)
        new.replace(self.folder / "..data")
        for key in found:
            if not (self.folder / key).is_symlink():
                (self.folder / key).symlink_to(f"..data/{key}")
        self.late_s = max(self.late_s, self._late_s(found))
        self.history.append(found)

    def _late_s(self, found: dict[str, bytes]) -> float:
        """How long ago something in it was made that was not there before."""
        (name,) = (key for key in self.keys if key.endswith(".crt"))
        newest = load(found[name])[0]
        if self.history and newest in load(self.history[-1][name]):
            return 0.0
        return (datetime.datetime.now(datetime.UTC) - made_at(newest)).total_seconds()


@contextmanager
def running(
    cluster: Cluster, folder: Path, command: str, settings: Object, *options: str
) -> Iterator[Process]:
    """`fairlane COMMAND` as a process of the testbed; its port is in `COMMAND.port` once it serves."""
    file = folder / f"{command}.yaml"
    file.write_text(yaml.safe_dump({"token": TOKEN, **settings}))
    where = ("--config", str(file), "--host", "127.0.0.1", "--port", "0")
    argv = (sys.executable, "-m", "scheduler.cli.main", command, *where, *options)
    port = ("--port-file", str(folder / f"{command}.port"))
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    process = cluster.run(f"kept-{command}-{folder.name[-30:]}", *argv, *port, env=environment)
    try:
        yield process
    finally:
        process.stop()


def wait_for(path: Path, process: Process) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        process.check()
        assert time.monotonic() < deadline_s, process.log_tail()
        time.sleep(0.05)


@dataclass
class Keeping:
    """A recorder keeps the certificate, a predictor serves it, and two nodes mount what each needs."""

    port: int
    predictors: Mount
    extenders: Mount

    @property
    def ca(self) -> Path:
        return self.extenders.folder / "ca.crt"

    def client(self, token: str = TOKEN, port: int = 0) -> PredictionClient:
        return PredictionClient(f"127.0.0.1:{port or self.port}", 20.0, token, self.ca)


@asynccontextmanager
async def keeping(cluster: Cluster, folder: Path, lives: Object) -> AsyncIterator[Keeping]:
    predictors = Mount(folder / "predictor", ("tls.crt", "tls.key"), 0.5)
    extenders = Mount(folder / "extender", ("ca.crt",), 0.7)
    kept = {"secret": SECRET, "namespace": NAMESPACE, "names": ["localhost", "127.0.0.1"], **lives}
    certificate, key = (predictors.folder / name for name in predictors.keys)
    files = {"certificate_file": str(certificate), "key_file": str(key)}
    store = f"sqlite:///{folder}/own.db"
    async with as_recorder(cluster) as account, KubeClient.connect(str(cluster.kubeconfig)) as kube:
        mounts = [asyncio.create_task(one.refresh(kube)) for one in (predictors, extenders)]
        given: Object = {"predictor_certificate": kept, "recorder": {"store_url": store}}
        try:
            with running(cluster, folder, "recorder", given, "--kubeconfig", str(account)) as recorder:
                # before, no kubelet would start the predictor
                for needed in (key, extenders.folder / "ca.crt"):
                    await asyncio.to_thread(wait_for, needed, recorder)
                own = {"predictor": {"registry": str(folder / "models"), **files}}
                with running(cluster, folder, "predictor", own) as predictor:
                    await asyncio.to_thread(wait_for, folder / "predictor.port", predictor)
                    yield Keeping(int((folder / "predictor.port").read_text()), predictors, extenders)
        finally:
            for task in mounts:
                task.cancel()
            ended = await asyncio.gather(*mounts, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


def rotations(bundles: Sequence[bytes]) -> int:
    """How often a CA has taken the place of another wholly: trusted beside it first, then alone."""
    alone = [cas[0] for text in bundles if len(cas := load(text)) == 1]
    return len(dict.fromkeys(alone)) - 1


@pytest.mark.parametrize(
    "lives", [SHORT, pytest.param(MINUTE, marks=pytest.mark.long)], ids=["20 s", "one minute"]
)
async def test_no_call_fails_while_the_recorder_renews_ca_and_certificate(
    release: Cluster, tmp_path: Path, lives: dict[str, float]
) -> None:
    failed: list[str] = []
    calls = 0
    async with (
        keeping(release, tmp_path, lives) as parts,
        CuttableLink(parts.port) as link,
        parts.client(port=link.port) as old,
    ):
        bundles = parts.extenders.history
        deadline_s = time.monotonic() + 4 * lives["ca_s"]
        while rotations([one["ca.crt"] for one in bundles]) < ROTATIONS:
            assert time.monotonic() < deadline_s, f"{len(bundles)} bundles; {failed}"
            calls += 2
            failed += [await failure_of(old)]
            async with parts.client() as fresh:  # a new connection, and so the certificate of now
                failed += [await failure_of(fresh)]
            await asyncio.sleep(0.1)
            if calls % CALLS_PER_CONNECTION == 0:  # unbroken it would see the first certificate only
                link.cut()
                link.mend()
                await asyncio.sleep(NOTICED_S)
        late_s = max(parts.predictors.late_s, parts.extenders.late_s)
        failed = [one for one in failed if one]
        if failed and late_s > lives["settle_s"]:
            pytest.skip(f"the machine took {late_s:.0f} s to bring a change where it counts")
        assert failed == []
        first = load(bundles[0]["ca.crt"])[0]
        assert first not in load(bundles[-1]["ca.crt"])
        assert max(len(load(one["ca.crt"])) for one in bundles) == 2
        assert len(parts.predictors.history) > ROTATIONS
        assert link.connections > 2 * ROTATIONS
    print(f"{calls} calls, {len(bundles)} bundles, late by {late_s:.1f} s at most")


async def failure_of(client: PredictionClient) -> str:
    """Why a call failed; empty when it was answered (no model was published)."""
    try:
        assert not await client.is_serving()
    except PredictionError as error:
        return f"{datetime.datetime.now(datetime.UTC)}: {error}"
    return ""


async def test_who_trusts_the_ca_but_does_not_know_the_token_is_refused(
    release: Cluster, tmp_path: Path
) -> None:
    async with keeping(release, tmp_path, {}) as parts:
        for token, code in (("", "UNAUTHENTICATED"), ("a guess", "UNAUTHENTICATED"), (TOKEN, "UNAVAILABLE")):
            async with parts.client(token) as client:
                with pytest.raises(PredictionError) as caught:
                    await client.current_model()
            assert caught.value.code == code, caught.value
        assert "no model was published" in str(caught.value)


async def test_the_recorder_may_touch_this_secret_and_no_other(release: Cluster) -> None:
    async with as_recorder(release) as account, KubeClient.connect(str(account)) as kube:
        held = json.loads(await kube.get(f"{SECRETS}/{SECRET}"))
        await kube.put(f"{SECRETS}/{SECRET}", held)
        for forbidden in (
            kube.get(f"{SECRETS}/fairlane-token"),
            kube.get(SECRETS),
            kube.get(f"/api/v1/namespaces/kube-system/secrets/{SECRET}"),
            kube.post(SECRETS, {"metadata": {"name": "mine"}}),
            kube.delete(f"{SECRETS}/{SECRET}"),
        ):
            with pytest.raises(KubeError) as caught:
                await forbidden
            assert caught.value.status == 403, caught.value
