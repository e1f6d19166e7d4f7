"""Inputs of score tables from a process of their own: the same as made here, by a child that may die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from real_prometheus import eventually

sys.path.insert(0, str(Path(__file__).parents[1]))

from placing_builders import JOB, NODES, a_pod, a_snapshot, node_of

from model.placement import Job
from model.snapshot import TelemetrySnapshot
from scheduler.config import Settings
from scheduler.core.cluster import Cluster
from scheduler.edge import table_inputs_process
from scheduler.edge.table_inputs import Asked, inputs_of
from scheduler.edge.table_inputs_process import IsolatedInputs, MistakeError

pytestmark = pytest.mark.integration
SNAPSHOT = a_snapshot(cpu_use={"b": 0.7})


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.set_nodes([node_of(name) for name in NODES])
    return made


@pytest.fixture
def isolated(cluster: Cluster) -> Iterator[IsolatedInputs]:
    made = IsolatedInputs(Settings(), cluster, None)
    yield made
    made.stop()


def asked(cluster: Cluster, snapshot: TelemetrySnapshot = SNAPSHOT, job: Job = JOB) -> Asked:
    nodes = tuple(cluster.facts)
    return Asked(job, nodes, snapshot, cluster.facts, cluster.version, snapshot.taken_at_s, predict=True)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def assert_same(isolated: IsolatedInputs, question: Asked) -> None:
    """The child is asked, and its answer is what would have been made here."""
    here, there = (await inputs_of(question, None)).basis, (await isolated(question)).basis
    assert isolated.failure == ""
    for name in ("features", "in_snapshot", "measured"):
        assert np.array_equal(getattr(here, name), getattr(there, name), equal_nan=name == "features")
    assert (there.job, there.nodes, there.view_version) == (here.job, here.nodes, here.view_version)
    assert there.snapshot is question.snapshot


async def test_a_child_makes_the_same_rows_as_the_cluster_telemetry_and_jobs_change(
    isolated: IsolatedInputs, cluster: Cluster
) -> None:
    await assert_same(isolated, asked(cluster))
    cluster.set_pod(structs.replace(a_pod(), node="b"))
    await assert_same(isolated, asked(cluster))
    cluster.remove_node("a")
    cluster.set_node(node_of("z"))
    other = a_snapshot(("b", "c", "d", "z"), epoch=2, taken_at_s=1015.0)
    await assert_same(isolated, asked(cluster, other, replace(JOB, peer_nodes=("a", "z"))))
    for number in range(5000):  # more changes than are remembered
        cluster.set_pod(structs.replace(a_pod(f"p{number}"), node="d"))
    await assert_same(isolated, asked(cluster, other))
    assert isolated.restarts == 0


async def test_while_a_killed_child_is_gone_the_work_is_done_here_and_told(
    isolated: IsolatedInputs, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_inputs_process, "RESTART_S", 0.5)
    await assert_same(isolated, asked(cluster))
    before = isolated.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    made = await isolated(asked(cluster))
    assert made.basis.features.shape[0] == len(NODES)
    assert "exit code -9" in isolated.failure
    assert (isolated.pid, isolated.restarts) == (None, 1)
    await asyncio.sleep(0.5)
    await assert_same(isolated, asked(cluster))
    assert isolated.pid not in (None, before)


async def test_a_child_that_is_stuck_is_replaced(
    isolated: IsolatedInputs, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await assert_same(isolated, asked(cluster))
    monkeypatch.setattr(table_inputs_process, "ANSWER_S_MAX", -1.0)
    stuck = isolated.pid
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    await isolated(asked(cluster))
    assert "does not answer" in isolated.failure
    assert is_gone(stuck)


async def test_a_fault_in_the_child_is_told_and_costs_only_that_table(
    isolated: IsolatedInputs, cluster: Cluster
) -> None:
    impossible = replace(JOB, cpu="much")  # type: ignore[arg-type]
    with pytest.raises(MistakeError, match="Error: "):
        await isolated(asked(cluster, job=impossible))
    await assert_same(isolated, asked(cluster))
    assert isolated.restarts == 0


async def test_stopping_leaves_no_process_and_the_work_can_still_be_done(
    isolated: IsolatedInputs, cluster: Cluster
) -> None:
    await assert_same(isolated, asked(cluster))
    pid = isolated.pid
    isolated.stop()
    assert pid is not None
    assert is_gone(pid)
    assert (await isolated(asked(cluster))).basis.nodes == NODES
    assert isolated.pid is None


async def test_the_child_yields_to_those_who_answer_and_leaves_with_the_pipe(
    isolated: IsolatedInputs, cluster: Cluster
) -> None:
    await assert_same(isolated, asked(cluster))
    pid = isolated.pid
    assert pid is not None
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getsid(pid) == pid
    assert isolated._pipe is not None
    isolated._pipe.close()  # as the kernel does when the parent is killed
    assert eventually(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


async def test_a_child_that_cannot_be_started_is_told_and_the_work_is_done_here(
    isolated: IsolatedInputs, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(isolated, "_start", refused)
    assert (await isolated(asked(cluster))).basis.nodes == NODES
    assert "no more processes" in isolated.failure
    assert isolated.restarts == 1


async def test_what_cannot_cross_costs_the_child_and_no_table(
    isolated: IsolatedInputs, cluster: Cluster
) -> None:
    await assert_same(isolated, asked(cluster))
    unwritable = replace(JOB, image=lambda: "no text")  # type: ignore[arg-type]
    await isolated(asked(cluster, job=unwritable))
    assert "pickle" in isolated.failure
    assert (isolated.pid, isolated.restarts) == (None, 1)
