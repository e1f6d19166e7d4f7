"""The job mix of the demo: what users submit, and what the emulated world makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from testbed.physics.jobs import JobSpec
from testbed.physics.process import JOB_ANNOTATION, TRUTH_ANNOTATION

IMAGE = "fairlane.local/job:1"
CPU_REQUEST = "2"


@dataclass(frozen=True, slots=True)
class JobClass:
    """One recurring kind of job; sizes vary from run to run by `spread`."""

    name: str
    framework: str
    user: str
    typical: JobSpec
    spread: float = 0.3


CLASSES: tuple[JobClass, ...] = (
    JobClass("etl-copy", "batch", "ana", JobSpec(input_bytes=1.5e9, cpu_s=0.5, rounds=10)),
    JobClass("spark-sessions", "spark", "ana", JobSpec(input_bytes=0.6e9, cpu_s=1.0, rounds=75)),
    JobClass("spark-features", "spark", "ben", JobSpec(input_bytes=1.0e9, cpu_s=1.5, rounds=20)),
    JobClass("train-small", "torch", "cho", JobSpec(input_bytes=0.1e9, cpu_s=3.0, rounds=20)),
)


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One submission: its class, its true behaviour and the store that holds its input."""

    job_class: JobClass
    spec: JobSpec


def draw(rng: np.random.Generator, count: int, stores: Sequence[str]) -> list[DemoJob]:
    """`count` jobs in random order, every class equally often, each reading from a random store."""
    jobs = []
    for number in range(count):
        job_class = CLASSES[number % len(CLASSES)]
        size = float(np.exp(rng.normal(0, job_class.spread)))
        typical = job_class.typical
        spec = replace(
            typical,
            input_bytes=typical.input_bytes * size,
            cpu_s=typical.cpu_s * float(np.exp(rng.normal(0, 0.1))),
            data_node=str(rng.choice(stores)),
        )
        jobs.append(DemoJob(job_class, spec))
    return [jobs[i] for i in rng.permutation(count)]


def manifest(job: DemoJob, name: str, namespace: str, scheduler: str, truth: bool) -> Mapping[str, object]:
    """The pod that a user would submit; only the testbed's own annotations tell what it truly does."""
    annotations = {
        "fairlane.dev/job-class": job.job_class.name,
        "fairlane.dev/framework": job.job_class.framework,
        "fairlane.dev/user": job.job_class.user,
        "fairlane.dev/input-bytes": str(int(job.spec.input_bytes)),
        "fairlane.dev/data-nodes": job.spec.data_node,
        JOB_ANNOTATION: json.dumps(asdict(job.spec)),
        TRUTH_ANNOTATION: "true" if truth else "false",
    }
    requests = {"cpu": CPU_REQUEST, "memory": "1Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {
            "schedulerName": scheduler,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "job", "image": IMAGE, "resources": {"requests": requests}}],
        },
    }
