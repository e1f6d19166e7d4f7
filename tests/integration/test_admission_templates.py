"""Templates of every kind that makes pods carry the name of who wrote them, and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from admission_kinds import KINDS, STAMP, Made
from admission_setup import ACCOUNT, SUBMITTER, Installed, refused

from scheduler.core.admission import rules as told
from scheduler.edge.kube import KubeClient

pytestmark = pytest.mark.timeout(300)
CHANGEABLE = [name for name in KINDS if name not in ("Job", "ControllerRevision")]
"""The templates of the others are immutable."""


async def created(
    kube: KubeClient, kind: Made, body: dict[str, Any], namespace: str = "team"
) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(await kube.post(kind.path(namespace), body))
    return made


def at(kind: Made, whole: dict[str, Any]) -> str:
    return f"{kind.path(whole['metadata']['namespace'])}/{whole['metadata']['name']}"


async def put(kube: KubeClient, kind: Made, whole: dict[str, Any]) -> dict[str, Any]:
    """Replace the object, whatever its controller did to it meanwhile."""
    whole = {**whole, "metadata": {k: v for k, v in whole["metadata"].items() if k != "resourceVersion"}}
    if kind.group not in ("v1", "apps/v1", "batch/v1"):
        whole["metadata"]["resourceVersion"] = json.loads(await kube.get(at(kind, whole)))["metadata"][
            "resourceVersion"
        ]
    made: dict[str, Any] = json.loads(await kube.put(at(kind, whole), whole))
    return made


@pytest.mark.parametrize("name", KINDS)
async def test_a_template_that_opts_in_carries_its_author(alice: KubeClient, name: str) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    assert set(kind.stamps(made)) == {"alice"}


@pytest.mark.parametrize("name", KINDS)
async def test_a_template_that_does_not_opt_in_is_untouched(alice: KubeClient, name: str) -> None:
    kind = KINDS[name]
    body = kind.give(kind.make(opted=False), gang_size="no number")
    made = await created(alice, kind, body)
    assert set(kind.stamps(made)) == {None}


@pytest.mark.parametrize("name", KINDS)
async def test_a_namespace_opts_in_for_its_templates(alice: KubeClient, name: str) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make(opted=False), "enabled")
    assert set(kind.stamps(made)) == {"alice"}


@pytest.mark.parametrize("opted", [True, False])
@pytest.mark.parametrize("name", KINDS)
async def test_a_template_with_a_forged_user_is_refused(alice: KubeClient, name: str, opted: bool) -> None:
    kind = KINDS[name]
    body = kind.give(kind.make(opted), user="bob")
    assert told.FORGED + "alice" in await refused(alice.post(kind.path("team"), body))


@pytest.mark.parametrize("name", CHANGEABLE)
async def test_a_template_belongs_to_who_changed_it_last(
    alice: KubeClient, bob: KubeClient, name: str
) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    body = kind.change(made)
    if name in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"):
        assert kind.templates(body)[0]["metadata"]["labels"]["app"] == "x"  # the selector still fits
    changed = await put(bob, kind, body)
    assert set(kind.stamps(changed)) == {"bob"}


@pytest.mark.parametrize("name", KINDS)
async def test_other_changes_leave_the_author(alice: KubeClient, bob: KubeClient, name: str) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    noted = json.loads(await bob.patch(at(kind, made), {"metadata": {"annotations": {"note": "x"}}}))
    assert set(kind.stamps(noted)) == {"alice"}


@pytest.mark.parametrize("name", KINDS)
async def test_replacing_with_a_manifest_without_stamp_keeps_the_author(
    alice: KubeClient, bob: KubeClient, name: str
) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    for one in kind.templates(made):
        kind.annotations(one).pop(STAMP)
    assert set(kind.stamps(await put(bob, kind, made))) == {"alice"}


@pytest.mark.parametrize(
    "name", [name for name in KINDS if name != "ControllerRevision"]
)  # immutable by itself
async def test_a_stamp_in_a_template_is_not_changed_by_hand(
    alice: KubeClient, bob: KubeClient, name: str
) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    for user in ("carol", "bob"):
        assert told.FORGED + "bob" in await refused(put(bob, kind, kind.give(made, user=user)))


@pytest.mark.parametrize("name", CHANGEABLE)
async def test_a_change_with_a_forged_user_is_refused(alice: KubeClient, bob: KubeClient, name: str) -> None:
    kind = KINDS[name]
    made = await created(alice, kind, kind.make())
    body = kind.give(kind.change(made), user="carol")
    assert told.FORGED + "bob" in await refused(put(bob, kind, body))


@pytest.mark.parametrize("name", ["Job", "CronJob", "JobSet", "SparkApplication"])
async def test_submitters_write_templates_for_others(
    admission: Installed, alice: KubeClient, name: str
) -> None:
    kind = KINDS[name]
    body = kind.make()
    for one in kind.templates(body):
        kind.annotations(one)["fairlane.dev/on-behalf-of"] = "carol"
    assert told.NOT_A_SUBMITTER + "alice" in await refused(alice.post(kind.path("team"), body))
    async with admission.user(SUBMITTER) as airflow:
        made = await created(airflow, kind, body)
    assert set(kind.stamps(made)) == {"carol"}
    noted = json.loads(await alice.patch(at(kind, made), {"metadata": {"annotations": {"note": "x"}}}))
    assert set(kind.stamps(noted)) == {"carol"}


@pytest.mark.parametrize("name", ["Deployment", "CronJob", "JobSet"])
async def test_bad_annotations_of_a_template_are_refused_at_once(alice: KubeClient, name: str) -> None:
    kind = KINDS[name]
    said = await refused(alice.post(kind.path("team"), kind.give(kind.make(), gang_size="many")))
    assert "fairlane.dev/gang-size must be a whole number from 1 to 999999" in said


@pytest.mark.parametrize(
    "key", ["spark.kubernetes.driver.annotation.fairlane.dev/user", "spark.kubernetes.driver.podTemplateFile"]
)
async def test_spark_settings_do_not_smuggle_a_stamp_in(alice: KubeClient, key: str) -> None:
    kind = KINDS["SparkApplication"]
    for opted in (True, False):
        body = kind.make(opted)
        body["spec"]["sparkConf"] = {key: "bob", "spark.eventLog.enabled": "true"}
        assert "spec.sparkConf must not have" in await refused(alice.post(kind.path("team"), body))
    del body["spec"]["sparkConf"][key]
    made = await created(alice, kind, body)
    smuggled = {"spec": {"sparkConf": {key: "bob"}}}
    assert "spec.sparkConf must not have" in await refused(alice.patch(at(kind, made), smuggled))


async def test_a_controller_passes_templates_on_as_they_are(admission: Installed) -> None:
    kind = KINDS["Job"]
    async with admission.user(ACCOUNT.format("cronjob-controller")) as controller:
        made = await created(controller, kind, kind.give(kind.make(), user="carol"))
        assert kind.stamps(made) == ["carol"]
        assert kind.stamps(await created(controller, kind, kind.make())) == [None]


async def test_a_suspended_job_is_resumed_by_anybody(alice: KubeClient, bob: KubeClient) -> None:
    kind = KINDS["Job"]
    made = await created(alice, kind, kind.make())
    resumed = json.loads(await bob.patch(at(kind, made), {"spec": {"suspend": False}}))
    assert kind.stamps(resumed) == ["alice"]
    await bob.delete(at(kind, made), {"propagationPolicy": "Background"})


async def test_scaling_leaves_the_author(alice: KubeClient, bob: KubeClient) -> None:
    kind = KINDS["Deployment"]
    made = await created(alice, kind, kind.make())
    await bob.patch(f"{at(kind, made)}/scale", {"spec": {"replicas": 0}})
    assert kind.stamps(json.loads(await alice.get(at(kind, made)))) == ["alice"]
