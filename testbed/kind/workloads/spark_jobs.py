"""a. and b. Spark in cluster mode: by `spark-submit`, and by what the Spark operator makes of its object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from testbed.kind.links import Link, Links
from testbed.kind.workloads.examples import example
from testbed.kind.workloads.figures import Object, is_gated, times_of
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Life, Unmet
from testbed.kind.workloads.people import Person

OPERATOR = "spark-operator"
OPERATOR_ACCOUNT = "spark-operator-controller"
SHUFFLE = "/opt/jobs/shuffle.py"
ROWS, PARTITIONS = 60_000, 12
EXECUTORS = 2
EXECUTOR_CPU = "1200m"
"""One fits on a worker, and three workers there are: two gangs of a driver and two executors do not fit."""
MBIT, DELAY_MS = 200, 2
DRIVER_S_MAX = 180.0
APP_S_MAX = 400.0
TOLERANCE_S = 2.0
"""Kubernetes writes the times of containers in whole seconds."""


async def submitted(ground: Ground) -> None:
    """a. Two users; the second one's driver waits behind its gate until its executors fit as well."""
    await ground.load(ground.cluster.images.spark)
    links = Links(ground.cluster)
    await ground.in_thread(links.install)
    try:
        state = {node: Link(MBIT, MBIT, 0, DELAY_MS) for node in ground.cluster.workers}
        await ground.in_thread(lambda: links.apply(state))
        ground.see(f"links of the workers: {MBIT} Mbit/s, {DELAY_MS} ms")
        await _two_users(ground)
    finally:
        await ground.in_thread(links.remove)


async def _two_users(ground: Ground) -> None:
    alice, bob = [await ground.person(name) for name in ("alice", "bob")]
    for who in (alice, bob):
        conf = _common(ground, who.namespace, f"{who.name}-etl") | DYNAMIC
        await ground.apply([_certificate(who), _submission(ground, who, conf)], by=who)
        await _driver(ground, who.namespace)
    drivers = [(await _ended(ground, who), who) for who in (alice, bob)]
    (_, first), (second, _) = sorted(drivers, key=lambda one: times_of(one[0].pod).released_s or 0.0)
    _waited_for_its_gang(ground, second, first.namespace)
    for who in (alice, bob):
        _dynamic(ground, who)


def _waited_for_its_gang(ground: Ground, second: Life, namespace: str) -> None:
    """The second driver was let go when an executor of the first application had ended, and not before."""
    ends = [times_of(life.pod).ended_s for life in _executors(ground, namespace)]
    freed_s = min((end for end in ends if end is not None), default=None)
    released_s = times_of(second.pod).released_s
    if freed_s is None or released_s is None:
        raise Unmet("it is not known when executors ended")
    ground.expect(
        released_s >= freed_s - TOLERANCE_S,
        f"{second.name} waited {times_of(second.pod).queued_s:.0f} s, until executors of the other had ended",
        f"{second.name} was released {freed_s - released_s:.0f} s before there was room for its executors",
    )


def _dynamic(ground: Ground, who: Person) -> None:
    """More executors were asked for than the application began with, each a gang of its own."""
    executors = _executors(ground, who.namespace)
    ran = [life for life in executors if times_of(life.pod).started_s is not None]
    nodes = {life.pod["spec"].get("nodeName", "") for life in ran}
    ground.expect(
        len(executors) > EXECUTORS,
        f"{who.name}'s application asked for {len(executors)} executors, {EXECUTORS} of them at first; "
        f"{len(ran)} ran, on {len(nodes)} nodes",
        f"{who.name}'s application never asked for more than its first {len(executors)} executors",
    )


async def operated(ground: Ground) -> None:
    """b. The SparkApplication of docs/opting-in.md; its driver is made by the operator's name."""
    await ground.load(ground.cluster.images.spark)
    await ground.operated([_application(ground)])
    carol = await ground.person("carol")
    await ground.apply([_application(ground)], by=carol)
    found = await ground.read("sparkapplication", "etl", "-n", carol.namespace)
    stamp = found["spec"]["driver"].get("annotations", {}).get("fairlane.dev/user")
    ground.expect(
        stamp == carol.name,
        "the SparkApplication's driver is stamped as carol's",
        f"the SparkApplication's driver is stamped as {stamp!r}'s",
    )
    ground.see("no operator runs here: a stand-in submits by its name what it would submit of the object")
    await _stand_in(ground, found)
    driver = await _ended(ground, carol)
    executors = _executors(ground, carol.namespace)
    ground.expect(
        len(executors) >= EXECUTORS, f"{len(executors)} executors", f"only {len(executors)} executors"
    )
    if driver.label("sparkoperator.k8s.io/app-name") != "etl":
        raise Unmet("the driver does not carry the operator's label")


