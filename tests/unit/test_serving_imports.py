"""What a serving process loads at its start: nothing that only training, tables or pictures need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recorded_runs import recorded

from model.registry import Registry
from model.train import Options, final_model

TRAINING = (
    *("model.train", "model.estimator", "model.boosting", "model.fitting", "model.dataset", "model.splits"),
    *("sklearn", "lightgbm", "scipy", "matplotlib", "pandas", "pyarrow"),
)
ENTRIES = {
    "extender": "scheduler.cli.extender",
    "telemetry of the extender": "scheduler.edge.telemetry_process",
    "recorder": "scheduler.cli.recorder",
    "predictor": "scheduler.cli.predictor, model.serve",
    "controller": "scheduler.cli.controller",
    "expected starts of the controller": "scheduler.edge.expected_starts_process",
    "admission": "scheduler.cli.admission",
    "probe": "scheduler.cli.probe",
}


def loaded_by(code: str) -> list[str]:
    """Which modules of training a fresh interpreter has loaded after `code`."""
    asked = f"import sys\n{code}\nprint(*(name for name in {TRAINING!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_a_serving_process_loads_no_training_code(entry: str) -> None:
    assert loaded_by(f"import scheduler.cli.main, {entry}") == []


def test_training_is_what_the_test_would_notice() -> None:
    assert set(loaded_by("import scheduler.cli.main, model.train")) >= {"sklearn", "pandas", "lightgbm"}


def test_a_published_model_answers_without_training_code(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    registry.publish(final_model(recorded(), Options(estimator={"trees": 30}), 2e9, {}))
    code = (
        "import numpy as np\nfrom model.registry import Registry\nfrom model.schema import NAMES\n"
        f"model = Registry({str(tmp_path)!r}).load()\n"
        "rows = np.full((3, len(NAMES)), np.nan)\n"
        "assert model.predict_quantiles(rows).shape == (3, 3)\n"
        "assert model.contributions(rows).shape == (3, len(NAMES) + 1)\n"
        "assert model.fitted.central.booster or model.fitted.intervals.size, 'the model has no trees to load'"
    )
    assert loaded_by(code) == []
