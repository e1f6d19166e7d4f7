"""Programs are found where they are, checked, and obtained whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.binaries import BinaryError, Program, ensure, locate
from testbed.building import Debian, GoInstall, private_apt, toolchain
from testbed.ports import Reservation
from testbed.progress import Progress

QUIET = Progress(quiet=True)
Put = Callable[[str, str], Path]


@dataclass
class Scripted:
    """A source that writes a script telling `version`; counts how often it was asked."""

    version: str = "1.2.3"
    fails: bool = False
    asked: list[str] = field(default_factory=list)

    def fetch(self, target: Path, name: str, cache: Path, progress: Progress) -> None:  # noqa: ARG002
        self.asked.append(name)
        time.sleep(0.2)
        if self.fails:
            target.write_text("half of a progr")
            raise BinaryError("the build was interrupted")
        _script(target, self.version)


def _script(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho thing version v{version}\n")
    path.chmod(0o755)


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a program of a version into one of the places `chosen`, `cache/bin` or `path`."""
    monkeypatch.setenv("FAIRLANE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")

    def write(place: str, version: str, name: str = "thing") -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        _script(folder / name, version)
        return folder / name

    return write


def _program(source: Scripted) -> Program:
    return Program("thing", source, "1.2.3", oldest="1.2")


def test_the_named_folder_wins_over_cache_and_path(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = put("chosen", "1.4.0")
    put("cache/bin", "1.2.3")
    put("path", "1.3.0")
    monkeypatch.setenv("FAIRLANE_BIN_DIR", str(chosen.parent))
    assert locate(_program(Scripted())) == chosen


def test_a_program_too_old_in_the_named_folder_is_an_error_that_says_what_to_do(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLANE_BIN_DIR", str(put("chosen", "1.1.9").parent))
    with pytest.raises(BinaryError, match=r"is 1\.1\.9, but thing 1\.2 or newer .* unset FAIRLANE_BIN_DIR"):
        locate(_program(Scripted()))


def test_a_program_too_old_on_the_path_is_passed_over(put: Put) -> None:
    put("path", "1.1.0")
    assert locate(_program(Scripted())) is None


def test_only_the_first_line_tells_the_version_the_next_may_be_of_the_compiler(put: Put) -> None:
    put("path", "\necho built with 1.26.8")
    assert locate(_program(Scripted())) is None


@pytest.mark.usefixtures("put")
def test_what_is_missing_is_obtained_once_and_kept(tmp_path: Path) -> None:
    source = Scripted()
    first = ensure(["thing"], QUIET, {"thing": _program(source)})
    again = ensure(["thing"], QUIET, {"thing": _program(source)})
    assert first == again == {"thing": tmp_path / "cache" / "bin" / "thing-1.2.3"}
    assert source.asked == ["thing"]


@pytest.mark.usefixtures("put")
def test_an_interrupted_build_leaves_no_program_behind() -> None:
    program = _program(Scripted(fails=True))
    with pytest.raises(BinaryError, match="interrupted"):
        ensure(["thing"], QUIET, {"thing": program})
    assert locate(program) is None
    assert ensure(["thing"], QUIET, {"thing": _program(Scripted())})


@pytest.mark.usefixtures("put")
def test_a_program_that_tells_the_wrong_version_is_not_kept() -> None:
    program = _program(Scripted(version="0.9"))
    with pytest.raises(BinaryError, match="too old"):
        ensure(["thing"], QUIET, {"thing": program})
    assert locate(program) is None


@pytest.mark.usefixtures("put")
def test_two_at_the_same_time_build_once() -> None:
    source = Scripted()
    both = [
        threading.Thread(target=ensure, args=(["thing"], QUIET, {"thing": _program(source)}))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert source.asked == ["thing"]


def test_a_system_without_apt_leads_to_the_other_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other = Scripted()
    Debian("prometheus", "usr/bin/prometheus", other).fetch(tmp_path / "thing", "thing", tmp_path, QUIET)
    assert other.asked == ["thing"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian system")
def test_a_package_is_taken_apart_with_package_lists_of_our_own(tmp_path: Path) -> None:
    package = Debian("hello", "usr/bin/hello", Scripted())
    options = private_apt(tmp_path / "apt")
    package.extract(tmp_path / "hello", options)
    assert subprocess.run([tmp_path / "hello"], capture_output=True, check=True).stdout == b"Hello, world!\n"


def test_a_failing_build_shows_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match=r"(?s)go install .* failed with exit code 1:.*clean package path"):
        GoInstall("example..invalid//x@v0").fetch(tmp_path / "x", "x", tmp_path, QUIET)


def test_builds_use_a_fixed_toolchain_and_make_static_programs(tmp_path: Path) -> None:
    _go, environment = toolchain(tmp_path, QUIET)
    assert (environment["GOTOOLCHAIN"], environment["CGO_ENABLED"]) == ("local", "0")


def test_a_reserved_port_is_refused_to_others_but_not_to_the_server_it_is_for() -> None:
    reservation = Reservation()
    [port] = reservation.take(1)
    plain = f"import socket; socket.socket().bind(('127.0.0.1', {port}))"
    assert subprocess.run([sys.executable, "-c", plain], capture_output=True, check=False).returncode == 1
    server = f"import asyncio; asyncio.run(asyncio.start_server(print, '127.0.0.1', {port}))"
    assert subprocess.run([sys.executable, "-c", server], check=False).returncode == 0
    reservation.close()
