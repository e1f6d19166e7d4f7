"""The chart with the values that the kind cluster gives it, rendered by Helm."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from chart_variants import Object, helm_or_skip, pod_of

from scheduler.config import Settings
from testbed.chart.helm import NAMESPACE
from testbed.kind import deploy, release
from testbed.kind.cluster import KindCluster
from testbed.kind.jobs import NAMESPACE as JOBS

IMAGE, SCHEDULER = "fairlane.local/fairlane:4711", "registry.k8s.io/kube-scheduler:v1.37.0"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> KindCluster:
    """A cluster that is not up, with images that are not built."""
    made = KindCluster(cache=tmp_path_factory.mktemp("kind"))
    vars(made.images).update(fairlane=IMAGE, scheduler=SCHEDULER, registry=False)
    return made


def rendered(cluster: KindCluster, explore: bool) -> list[Object]:
    return helm_or_skip().objects(release.values(cluster, explore, 40))


@pytest.fixture(scope="module")
def objects(cluster: KindCluster) -> list[Object]:
    return rendered(cluster, explore=False)


def test_one_image_is_all_that_has_to_get_into_the_nodes(objects: list[Object]) -> None:
    pods = [pod for one in objects if (pod := pod_of(one))]
    assert len(pods) >= 7
    assert {container["image"] for pod in pods for container in pod["containers"]} == {IMAGE, SCHEDULER}


def test_nothing_but_probe_and_trial_runs_on_the_workers(cluster: KindCluster, objects: list[Object]) -> None:
    nodes = {
        one["metadata"]["name"]: pod.get("nodeSelector", {}).get("kubernetes.io/hostname")
        for one in objects
        if (pod := pod_of(one))
    }
    elsewhere = {name for name, node in nodes.items() if node != cluster.control_plane}
    assert elsewhere == {"fairlane-probe", "fairlane-test"}


def test_whether_nodes_are_chosen_at_random_changes_the_scheduler_alone(
    cluster: KindCluster, objects: list[Object]
) -> None:
    told = rendered(cluster, explore=True)
    changed = [before for before, after in zip(told, objects, strict=True) if before != after]
    assert [one["metadata"]["name"] for one in changed] == ["fairlane-scheduler"]


def test_the_settings_are_understood_and_leave_the_timed_jobs_out_of_the_queue(
    objects: list[Object], tmp_path: Path
) -> None:
    file = tmp_path / "fairlane.yaml"
    settings = next(one for one in objects if one["metadata"]["name"] == "fairlane-settings")
    file.write_text(settings["data"]["fairlane.yaml"])
    read = Settings.load(file, {})
    assert JOBS in read.admission.excluded_namespaces
    assert read.probe.interval_s == release.SETTINGS["probe"]["interval_s"]


def test_what_the_release_needs_is_made_under_the_names_that_the_chart_uses(
    cluster: KindCluster, objects: list[Object]
) -> None:
    names = {"claim": release.CLAIM, "namespace": NAMESPACE, "control_plane": cluster.control_plane}
    made = {one["kind"]: one for one in yaml.safe_load_all(deploy.render("release", names))}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for one in objects
        if (pod := pod_of(one))
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {made["PersistentVolumeClaim"]["metadata"]["name"]}
    recorder = next(
        one
        for one in objects
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "fairlane-recorder"
    )
    labels = recorder["spec"]["template"]["metadata"]["labels"]
    assert made["Service"]["spec"]["selector"].items() <= labels.items()
