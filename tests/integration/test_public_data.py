"""The estimator on public measurements, held against the figures a plain LightGBM reaches on them.

The sets are not part of the project: without them (`FAIRLANE_DATA`, by
default ../shared/data) the tests are skipped. Each is turned into the
documented examples table and measured as `fairlane train --evaluate-only`
measures it; nothing here is known to the estimator.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.dataset import examples_from
from model.splits import Split
from model.train import Measured, Options, measure

DATA = Path(os.environ.get("FAIRLANE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(3600)]


def need(path: str) -> Path:
    """The set's folder, or skip."""
    folder = DATA / path
    if not folder.exists():
        pytest.skip(f"no {path} under {DATA}")
    return folder


def spark_runs() -> pd.DataFrame:
    """Spark runs on single VMs with the telemetry sampled as they began."""
    folder = need("lumos_spark_telemetry/dev_alibaba_huawei")
    runs, samples = pd.read_csv(folder / "runs.csv.gz"), pd.read_csv(folder / "first3_samples.csv.gz")
    telemetry = samples[samples["sample_idx"] == 0].drop(columns=["sample_idx", "timestamp", "IFACE"])
    telemetry = telemetry.set_index("run_id").apply(pd.to_numeric, errors="coerce").reset_index()
    table = runs[runs["framework"] == "spark"].merge(telemetry, on="run_id")
    ended = pd.to_datetime(table["end_timestamp"])
    facts = {
        "run_s": table["elapsed_time_s"],
        "ended_at": (ended - pd.Timestamp(0)).dt.total_seconds(),
        "job_class": table["workload"] + "-" + table["datasize"],
    }
    columns = ["vm_type", "workload", "datasize", "input_size", "cloud", *telemetry.columns[1:]]
    return table[columns].assign(**facts)


def training_steps(target: str) -> pd.DataFrame:
    """Step times of distributed training by placement (digits: GPUs on each node)."""
    parts = []
    for path in sorted(need("sia_placement_profiles").glob("*/placements-*.csv")):
        part = pd.read_csv(path, dtype={"placement": str})
        parts.append(part.assign(app=path.parent.name, gpu=path.stem.split("-")[1]))
    table = pd.concat(parts, ignore_index=True)
    shares = table["placement"].map(lambda digits: [int(digit) for digit in digits])
    return pd.DataFrame(
        {
            "run_s": table[target],
            "ended_at": 10.0 * np.arange(len(table)),
            "job_class": table["app"] + "-" + table["gpu"],
            "app": table["app"],
            "gpu": table["gpu"],
            "local_bsz": table["local_bsz"],
            "nodes": shares.map(len),
            "gpus": shares.map(sum),
            "gpus_most": shares.map(max),
            "gpus_least": shares.map(min),
            "placement": table["placement"],
        }
    )


def measured(table: pd.DataFrame, split: str) -> Measured:
    found = measure(examples_from(table), Options(split=Split.parse(split)))
    figures = {"model": found.model, "prior": found.prior, "random split": found.optimistic}
    for name, one in figures.items():
        print(f"{split} {name}: median error {one.median_error:.4f}, within p10..p90 {one.coverage:.3f}")
    return found


@pytest.mark.parametrize(("split", "reference"), [("group:vm_type", 0.162), ("group:workload", 0.447)])
def test_spark_run_times_where_the_machine_or_the_workload_was_never_seen(
    split: str, reference: float
) -> None:
    assert measured(spark_runs(), split).model.median_error < reference


@pytest.mark.parametrize(("target", "reference"), [("step_time", 0.037), ("sync_time", 0.123)])
def test_training_steps_on_placements_never_seen(target: str, reference: float) -> None:
    found = measured(training_steps(target), "group:placement").model
    assert round(found.median_error, 3) <= reference
    assert found.coverage == pytest.approx(0.8, abs=0.05)
