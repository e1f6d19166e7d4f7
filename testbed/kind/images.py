"""Container images: made where no registry is reachable, and only when their inputs changed.

Every tag of ours ends in a digest of the files the image is made from, so
"is it there" answers "is it up to date", in the engine and on the nodes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from testbed.kind import programs
from testbed.kind.docker import Docker
from testbed.kind.fetched import hashes_of
from testbed.kind.inspection import Inspection, inspect
from testbed.kind.shell import CommandError, run, succeeds
from testbed.progress import Progress

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PREFIX = "fairlane.local"
PULL_S_MAX = 25.0
BUILD_S_MAX = 1800.0
PYTHON = "3.11"
"""The Debian base image's; wheels are chosen for it."""

SOURCES = ("scheduler", "model")
UNUSED_JARS = (
    *("rocksdbjni", "spark-connect_", "spark-mllib_", "breeze", "spire", "cats-kernel", "algebra_"),
    *("spark-hive", "hive-exec", "hive-metastore", "datanucleus", "derby", "JTransforms", "arpack"),
)
"""Beginnings of jars that a shuffle does not need: a third of all bytes, which go to every node."""
STAGE = "dev.fairlane.stage=build"
"""Label of images that only the building of another one needs: a gigabyte each."""
UNUSED_FILES = (
    *(
        "**/tests",
        "**/*.pyi",
        "**/*.pyx",
        "**/*.px[di]",
        "**/*.c",
        "**/*.cc",
        "**/*.cpp",
        "**/*.h",
        "**/*.hpp",
    ),
    # the client is lazy: of its 1,600 models and groups of calls we use none
    *(f"kubernetes/{part}/[!_]*.py" for part in ("client/models", "client/api")),
    *(f"kubernetes/aio/{part}/[!_]*.py" for part in ("client/models", "client/api")),
    *("pyarrow/include", "pyarrow/*flight*", "pyarrow/*_s3*", "pyarrow/*_gcsfs*", "pyarrow/*_azurefs*"),
    *("pyarrow/libarrow_python.so", "pyarrow/libarrow_python.so.*.*", "matplotlib/mpl-data/sample_data"),
    "botocore/data/*/",
)
"""What no process of ours reads of the installed dependencies: sources, tests, Arrow's clients of stores."""
USED_SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")
"""But these of botocore's services: S3, and what its credentials come from. All of them are 27 MB."""
JOBS = ROOT / "testbed" / "jobs"
LOCK = ROOT / "requirements.lock"


