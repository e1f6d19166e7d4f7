"""Examples of the feature table with a known law, and models trained on them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from model.dataset import Examples, examples_from
from model.features import NAMES
from model.published import PublishedModel
from model.schema import POSITION
from model.snapshot import Floats
from model.train import Options, final_model


def recorded_table(rows: int = 160, seed: int = 0, slope: float = 0.6) -> pd.DataFrame:
    """Runs of one class whose time grows with the transfer ratio (to the power `slope`), a minute apart."""
    rng = np.random.default_rng(seed)
    features = np.full((rows, len(NAMES)), np.nan)
    features[:, POSITION["transfer_ratio"]] = rng.lognormal(0, 0.7, rows)
    features[:, POSITION["cpu_use"]] = rng.random(rows)
    features[:, POSITION["class_runs"]] = 20
    features[:, POSITION["class_mean_log_s"]] = features[:, POSITION["class_ewma_log_s"]] = 4.0
    log_s = 4.0 + slope * np.log(features[:, POSITION["transfer_ratio"]]) + 0.1 * rng.normal(size=rows)
    facts = {"run_s": np.exp(log_s), "ended_at": 1e9 + 60.0 * np.arange(rows), "job_class": "c", "user": "u"}
    return pd.DataFrame(features, columns=list(NAMES)).assign(**facts)


def recorded(rows: int = 160, seed: int = 0) -> Examples:
    """The same, validated."""
    return examples_from(recorded_table(rows, seed))


def feature_rows(rows: int = 5) -> Floats:
    """Features of runs that no model here was trained on."""
    return recorded(rows, seed=1).frame[list(NAMES)].to_numpy().copy()


def small_model(seed: int = 0) -> PublishedModel:
    """A model of few trees, trained in a moment."""
    options = Options(estimator={"trees": 30, "recipe": {"min_child": 5}})
    return final_model(recorded(seed=seed), options, trained_at_s=2e9, metrics={})
