"""`.ci/run` on machines with and without a container runtime: what it runs, and how it ends."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"


def ci(folder: Path, check_ends: int, failing: str = "") -> tuple[int, list[str]]:
    """The exit code, and the targets that were made, where `fairlane e2e --check` ends with `check_ends`."""
    made = folder / "made"
    _program(folder / "bin" / "make", f'echo "$*" >>{made}\n[ "$*" != "{failing}" ]')
    _program(folder / "venv" / "bin" / "fairlane", f'[ "$*" = "e2e --check" ] && exit {check_ends}')
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "VENV": str(folder / "venv")}
    ended = subprocess.run([RUN], env=environment, check=False, capture_output=True, timeout=60)
    return ended.returncode, made.read_text().split("\n")[:-1]


def _program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def test_with_a_container_runtime_the_smoke_version_follows_the_tests(tmp_path: Path) -> None:
    assert ci(tmp_path, check_ends=0) == (0, ["test", "e2e-smoke"])


def test_without_one_the_tests_are_all_there_is_and_enough(tmp_path: Path) -> None:
    assert ci(tmp_path, check_ends=77) == (0, ["test"])


def test_a_check_that_fails_fails_the_run(tmp_path: Path) -> None:
    assert ci(tmp_path, check_ends=1) == (1, ["test"])


@pytest.mark.parametrize("target", ["test", "e2e-smoke"])
def test_a_target_that_fails_fails_the_run(tmp_path: Path, target: str) -> None:
    code, made = ci(tmp_path, check_ends=0, failing=target)
    assert code != 0
    assert made[-1] == target
