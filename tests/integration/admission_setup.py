"""Admission installed on the shared testbed, by policies or by the webhook, and users to try it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from scheduler.admission_settings import AdmissionSettings
from scheduler.edge.kube import KubeClient, KubeError, _tls, load_configuration
from scheduler.edge.manifests import ACCOUNT as ACCOUNT_NAME
from scheduler.edge.manifests import policy_manifests, webhook_manifests
from testbed.cluster import Cluster, Process
from testbed.credentials import kubeconfig

Object = dict[str, Any]
PODS = "/api/v1/namespaces/{}/pods"
CONTROLLER = "system:serviceaccount:fairlane-system:fairlane-controller"
DRY = "?dryRun=All"
TESTERS = "testers"
SUBMITTER = "system:serviceaccount:airflow:worker"
ACCOUNT = "system:serviceaccount:kube-system:{}"
NAMESPACES = {
    "team": {},
    "enabled": {"fairlane.dev/enabled": "true"},
    "routed": {"fairlane.dev/enabled": "true", "fairlane.dev/queue-name": "gpu"},
    "fairlane-system": {},
}
COLLECTIONS = {
    "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
}
"""Of the manifests all but what needs a real kubelet: the webhook runs here as a process."""
IN_A_ROW = 4
"""Times that admission is found in force before a test relies on it."""
GIVEN: Object = {
    "submitters": [SUBMITTER],
    "kinds": ["jobsets", "sparkapplications", "pytorchjobs"],
}


@dataclass(frozen=True)
class Installed:
    """What is installed: `by` policies or webhook; `process` is the webhook's."""

    by: str
    cluster: Cluster
    settings: AdmissionSettings
    process: Process | None = None

    @asynccontextmanager
    async def user(self, name: str, *groups: str) -> AsyncIterator[KubeClient]:
        """The API server as `name`, who may do everything that admission does not forbid."""
        configuration = await load_configuration(str(self.cluster.kubeconfig))
        headers = [("Impersonate-User", name), ("Impersonate-Group", "system:authenticated")]
        headers += [("Impersonate-Group", group) for group in (TESTERS, *groups)]
        connector = aiohttp.TCPConnector(ssl=_tls(configuration), limit=64)
        async with aiohttp.ClientSession(configuration.host, connector=connector, headers=headers) as session:
            yield KubeClient(session, configuration)


@contextmanager
def installed(cluster: Cluster, by: str, **given: Any) -> Iterator[Installed]:
    """Admission in force on the cluster, removed at the end."""
    values = {**GIVEN, **given}
    if by == "webhook":
        port = cluster.control.ports(1)[0]
        values |= {"host": "127.0.0.1", "port": port, "url": f"https://127.0.0.1:{port}"}
    settings = AdmissionSettings.model_validate(values)
    asyncio.run(with_admin(cluster, _prepare))
    process = None
    made = policy_manifests(settings) if by == "policies" else webhook_manifests(settings)
    objects = [one for one in made if one["kind"] in COLLECTIONS]
    try:
        asyncio.run(with_admin(cluster, lambda kube: _apply(kube, objects)))
        if by == "webhook":
            process = start_webhook(cluster, settings)
        state = Installed(by, cluster, settings, process)
        asyncio.run(_until_in_force(state))
        yield state
    finally:
        asyncio.run(with_admin(cluster, lambda kube: _remove(kube, objects)))
        if process is not None:
            process.stop()


@pytest.fixture(scope="module", params=["policies", "webhook"])
def admission(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Installed]:
    """Admission in force, by both ways in turn."""
    with installed(cluster, request.param) as state:
        yield state


@pytest_asyncio.fixture
async def alice(admission: Installed) -> AsyncIterator[KubeClient]:
    """The API server as a user."""
    async with admission.user("alice") as connected:
        yield connected


@pytest_asyncio.fixture
async def bob(admission: Installed) -> AsyncIterator[KubeClient]:
    """The API server as another."""
    async with admission.user("bob") as connected:
        yield connected


async def refused(call: Awaitable[Any]) -> str:
    """What the API server says when it refuses, as it must."""
    with pytest.raises(KubeError) as caught:
        await call
    assert caught.value.status in (403, 422), caught.value
    return caught.value.message


def start_webhook(cluster: Cluster, settings: AdmissionSettings) -> Process:
    """`fairlane admission` as a process; returns when it serves."""
    given = settings.model_dump(mode="json", exclude_defaults=True)
    environment = {
        f"FAIRLANE_ADMISSION__{key.upper()}": value if isinstance(value, str) else json.dumps(value)
        for key, value in given.items()
    }
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    port_file = cluster.directory / f"admission-{settings.port}.port"
    port_file.unlink(missing_ok=True)
    account = cluster.directory / "admission.kubeconfig"
    account.touch(mode=0o600)
    account.write_text(json.dumps(asyncio.run(_kubeconfig(cluster))))
    argv = (sys.executable, "-m", "scheduler.cli.main", "admission", "--kubeconfig", str(account))
    process = cluster.run(f"admission-{settings.port}", *argv, "--port-file", str(port_file), env=environment)
    _wait_for(port_file, process)
    return process


