"""`fairlane e2e` where it cannot run, and when it is told to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from testbed.kind import commands
from testbed.kind.cluster import KindCluster


@pytest.fixture
def signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_told_to_end_it_does_even_as_a_background_job_of_a_shell() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands._end_in_order_when_told_to()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("words", [["--check"], ["--smoke"], []])
def test_without_a_container_runtime_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    begun: list[KindCluster] = []
    monkeypatch.setattr(commands, "why_none", lambda _docker: "the cgroups are read-only")
    monkeypatch.setattr(KindCluster, "up", begun.append)
    result = CliRunner().invoke(commands.app, words)
    assert result.exit_code == commands.NO_RUNTIME == 77
    assert "no container runtime can be had: the cgroups are read-only" in result.output
    assert not begun


def test_the_check_makes_nothing_where_a_runtime_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[KindCluster] = []
    monkeypatch.setattr(commands, "why_none", lambda _docker: "")
    monkeypatch.setattr(KindCluster, "up", begun.append)
    assert CliRunner().invoke(commands.app, ["--check"]).exit_code == 0
    assert not begun
