"""The command line of every process of a testbed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from testbed.configuration import (
    CONTROL_PLANE_ENVIRONMENT,
    SCHEDULER_ENVIRONMENT,
    SCHEDULER_FLAGS,
    stages_file,
)
from testbed.control import Spec
from testbed.layout import Layout, Options

LOOPBACK = "127.0.0.1"
CONTROLLERS = (
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "job-controller",
    "cronjob-controller",
    "replicaset-controller",
    "deployment-controller",
    "statefulset-controller",
    "daemonset-controller",
    "disruption-controller",
    "resourcequota-controller",
    "pod-garbage-collector-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "ttl-after-finished-controller",
)
"""Controllers that a pod, a job or a node would meet in a real cluster.

Without the ttl-controller: it patches every node again as the cluster grows.
"""

GRACE_S = 5.0

Flags = Mapping[str, str | Path]


def specs(options: Options, layout: Layout) -> dict[str, Spec]:
    """Every process by name, in the order in which they start."""
    made = (
        _etcd(layout),
        _prometheus(layout),
        _apiserver(layout),
        _controller_manager(options, layout),
        _scheduler(layout, "kube-scheduler", "default_scheduler"),
        _scheduler(layout, "fairlane-scheduler", "fairlane_scheduler", ours=True),
        _kwok(options, layout),
        _physics(options, layout),
        _fairlane(layout, "recorder"),
        _fairlane(layout, "predictor"),
        _fairlane(layout, "extender"),
        _fairlane(layout, "controller"),
    )
    return {spec.name: spec for spec in made}


def _etcd(layout: Layout) -> Spec:
    # the data is thrown away at the end, so nothing need reach the disk
    flags: dict[str, str | Path] = {
        "data-dir": layout.file("etcd"),
        "listen-client-urls": layout.url("etcd"),
        "advertise-client-urls": layout.url("etcd"),
        "listen-peer-urls": layout.url("etcd_peer"),
        "initial-advertise-peer-urls": layout.url("etcd_peer"),
        "initial-cluster": f"default={layout.url('etcd_peer')}",
        "unsafe-no-fsync": "true",
        "quota-backend-bytes": str(8 * 2**30),
        "log-level": "warn",
    }
    return _spec(layout, "etcd", "etcd", flags, CONTROL_PLANE_ENVIRONMENT)


def _apiserver(layout: Layout) -> Spec:
    flags: dict[str, str | Path] = {
        "etcd-servers": layout.url("etcd"),
        "secure-port": str(layout.ports["apiserver"]),
        "bind-address": LOOPBACK,
        "advertise-address": LOOPBACK,
        "endpoint-reconciler-type": "none",  # no pod connects to the API server, and loopback is no endpoint
        "cert-dir": layout.file("apiserver-certificates"),
        "tls-cert-file": layout.file("apiserver.crt"),
        "tls-private-key-file": layout.file("apiserver.key"),
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": layout.file("sa.pub"),
        "service-account-signing-key-file": layout.file("sa.key"),
        "token-auth-file": layout.file("tokens.csv"),
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": "10.0.0.0/24",
        "allow-privileged": "true",
    }
    return _spec(layout, "kube-apiserver", "kube-apiserver", flags, CONTROL_PLANE_ENVIRONMENT)


def _controller_manager(options: Options, layout: Layout) -> Spec:
    kubeconfig = layout.file("controller-manager.kubeconfig")
    flags: dict[str, str | Path] = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "use-service-account-credentials": "true",
        "service-account-private-key-file": layout.file("sa.key"),
        "root-ca-file": layout.file("ca.crt"),
        "controllers": ",".join(CONTROLLERS),
        "leader-elect": "false",
        "secure-port": str(layout.ports["controller_manager"]),
        "bind-address": LOOPBACK,
        "cert-dir": layout.file("controller-manager-certificates"),
        "kube-api-qps": "1000",
        "kube-api-burst": "2000",
        "node-monitor-grace-period": f"{max(50, options.lease_s + 10)}s",  # leases renew every quarter
    }
    return _spec(layout, "kube-controller-manager", "kube-controller-manager", flags)


def _scheduler(layout: Layout, name: str, port: str, ours: bool = False) -> Spec:
    kubeconfig = layout.file("scheduler.kubeconfig")
    flags: dict[str, str | Path] = {
        "config": layout.file(f"{name}.yaml"),
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "secure-port": str(layout.ports[port]),
        "bind-address": LOOPBACK,
        "cert-dir": layout.file(f"{name}-certificates"),
        **(SCHEDULER_FLAGS if ours else {}),
    }
    return _spec(layout, name, "kube-scheduler", flags, SCHEDULER_ENVIRONMENT if ours else None)


def _kwok(options: Options, layout: Layout) -> Spec:
    flags: dict[str, str | Path] = {
        "kubeconfig": layout.file("admin.kubeconfig"),
        "config": stages_file(),
        "manage-all-nodes": "true",
        "node-lease-duration-seconds": str(options.lease_s),
        "cidr": "10.96.0.0/12",
        "server-address": f"{LOOPBACK}:{layout.ports['kwok']}",
        "v": "WARN",  # else it logs every lease of every node
    }
    return _spec(layout, "kwok", "kwok", flags)


def _prometheus(layout: Layout) -> Spec:
    flags: dict[str, str | Path] = {
        "config.file": layout.file("prometheus.yaml"),
        "storage.tsdb.path": layout.file("prometheus"),
        "storage.tsdb.retention.time": "1d",
        "web.listen-address": f"{LOOPBACK}:{layout.ports['prometheus']}",
        "log.level": "warn",
    }
    return _spec(layout, "prometheus", "prometheus", flags, grace_s=GRACE_S)


def _physics(options: Options, layout: Layout) -> Spec:
    flags: dict[str, str | Path] = {
        "kubeconfig": layout.file("admin.kubeconfig"),
        "seed": str(options.seed),
        "port": str(layout.ports["physics"]),
        "port-file": layout.file("physics.port"),
        "truth-file": layout.file("truth.jsonl"),
    }
    argv = (sys.executable, "-m", "testbed.physics", *_flags(flags), *options.physics_args)
    return Spec("physics", argv, layout.log("physics"), grace_s=GRACE_S)


def _fairlane(layout: Layout, name: str) -> Spec:
    """One of ours, as the user that rbac.yaml names after it; the predictor is none."""
    flags: dict[str, str | Path] = {"config": layout.file("fairlane.yaml")}
    if name != "predictor":
        flags["kubeconfig"] = layout.file(f"{name}.kubeconfig")
    argv = (sys.executable, "-m", "scheduler.cli.main", name, *_flags(flags))
    return Spec(name, argv, layout.log(name), grace_s=GRACE_S)


def _spec(
    layout: Layout,
    name: str,
    program: str,
    flags: Flags,
    environment: Mapping[str, str] | None = None,
    grace_s: float = 0.0,
) -> Spec:
    binary = layout.binaries.get(program, Path(program))
    env = tuple((environment or {}).items())
    return Spec(name, (str(binary), *_flags(flags)), layout.log(name), env=env, grace_s=grace_s)


def _flags(flags: Flags) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in flags.items())
