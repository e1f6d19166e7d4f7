"""The report of the kind comparison, also of a run that ended before it had decided anything."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from testbed.kind import report
from testbed.kind.comparison import Decision
from testbed.kind.e2e import Outcome
from testbed.kind.links import Link

EXAMPLES = pd.DataFrame({"run_s": [1.0, 2.0]})
DECISION = Decision(
    "transfer", "job", {"a": Link(20, 30)}, ("a",), ("b",), {("a",): 10.0, ("b",): 15.0}, reason="miss"
)


def test_what_was_collected_is_kept_although_nothing_was_decided(tmp_path: Path) -> None:
    report.write(tmp_path, Outcome([], None, EXAMPLES, False), {"ended_early": "JobError()"})
    assert pd.read_parquet(tmp_path / "examples.parquet").equals(EXAMPLES)
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["decisions"], told["facts"]["examples"], told["facts"]["ended_early"]) == (
        [],
        2,
        "JobError()",
    )


def test_a_decision_is_told_with_its_times_and_the_state_of_the_links(tmp_path: Path) -> None:
    paths = report.write(tmp_path, Outcome([DECISION] * 3, None, EXAMPLES, True), {"minutes": 9.5})
    assert all(path.stat().st_size for path in paths)
    assert "Top-1 above the default scheduler's: 1.000 [1.000, 1.000]" in paths[0].read_text()
    (one, *_) = json.loads(paths[1].read_text())["decisions"]
    assert one["seconds"] == {"a": 10.0, "b": 15.0}
    assert one["regret"] == {"ours": 0.0, "default": 0.5}
    assert one["state"]["a"]["receive_mbit"] == 20
