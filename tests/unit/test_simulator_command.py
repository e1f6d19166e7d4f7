"""`fairlane simulate` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scheduler.cli.simulate import NAMES, app
from simulator.policies import registry

TRACE = """user,submitted_s,pods,cpu,memory,gpu,duration_s,gang
ann,0,6,1,0,0,1,false
ann,0.5,1,1,0,0,1,false
bob,0.5,2,1,0,0,1,false
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(TRACE)
    return path


def called(*arguments: object, columns: int = 200) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": str(columns)})
    return result.exit_code, result.output


def test_no_figure_is_cut_off_where_the_terminal_is_narrow(trace: Path) -> None:
    code, text = called(trace, "--slots", 2, "--policy", "fairlane", "--shares", columns=60)
    assert code == 0, text
    assert "…" not in text
    assert "95-100 %" in text


def test_a_trace_gives_tables_json_and_pictures(trace: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "f.json", tmp_path / "report"
    code, text = called(
        trace, "--slots", 2, "--policy", "fairlane,fifo", "--shares", "--json", out, "--report", report
    )
    assert code == 0, text
    figures = json.loads(out.read_text())["policies"]
    assert figures["fifo"]["response_s"]["mean"] == pytest.approx((3 + 3.5 + 4.5) / 3)
    assert figures["fairlane"]["response_s"]["mean"] == pytest.approx((5 + 1.5 + 2.5) / 3)
    drawn = {each.name for each in report.iterdir()}
    assert drawn == {
        "response.png",
        "lateness.png",
        "shares-fairlane.png",
        "shares-fifo.png",
        "report.json",
        "report.txt",
    }
    assert "Shares under fifo" in text


def test_every_policy_is_named_in_the_help() -> None:
    assert tuple(NAMES.split(", ")) == registry.NAMES


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either --slots N or --nodes FILE"),
        (["--slots", "2", "--policy", "best"], "policy 'best' is unknown"),
        (["--slots", "2", "--estimates", "often"], "estimates: 'often' is unknown"),
        (["--slots", "2", "--weight", "eve=2"], "expected USER=W with a user of the trace"),
        (["--slots", "2", "--weight", "ann=-2"], "must be above 0"),
        (["--nodes", "nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_a_mistake_ends_with_a_sentence(trace: Path, arguments: list[str], complaint: str) -> None:
    code, text = called(trace, *arguments)
    assert code == 2
    assert complaint in text.replace("\n", " ")


def test_a_broken_trace_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(TRACE + "bob,1,2,1,0,0,never,\n")
    assert called(path, "--slots", 2) == (2, "simulate: t.csv:5: duration_s is 'never', not a number\n")


def test_only_the_first_jobs_and_what_was_left_out_is_said(trace: Path) -> None:
    code, text = called(trace, "--slots", 2, "--policy", "fifo", "--first", 2)
    assert code == 0
    assert "note: 1 later jobs left out on request" in text


def test_a_gang_that_never_fits_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(TRACE + "bob,1,9,1,0,0,5,true\n")
    code, text = called(path, "--slots", 2, "--policy", "fifo")
    assert code == 0
    assert "1 jobs need more than the empty cluster has and were left out" in text


def test_nodes_with_gpus(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("name,cpu,memory,gpu,count\ng,8,32Gi,2,2\n")
    (tmp_path / "t.csv").write_text(
        "user,submitted_s,pods,cpu,memory,gpu,duration_s\nann,0,4,1,1Gi,1,10\nbob,1,2,1,1Gi,1,10\n"
    )
    out = tmp_path / "f.json"
    code, text = called(
        tmp_path / "t.csv", "--nodes", tmp_path / "n.csv", "--policy", "fairlane,drf", "--json", out
    )
    assert code == 0, text
    for figures in json.loads(out.read_text())["policies"].values():
        assert figures["makespan_s"] == pytest.approx(20.0)


def test_a_generated_trace_can_be_replayed(tmp_path: Path) -> None:
    made = tmp_path / "flood.csv"
    code, text = called("generate", "flood", "--seed", 1, "--out", made)
    assert code == 0
    assert "320 jobs of 5 users" in text
    assert called(made, "--slots", 32, "--policy", "ujf", "--first", 50)[0] == 0


def test_a_ready_description_is_printed() -> None:
    code, text = called("generate", "--print", "flood")
    assert code == 0
    assert text.startswith("# One user submits 200 jobs")


def test_closed_loop_users_receive_by_weight(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    arguments = ["--weights", "1,2,4", "--slots", 7, "--outstanding", 9, "--horizon", 2000]
    code, text = called("closed", *arguments, "--policy", "ujf", "--json", out)
    assert code == 0, text
    received = json.loads(out.read_text())["policies"]["ujf"]
    assert [each["entitled"] for each in received.values()] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert [each["received"] for each in received.values()] == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.02)


def test_users_who_cannot_fill_the_cluster_are_refused() -> None:
    code, text = called("closed", "--slots", 64, "--outstanding", 4)
    assert code == 2
    assert "nobody would wait" in text.replace("\n", " ")
