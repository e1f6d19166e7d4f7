"""The programs a node image of ours is made of, gathered in folders under their plain names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from testbed.binaries import KUBERNETES_VERSION, PROGRAMS, Program, ensure
from testbed.building import GoMain, toolchain
from testbed.kind.shell import run
from testbed.layout import cache_folder
from testbed.progress import Progress

HERE = Path(__file__).parent
FROM_TESTBED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
VERSION_ARGS = {
    "kubelet": ("--version",),
    "kube-proxy": ("--version",),
    "kubeadm": ("version", "-o", "short"),
}
BUILD_S_MAX = 3600.0


def _node_program(name: str) -> Program:
    like = PROGRAMS["kube-scheduler"]
    assert isinstance(like.source, GoMain)
    source = replace(like.source, package=f"./cmd/{name}")
    return replace(like, name=name, source=source, oldest=KUBERNETES_VERSION, version_args=VERSION_ARGS[name])


def kubernetes(folder: Path, progress: Progress) -> None:
    """Link etcd and Kubernetes' eight programs into `folder`, building what is missing."""
    programs = {name: PROGRAMS[name] for name in FROM_TESTBED}
    programs |= {name: _node_program(name) for name in VERSION_ARGS}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in ensure(list(programs), progress, programs).items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)


def kubectl(progress: Progress) -> Path:
    """Path of kubectl."""
    return ensure(["kubectl"], progress)["kubectl"]


def go_environment(progress: Progress) -> dict[str, str]:
    """What a shell script needs to run `go`."""
    go, environment = toolchain(cache_folder(), progress)
    return {**environment, "PATH": f"{Path(go).parent}:{os.environ['PATH']}"}


def build(folder: Path, scope: str, progress: Progress) -> None:
    """Bring binaries.sh's programs of `scope` ("kind", "node" or "policies") up to date in `folder`."""
    with progress.task(f"Go programs ({scope})") as task:
        run([HERE / "binaries.sh", folder, scope], env=go_environment(progress), timeout_s=BUILD_S_MAX)
    if task.elapsed_s > 5:
        progress.say(f"Go programs ({scope}) built in {task.elapsed_s:.0f} s")
