"""A model of the real kind and size for the benchmarks: trained by `fairlane train` on generated runs.

What is measured is speed, not quality. The run times follow the analytic
prior, bent by things that the prior does not know, with noise: enough for the
trees to have something to learn, and for the model to be accepted by the
checks that every model passes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.jobs import CPU, Kind, kinds
from benchmarks.readings import snapshot
from model.features import NAMES, build
from model.placement import Job, NodeFacts
from model.prior import log_prior
from model.schema import POSITION
from model.snapshot import Floats

EPOCHS, PER_EPOCH = 50, 40
NODES = 60
BEGAN_AT_S = 1.7e9
NOISE = 0.15


class TrainingError(Exception):
    """The model of the benchmarks could not be made."""


def job_of(kind: Kind, size: float) -> Job:
    """The job of a kind, with `size` times its usual input."""
    return Job(
        kind.job_class,
        user=kind.user,
        framework=kind.framework,
        cpu=float(CPU),
        memory_bytes=2.0**30,
        input_bytes=kind.input_bytes * size,
        data_nodes=(kind.data_node,),
    )


def examples(seed: int = 0) -> pd.DataFrame:
    """Completed runs as `fairlane train --examples` takes them."""
    rng = np.random.default_rng(seed)
    workers = [f"node-{number:03d}" for number in range(NODES)]
    stores = [f"store-{number}" for number in range(3)]
    view = {
        name: NodeFacts(zone=f"site-{i % 3}", nic_class="5g", allocatable_cpu=16.0)
        for i, name in enumerate(workers)
    }
    of, rows, told = kinds(stores), [], []
    for epoch in range(EPOCHS):
        now_s = BEGAN_AT_S + 60.0 * epoch
        seen = snapshot(rng, workers, stores, now_s)
        for number, node in enumerate(rng.choice(workers, PER_EPOCH)):
            kind = of[int(rng.integers(len(of)))]
            rows.append(build(job_of(kind, float(np.exp(rng.normal(0, 0.3)))), [str(node)], seen, view)[0])
            told.append((kind.job_class, kind.user, node, now_s + number))
    matrix = np.array(rows)
    frame = pd.DataFrame(matrix, columns=list(NAMES))
    labels = pd.DataFrame(told, columns=["job_class", "user", "node", "ended_at"])
    return pd.concat([frame, labels, pd.Series(run_s(matrix, rng), name="run_s")], axis=1)


def run_s(features: Floats, rng: np.random.Generator) -> Floats:
    """Generated run times in s, one per row of the feature matrix."""
    cpu, retransmit, rtt = (
        features[:, POSITION[name]] for name in ("cpu_use", "tcp_retransmit", "rtt_data_mean")
    )
    bend = 0.8 * np.clip(cpu - 0.5, 0, None) + 15.0 * retransmit * (cpu > 0.3) + 8.0 * np.nan_to_num(rtt)
    return np.asarray(
        np.exp(log_prior(features) + bend + rng.normal(0, NOISE, len(features))), dtype=np.float64
    )


def publish(registry: Path, work: Path) -> None:
    """Train on generated runs and publish into `registry`; `work` is a folder for the table and the report.

    Raises:
        TrainingError: `fairlane train` refused; its own words are in the message.
    """
    table = work / "bench-examples.parquet"
    examples().to_parquet(table)
    command: Sequence[str] = (
        *(sys.executable, "-m", "scheduler.cli.main", "train", "--examples", str(table)),
        *("--registry", str(registry), "--out", str(work / "bench-training")),
    )
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise TrainingError(
            f"`fairlane train` ended with code {ended.returncode}:\n{(ended.stdout + ended.stderr)[-2000:]}"
        )
