"""Every trace format: what it means, and what is said of a broken line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from simulator.traces import TraceError, read_trace
from simulator.traces.tables import task_list, write_csv
from simulator.workload import Job, Request, workload_of

HEADER = "user,submitted_s,pods,cpu,memory,gpu,duration_s,tasks,name,gang\n"
SWF = "; UnixStartTime: 0\n1 10 5 100 4 -1 2048 4 200 -1 1 7 1 -1 -1 -1 -1 -1\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.swf", "t.swf.gz"])
def test_an_swf_job_is_a_gang_of_one_pod_a_processor(tmp_path: Path, name: str) -> None:
    (only,) = read_trace(written(tmp_path, name, SWF)).jobs
    assert only == Job("1", "user_7", 0.0, (100.0,) * 4, Request(1.0, 2048 * 1024, 0.0), gang=True)


def test_swf_times_begin_at_the_first_submission(tmp_path: Path) -> None:
    second = SWF.splitlines()[1].replace("1 10", "2 25", 1)
    jobs = read_trace(written(tmp_path, "t.swf", SWF + second)).jobs
    assert [each.submitted_s for each in jobs] == [0.0, 15.0]


def test_swf_jobs_that_never_ran_or_came_nobody_knows_when_are_counted_not_hidden(tmp_path: Path) -> None:
    line = SWF.splitlines()[1]
    cancelled, undated = line.replace("10 5 100", "10 5 -1", 1), line.replace("1 10", "2 -1", 1)
    read = read_trace(written(tmp_path, "t.swf", f"{SWF}{cancelled}\n{undated}\n"))
    assert len(read.jobs) == 1
    assert read.notes == ("2 jobs without submit time, run time or processors left out",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("2 10 5 100 4 -1", "expected 18 numbers, found 6"),
        ("2 10 5 oops 4 -1 -1 4 -1 -1 1 7 1 -1 -1 -1 -1 -1", "could not convert string to float: 'oops'"),
        ("2 -10 5 100 4 -1 -1 4 -1 -1 1 7 1 -1 -1 -1 -1 -1", "submitted_s is -10.0"),
        ("2 10 5 100 99999999 -1 -1 4 -1 -1 1 7 1 -1 -1 -1 -1 -1", "more than 1000000"),
        ("2 10 5 nan 4 -1 -1 4 -1 -1 1 7 1 -1 -1 -1 -1 -1", "nan is not finite"),
    ],
)
def test_a_broken_swf_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=r"^t\.swf:3: ") as error:
        read_trace(written(tmp_path, "t.swf", SWF + line + "\n"))
    assert complaint in str(error.value)


def test_a_table_row_is_a_gang_and_a_task_list_elastic(tmp_path: Path) -> None:
    rows = "ann,1,2,500m,4Gi,1,30,,,\nbob,2,,1,0,0,,0.5x3 2,mine,\n"
    gang, tasks = read_trace(written(tmp_path, "t.csv", HEADER + rows)).jobs
    assert gang == Job("job-2", "ann", 0.0, (30.0, 30.0), Request(0.5, 4 * 2**30, 1.0), gang=True)
    assert tasks == Job("mine", "bob", 1.0, (0.5, 0.5, 0.5, 2.0), Request(1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("ann,1,2,one,0,0,30,,,", "cpu: 'one' is not a quantity"),
        ("ann,1,1.5,1,0,0,30,,,", "pods is 1.5"),
        ("ann,1,0,1,0,0,30,,,", "pods is 0"),
        ("ann,soon,1,1,0,0,30,,,", "submitted_s is 'soon'"),
        ("ann,1,1,1,0,0,-3,,,", "every duration must be above 0"),
        ("ann,1,1,1,0,0,3,2xmany,,", "tasks: '2xmany'"),
        ("ann,1,1,1,0,0,3,,,maybe", "gang is 'maybe'"),
        ("ann,1,1,0,0,0,3,,,", "must be 0 or more, and one of them above 0"),
        (",1,1,1,0,0,3,,,", "user is empty"),
        ("ann,1,1,1,0,0,3,,,,,", "more cells than columns"),
        ("ann,1", "pods is missing"),
    ],
)
def test_a_broken_table_line_is_named(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=r"^t\.csv:3: ") as error:
        read_trace(written(tmp_path, "t.csv", HEADER + "ann,0,1,1,0,0,1,,,\n" + row + "\n"))
    assert complaint in str(error.value)


def test_times_of_a_table_have_any_origin_and_jobs_of_no_time_are_counted(tmp_path: Path) -> None:
    rows = "ann,-50,1,1,0,0,3,,,\nbob,-40.5,2,1,0,0,0,,,\nbob,1,1,1,0,0,3,,,\n"
    read = read_trace(written(tmp_path, "t.csv", HEADER + rows))
    assert [job.submitted_s for job in read.jobs] == [0.0, 51.0]
    assert read.notes == ("1 jobs of 0 s left out",)


def test_a_missing_and_an_unknown_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="column user is missing"):
        read_trace(written(tmp_path, "t.csv", "submitted_s\n1\n"))
    with pytest.raises(TraceError, match="unknown column colour"):
        read_trace(written(tmp_path, "t.csv", HEADER.strip() + ",colour\n"))


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    row = {
        "user": "ann",
        "submitted_s": 3.0,
        "pods": 2,
        "cpu": 0.5,
        "memory": "1Gi",
        "gpu": 0,
        "duration_s": 8.0,
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(Table.from_pylist([row]), path)
    assert read_trace(path).jobs == (
        Job("job-1", "ann", 0.0, (8.0, 8.0), Request(0.5, 2.0**30, 0.0), gang=True),
    )


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    jobs = (
        Job("one", "ann", 0.0, (0.1, 0.2), Request(0.25, 1e9, 2.0)),
        Job("two", "bob", 1.5, (1 / 3,) * 3, Request(1.0), gang=True),
        Job("three", "bob", 2.5, (7.0,) * 2, Request(1.0)),
    )
    write_csv(tmp_path / "t.csv", workload_of(jobs, "t"))
    assert read_trace(tmp_path / "t.csv").jobs == jobs


def test_a_macro_workload_is_one_job_a_name_cut_into_half_seconds(tmp_path: Path) -> None:
    def entry(name: str, start_ms: int, work_s: float) -> dict[str, object]:
        return {"workloadName": name, "startTimeMs": start_ms, "params": {"job_runtime_s": work_s}}

    users = [{"user": "u", "workloads": [entry("x", 500, 1.3), entry("x", 900, 1.3), entry("y", 0, 0.2)]}]
    y, x = read_trace(written(tmp_path, "t.json.gz", json.dumps(users))).jobs
    assert (y.name, y.submitted_s, y.durations_s) == ("y", 0.0, (0.2,))
    assert (x.name, x.submitted_s, x.durations_s) == ("x", 0.5, (0.65, 0.65))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "expected a list of users"),
        ("[{]", "cannot be read as JSON"),
        ('[{"user": "u", "workloads": [{}]}]', "user 1 of the list: KeyError 'params'"),
        ("[]", "no job"),
    ],
)
def test_a_broken_macro_workload_says_what_is_expected(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=r"t\.json") as error:
        read_trace(written(tmp_path, "t.json", text))
    assert complaint in str(error.value)


def test_an_unknown_ending_a_missing_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"t\.txt: unknown kind of trace"):
        read_trace(tmp_path / "t.txt")
    with pytest.raises(TraceError, match="no such file"):
        read_trace(tmp_path / "t.swf")
    whole = gzip.compress(SWF.encode() * 100)
    (tmp_path / "t.swf.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "t.swf.gz")


@pytest.mark.parametrize("text", ["0.5x", "x3", "0.5x0", "1e999999x3x", "0.5x2000000"])
def test_a_broken_task_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="tasks: "):
        task_list(text)
