"""The programs of a testbed: found where they are, else obtained once and kept.

Looked for, in this order, and used when new enough:
1. in FAIRLANE_BIN_DIR (an unusable program there is an error: it was asked for),
2. in the cache (`bin` in FAIRLANE_CACHE or the user's cache folder), where
   NAME-VERSION is ours and a plain NAME may have been put by anyone,
3. on PATH.
What is missing is built from Go modules or taken out of a Debian package
(building.py) into the cache, by one process at a time, and gets its final
name only when it is whole and tells the expected version.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.building import BinaryError, Debian, GoInstall, GoMain, Source
from testbed.layout import cache_folder
from testbed.progress import Progress

__all__ = ["ON_DEMAND", "PROGRAMS", "BinaryError", "Program", "ensure", "locate"]

KUBERNETES_VERSION = "1.37.0"
ETCD_VERSION = "3.7.0"
KWOK_VERSION = "0.8.0"
HELM_VERSION = "4.3.1"
PROMETHEUS_VERSION = "3.13.5"
"""Where it is built: its Go module counts this as v0.313.5."""

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """One program: where it comes from and what must be true of it.

    `version` is the one obtained here; a found program is used from `oldest`
    on, and below `too_new` where that is set.
    """

    name: str
    source: Source
    version: str
    oldest: str
    too_new: str = ""
    version_args: tuple[str, ...] = ("--version",)

    def accepts(self, found: Version) -> bool:
        """Whether a program of the version `found` may be used."""
        below = not self.too_new or found < _numbers(self.too_new)
        return _numbers(self.oldest) <= found and below


def _kubernetes(name: str, *version_args: str) -> Program:
    # plain builds call themselves v0.0.0-master, which version checks of clients refuse
    major, minor, _patch = KUBERNETES_VERSION.split(".")
    stamp = {
        "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES_VERSION}",
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": f"v{KUBERNETES_VERSION}",
    }
    flags = " ".join(["-s -w", *(f"-X {key}={value}" for key, value in stamp.items())])
    source = GoMain("kubernetes", f"./cmd/{name}", flags)
    # 1.36 is the first release that serves MutatingAdmissionPolicy v1
    return Program(name, source, KUBERNETES_VERSION, "1.36", version_args=version_args or ("--version",))


_PROMETHEUS = "github.com/prometheus/prometheus/cmd/prometheus"
_PROMETHEUS_FLAGS = f"-s -w -X github.com/prometheus/common/version.Version={PROMETHEUS_VERSION}"

_ALL = (
    # etcd 3.4, which Debian has, stalls under an API server this new
    Program("etcd", GoMain("etcd", "."), ETCD_VERSION, "3.6"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl", "version", "--client"),
    Program(
        "kwok",
        GoInstall(f"sigs.k8s.io/kwok/cmd/kwok@v{KWOK_VERSION}"),
        KWOK_VERSION,
        "0.7",
    ),
    Program(
        "helm",
        GoInstall(f"helm.sh/helm/v4/cmd/helm@v{HELM_VERSION}"),
        HELM_VERSION,
        "4.0",  # Helm 3 orders and words things otherwise
        version_args=("version", "--short"),
    ),
    Program(
        "prometheus",
        Debian(
            "prometheus",
            "usr/bin/prometheus",
            otherwise=GoMain(
                "prometheus",
                _PROMETHEUS,
                _PROMETHEUS_FLAGS,
                tags="remove_all_sd",  # of the discoveries only file and HTTP, which are always in
            ),
        ),
        "debian",
        "2.40",
    ),
    # Debian's has no discovery of Kubernetes, which the chart's own Prometheus lives by
    Program(
        "prometheus-kubernetes",
        GoMain("prometheus", _PROMETHEUS, _PROMETHEUS_FLAGS, tags="remove_all_sd,enable_kubernetes_sd"),
        PROMETHEUS_VERSION,
        "3.0",
    ),
)

PROGRAMS: dict[str, Program] = {program.name: program for program in _ALL}
"""All programs the testbed knows, by name."""

ON_DEMAND = ("kubectl", "helm", "prometheus-kubernetes")
"""Those that no testbed runs: had where they are asked for by name."""


def ensure(
    names: Sequence[str], progress: Progress, programs: Mapping[str, Program] = PROGRAMS
) -> dict[str, Path]:
    """Paths of the named programs, obtaining those that are missing.

    Raises:
        BinaryError: a program cannot be had; the message says why and what to do.
    """
    wanted = [programs[name] for name in names]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(names, pool.map(locate, wanted), strict=True))
    missing = [program for program in wanted if found[program.name] is None]
    if missing:
        progress.say(f"to be built once: {', '.join(program.name for program in missing)}")
        with _lock(progress):
            for program in missing:
                found[program.name] = locate(program) or _obtain(program, progress)
    return {name: path for name, path in found.items() if path is not None}


def locate(program: Program) -> Path | None:
    """Where a usable `program` is; None if there is none.

    Raises:
        BinaryError: the one in FAIRLANE_BIN_DIR cannot be used.
    """
    if chosen := os.environ.get("FAIRLANE_BIN_DIR"):
        path = Path(chosen).expanduser().resolve() / program.name
        if path.exists():
            return _checked(program, path)
    ours = _cached(program)
    if ours.exists():
        return ours
    on_path = shutil.which(program.name)
    candidates = [ours.with_name(program.name), *([Path(on_path)] if on_path else [])]
    return next((path for path in candidates if _is_usable(program, path)), None)


def version_of(program: Program, path: Path) -> Version | None:
    """The version that the program at `path` tells; None if it does not run or tells none."""
    try:
        told = subprocess.run(
            [path, *program.version_args], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first_line = (told.stdout + told.stderr).lstrip().partition("\n")[0]  # the next may tell Go's version
    match = re.search(r"\bv?(\d+(?:\.\d+)+)", first_line)
    return _numbers(match[1]) if match else None


def _is_usable(program: Program, path: Path) -> bool:
    if not os.access(path, os.X_OK):
        return False
    version = version_of(program, path)
    return version is not None and program.accepts(version)


def _checked(program: Program, path: Path) -> Path:
    if _is_usable(program, path):
        return path
    told = version_of(program, path)
    version = ".".join(map(str, told)) if told else "of unknown version"
    raise BinaryError(
        f"{path} is {version}, but {program.name} {program.oldest} or newer is needed: "
        "replace it, or unset FAIRLANE_BIN_DIR to have it built"
    )


def _cached(program: Program) -> Path:
    return cache_folder() / "bin" / f"{program.name}-{program.version}"


def _obtain(program: Program, progress: Progress) -> Path:
    final = _cached(program)
    partial = final.with_name(f".{final.name}.partial")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    program.source.fetch(partial, program.name, cache_folder(), progress)
    version = version_of(program, partial)
    if version is None or not program.accepts(version):
        raise BinaryError(f"the {program.name} just obtained does not run or is too old ({version})")
    partial.rename(final)  # a name in the cache always means a whole program
    return final


@contextmanager
def _lock(progress: Progress) -> Iterator[None]:
    """One build at a time on this machine: two would take twice the memory and gain nothing."""
    path = cache_folder() / "build.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.task("waiting for another build of the same programs"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))