def _application(ground: Ground) -> Object:
    """That of the page, with our image and job, and with the sizes of this cluster."""
    found = example("spark-application.yaml")
    spec = found["spec"]
    spec.pop("mainClass")
    spec |= {
        "type": "Python",
        "image": ground.cluster.images.spark,
        "mainApplicationFile": f"local://{SHUFFLE}",
        "arguments": [str(ROWS), str(PARTITIONS)],
    }
    spec["driver"] |= {"coreRequest": "300m", "memory": "500m"}
    spec["executor"] |= {"instances": EXECUTORS, "cores": 1, "coreRequest": EXECUTOR_CPU, "memory": "500m"}
    return found


async def _stand_in(ground: Ground, application: Object) -> None:
    """Submit as the operator does: its service account, its labels, the driver's own annotations."""
    meta, spec = application["metadata"], application["spec"]
    driver, executor = spec["driver"], spec["executor"]
    conf = _common(ground, meta["namespace"], meta["name"])
    labels = {"app-name": meta["name"], "launched-by-spark-operator": "true", "submission-id": meta["uid"]}
    for role in ("driver", "executor"):
        conf |= {f"spark.kubernetes.{role}.label.sparkoperator.k8s.io/{k}": v for k, v in labels.items()}
    conf |= {
        f"spark.kubernetes.driver.annotation.{key}": value for key, value in driver["annotations"].items()
    }
    conf |= {
        "spark.kubernetes.driver.scheduler.name": driver["schedulerName"],
        "spark.kubernetes.executor.scheduler.name": executor["schedulerName"],
        "spark.kubernetes.authenticate.driver.serviceAccountName": driver["serviceAccount"],
        "spark.kubernetes.driver.request.cores": driver["coreRequest"],
        "spark.driver.memory": driver["memory"],
        "spark.executor.instances": str(executor["instances"]),
        "spark.executor.cores": str(executor["cores"]),
        "spark.kubernetes.executor.request.cores": executor["coreRequest"],
        "spark.executor.memory": executor["memory"],
    }
    words = _words(conf, [spec["mainApplicationFile"], *spec["arguments"]])
    pod = _pod(f"submit-{meta['namespace']}", ground, words)
    pod["metadata"]["namespace"] = OPERATOR
    pod["spec"]["serviceAccountName"] = OPERATOR_ACCOUNT
    await ground.apply([pod])
    try:
        await _driver(ground, meta["namespace"], by=OPERATOR)
        await ground.journal.until(
            lambda: all(life.ended for life in ground.journal.pods(OPERATOR)),
            DRIVER_S_MAX,
            lambda: f"the submission does not end: {ground.states(OPERATOR)}",
        )
    finally:
        await ground.kubectl("-n", OPERATOR, "delete", "pod", pod["metadata"]["name"])


async def _driver(ground: Ground, namespace: str, by: str = "") -> Life:
    """The driver, as soon as it is there; submitted from a pod in namespace `by`, else in its own."""
    submissions = by or namespace

    def found() -> list[Life]:
        return ground.journal.pods(namespace, "spark-role", "driver")

    def failed() -> bool:
        return any(life.phase == "Failed" and not life.gone for life in ground.journal.pods(submissions))

    def none() -> str:
        return f"no driver was made: {ground.states(submissions)}"

    await ground.journal.until(lambda: bool(found()) or failed(), DRIVER_S_MAX, none)
    if not found():
        raise Unmet(none())
    (driver,) = found()
    if not is_gated(driver.pod) and not driver.was_gated:
        raise Unmet(f"{driver.name} was made without our gate")
    return driver


