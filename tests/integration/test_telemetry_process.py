"""The poller in a process of its own: the same snapshots, and a child that may die at any time."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_prometheus import eventually

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from canned_prometheus import CannedPrometheus

from model.snapshot import EMPTY
from scheduler.config import ConfigError, Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry_process import IsolatedPoller

pytestmark = pytest.mark.integration
SOURCE = {
    "name": "loads",
    "measured_at": "measured",
    "interval": 5,
    "node_label": "source",
    "readings": {"load1_per_core": {"expr": "load"}, "rtt": {"expr": "rtt"}},
}


@pytest.fixture
def prometheus() -> Iterator[CannedPrometheus]:
    with CannedPrometheus() as canned:
        ends = {"source": "n0", "target": "n1"}
        canned.series = {
            "load": [({"source": "n0"}, 0.5)],
            "rtt": [(ends, 0.001)],
            "measured": [({"source": "n0"}, lambda t: t), (ends, lambda t: t)],
            "vector(5)": [({}, 5.0)],
        }
        yield canned


def isolated(canned: CannedPrometheus, nodes: list[NodeIdentity]) -> IsolatedPoller:
    values = {"prometheus": {"url": canned.url}, "sources": [SOURCE], "epoch_s": 0.3}
    return IsolatedPoller(Settings.model_validate(values), lambda: nodes)


def known(poller: IsolatedPoller) -> bool:
    return not poller.snapshot.is_empty()


def test_snapshots_cross_over_whole_and_follow_the_nodes(prometheus: CannedPrometheus) -> None:
    nodes = [NodeIdentity("n0")]
    with isolated(prometheus, nodes) as poller:
        assert poller.snapshot is EMPTY
        assert eventually(lambda: known(poller))
        assert poller.snapshot.node_readings["load1_per_core"].tolist() == [0.5]
        nodes.append(NodeIdentity("n1"))
        assert eventually(lambda: poller.snapshot.nodes == ("n0", "n1"))
        assert poller.snapshot.pair_readings["rtt"].from_node(0)[1] == 0.001
        assert poller.stats.polls > 1
        assert {report.reading for report in poller.reports} == {"load1_per_core", "rtt"}


def test_a_killed_child_is_started_again_and_epochs_go_on(prometheus: CannedPrometheus) -> None:
    with isolated(prometheus, [NodeIdentity("n0")]) as poller:
        assert eventually(lambda: known(poller))
        before = poller.snapshot
        assert poller.pid is not None
        os.kill(poller.pid, signal.SIGKILL)
        assert eventually(lambda: "ended with code -9" in poller.stats.failure, every_s=0.02)
        assert not poller.snapshot.is_empty()
        assert eventually(lambda: poller.snapshot.epoch > before.epoch and not poller.stats.failure)
        assert poller.restarts == 1


def test_a_failure_of_the_child_is_told(prometheus: CannedPrometheus) -> None:
    prometheus.raw["*"] = b"rubbish"
    with isolated(prometheus, [NodeIdentity("n0")]) as poller:
        assert eventually(lambda: "not Prometheus JSON" in poller.stats.failure)
        assert poller.snapshot is EMPTY


def test_a_mistake_in_the_sources_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no preset"):
        IsolatedPoller(Settings(sources=("nagios",)), lambda: [])


PARENT = """
import os, pickle, sys, time
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry_process import IsolatedPoller

if __name__ == "__main__":
    settings = pickle.loads(bytes.fromhex(sys.argv[1]))
    poller = IsolatedPoller(settings, lambda: [NodeIdentity("n0")])
    poller.start()
    while poller.snapshot.is_empty():
        time.sleep(0.05)
    print(poller.pid, flush=True)
    time.sleep(600)
"""


def test_the_child_ends_when_its_parent_is_killed(prometheus: CannedPrometheus, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    values = {"prometheus": {"url": prometheus.url}, "sources": [SOURCE], "epoch_s": 0.3}
    settings = pickle.dumps(Settings.model_validate(values)).hex()
    parent = subprocess.Popen([sys.executable, str(script), settings], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert eventually(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_stopping_leaves_no_process(prometheus: CannedPrometheus) -> None:
    poller = isolated(prometheus, [NodeIdentity("n0")])
    poller.start()
    assert eventually(lambda: known(poller))
    begun_s = time.monotonic()
    poller.stop()
    assert time.monotonic() - begun_s < 30
    assert poller.pid is not None
    assert not _alive(poller.pid)


def test_its_niceness_counts_beside_other_processes(prometheus: CannedPrometheus) -> None:
    """In the session of its parent it would only yield to that, where the kernel weighs sessions."""
    with isolated(prometheus, [NodeIdentity("n0")]) as poller:
        assert eventually(lambda: known(poller))
        assert poller.pid is not None
        assert os.getsid(poller.pid) == poller.pid
        assert os.getpriority(os.PRIO_PROCESS, poller.pid) > os.getpriority(os.PRIO_PROCESS, 0)
