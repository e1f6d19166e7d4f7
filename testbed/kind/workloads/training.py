"""c. Distributed training (PyTorch DDP over gloo) on nodes that say they have GPUs, in three dresses.

An Indexed Job is made by Kubernetes itself. For a JobSet and a PyTorchJob no operator runs here: a
stand-in makes what the operator would make of the user's object (child Jobs, pods, labels, owner), by
the operator's name; admission, queue, scheduler, kubelet and the training do not know the difference.
"""

from __future__ import annotations

import json
from typing import Any

from testbed.kind.images import JOBS
from testbed.kind.workloads.figures import Object
from testbed.kind.workloads.ground import GPU, Ground
from testbed.kind.workloads.journal import Life, Unmet

RANKS = 3
STEPS = 400
LEARNT = 0.8
"""Part of the first loss that is left at most."""
PORT = 29500
TRAINED_S_MAX = 300.0
JOBSET_CONTROLLER = "system:serviceaccount:jobset-system:jobset-controller-manager"
TRAINING_OPERATOR = "system:serviceaccount:kubeflow:training-operator"


async def run(ground: Ground) -> None:
    """Three gangs of three GPUs on six GPUs: two run at once, the third waits as a whole."""
    await prepare(ground)
    alice, bob, carol = [await ground.person(name) for name in ("alice", "bob", "carol")]
    image = ground.cluster.images.allreduce
    await ground.apply(indexed_job(image), by=alice)
    await ground.apply([*surroundings("set"), jobset(image)], by=bob)
    await ground.apply([*surroundings("torch"), pytorchjob(image)], by=carol)
    await stand_in_for_jobset(ground, bob.namespace)
    await stand_in_for_pytorchjob(ground, carol.namespace)
    for who in (alice, bob, carol):
        pods = await ground.all_ended(who.namespace, RANKS, TRAINED_S_MAX)
        ground.stamped(pods, who.name)
        ground.together(pods)
        ground.see(f"{who.name}'s gang of {len(pods)} was released at once; {trained(pods)}")
    _never_above(ground, [who.namespace for who in (alice, bob, carol)])


async def prepare(ground: Ground) -> None:
    """The training's image on the workers, GPUs, and the kinds of the operators."""
    image = ground.cluster.images.allreduce
    await ground.load(image)
    await ground.operated([jobset(image), pytorchjob(image)])
    await ground.gpus()


def trained(pods: list[Life]) -> str:
    """What the ranks said; raises `Unmet` unless all learnt, and ended with the same weights."""
    told = sorted((said(life) for life in pods), key=lambda one: int(one["rank"]))
    if [one["rank"] for one in told] != list(range(len(pods))):
        raise Unmet(f"ranks {[one['rank'] for one in told]} of {len(pods)}")
    if len({one["weight"] for one in told}) != 1:
        raise Unmet(f"the ranks ended with different weights: {told}")
    if any(one["last"] > LEARNT * one["first"] for one in told):
        raise Unmet(f"the loss did not fall: {told}")
    first, last, seconds = told[0]["first"], told[0]["last"], max(one["seconds"] for one in told)
    return f"loss {first:.2f} to {last:.2f} in {seconds:.1f} s, the same weights on every rank"


def said(life: Life) -> Any:
    """The JSON of a pod's termination message."""
    states = [one["state"]["terminated"] for one in life.pod["status"]["containerStatuses"]]
    return json.loads(states[0]["message"])


def _never_above(ground: Ground, namespaces: list[str]) -> None:
    """Nine GPUs were asked for where six are: at least one gang has waited for another's end."""
    pods = [life for namespace in namespaces for life in ground.journal.pods(namespace)]
    running = [life.pod["status"]["containerStatuses"][0]["state"]["terminated"] for life in pods]
    spans = [(one["startedAt"], one["finishedAt"]) for one in running]
    most = max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans)
    ground.expect(
        most <= 2 * RANKS,
        f"at most {most} of 9 GPU pods ran at once, on 6 GPUs",
        f"{most} GPU pods ran at once, where there are 6 GPUs",
    )


def surroundings(name: str) -> list[Object]:
    """The training's source, and the service by which ranks find rank 0."""
    source = (JOBS / "ddp" / "train.py").read_text()
    selector = {"fairlane-e2e/ring": name}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "ddp"},
            "data": {"train.py": source},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
        },
    ]


