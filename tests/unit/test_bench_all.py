"""`fairlane bench` alone runs every benchmark, each with its defaults."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from benchmarks.command_line import RESULTS
from benchmarks.commands import app


def test_without_a_sub_command_every_benchmark_runs_once_with_its_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group: Any = typer.main.get_command(app)
    ran: dict[str, Any] = {}
    for name, command in group.commands.items():
        command.callback = lambda name=name, **given: ran.update({name: given})
    with group.make_context("bench", []) as context:
        group.invoke(context)
    assert ran.keys() == group.commands.keys() >= {"extender", "rate", "release", "shares", "peers", "idle"}
    assert {str(given["out"]) for given in ran.values()} == {str(RESULTS)}
    assert (ran["release"]["pods"], ran["queue"]["alone"]) == (15_000, False)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == list(ran)
