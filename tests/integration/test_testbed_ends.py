"""However a testbed ends, nothing of it is left: no process, no file, no port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed import remains
from testbed.cluster import Cluster
from testbed.control import TestbedError
from testbed.folder import claim
from testbed.layout import OPTIONAL, Options, read_options

SMALL = Options(nodes=2, sites=1, without=OPTIONAL)
UP = ["up", "--nodes", "2", "--sites", "1", "--without", ",".join(SMALL.without)]

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one testbed, whose remains are ended whatever the test did."""
    directory = tmp_path / "testbed"
    yield directory
    if (directory / "options.json").exists():
        remains.kill(read_options(directory / "options.json")[1])


def test_two_testbeds_run_side_by_side_and_leave_nothing() -> None:
    with Cluster(SMALL) as one, Cluster(SMALL) as other:
        assert not set(one.layout.ports.values()) & set(other.layout.ports.values())
        marks = [read_options(cluster.directory / "options.json")[1] for cluster in (one, other)]
        assert all(remains.processes(mark) for mark in marks)
    assert not any(remains.processes(mark) for mark in marks)
    assert not one.directory.exists()
    assert not other.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_up_that_is_ended_halfway_cleans_up(folder: Path, number: signal.Signals) -> None:
    starting = _testbed(*UP, "--dir", str(folder))
    _until((folder / "logs" / "kube-apiserver.log").exists)
    mark = read_options(folder / "options.json")[1]
    starting.send_signal(number)
    starting.wait(30)
    _until(lambda: not remains.processes(mark) and not folder.exists())


def test_no_process_survives_a_supervisor_that_is_killed(folder: Path) -> None:
    cluster = Cluster(SMALL, folder)
    with cluster:
        mark = read_options(folder / "options.json")[1]
        supervisor = next(pid for pid in remains.processes(mark) if _is_supervisor(pid))
        os.kill(supervisor, signal.SIGKILL)
        _until(lambda: not remains.processes(mark))
        with pytest.raises(TestbedError, match="no testbed is running"):
            cluster.control.status()
    assert not folder.exists()


def test_the_command_line_brings_up_shows_and_ends_a_testbed(folder: Path) -> None:
    place = ("--dir", str(folder))
    assert _testbed(*UP, *place).wait(90) == 0
    again = _testbed(*UP, *place)
    assert again.wait(30) == 1
    assert "a testbed runs in" in again.communicate()[0]
    cluster = Cluster.attach(folder)
    cluster.process("kwok").kill()
    status = _testbed("status", *place)
    assert "kwok ended by itself" in status.communicate()[0]
    assert status.returncode == 1
    assert _testbed("down", *place).wait(30) == 0
    assert not folder.exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TestbedError, match="is not empty"):
        claim(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def _testbed(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scheduler.cli.main", "testbed", *arguments]
    # a suite that runs in the background of a shell ignores SIGINT, and so would its children
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread
    )


def _is_supervisor(pid: int) -> bool:
    return b"testbed.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _until(condition: Callable[[], bool], within_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not true within {within_s:.0f} s"
        time.sleep(0.05)
