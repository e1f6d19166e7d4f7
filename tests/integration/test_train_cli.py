"""`fairlane train` as a command: report, publishing, and every refusal with its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded_runs import recorded_table
from typer.testing import CliRunner, Result

from model.features import NAMES
from model.registry import Registry
from scheduler.cli.train import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(folder: Path, table: pd.DataFrame, name: str = "runs.parquet") -> Path:
    path = folder / name
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("runs"), recorded_table(240))


def transfers(rows: int = 300) -> pd.DataFrame:
    """A table of somebody else's: transfers whose time is size over rate, several rates a decision."""
    rng = np.random.default_rng(0)
    size, rate = np.repeat(rng.lognormal(15, 1, rows // 3), 3), rng.lognormal(10, 1, rows)
    return pd.DataFrame(
        {
            "run_s": size / rate * rng.lognormal(0, 0.05, rows),
            "ended_at": np.repeat(1e9 + 1e5 * np.arange(rows // 3), 3),
            "job_class": "transfer",
            "size_bytes": size,
            "probe_rate": rate,
            "vm": rng.choice(["small", "large"], rows),
            "decision_id": np.repeat([f"d{i}" for i in range(rows // 3)], 3),
            "site": [f"s{i % 7}" for i in range(rows)],
        }
    )


def test_a_model_is_judged_published_and_reported(runs: Path, tmp_path: Path) -> None:
    ended = train("--examples", runs, "--registry", tmp_path / "models", "--out", tmp_path / "report")
    assert ended.exit_code == 0, ended.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["model"]["median_error"] < 0.15 < report["prior"]["median_error"]
    assert report["published"] == Registry(str(tmp_path / "models")).latest()
    assert "prior alone" in (tmp_path / "report" / "report.txt").read_text()
    assert (tmp_path / "report" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_publishes_nothing(runs: Path, tmp_path: Path) -> None:
    ended = train("--examples", runs, "--registry", tmp_path / "models", "--evaluate-only", "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["published"] is None
    assert not (tmp_path / "models").exists()


def test_any_table_can_be_measured_by_unseen_groups(tmp_path: Path) -> None:
    path = written(tmp_path, transfers(), "transfers.csv")
    ended = train("--examples", path, "--evaluate-only", "--split", "group:site", "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["split"] == "group:site"
    assert found["model"]["rows"] == 300
    assert found["model"]["median_error"] < 0.15
    assert found["model"]["ranking"]["top1"] > 0.8 > found["prior"]["ranking"]["top1"]


def test_a_model_without_the_network_is_published_and_says_so(tmp_path: Path) -> None:
    table = recorded_table(240)
    table["run_s"] = np.exp(4.0 + table["cpu_use"])
    path = written(tmp_path, table)
    ended = train("--examples", path, "--registry", tmp_path / "models", "--without", "network")
    assert ended.exit_code == 0, ended.output
    assert Registry(str(tmp_path / "models")).load().info.dropped == ("network",)


def test_too_little_data_ends_with_3(tmp_path: Path) -> None:
    path = written(tmp_path, recorded_table(30).assign(end_state=["succeeded"] * 25 + ["evicted"] * 5))
    ended = train("--examples", path)
    assert ended.exit_code == 3
    assert "25 completed runs, 50 are needed (left out: 5 evicted)" in ended.output


def test_another_schema_ends_with_4(tmp_path: Path) -> None:
    ended = train("--examples", written(tmp_path, recorded_table(60).drop(columns=["rtt_all"])))
    assert ended.exit_code == 4
    assert "another version" in ended.output


def test_no_better_than_the_prior_ends_with_5_and_is_not_published(tmp_path: Path) -> None:
    table = recorded_table(240, slope=1.0)
    rng = np.random.default_rng(3)
    table.loc[:179, "run_s"] = np.exp(rng.normal(6, 2, 180))  # nothing to learn, then all as the prior says
    table.loc[180:, "run_s"] = 54.6 * (0.7 + 0.3 * table.loc[180:, "transfer_ratio"])
    ended = train(
        "--examples", written(tmp_path, table), "--registry", tmp_path / "models", "--out", tmp_path
    )
    assert ended.exit_code == 5, ended.output
    assert "worse than the prior alone" in ended.output
    assert Registry(str(tmp_path / "models")).latest() is None
    assert "worse than the prior" in json.loads((tmp_path / "report.json").read_text())["refused"]


def test_worse_than_the_champion_ends_with_5_and_the_champion_stays(runs: Path, tmp_path: Path) -> None:
    assert train("--examples", runs, "--registry", tmp_path / "models").exit_code == 0
    champion = Registry(str(tmp_path / "models")).latest()
    later = recorded_table(240, seed=5)
    later["ended_at"] += 1e6
    later.loc[:179, "run_s"] *= np.random.default_rng(0).lognormal(0, 0.35, 180)  # spoilt, but for the newest
    ended = train("--examples", written(tmp_path, later), "--registry", tmp_path / "models")
    assert ended.exit_code == 5, ended.output
    assert f"worse than the champion on the 61 runs newer than the champion {champion}" in ended.output
    assert Registry(str(tmp_path / "models")).latest() == champion


def test_a_champion_that_saw_all_runs_is_not_compared_with(runs: Path, tmp_path: Path) -> None:
    for _ in range(2):
        ended = train("--examples", runs, "--registry", tmp_path / "models")
    assert ended.exit_code == 0, ended.output
    assert "too few to compare with it" in ended.output
    assert len(Registry(str(tmp_path / "models")).versions()) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--examples", "missing.csv"], 2, "no such file"),
        ([], 2, "one of"),
        (["--store", "sqlite:///a.db", "--recorder", "http://x"], 2, "one of"),
        (["--examples", "RUNS", "--split", "alphabet"], 2, "--split is 'time' or 'group:COLUMN'"),
        (["--examples", "RUNS", "--split", "group:planet"], 2, "no column planet"),
        (["--examples", "RUNS", "--without", "netwrok"], 2, "no feature group named netwrok"),
        (["--examples", "RUNS", "--registry", "nowhere://x"], 1, "nowhere"),
        (["--recorder", "http://127.0.0.1:1"], 1, "cannot be reached"),
        (["--recorder", "nonsense"], 1, "must start with http"),
        (["--examples", "RUNS", "--registry", "/proc/models"], 1, "can't be written to"),
    ],
)
def test_a_mistake_is_said_and_has_its_code(runs: Path, arguments: list[str], code: int, said: str) -> None:
    ended = train(*(runs if argument == "RUNS" else argument for argument in arguments))
    assert ended.exit_code == code, ended.output
    assert said in ended.output


def test_a_table_that_is_not_of_fairlane_is_not_published(tmp_path: Path) -> None:
    path = written(tmp_path, transfers(), "transfers.csv")
    ended = train("--examples", path, "--registry", tmp_path / "models")
    assert ended.exit_code == 2
    assert "only models of the feature table can be published" in ended.output
    assert len(NAMES) > 50