async def _ended(ground: Ground, who: Person) -> Life:
    """The user's driver when it has ended well."""
    driver = await _driver(ground, who.namespace)

    def still() -> str:
        return f"{driver.name} did not end: {ground.states(who.namespace)}"

    await ground.journal.until(lambda: driver.ended, APP_S_MAX, still)
    if driver.phase != "Succeeded":
        raise Unmet(f"{driver.name} ended as {driver.phase}")
    ground.stamped([driver], who.name)
    said = driver.pod["status"]["containerStatuses"][0]["state"]["terminated"].get("message", "")
    told: Any = json.loads(said)
    ground.see(f"{driver.name} shuffled {told['rows']:,} rows in {told['seconds']:.1f} s")
    return driver


def _executors(ground: Ground, namespace: str) -> list[Life]:
    return ground.journal.pods(namespace, "spark-role", "executor")


DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.initialExecutors": str(EXECUTORS),
    "spark.dynamicAllocation.minExecutors": "1",
    "spark.dynamicAllocation.maxExecutors": str(EXECUTORS + 1),
    "spark.dynamicAllocation.schedulerBacklogTimeout": "1s",
    "spark.dynamicAllocation.executorIdleTimeout": "20s",
}


def _common(ground: Ground, namespace: str, name: str) -> dict[str, str]:
    kubernetes = {
        "namespace": namespace,
        "scheduler.name": "fairlane",
        "authenticate.driver.serviceAccountName": "spark",
        "container.image": ground.cluster.images.spark,
        "container.image.pullPolicy": "IfNotPresent",
        "submission.waitAppCompletion": "false",
        "driver.pod.name": f"{name}-driver",
        "driver.request.cores": "300m",
        "executor.request.cores": EXECUTOR_CPU,
        "executor.deleteOnTermination": "false",  # so that their ends are seen
    }
    return {f"spark.kubernetes.{key}": value for key, value in kubernetes.items()} | {
        "spark.app.name": name,
        "spark.executor.instances": str(EXECUTORS),
        "spark.executor.cores": "1",
        "spark.executor.memory": "500m",
        "spark.driver.memory": "500m",
        "spark.sql.adaptive.enabled": "false",
        "spark.shuffle.compress": "false",
    }


def _words(conf: Mapping[str, str], job: list[str]) -> list[str]:
    words = ["/opt/spark/bin/spark-submit", "--deploy-mode", "cluster"]
    words += ["--master", "k8s://https://kubernetes.default.svc:443"]
    for key, value in conf.items():
        words += ["--conf", f"{key}={value}"]
    return [*words, *job]


def _submission(ground: Ground, who: Person, conf: Mapping[str, str]) -> Object:
    """The pod in which the user runs `spark-submit`, by his own certificate: there is no Java outside."""
    files = {"clientKeyFile": "/mine/tls.key", "clientCertFile": "/mine/tls.crt", "caCertFile": "/ca/ca.crt"}
    own = {f"spark.kubernetes.authenticate.submission.{key}": file for key, file in files.items()}
    job = [f"local://{SHUFFLE}", str(ROWS), str(PARTITIONS)]
    pod = _pod(f"submit-{who.name}", ground, _words({**conf, **own}, job))
    spec = pod["spec"] | {"automountServiceAccountToken": False}
    spec["volumes"] = [
        {"name": "mine", "secret": {"secretName": "certificate"}},
        {"name": "ca", "configMap": {"name": "kube-root-ca.crt"}},
    ]
    mounts = [{"name": "mine", "mountPath": "/mine"}, {"name": "ca", "mountPath": "/ca"}]
    spec["containers"][0]["volumeMounts"] = mounts
    return {**pod, "spec": spec}


def _certificate(who: Person) -> Object:
    data = {"tls.key": who.key.read_text(), "tls.crt": who.certificate.read_text()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificate"}, "stringData": data}


def _pod(name: str, ground: Ground, words: list[str]) -> Object:
    """A pod on the control plane that is not ours to queue."""
    container = {
        "name": "submit",
        "image": ground.cluster.images.spark,
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "args": words,
        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
    }
    spec = {
        "restartPolicy": "Never",
        "nodeSelector": {"kubernetes.io/hostname": ground.cluster.control_plane},
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