def versions() -> dict[str, str]:
    """The versions of versions.env by name."""
    lines = (HERE / "versions.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def digest(inputs: Sequence[Path]) -> str:
    """Twelve digits that change with any name or content below `inputs`, wherever the project lies."""
    total = hashlib.sha256()
    named = {str(file.relative_to(given.parent)): file for given in inputs for file in _files(given)}
    for name, file in sorted(named.items()):
        total.update(f"{name}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]


@dataclass(frozen=True)
class Folders:
    """Where builds happen: `cache` for ours, `binaries` for our Go builds, `kubernetes` for its programs."""

    cache: Path
    binaries: Path
    kubernetes: Path


class Images:
    """Builds what is missing and answers tags."""

    def __init__(self, docker: Docker, folders: Folders, progress: Progress) -> None:
        self._docker = docker
        self._folders = folders
        self._progress = progress
        self.inspection: Inspection | None = None
        """Of the image of Fairlane, where it was built now."""

    @cached_property
    def registry(self) -> bool:
        """True when images can be pulled; FAIRLANE_KIND_REGISTRY=0 or 1 decides instead."""
        if chosen := os.environ.get("FAIRLANE_KIND_REGISTRY"):
            return chosen != "0"
        pull = ["docker", "pull", "-q", "registry.k8s.io/pause:3.10"]
        return succeeds(pull, env=self._docker.env, timeout_s=PULL_S_MAX)

    @cached_property
    def base(self) -> str:
        """Debian, from the registry or from Debian's own archive."""
        suite = versions()["SUITE"]
        if chosen := os.environ.get("FAIRLANE_BASE"):
            return chosen
        if self.registry:
            return f"debian:{suite}-slim"
        return self._ensure("debian", [HERE / "versions.env"], lambda tag: self._script("base", tag))

    @cached_property
    def node(self) -> str | None:
        """The kind node image; None: kind's own."""
        if self.registry:
            return None
        inputs = [HERE / name for name in ("node", "versions.env", "images.sh")]
        inputs.append(ROOT / "testbed" / "go" / "node")
        return self._ensure("node", inputs, lambda tag: self._script("node", tag))

    @cached_property
    def scheduler(self) -> str:
        """kube-scheduler of the cluster's release."""
        home = "registry.k8s.io" if self.registry else PREFIX
        return f"{home}/kube-scheduler:{versions()['KUBERNETES']}"

    @cached_property
    def fairlane(self) -> str:
        """The project with its locked dependencies: one image for all that a release runs."""
        dependencies = self._dependencies
        sources = [ROOT / source for source in SOURCES]

        def build(tag: str) -> None:
            context = self._fresh("fairlane")
            for source in sources:
                _copy(source, context / "source" / source.name)
            about = context / "about"
            about.mkdir()
            _copy(HERE / "sbom.py", about)
            (about / "version").write_text(_version())
            self._build(tag, HERE / "fairlane" / "Dockerfile", context, dependencies)
            self._inspect(tag)

        inputs = [*sources, HERE / "fairlane", HERE / "sbom.py"]
        return self._ensure("fairlane", inputs, build, salt=dependencies + _version())

    def _inspect(self, tag: str) -> None:
        try:
            self.inspection = inspect(self._docker, tag)
        except CommandError:
            self._docker.run("image", "rm", tag)  # or the next run would take it for good
            raise
        self._progress.say(self.inspection.told())

    @cached_property
    def prometheus(self) -> str:
        """Prometheus, from Debian."""
        return self._from_file(HERE / "monitoring" / "prometheus.Dockerfile")

    @cached_property
    def node_exporter(self) -> str:
        """node_exporter, from Debian."""
        return self._from_file(HERE / "monitoring" / "node-exporter.Dockerfile")

    @cached_property
    def policies(self) -> str:
        """What enforces NetworkPolicies where the pods' network does not."""
        folder = HERE / "policies"

        def build(tag: str) -> None:
            programs.build(self._folders.binaries, "policies", self._progress)
            context = self._fresh("policies")
            _copy(folder, context)
            _copy(self._folders.binaries / "policies", context)
            self._build(tag, context / "Dockerfile", context, self.base)

        return self._ensure("policies", [folder, ROOT / "testbed" / "go" / "policies"], build)

    @cached_property
    def transfer(self) -> str:
        """Data server, transfer job and competing traffic."""
        return self._from_folder("transfer", JOBS / "transfer")

    @cached_property
    def allreduce(self) -> str:
        """PyTorch with gloo, and the training loop."""
        return self._from_folder("allreduce", JOBS / "allreduce")

    @cached_property
    def spark(self) -> str:
        """Spark with a container entry point and the shuffle job."""
        folder, site = JOBS / "spark", self.spark_site

        def build(tag: str) -> None:
            context = self._fresh("spark")
            _copy(folder, context)
            run(["cp", "-al", site, context / "site"])
            for jar in (context / "site" / "pyspark" / "jars").iterdir():
                if jar.name.startswith(UNUSED_JARS):
                    jar.unlink()
            self._build(tag, folder / "Dockerfile", context, self.base)

        return self._ensure("spark", [folder, HERE / "versions.env"], build, salt=" ".join(UNUSED_JARS))

    @cached_property
    def spark_site(self) -> Path:
        """PySpark from PyPI, unpacked: the image's content, and `spark-submit` for this machine."""
        version = versions()["SPARK"]
        site = self._folders.cache / "build" / "spark-site"
        if not (site / f"pyspark-{version}.dist-info").exists():
            with self._progress.task(f"PySpark {version} from PyPI"):
                shutil.rmtree(site, ignore_errors=True)
                _pip(site, [f"pyspark=={version}"], [], any_python=True)
        return site

    @cached_property
    def _dependencies(self) -> str:
        """The image with the locked dependencies, which change less often than the code."""
        requirements, locked = _requirements(), _locked_versions()
        inputs = [HERE / "fairlane" / "dependencies.Dockerfile"]

        def build(tag: str) -> None:
            context = self._fresh("fairlane-dependencies")
            report = _pip(context / "site", requirements, locked, any_python=False)
            hashes = hashes_of(report, LOCK.read_text())
            (context / "hashes.json").write_text(json.dumps(hashes, indent=1, sort_keys=True))
            _prune(context / "site")
            self._build(tag, inputs[0], context, self.base)

        salt = "\n".join([*requirements, LOCK.read_text(), *UNUSED_FILES, self.base])
        return self._ensure("fairlane-dependencies", inputs, build, salt=salt)

    def _from_folder(self, name: str, folder: Path) -> str:
        return self._ensure(
            name, [folder], lambda tag: self._build(tag, folder / "Dockerfile", folder, self.base)
        )

    def _from_file(self, dockerfile: Path) -> str:
        name = dockerfile.name.removesuffix(".Dockerfile")
        return self._ensure(
            name, [dockerfile], lambda tag: self._build(tag, dockerfile, dockerfile.parent, self.base)
        )

    def _ensure(self, name: str, inputs: Sequence[Path], build: Callable[[str], None], salt: str = "") -> str:
        salted = hashlib.sha256((digest(inputs) + salt).encode()).hexdigest()[:12]
        tag = f"{PREFIX}/{name}:{salted}"
        if not self._docker.has_image(tag):
            with self._progress.task(f"building image {name}") as task:
                build(tag)
            self._forget_older(tag)
            self._progress.say(f"image {name} built in {task.elapsed_s:.0f} s")
        return tag

    def _forget_older(self, tag: str) -> None:
        """Take away what `tag` replaces, and stages of its making; what a container still uses stays."""
        name = tag.rsplit(":", 1)[0]
        listed = self._docker.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).split()
        for older in set(listed) - {tag}:
            succeeds(["docker", "image", "rm", older], env=self._docker.env)
        self._docker.run("image", "prune", "--force", "--filter", f"label={STAGE}")

    def _script(self, step: str, tag: str) -> None:
        folders = self._folders
        env = {
            **programs.go_environment(self._progress),
            **self._docker.env,
            "CACHE": str(folders.cache),
            "BIN": str(folders.binaries),
            "K8S": str(folders.kubernetes),
            "PREFIX": PREFIX,
            "BASE": "" if step == "base" else self.base,
        }
        run([HERE / "images.sh", step, tag], env=env, timeout_s=BUILD_S_MAX)

    def _build(self, tag: str, dockerfile: Path, context: Path, base: str) -> None:
        words = ["build", "-q", "--network", "host", "--build-arg", f"BASE={base}", "-t", tag]
        self._docker.run(*words, "-f", str(dockerfile), str(context), timeout_s=BUILD_S_MAX)

    def _fresh(self, name: str) -> Path:
        context = self._folders.cache / "build" / f"context-{name}"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        return context


def _pip(
    site: Path, requirements: Sequence[str], constraints: Sequence[str], any_python: bool
) -> dict[str, Any]:
    """Install for the base image's Python into `site`, which need not be this version; pip's report."""
    listing, report = site.with_suffix(".constraints"), site.with_suffix(".report")
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(constraints) + "\n")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    words += ["--root-user-action=ignore", "--target", str(site), "--constraint", str(listing)]
    words += ["--report", str(report)]
    if not any_python and f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        words += ["--python-version", PYTHON, "--only-binary", ":all:"]
    run(["nice", "-n", "10", *words, *requirements], timeout_s=BUILD_S_MAX)
    installed: dict[str, Any] = json.loads(report.read_text())
    return installed


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _requirements() -> list[str]:
    """What the project needs when it serves and trains: its dependencies without the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [str(one) for one in project["dependencies"]]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower()


def _locked_versions() -> list[str]:
    """`name==version ; marker` of every line of the lock file, without the hashes."""
    lines = LOCK.read_text().splitlines()
    return [line.removesuffix("\\").strip() for line in lines if re.match(r"[A-Za-z0-9]", line)]


def _prune(site: Path) -> None:
    """Take out UNUSED_FILES."""
    for found in [path for pattern in UNUSED_FILES for path in site.glob(pattern)]:
        if found.parent == site / "botocore" / "data" and found.name in USED_SERVICES:
            continue
        if found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copy2(source, target)
    else:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
