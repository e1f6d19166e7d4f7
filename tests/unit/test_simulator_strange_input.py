"""`fairlane simulate` with a stranger's traces, nodes and options: used, or refused in words."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scheduler.cli.simulate import app

COLUMNS = "user,submitted_s,pods,cpu,memory,gpu,duration_s"
ANN = "ann,0,1,1,0,0,5"
SWF = "1 0 -1 10 {} -1 -1 -1 -1 -1 1 1 1 1 1 -1 -1 -1\n"
MACRO = '[{"user":"u","workloads":[{"workloadName":"a","startTimeMs":0,"params":{"job_runtime_s":%s}}]}]'


def called(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "300"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output.replace("\n", " ")


def run(path: Path, *arguments: object) -> tuple[int, str]:
    return called(path, "--policy", "fifo", *(arguments or ("--slots", 4)))


def table(path: Path, *rows: str, columns: str = COLUMNS) -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("t.swf", SWF.format("inf"), "t.swf:1: expected 18 numbers: inf is not finite"),
        ("t.swf", SWF.format(1) + SWF.format("nan"), "t.swf:2: expected 18 numbers: nan is not finite"),
        ("t.swf", SWF.format(2.9), "t.swf:1: 2.9 processors is not a whole number"),
        ("t.swf", SWF.format(1).replace(" 10 ", " 1e300 "), "divide milliseconds by 1000"),
        ("t.swf", SWF.format(1) + SWF.format(1).replace("1 0", "1 1e300"), "divide milliseconds by 1000"),
        ("t.csv", f"{COLUMNS}\nann,0,inf,1,0,0,5\n", "t.csv:2: pods is inf, must be a whole number"),
        ("t.csv", f"{COLUMNS}\nann,0,nan,1,0,0,5\n", "t.csv:2: pods is nan, must be a whole number"),
        ("t.csv", f"{COLUMNS}\n{ANN}\nann,0\n", "t.csv:3: fewer cells than columns: pods is missing"),
        ("t.csv", f"{COLUMNS}\n{ANN},6\n", "t.csv:2: more cells than columns"),
        ("t.csv", f"{COLUMNS},user\n{ANN},bob\n", "t.csv: column user comes more than once"),
        ("t.json", "[" * 100_000, "cannot be read as JSON"),
        ("t.json", MACRO % "1e12", "job_runtime_s is 1e+12, must be above 0 s and at most 1000000 tasks"),
        ("t.json", MACRO % "Infinity", "job_runtime_s is inf, must be above 0 s"),
        ("t.json", MACRO % ("1" + "0" * 400), "int too large"),
    ],
)
def test_a_number_that_no_job_can_have_is_refused(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    code, said = run(path)
    assert code == 2, said
    assert complaint in said


@pytest.mark.parametrize(
    ("columns", "row", "complaint"),
    [
        (
            "cpu,memory,gpu",
            "0,0,0",
            "cpu, memory and gpu must be 0 or more, and one of them above 0",
        ),
        ("cpu,memory,gpu", "8,-1,0", "n.csv:2: cpu, memory and gpu must be 0 or more"),
        ("cpu,memory,gpu,count", "8,1Gi,0,0", "n.csv:2: count is 0, must be a whole number from 1"),
        ("cpu,memory,gpu,count", "8,1Gi,0,-2", "n.csv:2: count is -2, must be a whole number from 1"),
        ("cpu,memory,gpu,count", "8,1Gi,0,x", "n.csv:2: count is x, must be a whole number from 1"),
        ("cpu,memory,gpu", "8", "n.csv:2: fewer cells than columns: memory is missing"),
        ("cpu,memory,cpu", "8,1,4", "n.csv: column cpu comes more than once"),
        ("cpu,memory", "8,1", "n.csv: column gpu is missing"),
    ],
)
def test_a_node_that_is_none_is_refused(tmp_path: Path, columns: str, row: str, complaint: str) -> None:
    nodes = table(tmp_path / "n.csv", row, columns=columns)
    code, said = run(table(tmp_path / "t.csv", ANN), "--nodes", nodes)
    assert code == 2, said
    assert complaint in said


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--policy", ""], "policy: name at least one of fairlane"),
        (["--policy", " , "], "policy: name at least one of fairlane"),
        (["--estimates", "lognormal:300"], "'lognormal:300': must be above 0 and at most 10"),
        (["--estimates", "bias:ann=1e300"], "must be above 0, at least 1e-09 and at most 1e+09"),
        (["--weight", "ann=1,2"], "weight '1,2' is not a number"),
        (["--weight", "ann=1e-300"], "weight '1e-300': must be above 0, from 0.000001 to 1000000"),
    ],
)
def test_an_option_that_means_nothing_is_refused(tmp_path: Path, options: list[str], complaint: str) -> None:
    code, said = called(table(tmp_path / "t.csv", ANN), "--slots", 4, *options)
    assert code == 2, said
    assert complaint in said


def test_an_unknown_policy_is_refused_before_the_others_have_run(tmp_path: Path) -> None:
    code, said = called(table(tmp_path / "t.csv", ANN), "--slots", 4, "--policy", "fifo,best")
    assert code == 2
    assert "policy 'best' is unknown" in said
    assert "1/1" not in said


def test_users_are_printed_as_they_are_called(tmp_path: Path) -> None:
    rows = ("ü [/red]x,0,9,1,0,0,5,false", "[bold]b :smile:,1,9,1,0,0,5,false")
    trace = table(tmp_path / "t.csv", *rows, columns=f"{COLUMNS},gang")
    code, said = run(trace, "--slots", 4, "--shares")
    assert code == 0, said
    assert "ü [/red]x" in said
    assert "[bold]b :smile:" in said


def test_a_header_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "t.swf"
    path.write_bytes("; Installation: Université\n".encode("latin-1") + SWF.format(1).encode())
    code, said = run(path)
    assert code == 0, said


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    trace, nodes, swf = tmp_path / "t.csv", tmp_path / "n.csv", tmp_path / "t.swf"
    trace.write_bytes(mark + f"{COLUMNS}\n{ANN}\n".encode())
    nodes.write_bytes(mark + b"cpu,memory,gpu\n4,1Gi,0\n")
    swf.write_bytes(mark + SWF.format(1).encode())
    for code, said in (run(trace, "--nodes", nodes), run(swf)):
        assert code == 0, said


@pytest.mark.parametrize(
    ("name", "text"),
    [("T.SWF.GZ", SWF.format(1)), ("T.CSV.GZ", f"{COLUMNS}\n{ANN}\n"), ("T.JSON.GZ", MACRO % 3)],
)
def test_an_ending_in_capitals_means_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()))
    code, said = run(path)
    assert code == 0, said
