"""From pods to jobs: recurrence, gangs, requests, hints."""

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from scheduler.core.jobs import MAX_DATA_NODES, Descriptions, describe, job_class
from scheduler.core.quantities import duration_s, quantity
from scheduler.core.wire import Pod


def a_pod(
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    **more: Any,
) -> Pod:
    meta = {
        "name": "p-x7k2q",
        "namespace": "team",
        "uid": "u",
        "annotations": {f"fairlane.dev/{key}": value for key, value in (annotations or {}).items()},
        "labels": labels or {},
        "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else [],
    }
    spec = {"containers": [{"name": "main", "image": "repo/etl:1@sha256:abc"}], **more}
    return msgspec.convert({"metadata": meta, "spec": spec}, Pod)


def test_job_class_annotation_wins() -> None:
    assert job_class(a_pod({"job-class": " etl "}, owner=("Job", "x"))) == "etl"


def test_control_characters_reach_no_store_and_no_terminal() -> None:
    job = describe(a_pod({"job-class": "a\0b", "user": "x\x1b[2Jy", "gang": "g\nh"})).pod.job
    assert (job.job_class, job.user, job.gang) == ("a\ufffdb", "x\ufffd[2Jy", "g\ufffdh")
    assert "\0" not in job_class(a_pod({"user": "x\0"}))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (("Job", "etl-28412345"), "Job/etl"),
        (("ReplicaSet", "web-5d59d67564"), "ReplicaSet/web"),
        (("Workflow", "train-x7k2q"), "Workflow/train"),
        (("Job", "resnet-50"), "Job/resnet-50"),
        (("Job", "spark-etl"), "Job/spark-etl"),
        (("Job", "x7k2q"), "Job/x7k2q"),
    ],
)
def test_runs_of_one_job_share_a_class_whatever_controllers_append(owner: tuple[str, str], name: str) -> None:
    assert job_class(a_pod(owner=owner)) == f"{name}|repo/etl:1|namespace:team"


def test_spark_drivers_and_executors_are_classes_of_their_own() -> None:
    labels = {"spark-app-name": "etl-9f8e7d6c5b4a", "spark-role": "driver"}
    assert job_class(a_pod(labels=labels)).startswith("Spark-driver/etl|")


def test_user_comes_from_the_stamp_else_the_namespace_and_never_from_a_label() -> None:
    """Admission guards the annotation; a label anybody may write."""
    assert describe(a_pod({"user": "ann"}, {"fairlane.dev/user": "bob"})).pod.job.user == "ann"
    assert describe(a_pod(labels={"fairlane.dev/user": "bob"})).pod.job.user == "namespace:team"
    assert describe(a_pod()).pod.job.user == "namespace:team"


def test_gangs_are_of_one_namespace_and_known_frameworks_name_them() -> None:
    assert describe(a_pod({"gang": "g"}, {"ray.io/cluster": "r"})).pod.gang == "team/g"
    ray = describe(a_pod(labels={"ray.io/cluster": "r", "ray.io/node-type": "head"})).pod
    assert (ray.gang, ray.is_driver, ray.job.framework) == ("team/r", True, "ray")
    assert describe(a_pod()).pod.gang == ""


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"labels": {"scheduling.x-k8s.io/pod-group": "g", "ray.io/cluster": "r"}}, "team/g"),
        ({"labels": {"spark-app-selector": "s", "scheduling.x-k8s.io/pod-group": "g"}}, "team/s"),
        ({"schedulingGroup": {"podGroupName": "g"}}, "team/g"),
        ({"schedulingGroup": {"podGroupName": "g"}, "annotations": {"gang": "mine"}}, "team/mine"),
        ({"labels": {"job-name": "j"}}, "team/j"),
    ],
)
def test_what_names_a_gang_comes_in_this_order(given: dict[str, Any], name: str) -> None:
    assert describe(a_pod(**given)).pod.gang == name


def test_long_gang_names_are_cut_and_stay_different() -> None:
    one, other = (describe(a_pod({"gang": "g" * 300 + end})).pod.job.gang for end in "ab")
    assert len(one) == len(other) == 253
    assert one != other


def test_pods_of_an_mpi_job_are_mpi() -> None:
    labels = {"training.kubeflow.org/job-name": "t"}
    assert describe(a_pod(labels=labels, owner=("MPIJob", "t"))).pod.job.framework == "mpi"
    assert describe(a_pod(labels=labels, owner=("PyTorchJob", "t"))).pod.job.framework == "torch"


def test_requests_count_as_kube_scheduler_counts_them() -> None:
    """The largest of: what runs together; each start-up container with the lasting ones before it."""

    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    pod = a_pod(
        containers=[container("1"), {"resources": {"limits": {"cpu": "500m", "nvidia.com/gpu": "2"}}}],
        initContainers=[container("1", restartPolicy="Always"), container("3"), container("100m")],
        overhead={"cpu": "250m"},
    )
    job = describe(pod).pod.job
    assert (job.cpu, job.gpu) == (4.25, 2.0)
    whole = a_pod(containers=[container("1")], resources={"requests": {"cpu": "6"}})
    assert describe(whole).pod.job.cpu == 6.0


