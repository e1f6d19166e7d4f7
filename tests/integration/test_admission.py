"""Who opts in is gated and stamped; nobody forges, changes or releases: by policies and by the webhook."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable

import pytest
from admission_setup import ACCOUNT, CONTROLLER, PODS, SUBMITTER, Installed, Object, pod, refused

from scheduler.core.admission import rules as told
from scheduler.edge.kube import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, KubeClient, KubeError

pytestmark = pytest.mark.timeout(300)
GATE = "fairlane.dev/queue"
STAMP = "fairlane.dev/user"
TEAM = PODS.format("team")
DRY = "?dryRun=All"


async def create(kube: KubeClient, body: Object, path: str = TEAM) -> Object:
    made: Object = json.loads(await kube.post(path, body))
    return made


def gates(made: Object) -> list[str]:
    return [gate["name"] for gate in made["spec"].get("schedulingGates", [])]


def given(made: Object, key: str) -> str | None:
    found: str | None = made["metadata"].get("annotations", {}).get(f"fairlane.dev/{key}")
    return found


@pytest.mark.parametrize(
    ("namespace", "body", "scheduler"),
    [
        ("team", {"schedulerName": "fairlane"}, "fairlane"),
        ("team", {"annotations": {"scheduler-name": "fairlane"}}, "fairlane"),
        ("team", {"annotations": {"queue-name": "gpu"}}, "default-scheduler"),
        ("team", {"annotations": {"queue-name": "gpu"}, "schedulerName": "volcano"}, "volcano"),
        ("team", {"schedulingGates": [{"name": GATE}]}, "default-scheduler"),
        ("enabled", {}, "default-scheduler"),
        ("enabled", {"schedulerName": "fairlane"}, "fairlane"),
    ],
)
async def test_who_opts_in_waits_under_his_authenticated_name(
    alice: KubeClient, namespace: str, body: Object, scheduler: str
) -> None:
    made = await create(alice, pod(**body), PODS.format(namespace))
    assert gates(made) == [GATE]
    assert given(made, "user") == "alice"
    assert made["spec"]["schedulerName"] == scheduler
    condition = json.loads(await alice.get(f"{PODS.format(namespace)}/{made['metadata']['name']}"))
    assert condition["status"]["conditions"][0]["reason"] == "SchedulingGated"


async def test_gates_and_annotations_of_others_stay(alice: KubeClient) -> None:
    body = pod(
        {"job-class": "etl"}, schedulerName="fairlane", schedulingGates=[{"name": "example.com/other"}]
    )
    body["metadata"]["annotations"]["note"] = "kept/~"
    made = await create(alice, body)
    assert gates(made) == ["example.com/other", GATE]
    assert made["metadata"]["annotations"] == {
        "note": "kept/~",
        "fairlane.dev/job-class": "etl",
        STAMP: "alice",
    }


async def test_the_namespace_names_the_queue_unless_the_pod_does(alice: KubeClient) -> None:
    routed = PODS.format("routed")
    assert given(await create(alice, pod(), routed), "queue-name") == "gpu"
    assert given(await create(alice, pod({"queue-name": "cpu"}), routed), "queue-name") == "cpu"
    assert given(await create(alice, pod(), PODS.format("enabled")), "queue-name") is None


@pytest.mark.parametrize(
    ("namespace", "spec"),
    [("team", {}), ("kube-system", {"schedulerName": "fairlane"}), ("fairlane-system", {})],
)
async def test_everything_else_is_untouched(alice: KubeClient, namespace: str, spec: Object) -> None:
    body = pod(**spec)
    body["metadata"]["annotations"] = {"note": "x", "fairlane.dev/gang-size": "no number"}
    made = await create(alice, body, PODS.format(namespace))
    assert made["metadata"]["annotations"] == body["metadata"]["annotations"]
    assert gates(made) == []


async def test_a_forged_user_is_refused_and_ones_own_is_not(alice: KubeClient) -> None:
    for body in (pod({"user": "bob"}, schedulerName="fairlane"), pod({"user": "bob"})):
        assert told.FORGED + "alice" in await refused(alice.post(TEAM, body))
    assert given(await create(alice, pod({"user": "alice"}, schedulerName="fairlane")), "user") == "alice"


async def test_only_listed_submitters_act_for_others(admission: Installed, alice: KubeClient) -> None:
    body = pod({"on-behalf-of": "carol"}, schedulerName="fairlane")
    assert told.NOT_A_SUBMITTER + "alice" in await refused(alice.post(TEAM, body))
    async with admission.user(SUBMITTER) as airflow:
        assert given(await create(airflow, body), "user") == "carol"
        assert given(await create(airflow, pod(schedulerName="fairlane")), "user") == SUBMITTER
        forged = pod({"user": "carol"}, schedulerName="fairlane")
        assert told.FORGED + SUBMITTER in await refused(airflow.post(TEAM, forged))


async def test_a_controller_passes_on_a_stamp_and_an_unlisted_one_is_a_user(admission: Installed) -> None:
    body = pod({"user": "carol"}, schedulerName="fairlane")
    async with admission.user(ACCOUNT.format("job-controller")) as controller:
        assert given(await create(controller, body), "user") == "carol"
        old = await create(controller, pod(schedulerName="fairlane"))
        assert given(old, "user") == "namespace:team"
    unlisted = "system:serviceaccount:kube-system:job-controller-2"
    async with admission.user(unlisted) as controller:
        assert told.FORGED + unlisted in await refused(controller.post(TEAM, body))
        assert given(await create(controller, pod(schedulerName="fairlane")), "user") == unlisted


async def test_generated_names_and_dry_runs_are_prepared_too(alice: KubeClient) -> None:
    body = pod(schedulerName="fairlane")
    del body["metadata"]["name"]
    body["metadata"]["generateName"] = "gen-"
    made = await create(alice, body)
    assert made["metadata"]["name"].startswith("gen-")
    assert gates(made) == [GATE]
    tried = await create(alice, pod(schedulerName="fairlane"), TEAM + DRY)
    assert gates(tried) == [GATE]
    with pytest.raises(KubeError, match="not found"):
        await alice.get(f"{TEAM}/{tried['metadata']['name']}")


async def test_a_waiting_pod_cannot_name_its_node(alice: KubeClient) -> None:
    body = pod(schedulerName="fairlane", nodeName="node-1")
    assert told.NAMES_A_NODE in await refused(alice.post(TEAM, body))
    assert told.NAMES_A_NODE in await refused(alice.post(PODS.format("enabled"), pod(nodeName="node-1")))


async def test_pods_of_daemon_sets_and_static_pods_never_wait(
    admission: Installed, alice: KubeClient
) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": True}
    body = pod()
    body["metadata"]["ownerReferences"] = [owner]
    enabled = PODS.format("enabled")
    async with admission.user(ACCOUNT.format("daemon-set-controller")) as controller:
        assert gates(await create(controller, body, enabled)) == []
    assert gates(
        await create(alice, body | {"metadata": body["metadata"] | {"name": "own"}}, enabled + DRY)
    ) == [GATE]
    async with admission.user("system:node:node-1", "system:nodes") as node:
        made = await create(node, pod(nodeName="node-1"), enabled + DRY)
    assert gates(made) == []
    assert given(made, "user") is None


def ungating(made: Object) -> list[Object]:
    """What the controller sends: the gate off and a receipt, in one request."""
    index = gates(made).index(GATE)
    path = f"/spec/schedulingGates/{index}"
    return [
        {"op": "test", "path": f"{path}/name", "value": GATE},
        {"op": "remove", "path": path},
        {"op": "add", "path": "/metadata/annotations/fairlane.dev~1receipt", "value": "head of the queue"},
    ]


async def test_only_the_controller_releases(
    admission: Installed, alice: KubeClient, kube: KubeClient
) -> None:
    made = await create(alice, pod(schedulerName="fairlane"))
    at = f"{TEAM}/{made['metadata']['name']}"
    for somebody in (alice, kube):  # kube is system:masters
        assert told.RELEASED_BY_HAND in await refused(somebody.patch(at, ungating(made), JSON_PATCH))
        empty = {"spec": {"schedulingGates": []}}
        assert told.RELEASED_BY_HAND in await refused(somebody.patch(at, empty, MERGE_PATCH))
    async with admission.user(CONTROLLER) as controller:
        released = json.loads(await controller.patch(at, ungating(made), JSON_PATCH))
    assert gates(released) == []
    assert given(released, "user") == "alice"
    assert given(released, "receipt") == "head of the queue"


@pytest.mark.parametrize("body", [{"schedulerName": "fairlane"}, {}])
async def test_only_the_controller_writes_a_receipt(
    admission: Installed, alice: KubeClient, body: Object
) -> None:
    """After a restart the queue believes it, also of a pod that never waited."""
    assert told.RECEIPT_FORGED in await refused(alice.post(TEAM, pod({"receipt": "{}"}, **body)))
    made = await create(alice, pod(**body))
    receipt = {"metadata": {"annotations": {"fairlane.dev/receipt": "{}"}}}
    for resource in ("", "/status"):
        at = f"{TEAM}/{made['metadata']['name']}{resource}"
        assert told.RECEIPT_FORGED in await refused(alice.patch(at, receipt))
    async with admission.user(CONTROLLER) as controller:
        await controller.patch(at, receipt)
    forgotten = {"metadata": {"annotations": {"fairlane.dev/receipt": None}}}
    assert told.RECEIPT_FORGED in await refused(alice.patch(at, forgotten))


@pytest.mark.parametrize("resource", ["", "/status"])
@pytest.mark.parametrize("stamp", ["eve", None])
async def test_nobody_changes_a_stamp(
    admission: Installed, alice: KubeClient, kube: KubeClient, resource: str, stamp: str | None
) -> None:
    made = await create(alice, pod(schedulerName="fairlane"))
    at = f"{TEAM}/{made['metadata']['name']}{resource}"
    body = {"metadata": {"annotations": {STAMP: stamp}}}
    async with admission.user(CONTROLLER) as controller:
        for somebody in (alice, kube, controller):
            assert told.STAMP_CHANGED in await refused(somebody.patch(at, body))


async def test_nobody_stamps_a_pod_outside_the_queue(alice: KubeClient) -> None:
    made = await create(alice, pod())
    body = {"metadata": {"annotations": {STAMP: "alice"}}}
    assert told.STAMP_CHANGED in await refused(alice.patch(f"{TEAM}/{made['metadata']['name']}", body))


async def test_a_binding_does_not_smuggle_a_stamp_in(alice: KubeClient) -> None:
    made = await create(alice, pod(schedulerName="nobody"))
    name = made["metadata"]["name"]
    body: Object = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "annotations": {STAMP: "eve"}},
        "target": {"kind": "Node", "name": "somewhere"},
    }
    assert told.BOUND_WITH_STAMP in await refused(alice.post(f"{TEAM}/{name}/binding", body))
    del body["metadata"]["annotations"]
    await alice.post(f"{TEAM}/{name}/binding", body)


async def test_a_pod_of_the_queue_does_not_grow_in_place(
    admission: Installed, alice: KubeClient, kube: KubeClient
) -> None:
    """Small, it went first; what it would take then, nobody would have charged."""
    small, large = (
        [{"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}] for cpu in ("1", "3")
    )
    grown = {"spec": {"containers": large}}
    status = {"name": "main", "image": "none", "imageID": "", "ready": True, "restartCount": 0}
    status |= {"state": {"running": {}}, "resources": small[0]["resources"]}
    running = {"status": {"phase": "Running", "containerStatuses": [status]}}
    nowhere = {
        "nodeSelector": {"nowhere": ""}
    }  # simulated nodes do not resize, which the API server tells first
    made = await create(alice, pod(schedulerName="fairlane", containers=small, **nowhere))
    at = f"{TEAM}/{made['metadata']['name']}"
    async with admission.user(CONTROLLER) as controller:
        await controller.patch(at, ungating(made), JSON_PATCH)
    await kube.patch(f"{at}/status", running, STRATEGIC_PATCH)
    for somebody in (alice, kube):
        assert told.RESIZED in await refused(somebody.patch(f"{at}/resize", grown, STRATEGIC_PATCH))
    other = await create(alice, pod(containers=small, **nowhere))
    at = f"{TEAM}/{other['metadata']['name']}"
    await kube.patch(f"{at}/status", running, STRATEGIC_PATCH)
    await alice.patch(f"{at}/resize", grown, STRATEGIC_PATCH)


async def test_queue_and_scheduler_of_a_pod_are_moved_by_the_controller_alone(
    admission: Installed, alice: KubeClient
) -> None:
    made = await create(alice, pod({"queue-name": "gpu"}))
    at = f"{TEAM}/{made['metadata']['name']}"
    moved = {"metadata": {"annotations": {"fairlane.dev/queue-name": "cpu"}}}
    assert told.fixed("fairlane.dev/queue-name") in await refused(alice.patch(at, moved))
    behalf = {"metadata": {"annotations": {"fairlane.dev/on-behalf-of": "carol"}}}
    assert told.fixed("fairlane.dev/on-behalf-of") in await refused(alice.patch(at, behalf))
    async with admission.user(CONTROLLER) as controller:
        assert given(json.loads(await controller.patch(at, moved)), "queue-name") == "cpu"


async def test_the_rest_of_kubernetes_goes_on(
    admission: Installed, alice: KubeClient, kube: KubeClient
) -> None:
    """Kubelet, garbage collector, finalizers, ephemeral containers, other annotations, deletion."""
    body = pod(schedulerName="fairlane")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    made = await create(alice, body)
    at = f"{TEAM}/{made['metadata']['name']}"
    await alice.patch(at, {"metadata": {"annotations": {"note": "mine"}, "labels": {"a": "b"}}})
    await alice.patch(at, {"metadata": {"annotations": {"fairlane.dev/expected-duration": "90s"}}})
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "none"}]}}
    await alice.patch(f"{at}/ephemeralcontainers", debug, STRATEGIC_PATCH)
    async with admission.user(CONTROLLER) as controller:
        await controller.patch(at, ungating(made), JSON_PATCH)
    status = {"status": {"phase": "Running", "message": uuid.uuid4().hex}}
    async with admission.user("system:node:node-1", "system:nodes") as node:
        await node.patch(f"{at}/status", status)
    async with admission.user(ACCOUNT.format("generic-garbage-collector")) as collector:
        await collector.patch(at, {"metadata": {"finalizers": None}})
    await kube.delete(at)


async def test_an_eviction_of_a_waiting_pod_works(alice: KubeClient) -> None:
    made = await create(alice, pod(schedulerName="fairlane"))
    name = made["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await alice.post(f"{TEAM}/{name}/eviction", body)


BAD = [
    ({"gang-size": "0"}, "gang-size must be a whole number from 1 to 999999"),
    ({"gang-size": "1000000"}, "gang-size must be a whole number"),
    ({"expected-duration": "soon"}, "expected-duration must be seconds above zero"),
    ({"expected-duration": "0s"}, "expected-duration must be seconds above zero"),
    ({"input-bytes": "-1Gi"}, "input-bytes must be a size in bytes that is not negative"),
    ({"shuffle-bytes": "much"}, "shuffle-bytes must be a size in bytes"),
    ({"gang": "a/b"}, "gang must be at most 253 letters"),
    ({"job-class": "x" * 254}, "job-class must be at most 253 characters"),
    ({"queue-name": "GPU"}, "queue-name must be the name of a FairQueue"),
    ({"scheduler-name": "volcano"}, "scheduler-name must be fairlane or left out"),
]


@pytest.mark.parametrize(("annotations", "sentence"), BAD)
async def test_a_bad_annotation_is_refused_with_a_sentence(
    alice: KubeClient, annotations: dict[str, str], sentence: str
) -> None:
    said = await refused(alice.post(TEAM, pod(annotations, schedulerName="fairlane")))
    assert f"fairlane.dev/{sentence}" in said


async def test_a_bad_annotation_is_refused_later_too_but_an_old_one_blocks_nobody(
    admission: Installed, alice: KubeClient
) -> None:
    async with admission.user(ACCOUNT.format("job-controller")) as controller:  # judged as a template, once
        made = await create(controller, pod({"user": "alice", "gang-size": "many"}, schedulerName="fairlane"))
    at = f"{TEAM}/{made['metadata']['name']}"
    await alice.patch(at, {"metadata": {"annotations": {"fairlane.dev/gang": "g"}}})
    body = {"metadata": {"annotations": {"fairlane.dev/gang-size": "few"}}}
    assert "fairlane.dev/gang-size must be" in await refused(alice.patch(at, body))


Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def test_pods_of_a_real_job_and_deployment_carry_the_author(
    alice: KubeClient, eventually: Eventually
) -> None:
    spec = {"schedulerName": "fairlane", "containers": [{"name": "main", "image": "none"}]}
    name = f"real-{uuid.uuid4().hex[:8]}"
    labels = {"real": name}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "Never"}}},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    await alice.post("/apis/batch/v1/namespaces/team/jobs", job)
    await alice.post("/apis/apps/v1/namespaces/team/deployments", deployment)

    async def both_are_there() -> bool:
        found = json.loads(await alice.get(TEAM, {"labelSelector": f"real={name}"}))["items"]
        owners = {one["metadata"]["ownerReferences"][0]["kind"] for one in found}
        assert all(given(one, "user") == "alice" and gates(one) == [GATE] for one in found)
        return owners == {"Job", "ReplicaSet"}

    await eventually(both_are_there)
    await alice.delete(f"/apis/apps/v1/namespaces/team/deployments/{name}")
