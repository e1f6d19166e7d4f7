"""A Spark shuffle in cluster mode, submitted from a pod: no Java is needed on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.kind.jobs import DEFAULT, HOSTNAME, NAMESPACE, Manifest, Place, pod

PAIR_LABEL = "fairlane.dev/e2e-pair"
"""Label of the nodes that executors of a measured pair may use."""
EXECUTORS = 2
ROW_BYTES = 1030
"""About what one row of the shuffle job is on the wire."""


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Two executors exchange `rows` rows; the driver is on the driver's node."""

    image: str
    driver_node: str
    rows: int
    partitions: int = 4

    @property
    def shuffle_bytes(self) -> int:
        """Bytes that change executors: of two, half of the rows have to move."""
        return self.rows * ROW_BYTES // 2

    def submission(self, gang: str, scheduler: str, in_pair: bool = False) -> Manifest:
        """The pod that runs `spark-submit`; `scheduler` places the executors.

        `in_pair` is for the truth: executors run on the labelled nodes only, without hints.
        """
        words = ["/opt/spark/bin/spark-submit", "--deploy-mode", "cluster", "--name", gang]
        words += ["--master", "k8s://https://kubernetes.default.svc:443"]
        for key, value in self._conf(gang, scheduler, in_pair).items():
            words += ["--conf", f"{key}={value}"]
        words += ["local:///opt/jobs/shuffle.py", str(self.rows), str(self.partitions)]
        manifest = pod(f"{gang}-submit", self.image, words, {}, {}, Place(node=self.driver_node))
        spec = manifest["spec"]
        spec |= {"serviceAccountName": "spark", "automountServiceAccountToken": True}
        spec["volumes"] = [{"name": "pods", "configMap": {"name": "spark-pods"}}]
        spec["containers"][0]["volumeMounts"] = [{"name": "pods", "mountPath": "/etc/spark-pods"}]
        return manifest

    def _conf(self, gang: str, scheduler: str, in_pair: bool) -> Mapping[str, str]:
        kubernetes = {
            "namespace": NAMESPACE,
            "authenticate.driver.serviceAccountName": "spark",
            "container.image": self.image,
            "container.image.pullPolicy": "IfNotPresent",
            "submission.waitAppCompletion": "false",
            "driver.pod.name": f"{gang}-driver",
            "driver.scheduler.name": DEFAULT,
            f"driver.node.selector.{HOSTNAME}": self.driver_node,
            "driver.podTemplateFile": "/etc/spark-pods/driver.yaml",
            "driver.request.cores": "0.1",
            "executor.scheduler.name": scheduler,
            "executor.podTemplateFile": "/etc/spark-pods/executor.yaml",
            "executor.request.cores": "0.1",
            # pods that have ended are read by the recorder before they go
            "executor.deleteOnTermination": "false",
        }
        if not in_pair:
            kubernetes |= self._annotations("driver", gang) | self._annotations("executor", gang)
        else:
            kubernetes[f"executor.node.selector.{PAIR_LABEL}"] = "yes"
        conf = {f"spark.kubernetes.{key}": value for key, value in kubernetes.items()}
        return conf | {
            "spark.executor.instances": str(EXECUTORS),
            "spark.executor.cores": "1",
            "spark.executor.memory": "500m",
            "spark.driver.memory": "500m",
            "spark.sql.adaptive.enabled": "false",
            "spark.shuffle.compress": "false",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        }

    def _annotations(self, role: str, gang: str) -> dict[str, str]:
        hints = {
            "job-class": "spark-shuffle" if role == "executor" else "spark-driver",
            "user": "e2e",
            "framework": "spark",
            "gang": gang,
            "gang-size": "3",
            "shuffle-bytes": str(self.shuffle_bytes),
        }
        return {f"{role}.annotation.fairlane.dev/{key}": value for key, value in hints.items()}
