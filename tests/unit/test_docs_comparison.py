"""What docs/comparison.md says was measured is what is stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparison.md").read_text()
MEASURED, OTHERS = (
    PAGE.split("| default | Fairlane |")[1].split("\n\n")[0],
    PAGE.split("| default | YuniKorn |")[1].split("\n\n")[0],
)
SECOND = {"hetero": "late", "homo": "late", "flood": "p95_s"}


def cells(table: str, load: str) -> list[list[float]]:
    """The figures of a load's row, a pair for each column."""
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{load}`")]
    return [[float(one) for one in re.split(r"[;/]", cell)] for cell in row.strip("| ").split(" | ")[1:]]


def stored(load: str) -> dict[str, dict[str, Any]]:
    """By arm, what real pods had."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"peers-{load}.json").read_text())
    assert found["whole"], "a part of a load says nothing of the whole"
    return {one["arm"]: one["real"] for one in found["arms"]}


@pytest.mark.parametrize(("load", "second"), SECOND.items())
def test_the_figures_of_the_page_are_those_that_are_stored(load: str, second: str) -> None:
    digits = 2 if second == "late" else 1
    arms = stored(load)
    assert cells(MEASURED, load) == [
        [round(arms[arm]["mean_s"], 1), round(arms[arm][second], digits)] for arm in ("default", "fairlane")
    ]


def test_what_this_project_did_not_measure_is_said_to_be_so() -> None:
    assert "were not measured by this project" in PAGE
    assert [len(cells(OTHERS, load)) for load in ("hetero", "homo")] == [4, 4]