def template(image: str, ring: str, env: dict[str, str], job_class: str, steps: int = STEPS) -> Object:
    """The pod template of a rank."""
    given = {
        "WORLD_SIZE": str(RANKS),
        "MASTER_PORT": str(PORT),
        "STEPS": str(steps),
        "GLOO_SOCKET_IFNAME": "eth0",
    }
    container = {
        "name": "pytorch",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["/ddp/train.py"],
        "env": [{"name": key, "value": value} for key, value in (given | env).items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "ddp", "mountPath": "/ddp"}],
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi", GPU: "1"}, "limits": {GPU: "1"}},
    }
    annotations = {"fairlane.dev/framework": "torch", "fairlane.dev/job-class": job_class}
    return {
        "metadata": {"annotations": annotations, "labels": {"fairlane-e2e/ring": ring}},
        "spec": {
            "schedulerName": "fairlane",
            "restartPolicy": "Never",
            "subdomain": ring,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "ddp", "configMap": {"name": "ddp"}}],
        },
    }


def indexed_job(image: str, name: str = "ddp", steps: int = STEPS) -> list[Object]:
    """An Indexed Job whose ranks are its indexes."""
    env = {"MASTER_ADDR": f"{name}-0.{name}"}
    spec = {
        "completions": RANKS,
        "parallelism": RANKS,
        "completionMode": "Indexed",
        "backoffLimit": 6,
        "template": template(image, name, env, "ddp-job", steps),
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    return [*surroundings(name), job]


def jobset(image: str) -> Object:
    """A JobSet of one leader and two workers."""
    env = {"MASTER_ADDR": "set-leader-0-0.set"}

    def replicated(name: str, pods: int, first_rank: int) -> Object:
        inner = template(image, "set", env | {"FIRST_RANK": str(first_rank)}, "ddp-jobset")
        spec = {"parallelism": pods, "completions": pods, "completionMode": "Indexed", "template": inner}
        return {"name": name, "replicas": 1, "template": {"spec": spec}}

    jobs = [replicated("leader", 1, 0), replicated("workers", RANKS - 1, 1)]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "set"},
        "spec": {"replicatedJobs": jobs},
    }


def pytorchjob(image: str) -> Object:
    """A PyTorchJob of one master and two workers."""
    replicas = {"Master": 1, "Worker": RANKS - 1}
    specs = {
        kind: {"replicas": count, "template": template(image, "torch", {}, "ddp-pytorchjob")}
        for kind, count in replicas.items()
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "torch"},
        "spec": {"pytorchReplicaSpecs": specs},
    }


async def stand_in_for_jobset(ground: Ground, namespace: str) -> None:
    """The child Jobs that the JobSet controller would make; Kubernetes makes the pods."""
    found = await ground.read("jobset", "set", "-n", namespace)
    jobs = []
    for replicated in found["spec"]["replicatedJobs"]:
        labels = {
            "jobset.sigs.k8s.io/jobset-name": "set",
            "jobset.sigs.k8s.io/jobset-uid": found["metadata"]["uid"],
            "jobset.sigs.k8s.io/replicatedjob-name": replicated["name"],
            "jobset.sigs.k8s.io/job-index": "0",
            "jobset.sigs.k8s.io/restart-attempt": "0",
        }
        spec = replicated["template"]["spec"]
        spec["template"]["metadata"]["labels"] |= labels
        name = f"set-{replicated['name']}-0"
        metadata = {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [_owner(found)],
        }
        jobs.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    await ground.apply(jobs, like=JOBSET_CONTROLLER)


async def stand_in_for_pytorchjob(ground: Ground, namespace: str) -> None:
    """The pods that the training operator would make."""
    found = await ground.read("pytorchjob", "torch", "-n", namespace)
    pods = []
    for kind, replica in found["spec"]["pytorchReplicaSpecs"].items():
        for index in range(replica["replicas"]):
            pods.append(_replica(found, kind.lower(), index, replica["template"]))
    await ground.apply(pods, like=TRAINING_OPERATOR)


def _replica(job: Object, kind: str, index: int, template_of_kind: Object) -> Object:
    labels = {
        **template_of_kind["metadata"]["labels"],
        "training.kubeflow.org/job-name": "torch",
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/replica-type": kind,
        "training.kubeflow.org/replica-index": str(index),
    }
    name = f"torch-{kind}-{index}"
    metadata = {
        "name": name,
        "namespace": job["metadata"]["namespace"],
        "labels": labels,
        "annotations": template_of_kind["metadata"]["annotations"],
        "ownerReferences": [_owner(job)],
    }
    (container,) = template_of_kind["spec"]["containers"]
    rank = 0 if kind == "master" else index + 1
    env = [{"name": "RANK", "value": str(rank)}, {"name": "MASTER_ADDR", "value": "torch-master-0.torch"}]
    spec = {
        **template_of_kind["spec"],
        "hostname": name,
        "containers": [{**container, "env": [*container["env"], *env]}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _owner(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
