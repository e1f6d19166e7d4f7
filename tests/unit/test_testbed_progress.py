"""Progress without a terminal: lines that tell what, how far and how long."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from testbed import progress
from testbed.progress import Phases, Progress


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    return io.StringIO()


def test_a_long_task_keeps_printing_lines(written: io.StringIO) -> None:
    shown = Progress(Console(file=written, soft_wrap=True))
    with shown.task("building etcd", total=640) as task:
        task.advance(210)
        deadline_s = time.monotonic() + 5
        while written.getvalue().count("\n") < 3 and time.monotonic() < deadline_s:
            time.sleep(0.005)
    lines = written.getvalue().splitlines()
    assert len(lines) >= 3
    assert all("building etcd: 210 of 640 packages, 0 s" in line for line in lines)


def test_steps_beyond_the_expected_number_do_not_run_over(written: io.StringIO) -> None:
    with Progress(Console(file=written), quiet=True).task("building", total=2) as task:
        task.advance(5)
    assert task.done == 2
    assert written.getvalue() == ""


def test_a_phase_that_comes_again_or_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 10.0, 15.0, 15.0, 19.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    phase = Phases()
    with phase("install"):
        pass
    with phase("train"):
        pass
    with pytest.raises(KeyError), phase("install"):
        raise KeyError
    assert phase.sentence() == "install 14 s, train 5 s"