def test_hints_are_read() -> None:
    hints = {
        "input-bytes": "2Gi",
        "shuffle-bytes": "1e9",
        "expected-duration": "1h30m",
        "gang-size": "4",
        "data-nodes": "a, b,,a",
        "framework": "Torch",
    }
    job = describe(a_pod(hints)).pod.job
    assert (job.input_bytes, job.shuffle_bytes, job.expected_s) == (2 * 2**30, 1e9, 5400.0)
    assert (job.gang_size, job.data_nodes, job.framework) == (4, ("a", "b"), "torch")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        ("input-bytes", "lots"),
        ("input-bytes", "-5"),
        ("expected-duration", "soon"),
        ("expected-duration", "0"),
        ("gang-size", "0"),
        ("gang-size", "two"),
        ("gang-size", "9" * 400),
        ("framework", "hadoop"),
        ("data-nodes", ",".join(map(str, range(100)))),
    ],
)
def test_a_hint_that_cannot_be_used_is_complained_of_and_counts_as_not_given(hint: str, value: str) -> None:
    described = describe(a_pod({hint: value}))
    assert [complaint.annotation for complaint in described.complaints] == [f"fairlane.dev/{hint}"]
    job = described.pod.job
    assert math.isnan(job.input_bytes)
    assert (job.gang_size, job.framework) == (1, "batch")
    assert len(job.data_nodes) <= MAX_DATA_NODES


def test_requests_are_counted_as_kube_scheduler_does() -> None:
    def needing(cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": "c", "resources": {"requests": {"cpu": cpu, "nvidia.com/gpu": "1"}}, **more}

    spec = {
        "containers": [needing("1"), needing("500m")],
        "initContainers": [needing("1"), needing("250m", restartPolicy="Always")],
        "overhead": {"cpu": "100m"},
    }
    job = describe(a_pod(**spec)).pod.job
    assert job.cpu == pytest.approx(1.85)
    assert job.gpu == 3.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        ("500m", 0.5),
        ("1.5Gi", 1.5 * 2**30),
        ("1e3", 1e3),
        ("1E", 1e18),
        ("-1k", -1e3),
        (".5", 0.5),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1GiB", "0x10", "nan", "inf", "1e999", "1e9999"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|large"):
        quantity(text)


@pytest.mark.parametrize(("text", "value"), [("90", 90.0), ("90s", 90.0), ("1h30m", 5400.0), ("1.5m", 90.0)])
def test_durations(text: str, value: float) -> None:
    assert duration_s(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-5", "0", "1d", "s", "1h 30m", "1e99", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|seconds"):
        duration_s(text)


EDITS: dict[str, Pod] = {
    "nothing": a_pod({"input-bytes": "1Gi"}),
    "bound": a_pod({"input-bytes": "1Gi"}, nodeName="n1"),
    "ungated": a_pod({"input-bytes": "1Gi"}, schedulingGates=[]),
    "annotation": a_pod({"input-bytes": "many"}),
    "label": a_pod({"input-bytes": "1Gi"}, labels={"spark-role": "driver"}),
    "owner": a_pod({"input-bytes": "1Gi"}, owner=("Job", "etl")),
    "resized": a_pod(
        {"input-bytes": "1Gi"}, containers=[{"image": "a", "resources": {"requests": {"cpu": "3"}}}]
    ),
    "resized as a whole": a_pod({"input-bytes": "1Gi"}, resources={"requests": {"cpu": "3"}}),
    "overhead": a_pod({"input-bytes": "1Gi"}, overhead={"cpu": "1"}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_pod_seen_again_is_described_as_if_seen_for_the_first_time(edit: str) -> None:
    seen = Descriptions()
    seen.of(a_pod({"input-bytes": "1Gi"}, schedulingGates=[{"name": "fairlane.dev/queue"}]))
    again = seen.of(EDITS[edit])
    assert repr(again) == repr(describe(EDITS[edit]))


def test_a_pod_is_read_again_only_where_the_api_server_has_another_version_of_it() -> None:
    def version(number: str, given: str) -> Pod:
        pod = a_pod({"input-bytes": given})
        return replace(pod, metadata=replace(pod.metadata, resourceVersion=number))

    seen = Descriptions()
    first = seen.of(version("7", "1Gi"))
    assert seen.of(version("7", "1Gi")) is first
    assert seen.of(version("8", "2Gi")).pod.job.input_bytes == 2 * 2**30
    assert seen.of(a_pod({"input-bytes": "3Gi"})).pod.job.input_bytes == 3 * 2**30
    assert seen.of(a_pod({"input-bytes": "4Gi"})).pod.job.input_bytes == 4 * 2**30  # of no version at all


def test_a_pod_that_changed_nothing_is_not_read_again() -> None:
    seen, pod = Descriptions(limit=1), a_pod({"input-bytes": "1Gi"})
    job = seen.of(pod).pod.job
    assert seen.of(a_pod({"input-bytes": "1Gi"}, nodeName="n1")).pod.job is job
    seen.forget("u")
    assert seen.of(pod).pod.job is not job
