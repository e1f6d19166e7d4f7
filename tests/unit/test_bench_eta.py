"""The benchmark of expected starts: what it counts, what it stores, what it leaves out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.commands import app
from benchmarks.eta import LoadError, loads_of, sigma_of
from scheduler.core.queue.expected import ExpectedStart, StartSource
from simulator.expected_starts import Told, by_horizon, coverage

TRACE = "user,submitted_s,pods,cpu,memory,gpu,duration_s\n" + "".join(
    f"user-{at % 3},{at},1,1,1,0,{5 + at % 4}\n" for at in range(40)
)


def told(start_s: float, p10_s: float = 10.0, p90_s: float = 20.0) -> Told:
    middle_s = 15.0 if math.isfinite(p10_s) else math.inf
    return Told(0.0, ExpectedStart(p10_s, middle_s, p90_s, 0.0, StartSource.ARRIVALS, 9), start_s)


def test_starts_are_counted_inside_before_after_and_open() -> None:
    found = coverage([told(15.0), told(20.0), told(9.0), told(21.0), told(99.0, p90_s=math.inf)])
    assert found.told == 5
    assert (found.inside, found.early, found.late, found.open) == pytest.approx((0.6, 0.2, 0.2, 0.2))
    assert coverage([told(9.5, p10_s=9.6), told(20.4, p90_s=20.2)]).inside == 1.0  # told in whole seconds
    assert coverage([]).told == 0
    waits = by_horizon([told(601.0), told(59.0, p10_s=math.inf)])
    assert [one.told for one in waits.values()] == [1, 0, 1]


def test_the_command_stores_its_figures_and_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    trace = tmp_path / "few.csv"
    trace.write_text(TRACE)
    options = ["--loads", f"{trace}:3,{tmp_path / 'absent.swf'}:8", "--estimates", "0.5,history"]
    few = ["--photographs", "2", "--futures", "3", "--out", str(tmp_path)]
    answer = CliRunner().invoke(app, ["eta", *options, *few])
    assert answer.exit_code == 0, answer.output
    stored = json.loads((tmp_path / "eta-few-3.json").read_text())
    assert "absent.swf is not there" in stored["left_out"][0]
    assert [(one["estimates"], one["arrivals"]) for one in stored["measured"]] == [
        ("0.5", True), ("0.5", False), ("history", True), ("history", False),
    ]  # fmt: skip
    for one in stored["measured"]:
        assert one["told"] > 0
        assert one["inside"] + one["early"] + one["late"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("text", ["mixed", "mixed:0", "nothing-of-the-kind:3"])
def test_a_load_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(LoadError, match=text):
        loads_of([text], 0, 0)


def test_estimates_are_a_sigma_or_history() -> None:
    assert sigma_of("history") is None
    assert sigma_of("0.25") == 0.25
    with pytest.raises(LoadError, match="guess"):
        sigma_of("guess")
