"""The workloads of `fairlane e2e`: which are run, how a job's figures come about, what counts as twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from testbed.kind import commands
from testbed.kind.workloads import report
from testbed.kind.workloads.chaos import INDEX, JOB, twice
from testbed.kind.workloads.examples import PAGES, Small, adapted, example
from testbed.kind.workloads.figures import PodTimes, job_figures, times_of
from testbed.kind.workloads.journal import Life
from testbed.kind.workloads.scenarios import SCENARIOS, Result, chosen
from testbed.kind.workloads.sharing import held_while_all_wait
from testbed.kind.workloads.untouched import _plain, differing

RUN_MINUTES_MAX = 60
"""Were every scenario to take all of its time."""
GATE = {"name": "fairlane.dev/queue"}


def pod(
    name: str = "train-0",
    *,
    released_s: float | None = 1010.5,
    labels: dict[str, str] | None = None,
    started: str = "1970-01-01T00:16:52Z",
    ended: str = "1970-01-01T00:17:12Z",
    gates: tuple[dict[str, str], ...] = (),
    phase: str = "Succeeded",
) -> dict[str, Any]:
    """Created at 1000 s, started at 1012 s, ended at 1032 s."""
    annotations = {"fairlane.dev/user": "alice"}
    if released_s is not None:
        annotations["fairlane.dev/receipt"] = json.dumps({"released_s": released_s})
    terminated = {"startedAt": started, "finishedAt": ended}
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "namespace": "team",
            "creationTimestamp": "1970-01-01T00:16:40Z",
            "annotations": annotations,
            "labels": labels or {},
        },
        "spec": {"nodeName": "worker2", "schedulingGates": list(gates)},
        "status": {"phase": phase, "containerStatuses": [{"state": {"terminated": terminated}}]},
    }


def test_a_pod_waits_until_its_release_and_then_starts() -> None:
    times = times_of(pod())
    assert (times.user, times.node) == ("alice", "worker2")
    assert (times.queued_s, times.starting_s, times.run_s) == (10.5, 1.5, 20.0)


def test_a_pod_that_never_waited_has_no_time_in_the_queue() -> None:
    times = times_of(pod(released_s=None))
    assert times.queued_s is None
    assert times.starting_s == 12.0


def test_what_replaced_a_lost_member_starts_from_its_own_creation() -> None:
    times = times_of(pod(released_s=900.0))
    assert times.queued_s is None
    assert times.starting_s == 12.0


def test_pods_of_one_job_are_one_row_and_a_bare_pod_is_its_own() -> None:
    label = {"batch.kubernetes.io/job-name": "train"}
    pods = [pod("train-0", labels=label), pod("train-1", labels=label, released_s=1001.0), pod("bare")]
    bare, train = job_figures("team", pods, {"train-0": 30.0})
    assert (bare.job, bare.pods, bare.predicted_s) == ("bare", 1, None)
    assert (train.job, train.pods, train.predicted_s) == ("train", 2, 30.0)
    assert (train.queued_s, train.queued_s_max) == (5.75, 10.5)
    assert train.whole_s == 32.0


def test_each_letter_is_one_scenario_with_a_time_limit() -> None:
    assert [one.letter for one in SCENARIOS] == list("abcdefgh")
    assert sum(one.limit_s for one in SCENARIOS) <= RUN_MINUTES_MAX * 60


def test_scenarios_are_chosen_by_their_letters() -> None:
    assert [one.letter for one in chosen("f, a")] == ["a", "f"]
    assert chosen("") == list(SCENARIOS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--workloads", "--only", "a,x"], "no scenario x"),
        (["--only", "a"], "--workloads"),
        (["--smoke", "--workloads"], "--smoke"),
    ],
)
def test_a_wrong_choice_is_told_before_anything_is_begun(words: list[str], told: str) -> None:
    result = CliRunner().invoke(commands.app, words)
    assert result.exit_code == 2
    assert told in result.output


def test_the_table_names_what_failed_and_shows_every_job(tmp_path: Path) -> None:
    failed = Result(
        "e", "users", 60.0, 12.0, "bob waited too long\nand more", [], job_figures("team", [pod()], {})
    )
    paths = report.write(tmp_path, [failed, Result("f", "faults", 60.0)], {"minutes": 1})
    text = paths[0].read_text()
    assert "FAILED: bob waited too long" in text
    assert "passed" in text
    assert "train-0" in text
    told = json.loads(paths[1].read_text())
    assert told["scenarios"][0]["jobs"][0]["queued_s"] == 10.5
    assert told["scenarios"][0]["failure"].endswith("and more")


def test_the_tables_fit_a_wide_terminal() -> None:
    console = Console(width=132, record=True)
    for table in report.tables([Result("a", "spark", 1.0, jobs=job_figures("team", [pod()], {}))]):
        console.print(table)
    assert max(map(len, console.export_text().splitlines())) <= 132


def life(*states: dict[str, Any]) -> Life:
    """A pod as it was seen in these states."""
    seen = Life(states[0])
    for state in states:
        seen.see(state)
    return seen


def test_a_life_in_order_is_not_twice() -> None:
    one = life(pod(released_s=None, gates=(GATE,), phase="Pending"), pod(phase="Running"), pod())
    assert (one.was_gated, one.was_open, one.ended) == (True, True, True)
    assert twice([one]) == ""


def test_two_receipts_are_two_releases() -> None:
    assert "released 2 times" in twice([life(pod(), pod(released_s=1020.0))])


def test_a_gate_that_comes_back_is_told() -> None:
    assert "waited again" in twice([life(pod(), pod(gates=(GATE,)))])


def test_an_index_that_ended_well_twice_is_told() -> None:
    labels = {JOB: "gang-1", INDEX: "0"}
    assert twice([life(pod("one", labels=labels)), life(pod("two", labels=labels, phase="Failed"))]) == ""
    assert "gang-1 index 0" in twice([life(pod("one", labels=labels)), life(pod("two", labels=labels))])


def test_who_was_let_go_before_his_turn_is_known_by_the_receipt() -> None:
    before, in_turn = pod(released_s=1020.0), pod(released_s=1020.0)
    before["metadata"]["annotations"]["fairlane.dev/receipt"] = '{"released_s": 1020.0, "backfilled": true}'
    assert [times_of(one).backfilled for one in (before, in_turn, pod(released_s=None))] == [
        True,
        False,
        False,
    ]


def test_pod_seconds_count_while_everybody_has_something_waiting() -> None:
    def times(*spans: tuple[float, float]) -> list[PodTimes]:
        return [PodTimes("p", "j", "u", "n", "Succeeded", 0.0, begun, begun, end) for begun, end in spans]

    held = held_while_all_wait(
        {"alice": times((0.0, 10.0), (0.0, 10.0), (6.0, 16.0)), "bob": times((0.0, 10.0), (30.0, 40.0))}
    )
    assert held == {"alice": 12.0, "bob": 6.0}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_example_is_on_its_page(name: str) -> None:
    assert example(name)["kind"]


@pytest.mark.parametrize("name", ["my-pod.yaml", "job.yaml", "gang.yaml"])
def test_an_example_keeps_everything_but_image_command_size_and_number(name: str) -> None:
    before, small = example(name), adapted(example(name), Small("local/image:1", 2.0, "100m", 3))
    assert small["metadata"] == before["metadata"]
    spec = small["spec"]
    if small["kind"] == "Job":
        assert spec["parallelism"] == before["spec"]["parallelism"]
        assert spec["completions"] <= 3
        spec = spec["template"]["spec"]
    assert spec["schedulerName"] == "fairlane"
    assert spec["containers"][0]["image"] == "local/image:1"
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "100m"


def test_objects_are_compared_without_names_times_and_ids_but_with_gates() -> None:
    def told(namespace: str, suffix: str, **spec: Any) -> Any:
        meta = {"name": f"plain-{suffix}", "namespace": namespace, "uid": suffix, "creationTimestamp": suffix}
        return _plain({"metadata": meta, "spec": {"nodeName": "worker", **spec}}, namespace)

    assert told("d-ours-1", "abcde") == told("d-alone-1", "fghij")
    assert told("d-ours-1", "abcde", schedulingGates=[GATE]) != told("d-alone-1", "fghij")


def test_a_spark_application_is_one_job_by_the_name_that_it_was_submitted_with() -> None:
    driver = {"spark-app-selector": "spark-1", "spark-role": "driver", "spark-app-name": "etl"}
    executor = {"spark-app-selector": "spark-1", "spark-role": "executor", "spark-app-name": "shuffle"}
    (found,) = job_figures("team", [pod("etl-driver", labels=driver), pod("exec-1", labels=executor)], {})
    assert (found.job, found.pods) == ("etl", 2)


def test_a_difference_is_told_by_its_path() -> None:
    one: dict[str, Any] = {"spec": {"gates": [], "nodes": ["a", "b"]}}
    other: dict[str, Any] = {"spec": {"nodes": ["a", "c"]}}
    assert list(differing(one, other)) == [(".spec.gates", [], None), (".spec.nodes[1]", "b", "c")]
    assert list(differing(one, one)) == []
