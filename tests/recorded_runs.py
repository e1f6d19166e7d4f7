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


JOB_CLASS = "far"
"""One of the two classes of `model_of_two_classes`."""


def model_of_two_classes() -> PublishedModel:
    """A mixture of what two classes hold: transfers of `JOB_CLASS` take ten times as long as the other's."""
    table = recorded_table(200)
    rng = np.random.default_rng(2)
    table["input_s"] = table["transfer_median_s"] = rng.gamma(2.0, 5.0, 200)
    table["job_class"] = np.where(np.arange(200) % 2, "near", JOB_CLASS)
    table["run_s"] = 1.0 + table["input_s"] * np.where(table["job_class"] == JOB_CLASS, 10.0, 1.0)
    options = Options(estimator={"trees": 0, "recipe": {"mixture": True}})
    return final_model(examples_from(table), options, trained_at_s=2e9, metrics={})