async def _kubeconfig(cluster: Cluster) -> Object:
    """A kubeconfig of the webhook's own service account, with no more rights than the manifests give."""
    path = f"/api/v1/namespaces/fairlane-system/serviceaccounts/{ACCOUNT_NAME}/token"
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        made = json.loads(await kube.post(path, {"spec": {"expirationSeconds": 7200}}))
    url = cluster.layout.url("apiserver", "https")
    return kubeconfig(url, cluster.layout.file("ca.crt"), ACCOUNT_NAME, made["status"]["token"])


def _wait_for(path: Path, process: Process) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists():
        process.check()
        assert time.monotonic() < deadline_s, process.log_tail()
        time.sleep(0.1)


async def with_admin(cluster: Cluster, do: Callable[[KubeClient], Awaitable[Any]]) -> None:
    """Do something as administrator."""
    async with KubeClient.connect(str(cluster.kubeconfig)) as kube:
        await do(kube)


async def _prepare(kube: KubeClient) -> None:
    """Namespaces, rights of the test users, and the CRDs of frameworks."""
    for name, labels in NAMESPACES.items():
        await _create(kube, "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": TESTERS}
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    await _create(kube, path, {"metadata": {"name": TESTERS}, "roleRef": role, "subjects": [group]})
    for crd in (
        _crd("JobSet", "jobsets", "jobset.x-k8s.io", "v1alpha2"),
        _crd("SparkApplication", "sparkapplications", "sparkoperator.k8s.io", "v1beta2"),
        _crd("PyTorchJob", "pytorchjobs", "kubeflow.org", "v1"),
    ):
        await _create(kube, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)


def _crd(kind: str, plural: str, group: str, version: str) -> Object:
    """As little of a CRD as serves objects of the kind."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": [served]}
    approval = {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}
    return {"metadata": {"name": f"{plural}.{group}", "annotations": approval}, "spec": spec}


async def _create(kube: KubeClient, path: str, body: Object) -> None:
    """Create what is not there yet."""
    try:
        await kube.post(path, body)
    except KubeError as error:
        if error.status != 409:
            raise


def collection(one: Object) -> str:
    """URL of the collection that an object of the manifests belongs to."""
    version, namespace = one["apiVersion"], one["metadata"].get("namespace")
    start = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{start}/{f'namespaces/{namespace}/' if namespace else ''}{COLLECTIONS[one['kind']]}"


async def _apply(kube: KubeClient, objects: list[Object]) -> None:
    for one in objects:
        await kube.post(collection(one), one)


async def _remove(kube: KubeClient, objects: list[Object]) -> None:
    for one in reversed(objects):
        try:
            await kube.delete(f"{collection(one)}/{one['metadata']['name']}")
        except KubeError as error:
            if error.status != 404:
                raise
    for _attempt in range(300):
        if await _is_gone(kube):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("admission is still in force after its removal")


async def _is_gone(kube: KubeClient) -> bool:
    try:
        made = json.loads(
            await kube.post(PODS.format("team") + DRY, pod({"user": "x"}, schedulerName="fairlane"))
        )
    except KubeError:
        return False
    return "schedulingGates" not in made["spec"]


async def _until_in_force(state: Installed) -> None:
    """Every policy or hook does its work, and goes on doing it.

    The API server learns of each on its own: for a moment a new policy may
    work by the binding of a removed one of the same name.
    """
    in_a_row = 0
    async with state.user("probe") as kube:
        for _attempt in range(300):
            in_a_row = in_a_row + 1 if await _is_in_force(kube) else 0
            if in_a_row == IN_A_ROW:
                return
            await asyncio.sleep(0.3 if in_a_row else 0.1)
    told = state.process.log_tail() if state.process else ""
    raise AssertionError(f"admission by {state.by} is not in force after 30 s: {told}")


async def _is_in_force(kube: KubeClient) -> bool:
    from admission_kinds import KINDS

    try:
        made = json.loads(await kube.post(PODS.format("team") + DRY, pod(schedulerName="fairlane")))
        if "schedulingGates" not in made["spec"]:
            return False
        for kind in KINDS.values():
            if not all(kind.stamps(json.loads(await kube.post(kind.path("team") + DRY, kind.make())))):
                return False
        await kube.post(PODS.format("team") + DRY, pod({"user": "x"}))
    except KubeError as error:
        return error.status == 422
    return False


def pod(annotations: dict[str, str] | None = None, name: str = "", **spec: Any) -> Object:
    """A pod of one container; annotations without their prefix."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name or f"p-{uuid.uuid4().hex[:10]}",
            "annotations": {f"fairlane.dev/{key}": value for key, value in (annotations or {}).items()},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "none"}],
            **spec,
        },
    }
