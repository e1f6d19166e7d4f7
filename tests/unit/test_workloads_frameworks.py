"""Jobs, JobSets, Spark, Kubeflow, Ray and pod groups: which of their pods start together, and as how many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from workload_builders import T0, a_pod, a_workload

from scheduler.core.queue.events import (
    Event,
    Gang,
    GangArrived,
    GangChanged,
    GangEnded,
    PodEnded,
    Requirement,
)
from scheduler.core.queue.taints import Toleration
from scheduler.core.wire import Pod, Workload
from scheduler.core.workloads.assembly import Assembly
from scheduler.core.workloads.membership import ObjectRef
from scheduler.core.workloads.rules import Rules

GIB = 2.0**30


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(Rules())


def arrivals(events: list[Event]) -> list[Gang]:
    return [event.gang for event in events if isinstance(event, GangArrived)]


def uids(gang: Gang) -> list[str]:
    return [pod.uid for pod in gang.pods]


def job_pod(name: str, index: int | None = None, job: str = "j", **more: Any) -> Pod:
    labels = {"batch.kubernetes.io/job-name": job, "job-name": job}
    if index is not None:
        labels["batch.kubernetes.io/job-completion-index"] = str(index)
    return a_pod(name, labels=labels, owner=("Job", job, f"uid-{job}"), **more)


def a_job(parallelism: int, completions: int | None, mode: str = "Indexed", name: str = "j") -> Workload:
    spec = {"parallelism": parallelism, "completions": completions, "completionMode": mode}
    return a_workload("Job", name, spec)


class TestJobs:
    def test_pods_without_a_number_are_released_one_by_one_as_one_job(self, assembly: Assembly) -> None:
        gangs = [arrivals(assembly.set_pod(job_pod(name), T0))[0] for name in "ab"]
        assert [gang.uid for gang in gangs] == ["uid-a", "uid-b"]
        assert {gang.job for gang in gangs} == {"team/j/uid-j/ann"}
        assert assembly.needs == frozenset(), "nobody has to read the Job for them"

    def test_numbered_pods_start_together(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(3, 3), T0)
        gangs = [arrivals(assembly.set_pod(job_pod(f"p{i}", i), T0))[0] for i in range(3)]
        assert [(gang.uid, len(gang.pods), gang.size) for gang in gangs] == [
            ("team/j/uid-j/ann", 1, 3),
            ("team/j/uid-j/ann", 2, 3),
            ("team/j/uid-j/ann", 3, 3),
        ]
        assert not gangs[0].recreates, "a Job counts a deleted pod as a failure"

    def test_numbered_pods_that_come_in_waves_cannot_need_each_other(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(2, 10), T0)
        (gang,) = arrivals(assembly.set_pod(job_pod("p0", 0), T0))
        assert (gang.uid, gang.job) == ("uid-p0", "team/j/uid-j/ann")

    def test_fewer_completions_than_parallelism_make_a_smaller_gang(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(5, 2), T0)
        (gang,) = arrivals(assembly.set_pod(job_pod("p0", 0), T0))
        assert gang.size == 2

    def test_the_annotation_is_above_the_job(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(8, 8), T0)
        (gang,) = arrivals(assembly.set_pod(job_pod("p0", 0, annotations={"gang-size": "1"}), T0))
        assert gang.uid == "uid-p0"

    def test_a_named_gang_takes_its_size_from_the_job(self, assembly: Assembly) -> None:
        """Without numbers: who names a gang wants it to start together."""
        assembly.set_owner(a_job(4, 4, mode="NonIndexed"), T0)
        (gang,) = arrivals(assembly.set_pod(job_pod("p", annotations={"gang": "mine"}), T0))
        assert (gang.uid, gang.size) == ("team/mine//ann", 4)

    def test_a_scaled_job_changes_its_size_while_it_waits(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(2, 2), T0)
        assembly.set_pod(job_pod("p0", 0), T0)
        (gang,) = arrivals(assembly.set_owner(a_job(3, 3), T0))
        assert (gang.size, uids(gang)) == (3, ["uid-p0"])

    def test_a_suspended_job_takes_its_pods_away(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(2, 2), T0)
        for index in range(2):
            assembly.set_pod(job_pod(f"p{index}", index), T0)
        said = assembly.remove_pod("uid-p0", T0 + 1) + assembly.remove_pod("uid-p1", T0 + 1)
        assert type(said[-1]).__name__ == "GangWithdrawn"
        assert assembly.set_pod(job_pod("q0", 0, created=60), T0 + 60) == []
        assert len(assembly.needs) == 1, "it may be another Job of that name by now"
        (gang,) = arrivals(assembly.set_owner(a_job(2, 2), T0 + 60))
        assert (gang.size, uids(gang)) == (2, ["uid-q0"])

    def test_a_retry_of_a_gang_that_ended_but_for_one_pod_does_not_wait_for_the_others(
        self, assembly: Assembly
    ) -> None:
        assembly.set_owner(a_job(2, 2), T0)
        for index in range(2):
            assembly.set_pod(job_pod(f"p{index}", index), T0)
        for index, phase in enumerate(["Succeeded", "Failed"]):
            assembly.set_pod(job_pod(f"p{index}", index, gated=False, node="n", phase=phase), T0 + 9)
        (gang,) = arrivals(assembly.set_pod(job_pod("q1", 1), T0 + 10))
        assert (gang.uid, gang.size, gang.job) == ("uid-q1", 0, "team/j/uid-j/ann")

    def test_two_retries_of_four_wait_for_each_other(self, assembly: Assembly) -> None:
        assembly.set_owner(a_job(4, 4), T0)
        for index in range(4):
            phase = "Failed" if index > 1 else "Succeeded"
            assembly.set_pod(job_pod(f"p{index}", index), T0)
            assembly.set_pod(job_pod(f"p{index}", index, gated=False, node="n", phase=phase), T0 + 9)
        gangs = [arrivals(assembly.set_pod(job_pod(f"q{index}", index), T0 + 10))[0] for index in (2, 3)]
        assert [(gang.size, len(gang.pods)) for gang in gangs] == [(2, 1), (2, 2)]

    def test_a_job_of_the_same_name_is_another_gang(self, assembly: Assembly) -> None:
        """Pods of the deleted one may still be ending."""
        assembly.set_owner(a_job(1, 1), T0)
        assembly.set_owner(a_job(2, 2), T0)
        assembly.set_pod(job_pod("p0", 0), T0)
        labels = {"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/job-completion-index": "0"}
        pod = a_pod("q0", labels=labels, owner=("Job", "j", "uid-later"))
        assert assembly.set_pod(pod, T0) == []
        assert assembly.needs == {ObjectRef("batch", "Job", "team", "j")}, "the size known is the other Job's"
        meta = {"name": "j", "namespace": "team", "uid": "uid-later"}
        (gang,) = arrivals(assembly.set_owner(a_workload("Job", "j", {"parallelism": 3}, metadata=meta), T0))
        assert (gang.uid, gang.size) == ("team/j/uid-later/ann", 3)


def spark_pod(name: str, role: str, user: str = "ann", **more: Any) -> Pod:
    labels = {"spark-app-selector": "spark-1", "spark-role": role, "spark-app-name": "etl"}
    return a_pod(name, user=user, labels=labels | more.pop("labels", {}), **more)


def driver(**more: Any) -> Pod:
    volume = {"name": "spark-conf-volume-driver", "configMap": {"name": "spark-drv-1-conf-map"}}
    return spark_pod("drv", "driver", **{"volumes": [volume], "serviceAccountName": "spark", **more})


def executor(number: int, user: str = "system:serviceaccount:team:spark", **more: Any) -> Pod:
    owner = ("Pod", "drv", "uid-drv")
    needs = {"requests": {"cpu": "2", "memory": str(int(4 * GIB + 0.4 * GIB))}}
    return spark_pod(f"exec-{number}", "executor", user, owner=owner, **{**needs, **more})


def properties(text: str) -> Workload:
    return a_workload("ConfigMap", "spark-drv-1-conf-map", data={"spark.properties": text})


THREE = properties(
    "#Java properties\n"
    "spark.executor.instances=3\nspark.executor.cores=2\nspark.executor.memory=4g\n"
    "spark.kubernetes.executor.node.selector.disk=ssd\n"
    "spark.executor.resource.gpu.amount=1\nspark.executor.resource.gpu.vendor=nvidia.com\n"
)


class TestSpark:
    def test_the_driver_waits_for_room_for_all_its_executors(self, assembly: Assembly) -> None:
        assert assembly.set_pod(driver(), T0) == []
        assert assembly.needs == {ObjectRef("", "ConfigMap", "team", "spark-drv-1-conf-map")}
        (gang,) = arrivals(assembly.set_owner(THREE, T0))
        assert (gang.uid, uids(gang), gang.size) == ("team/spark-1//ann", ["uid-drv"], 4)
        memory = (4096 + 409) * 2.0**20
        assert [dict(shape.requests) for shape in gang.promised] == 3 * [
            {"cpu": 2.0, "memory": memory, "nvidia.com/gpu": 1.0}
        ]
        assert gang.promised[0].selector == (("disk", "ssd"),)

    def test_the_annotation_is_above_the_properties(self, assembly: Assembly) -> None:
        given = {"gang-size": "3", "executor-requests": "cpu=1,memory=2Gi"}
        (gang,) = arrivals(assembly.set_pod(driver(annotations=given), T0))
        assert gang.size == 3
        assert [dict(shape.requests) for shape in gang.promised] == 2 * [{"cpu": 1.0, "memory": 2 * GIB}]

    def test_a_size_alone_takes_the_shape_from_the_properties(self, assembly: Assembly) -> None:
        assert assembly.set_pod(driver(annotations={"gang-size": "2"}), T0) == []
        (gang,) = arrivals(assembly.set_owner(THREE, T0))
        assert (gang.size, len(gang.promised)) == (2, 1)
        assert dict(gang.promised[0].requests)["cpu"] == 2.0

    def test_an_unknown_shape_is_taken_for_the_drivers_and_that_is_said(self, assembly: Assembly) -> None:
        assembly.set_pod(driver(annotations={"gang-size": "3"}, requests={"cpu": "500m"}), T0)
        (ref,) = assembly.needs
        (gang,) = arrivals(assembly.remove_owner(ref, T0))
        assert [dict(shape.requests) for shape in gang.promised] == 2 * [{"cpu": 0.5}]
        assert "executor-requests" in assembly.take_remarks()[-1].sentence

    def released(self, assembly: Assembly, size: str = "3") -> None:
        given = {"gang-size": size, "executor-requests": "cpu=2"}
        assembly.set_pod(driver(annotations=given), T0)
        assembly.set_pod(driver(annotations=given, gated=False, node="n1", bound=2), T0 + 3)

    def test_executors_join_their_drivers_gang_and_user(self, assembly: Assembly) -> None:
        self.released(assembly)
        (changed,) = assembly.set_pod(executor(1), T0 + 4)
        assert isinstance(changed, GangChanged)
        assert (changed.gang.flow, uids(changed.gang)) == ("ann", ["uid-drv", "uid-exec-1"])

    def test_more_executors_than_at_the_start_wait_their_turn(self, assembly: Assembly) -> None:
        self.released(assembly)
        for number in (1, 2):
            assembly.set_pod(executor(number), T0 + 4)
        (more,) = arrivals(assembly.set_pod(executor(3), T0 + 4))
        assert (more.uid, more.flow, more.job) == ("uid-exec-3", "ann", "team/spark-1//ann")

    def test_an_idle_executor_that_is_deleted_leaves_its_seat(self, assembly: Assembly) -> None:
        self.released(assembly)
        for number in (1, 2):
            assembly.set_pod(executor(number), T0 + 4)
        said = assembly.remove_pod("uid-exec-1", T0 + 64)
        assert said == [PodEnded("team/spark-1//ann", "uid-exec-1", T0 + 64, lost=True)]
        assert isinstance(assembly.set_pod(executor(4), T0 + 70)[0], GangChanged)

    def test_somebody_elses_executor_is_his_own(self, assembly: Assembly) -> None:
        self.released(assembly)
        (gang,) = arrivals(assembly.set_pod(executor(1, user="eve"), T0 + 4))
        assert (gang.uid, gang.flow, gang.job) == ("uid-exec-1", "eve", "team/spark-1//eve")
        assert "charged to eve" in assembly.take_remarks()[-1].sentence

    def test_executors_belong_to_their_driver_whatever_its_gang_is_called(self, assembly: Assembly) -> None:
        given = {"gang": "mine", "gang-size": "2", "executor-requests": "cpu=2"}
        assembly.set_pod(driver(annotations=given), T0)
        assembly.set_pod(driver(annotations=given, gated=False, node="n1", bound=2), T0 + 3)
        (changed,) = assembly.set_pod(executor(1), T0 + 4)
        assert isinstance(changed, GangChanged)
        assert changed.gang.uid == "team/mine//ann"

    @pytest.mark.parametrize("requests", ["cpu", "cpu=-1", "cpu=1,,", "=4", "cpu=lots"])
    def test_absurd_executors_are_complained_of(self, assembly: Assembly, requests: str) -> None:
        given = {"gang-size": "2", "executor-requests": requests}
        assembly.set_pod(driver(annotations=given), T0)
        assembly.set_owner(THREE, T0)
        assert "executor-requests" in assembly.take_remarks()[0].sentence

    def test_a_monstrous_application_costs_nothing_and_is_told_so(self, assembly: Assembly) -> None:
        assembly.set_pod(driver(), T0)
        (gang,) = arrivals(assembly.set_owner(properties("spark.executor.instances=999999\n"), T0))
        assert (gang.size, len(gang.promised)) == (1_000_000, 0)
        assert "at most" in assembly.take_remarks()[-1].sentence
        claimed = driver(annotations={"gang-size": "999999", "executor-requests": "cpu=1"})
        (gang,) = arrivals(assembly.set_pod(claimed, T0))
        assert (gang.size, len(gang.promised)) == (999_999, 0)

    def test_an_executor_waits_until_its_driver_was_seen(self, assembly: Assembly) -> None:
        assert assembly.set_pod(executor(1), T0) == []
        view = assembly.gang_of("uid-exec-1")
        assert view is not None
        assert (view.held, view.why) == (True, "its driver has not been seen")
        given = {"gang-size": "2", "executor-requests": "cpu=2"}
        said = assembly.set_pod(driver(annotations=given, gated=False, node="n1"), T0 + 1)
        assert [pod.uid for pod in said[0].gang.pods] == ["uid-drv", "uid-exec-1"]  # type: ignore[union-attr]

    def test_an_executor_that_is_edited_into_something_else_waits_for_no_driver(
        self, assembly: Assembly
    ) -> None:
        assembly.set_pod(executor(1), T0)
        plain = a_pod("exec-1", user="system:serviceaccount:team:spark", owner=("Pod", "drv", "uid-drv"))
        (gang,) = arrivals(assembly.set_pod(plain, T0 + 1))
        assert gang.uid == "uid-exec-1"
        for event in assembly.set_pod(driver(gated=False, node="n1"), T0 + 2):
            assert "uid-exec-1" not in uids(getattr(event, "gang", replace(gang, pods=())))
        assembly.remove_pod("uid-exec-1", T0 + 3)
        assembly.remove_pod("uid-drv", T0 + 3)
        assert not any(assembly.sizes().values())

    def test_an_executor_whose_driver_is_not_in_the_queue_is_its_makers(self, assembly: Assembly) -> None:
        assembly.set_pod(executor(1), T0)
        notebook = a_pod("drv", gated=False, schedulerName="default-scheduler")
        (gang,) = arrivals(assembly.set_pod(notebook, T0))
        assert (gang.uid, gang.flow) == ("uid-exec-1", "system:serviceaccount:team:spark")

    def test_executors_that_never_came_end_with_their_driver(self, assembly: Assembly) -> None:
        self.released(assembly)
        over = driver(gated=False, node="n1", bound=2, phase="Succeeded", ended=8)
        said = assembly.set_pod(over, T0 + 9)
        assert [type(event) for event in said] == [PodEnded, GangEnded]

    def test_the_operators_driver_takes_its_size_from_the_application(self, assembly: Assembly) -> None:
        labels = {"sparkoperator.k8s.io/app-name": "etl"}
        assembly.set_pod(driver(labels=labels), T0)
        (ref,) = assembly.needs
        assert ref == ObjectRef("sparkoperator.k8s.io", "SparkApplication", "team", "etl")
        spec = {
            "type": "Python",
            "executor": {
                "instances": 2,
                "cores": 3,
                "coreRequest": "2500m",
                "memory": "2g",
                "gpu": {"name": "nvidia.com/gpu", "quantity": 2},
                "nodeSelector": {"zone": "a"},
            },
        }
        (gang,) = arrivals(assembly.set_owner(a_workload("SparkApplication", "etl", spec), T0))
        assert gang.size == 3
        assert dict(gang.promised[0].requests) == {
            "cpu": 2.5,
            "memory": (2048 + 819) * 2.0**20,
            "nvidia.com/gpu": 2.0,
        }

    @pytest.mark.parametrize("below", [(), ("template", "spec")])
    def test_an_applications_executors_go_where_its_taints_and_affinity_let_them(
        self, assembly: Assembly, below: tuple[str, ...]
    ) -> None:
        """On GPU nodes, which are tainted as a rule, they would else be said to fit nowhere."""
        zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        executor: dict[str, Any] = {
            "nodeSelector": {"pool": "gpu"},
            "affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": zones}}},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        }
        for key in reversed(below):
            executor = {key: executor}
        assembly.set_pod(driver(labels={"sparkoperator.k8s.io/app-name": "etl"}), T0)
        (gang,) = arrivals(
            assembly.set_owner(a_workload("SparkApplication", "etl", {"executor": executor}), T0)
        )
        shape = gang.promised[0]
        assert shape.selector == (("pool", "gpu"),)
        assert shape.affinity == ((Requirement("zone", "In", ("a",)),),)
        assert shape.tolerations == (Toleration("nvidia.com/gpu", "Exists"),)

    def test_dynamic_allocation_starts_with_the_larger_of_its_numbers(self, assembly: Assembly) -> None:
        text = (
            "spark.dynamicAllocation.enabled=true\nspark.dynamicAllocation.minExecutors=2\n"
            "spark.dynamicAllocation.initialExecutors=5\n"
        )
        assembly.set_pod(driver(), T0)
        (gang,) = arrivals(assembly.set_owner(properties(text), T0))
        assert gang.size == 6


def mpi_launcher(job: str = "t", **more: Any) -> Pod:
    labels = {"training.kubeflow.org/job-name": job, "training.kubeflow.org/job-role": "launcher"}
    labels["batch.kubernetes.io/job-name"] = f"{job}-launcher"
    return a_pod("launcher", labels=labels, owner=("Job", f"{job}-launcher", "uid-launcher-job"), **more)


def training_pod(name: str, kind: str, job: str = "t") -> Pod:
    labels = {"training.kubeflow.org/job-name": job}
    return a_pod(name, labels=labels, owner=(kind, job, f"uid-{job}"), requests={"nvidia.com/gpu": "8"})


def replicas(**counts: int) -> dict[str, Any]:
    template = {"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}}
    return {role: {"replicas": count, "template": template} for role, count in counts.items()}


class TestOthers:
    def test_a_pytorch_job_starts_with_all_replicas(self, assembly: Assembly) -> None:
        assembly.set_pod(training_pod("m", "PyTorchJob"), T0)
        spec = {"pytorchReplicaSpecs": replicas(Master=1, Worker=3)}
        (gang,) = arrivals(assembly.set_owner(a_workload("PyTorchJob", "t", spec), T0))
        assert (gang.size, gang.recreates) == (4, True)
        assert gang.pods[0].shape.requests == (("nvidia.com/gpu", 8.0),)

    @pytest.mark.parametrize("kind", ["Job", "MXJob"])
    def test_a_pod_of_a_kind_that_may_not_be_read_waits_for_nobody(
        self, kind: str, assembly: Assembly
    ) -> None:
        """A Job's pod that is no launcher; an MXJob is of a kind that the controller has no right to."""
        (gang,) = arrivals(assembly.set_pod(training_pod("m", kind), T0))
        assert [pod.uid for pod in gang.pods] == ["uid-m"]
        assert assembly.needs == frozenset()

    def test_a_scheduling_policy_may_be_content_with_fewer(self, assembly: Assembly) -> None:
        assembly.set_pod(training_pod("m", "PyTorchJob"), T0)
        policy = {"runPolicy": {"schedulingPolicy": {"minAvailable": 2}}}
        spec = {"pytorchReplicaSpecs": replicas(Worker=4), **policy}
        (gang,) = arrivals(assembly.set_owner(a_workload("PyTorchJob", "t", spec), T0))
        assert gang.size == 2

    def test_an_elastic_job_starts_with_its_fewest_workers(self, assembly: Assembly) -> None:
        assembly.set_pod(training_pod("m", "PyTorchJob"), T0)
        spec = {"pytorchReplicaSpecs": replicas(Master=1, Worker=4), "elasticPolicy": {"minReplicas": 2}}
        (gang,) = arrivals(assembly.set_owner(a_workload("PyTorchJob", "t", spec), T0))
        assert gang.size == 3

    def test_a_launcher_starts_with_its_workers(self, assembly: Assembly) -> None:
        """Its pod is made by a Job of the operator, at the start as the workers are by default."""
        for pod in (training_pod("w0", "MPIJob"), mpi_launcher(), training_pod("w1", "MPIJob")):
            assert assembly.set_pod(pod, T0) == []
        assert assembly.needs == {ObjectRef("kubeflow.org", "MPIJob", "team", "t")}
        spec = {"mpiReplicaSpecs": replicas(Launcher=1, Worker=2)}
        (gang,) = arrivals(assembly.set_owner(a_workload("MPIJob", "t", spec), T0))
        assert (gang.uid, gang.size, sorted(uids(gang))) == (
            "team/t//ann",
            3,
            ["uid-launcher", "uid-w0", "uid-w1"],
        )

    def test_a_launcher_that_was_promised_takes_the_room_kept_for_it(self, assembly: Assembly) -> None:
        spec = {
            "mpiReplicaSpecs": replicas(Launcher=1, Worker=1),
            "launcherCreationPolicy": "WaitForWorkersReady",
        }
        assembly.set_pod(training_pod("w0", "MPIJob"), T0)
        assembly.set_owner(a_workload("MPIJob", "t", spec), T0)
        (gang,) = arrivals(assembly.set_pod(mpi_launcher(), T0))
        assert (sorted(uids(gang)), gang.promised) == (["uid-launcher", "uid-w0"], ())

    def test_a_launcher_that_comes_after_its_workers_is_promised(self, assembly: Assembly) -> None:
        for number in range(2):
            assembly.set_pod(training_pod(f"w{number}", "MPIJob"), T0)
        spec = {
            "mpiReplicaSpecs": replicas(Launcher=1, Worker=2),
            "launcherCreationPolicy": "WaitForWorkersReady",
        }
        (gang,) = arrivals(assembly.set_owner(a_workload("MPIJob", "t", spec), T0))
        assert (len(gang.pods), gang.size) == (2, 3)
        assert [shape.requests for shape in gang.promised] == [(("cpu", 1.0),)]

    def test_a_ray_cluster_starts_with_head_and_workers(self, assembly: Assembly) -> None:
        pod = a_pod("h", labels={"ray.io/cluster": "r"}, owner=("RayCluster", "r", "uid-r"))
        assembly.set_pod(pod, T0)
        spec = {"workerGroupSpecs": [{"replicas": 2}, {"replicas": 1, "numOfHosts": 2}]}
        (gang,) = arrivals(assembly.set_owner(a_workload("RayCluster", "r", spec), T0))
        assert gang.size == 5

    def test_a_ray_autoscaler_starts_with_the_fewest(self, assembly: Assembly) -> None:
        pod = a_pod("h", labels={"ray.io/cluster": "r"}, owner=("RayCluster", "r", "uid-r"))
        assembly.set_pod(pod, T0)
        spec = {"enableInTreeAutoscaling": True, "workerGroupSpecs": [{"replicas": 4, "minReplicas": 1}]}
        (gang,) = arrivals(assembly.set_owner(a_workload("RayCluster", "r", spec), T0))
        assert gang.size == 2

    def jobset(self, **policy: Any) -> Workload:
        template = {"spec": {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}}
        jobs = [
            {"name": "lead", "replicas": 1, "template": {"spec": {"template": template}}},
            {
                "name": "work",
                "replicas": 2,
                "template": {"spec": {"parallelism": 3, "completions": 3, "template": template}},
            },
        ]
        return a_workload("JobSet", "s", {"replicatedJobs": jobs, **policy})

    def test_all_jobs_of_a_jobset_are_one_gang(self, assembly: Assembly) -> None:
        labels = {"jobset.sigs.k8s.io/jobset-name": "s", "batch.kubernetes.io/job-name": "s-lead-0"}
        assembly.set_pod(a_pod("p", labels=labels, owner=("Job", "s-lead-0", "u1")), T0)
        (gang,) = arrivals(assembly.set_owner(self.jobset(), T0))
        assert (gang.uid, gang.size, gang.promised) == ("team/s//ann", 7, ())

    def test_a_restarted_jobset_is_a_gang_of_its_own(self, assembly: Assembly) -> None:
        """Pods of the attempt before may still be there when it begins."""

        def pod(attempt: str) -> Pod:
            marks = {"jobset.sigs.k8s.io/jobset-uid": "u", "jobset.sigs.k8s.io/restart-attempt": attempt}
            labels = {"jobset.sigs.k8s.io/jobset-name": "s", **marks}
            return a_pod(f"p{attempt}", labels=labels, owner=("Job", "s-lead-0", f"u{attempt}"))

        assembly.set_owner(self.jobset(), T0)
        gangs = [arrivals(assembly.set_pod(pod(attempt), T0))[0] for attempt in "01"]
        assert [(gang.uid, len(gang.pods)) for gang in gangs] == [
            ("team/s/u~0/ann", 1),
            ("team/s/u~1/ann", 1),
        ]

    def test_jobs_that_start_in_order_are_promised(self, assembly: Assembly) -> None:
        """Waiting for pods that are made only when the first ones run would be waiting for ever."""
        labels = {"jobset.sigs.k8s.io/jobset-name": "s", "batch.kubernetes.io/job-name": "s-lead-0"}
        assembly.set_pod(a_pod("p", labels=labels, owner=("Job", "s-lead-0", "u1")), T0)
        in_order = {"startupPolicy": {"startupPolicyOrder": "InOrder"}}
        (gang,) = arrivals(assembly.set_owner(self.jobset(**in_order), T0))
        assert (len(gang.pods), len(gang.promised), gang.size) == (1, 6, 7)
        assert gang.promised[0].requests == (("cpu", 2.0),)

    @pytest.mark.parametrize(
        ("pod", "api", "spec"),
        [
            (
                {"labels": {"scheduling.x-k8s.io/pod-group": "g"}},
                "scheduling.x-k8s.io/v1alpha1",
                {"minMember": 3},
            ),
            (
                {"annotations": {"scheduling.k8s.io/group-name": "g"}},
                "scheduling.volcano.sh/v1beta1",
                {"minMember": 3},
            ),
            (
                {"schedulingGroup": {"podGroupName": "g"}},
                "scheduling.k8s.io/v1beta1",
                {"schedulingPolicy": {"gang": {"minCount": 3}}},
            ),
        ],
    )
    def test_pod_groups_give_the_fewest_pods_that_start_together(
        self, assembly: Assembly, pod: dict[str, Any], api: str, spec: dict[str, Any]
    ) -> None:
        assert assembly.set_pod(a_pod("a", **pod), T0) == []
        (gang,) = arrivals(assembly.set_owner(a_workload("PodGroup", "g", spec, apiVersion=api), T0))
        assert (gang.uid, gang.size) == ("team/g//ann", 3)

    def test_a_basic_pod_group_is_no_gang(self, assembly: Assembly) -> None:
        assembly.set_pod(a_pod("a", schedulingGroup={"podGroupName": "g"}), T0)
        group = a_workload(
            "PodGroup", "g", {"schedulingPolicy": {"basic": {}}}, apiVersion="scheduling.k8s.io/v1beta1"
        )
        (gang,) = arrivals(assembly.set_owner(group, T0))
        assert (gang.uid, gang.job) == ("uid-a", "team/g//ann")

    @pytest.mark.parametrize(
        "kind", ["Job", "JobSet", "RayCluster", "PyTorchJob", "SparkApplication", "PodGroup", "?"]
    )
    @pytest.mark.parametrize(
        "spec",
        [
            None,
            {},
            {"parallelism": "two", "minMember": -1, "executor": 3},
            {"replicatedJobs": [7, {"replicas": []}], "parallelism": 10**12},
            {"workerGroupSpecs": {"a": 1}, "pytorchReplicaSpecs": [1], "sparkConf": "x"},
        ],
    )
    def test_absurd_objects_never_raise(
        self, assembly: Assembly, kind: str, spec: dict[str, Any] | None
    ) -> None:
        assert assembly.set_owner(a_workload(kind, "x", spec), T0) == []
